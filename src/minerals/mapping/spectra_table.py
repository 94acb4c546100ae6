"""Spectra of the field and the laboratory, as a table or as arrays."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.core.data import tables
from src.core.stage.errors import DataError, StorageError
from src.minerals.data import band_table, wavelengths
from src.minerals.params import Bands

MAX_BYTES = 2**30  # of the arrays of a .npz
LARGEST = 1.5  # reflectance


@dataclass(frozen=True)
class Spectra:
    """Spectra on one list of wavelengths.

    Attributes:
        path: the file.
        names: (N,) text.
        bands: wavelengths ascending, each as wide as the distance to its nearer neighbour.
        values: (N, B) float32 reflectance, NaN where nothing was measured and in bands that `bands` removes.
    """

    path: Path
    names: list[str]
    bands: wavelengths.Bands
    values: np.ndarray


def read(path: Path, params: Bands) -> Spectra:
    """The spectra of a table (.csv, .xlsx: wavelength, then a column a spectrum) or of a .npz.

    A .npz holds `wavelengths` (B,), `spectra` (N, B) and, if it likes, `names` (N,). Wavelengths are nm or µm. A first
    row of numbers is a table without a header; its spectra are numbered.

    Raises:
        StorageError: the file cannot be read.
        DataError: it is no such table or holds objects; wavelengths are missing, twice there, or no nm or µm; fewer
            than `wavelengths.MIN_BANDS` of them; a value that is no number, negative or above `LARGEST`.
    """
    path = Path(path)
    names, centres, values = _from_npz(path) if path.suffix.lower() == ".npz" else _from_table(path)
    if not names:
        raise DataError(f"{path}: found wavelengths alone, expected a column of reflectance for each spectrum; add one")
    if len(centres) < wavelengths.MIN_BANDS:
        raise DataError(
            f"{path}: found {len(centres)} wavelengths, expected a spectrum of at least {wavelengths.MIN_BANDS}; a few "
            "bands do not show absorption features"
        )
    bands = wavelengths.check(str(path), centres, None, None, "", len(centres))
    apart = np.diff(bands.wavelengths)
    widths = np.minimum(np.append(apart, apart[-1]), np.insert(apart, 0, apart[0]))  # a gap widens no band
    bands = wavelengths.Bands(bands.wavelengths, widths, bands.good, bands.order)
    table = band_table.choose(bands, np.ones(len(widths), bool), params, str(path))
    values = np.where(table["kept"].to_numpy(), values[:, bands.order], np.nan).astype(np.float32)
    _check_range(path, names, bands.wavelengths, values)
    return Spectra(path, names, bands, values)


def _from_table(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, (B,) wavelengths and (N, B) values of a .csv or .xlsx."""
    sheet = tables.read_sheet(path)
    header, rows = sheet.header, sheet.rows
    if _is_number(header[0]):
        rows, header = [(1, header), *rows], ["", *(f"spectrum {number}" for number in range(1, len(header)))]
    cells = [[_number(path, number, header, at, cell) for at, cell in enumerate(row)] for number, row in rows]
    values = np.array(cells, float).reshape(-1, len(header))
    if np.isnan(values[:, 0]).any():
        row = rows[int(np.isnan(values[:, 0]).argmax())][0]
        raise DataError(f"{path}: row {row}, column 1: found no wavelength, expected one in nm (or µm); add it")
    return header[1:], values[:, 0], values[:, 1:].T


def _number(path: Path, row: int, header: list[str], at: int, cell) -> float:
    """A cell as number, NaN where it is blank."""
    if cell is None or cell == "":
        return np.nan
    if not _is_number(cell):
        raise DataError(
            f"{path}: row {row}, column {at + 1} {header[at]!r}: found {cell!r}, expected a number with a decimal "
            "point; correct it, or leave it blank where nothing was measured"
        )
    return float(cell)


def _is_number(cell) -> bool:
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return not isinstance(cell, bool)


def _from_npz(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, (B,) wavelengths and (N, B) values of a .npz; objects are refused."""
    if not path.is_file():
        raise StorageError(f"{path}: no such file; correct `spectra`")
    try:
        with zipfile.ZipFile(path) as archive:
            if (size := sum(item.file_size for item in archive.infolist())) > MAX_BYTES:
                raise DataError(f"{path}: found {size} bytes, expected at most {MAX_BYTES}; divide it")
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in ("wavelengths", "spectra", "names") if name in stored.files}
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError) as error:
        raise DataError(f"{path}: found no arrays of plain numbers and text ({error}); save them again") from error
    for name in ("wavelengths", "spectra"):
        if name not in arrays:
            raise DataError(f"{path}: {name}: found none, expected wavelengths (B,) and spectra (N, B); add it")
        if arrays[name].dtype.kind not in "iuf":
            raise DataError(f"{path}: {name}: found {arrays[name].dtype}, expected numbers; save numbers")
    centres, spectra = arrays["wavelengths"].astype(float).ravel(), np.atleast_2d(arrays["spectra"].astype(float))
    if spectra.ndim != 2 or spectra.shape[1] != len(centres):
        raise DataError(
            f"{path}: spectra: found {spectra.shape}, expected (N, {len(centres)}), {len(centres)} wavelengths "
            "a spectrum; transpose it"
        )
    names = arrays.get("names")
    if names is None:
        return [f"spectrum {number}" for number in range(1, len(spectra) + 1)], centres, spectra
    if names.dtype.kind not in "US" or names.shape != (len(spectra),):
        raise DataError(
            f"{path}: names: found {names.shape} {names.dtype}, expected text ({len(spectra)},); correct it"
        )
    return names.astype(str).tolist(), centres, spectra


def _check_range(path: Path, names: list[str], nm: np.ndarray, values: np.ndarray) -> None:
    """Raise DataError where a value is no reflectance."""
    with np.errstate(invalid="ignore"):
        wrong = (values < 0) | (values > LARGEST)
    if not wrong.any():
        return
    row, at = np.argwhere(wrong)[0]
    value, largest = values[row, at], np.nanmax(values)
    if value < 0:
        fix = "leave blank what was not measured"
    elif largest <= 100 * LARGEST:
        fix = "per cent? Divide by 100"
    else:
        fix = "reflectance times 10000? Divide by 10000; radiance and digital numbers need calibration"
    raise DataError(
        f"{path}: {names[row]} at {nm[at]:g} nm: found {value:g}, expected reflectance of 0 to {LARGEST:g}; {fix}"
    )
