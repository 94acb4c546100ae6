"""Reflectance spectra of materials, and what a sensor would measure of them.

A library is a folder:

    spectra.csv    wavelength_nm, then one column of reflectance a spectrum; blank where it was not measured
    materials.csv  spectrum (its column), mineral (one of the map's, or blank), use: reference, scene, both or blank
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from spectral import BandResampler

from src.core.stage.errors import DataError, StorageError

USES = ("reference", "scene", "both", "")
COVERED = 0.99  # part of a band's response where the spectrum has to be measured


@dataclass(frozen=True)
class Library:
    """Spectra on one grid.

    Attributes:
        wavelengths: (G,) nm, ascending.
        spectra: (S, G) reflectance, NaN where it was not measured.
        table: S rows: spectrum, mineral, use.
    """

    wavelengths: np.ndarray
    spectra: np.ndarray
    table: pd.DataFrame

    def rows(self, mineral: str, use: str) -> np.ndarray:
        """Row numbers of a mineral's spectra that serve as `use` (reference or scene)."""
        return np.flatnonzero((self.table["mineral"] == mineral) & self.table["use"].isin([use, "both"]))

    def row(self, start: str) -> int:
        """Row number of the first spectrum whose name begins with `start`; raises DataError where there is none."""
        found = np.flatnonzero(self.table["spectrum"].str.startswith(start))
        if not len(found):
            raise DataError(f"spectral library: found no spectrum named {start}..., expected one; add it")
        return int(found[0])

    def at(self, centres: np.ndarray, fwhm: np.ndarray) -> np.ndarray:
        """(S, B) reflectance that a sensor measures, NaN where the spectrum does not reach.

        A band's response is Gaussian (nm), cut off at half its height. It may reach beyond the ends of the library's
        wavelengths, but not its centre.
        """
        matrix = BandResampler(self.wavelengths, centres, None, fwhm).matrix  # (B, G), a row of NaN outside the grid
        outside = (centres < self.wavelengths[0]) | (centres > self.wavelengths[-1]) | np.isnan(matrix).any(1)
        matrix = np.where(outside[:, None], 0, matrix)
        known = np.isfinite(self.spectra)
        part = known @ matrix.T
        measured = np.nan_to_num(self.spectra) @ matrix.T
        return np.where(part >= COVERED, measured / np.maximum(part, COVERED), np.nan)


def read(folder: Path) -> Library:
    """The library in `folder`.

    Raises:
        StorageError: a file is missing.
        DataError: a column is missing, wavelengths do not ascend, a value is no reflectance (0 to 1.5), or the two
            files name different spectra.
    """
    folder = Path(folder)
    tables = {}
    for name in ("spectra.csv", "materials.csv"):
        path = folder / name
        if not path.is_file():
            raise StorageError(f"{path}: no such file, expected a library of spectra.csv and materials.csv")
        tables[name] = pd.read_csv(path, keep_default_na=False, na_values=[""] if name == "spectra.csv" else None)
    spectra, materials = tables["spectra.csv"], tables["materials.csv"]
    if spectra.columns[0] != "wavelength_nm":
        raise DataError(f"{folder}/spectra.csv: column 1: found {spectra.columns[0]!r}, expected 'wavelength_nm'")
    missing = {"spectrum", "mineral", "use"} - set(materials.columns)
    if missing:
        raise DataError(f"{folder}/materials.csv: no column {min(missing)!r}, found {', '.join(materials.columns)}")
    if list(spectra.columns[1:]) != list(materials["spectrum"]):
        odd = min(set(spectra.columns[1:]) ^ set(materials["spectrum"]), default="another order")
        raise DataError(f"{folder}: spectra.csv and materials.csv name different spectra ({odd}); give each a row")
    unknown = materials.loc[~materials["use"].isin(USES), "use"]
    if len(unknown):
        found = unknown.iloc[0]
        raise DataError(f"{folder}/materials.csv: use: found {found!r}, expected reference, scene, both or blank")
    try:
        values = spectra.to_numpy(float)
    except ValueError as error:
        raise DataError(f"{folder}/spectra.csv: found something that is not a number ({error})") from error
    grid, values = values[:, 0], values[:, 1:].T
    if not (np.diff(grid) > 0).all():
        raise DataError(f"{folder}/spectra.csv: wavelength_nm: expected ascending numbers; sort the rows, each once")
    with np.errstate(invalid="ignore"):
        outside = (values < 0) | (values > 1.5)
    if outside.any():
        row, at = np.argwhere(outside)[0]
        raise DataError(
            f"{folder}/spectra.csv: {spectra.columns[1 + row]} at {grid[at]:g} nm: found {values[row, at]:g}, expected "
            "reflectance of 0 to 1; divide per cent by 100"
        )
    return Library(grid, values, materials)
