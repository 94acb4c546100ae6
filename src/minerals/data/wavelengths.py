"""Wavelengths of a cube's bands, from whatever text or numbers its file holds, in nm."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio

from src.core.stage.errors import DataError, StorageError

NM_PER_UM = 1000
MICROMETRES = re.compile(r"(?i)^(µm|μm|um|microns?|micromet(er|re)s?)$")
NANOMETRES = re.compile(r"(?i)^(nm|nanomet(er|re)s?)$")
NUMBER = re.compile(r"(?i)(?<![\d.])(\d+(?:\.\d+)?)\s*(nm|nanomet\w*|µm|μm|um|micro\w*)?(?![\d.])")
RANGE = 300, 3000  # nm, of all sensors that this pipeline is for; in µm the numbers are below 100
MIN_BANDS = 20


@dataclass(frozen=True)
class Bands:
    """The bands of a cube in the order of ascending wavelengths.

    Attributes:
        wavelengths, fwhm: (B,) nm.
        good: (B,) bool, False where the file's own list says that a band is bad.
        order: (B,) position of each band in the file.
    """

    wavelengths: np.ndarray
    fwhm: np.ndarray
    good: np.ndarray
    order: np.ndarray


def check(where: str, centres: Sequence, fwhm: Sequence | None, good: Sequence | None, unit: str, count: int) -> Bands:
    """Bands from a file's lists.

    Args:
        where: file and field, for errors.
        centres, fwhm: numbers or text; without `fwhm` a band is as wide as the distance to its neighbours.
        unit: the file's word for it, "" where it says none: numbers below 100 are then µm.
        count: bands of the cube.

    Raises:
        DataError: another number of wavelengths, one that is no number, is twice there or outside 300-3000 nm; a unit
            that is no length; fewer than `MIN_BANDS` bands.
    """
    values = _numbers(where, centres, "wavelength", count)
    factor = _factor(where, unit, values)
    values = np.round(values * factor, 6)  # 2.01 µm are 2010 nm and not a trifle less
    outside = ~((values >= RANGE[0]) & (values <= RANGE[1]))  # NaN too
    if outside.any():
        raise DataError(
            f"{where}: wavelength of band {outside.argmax() + 1}: found {values[outside][0]:g} nm, expected "
            f"{RANGE[0]} to {RANGE[1]} nm; correct the list or its unit"
        )
    if count < MIN_BANDS:
        raise DataError(
            f"{where}: found {count} bands, expected a hyperspectral cube of at least {MIN_BANDS}; a picture of a few "
            "bands does not show absorption features"
        )
    order = np.argsort(values, kind="stable")
    values = values[order]
    if (np.diff(values) <= 0).any():
        twice = values[1:][np.diff(values) <= 0][0]
        raise DataError(f"{where}: found two bands at {twice:g} nm, expected each wavelength once; remove one of them")
    widths = np.gradient(values) if fwhm is None else _numbers(where, fwhm, "fwhm", count)[order] * factor
    if not (widths > 0).all():
        raise DataError(f"{where}: fwhm: found {widths.min():g}, expected widths above 0; correct or remove the list")
    flags = np.ones(count, bool) if good is None else _numbers(where, good, "bbl", count)[order] > 0
    return Bands(values, widths, flags, order)


def from_text(texts: Sequence[str | None]) -> tuple[list[float], str] | None:
    """Numbers and unit from the names of bands, such as "493.2 Nanometers" or "Band 12 (0.493 um)"; None if one lacks.

    A number with a unit counts before one without; of those without, the last that can be a wavelength.
    """
    found, units = [], set()
    for text in texts:
        numbers = [(float(number), unit) for number, unit in NUMBER.findall(text or "")]
        with_unit = [pair for pair in numbers if pair[1]]
        point = "." in (text or "")  # 2 is the number of a band, 2.0 can be a wavelength in µm
        bare = [pair for pair in numbers if RANGE[0] <= pair[0] <= RANGE[1] or (point and 0.3 <= pair[0] <= 3)]
        if not (with_unit or bare):
            return None
        number, unit = (with_unit or bare)[-1]
        found.append(number)
        units.add("um" if unit.lower()[:1] in ("µ", "μ", "u") or unit.lower().startswith("micro") else unit and "nm")
    return (found, units.pop()) if len(units) == 1 else None


def from_geotiff(dataset: rasterio.DatasetReader) -> tuple | None:
    """(centres, fwhm or None, None, unit) of a GeoTIFF; None where it does not say them.

    From tags of the bands (GDAL's IMAGERY domain, or `wavelength`), else from their descriptions.
    """
    imagery = [dataset.tags(band, ns="IMAGERY") for band in dataset.indexes]
    if all("CENTRAL_WAVELENGTH_UM" in tags for tags in imagery):
        widths = [tags.get("FWHM_UM") for tags in imagery]
        return [tags["CENTRAL_WAVELENGTH_UM"] for tags in imagery], widths if all(widths) else None, None, "um"
    tags = [{key.lower(): value for key, value in dataset.tags(band).items()} for band in dataset.indexes]
    if all("wavelength" in band for band in tags):
        widths = [band.get("fwhm") for band in tags]
        unit = tags[0].get("wavelength_units", tags[0].get("wavelength_unit", ""))
        return [band["wavelength"] for band in tags], widths if all(widths) else None, None, unit
    found = from_text(dataset.descriptions)
    return None if found is None else (found[0], None, None, found[1])


def read_list(path: Path) -> tuple[list[float], list[float] | None]:
    """Wavelengths, and fwhm where there is a second column, of a CSV file with or without a header.

    Raises:
        StorageError: there is no such file.
        DataError: it is no table, or has a row without a wavelength.
    """
    if not Path(path).is_file():
        raise StorageError(f"{path}: no such file; correct `wavelengths`")
    try:
        table = pd.read_csv(path, header=None, comment="#", dtype=str)
    except ValueError as error:  # empty, rows of different lengths, another encoding
        raise DataError(f"{path}: found no table of wavelengths ({error}); write one a row") from error
    numbers = table.apply(pd.to_numeric, errors="coerce")
    if np.isnan(numbers.iloc[0, 0]):  # a header
        numbers = numbers.iloc[1:]
    missing = numbers.index[numbers.iloc[:, 0].isna()]
    if numbers.empty or len(missing):
        row = 1 + (len(table) if numbers.empty else missing[0])
        raise DataError(f"{path}: row {row}: expected a wavelength in nm (or µm) in the first column; correct it")
    return numbers.iloc[:, 0].tolist(), numbers.iloc[:, 1].tolist() if numbers.shape[1] > 1 else None


def _numbers(where: str, values: Sequence, field: str, count: int) -> np.ndarray:
    if len(values) != count:
        raise DataError(f"{where}: {field}: found {len(values)} numbers, the cube has {count} bands; correct the list")
    try:
        return np.array([float(value) for value in values])
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: {field}: expected numbers ({error}); correct the list") from error


def _factor(where: str, unit: str, values: np.ndarray) -> float:
    word = unit.strip().rstrip(".")
    if MICROMETRES.match(word):
        return NM_PER_UM
    if NANOMETRES.match(word):
        return 1
    if word.lower() in ("", "unknown", "index"):
        return NM_PER_UM if np.nanmax(values) < 100 else 1
    raise DataError(f"{where}: wavelength units: found {unit!r}, expected Nanometers or Micrometers; convert them")
