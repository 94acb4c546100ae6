"""Bands that the pipeline uses, and why others went; and false colours out of three of them."""

from pathlib import Path

import numpy as np
import pandas as pd

from src.core.stage import files
from src.core.stage.errors import DataError
from src.minerals.data import wavelengths
from src.minerals.data.cube_store import CubeStore
from src.minerals.params import Bands

TABLE = "bands.csv"
COMPOSITES = {  # nm, red, green and blue
    "clay": (2200, 2100, 1650),  # clays absorb in red
    "iron": (860, 660, 480),  # iron oxide absorbs in blue, and in red less than at 660
    "natural": (660, 550, 470),
}
NEAR_NM = 15  # of a composite's band to the wavelength asked for


def choose(bands: CubeStore | wavelengths.Bands, filled: np.ndarray, params: Bands, where: str) -> pd.DataFrame:
    """One row a band: band (from 1), wavelength_nm, fwhm_nm, kept (bool), why (text, "" where it is kept).

    Args:
        bands: holds `wavelengths`, `fwhm` and `good`.
        filled: (B,) bool, bands that hold values.
        where: the file, for errors.

    Raises:
        DataError: no band is left.
    """
    nm = bands.wavelengths
    why = np.full(len(nm), "", object)
    reasons = [
        *((_within(nm, one), f"noisy: {one[0]:g}-{one[1]:g} nm (bands.noisy_nm)") for one in params.noisy_nm),
        *((_within(nm, one), f"water vapour: {one[0]:g}-{one[1]:g} nm (bands.water_nm)") for one in params.water_nm),
        (~filled, "0 or no data in a whole scene"),
        (~bands.good, "bad band by the file's own list (bbl)"),
    ]
    for concerned, reason in reasons:  # the last one counts
        why[concerned] = reason
    table = pd.DataFrame(
        {"band": np.arange(1, len(nm) + 1), "wavelength_nm": nm, "fwhm_nm": bands.fwhm, "kept": why == "", "why": why}
    )
    if not table["kept"].any():
        raise DataError(f"{where}: no band is left; correct `noisy_nm` and `water_nm`")
    return table


def _within(nm: np.ndarray, interval: list[float]) -> np.ndarray:
    return (nm >= interval[0]) & (nm <= interval[1])


def write(table: pd.DataFrame, folder: Path) -> None:
    """`folder`/bands.csv."""
    table.to_csv(Path(folder) / TABLE, index=False, lineterminator="\n", float_format="%.3f")


def read_kept(folder: Path, store: CubeStore) -> np.ndarray:
    """(B,) bool, the bands that the stage `bands` kept.

    Raises:
        StorageError: there is no table.
        DataError: it is not of this store.
    """
    path = Path(folder) / TABLE
    if not path.is_file():
        files.read_json(path)  # says that it is missing
    table = pd.read_csv(path, keep_default_na=False)
    if len(table) != len(store.wavelengths) or np.abs(table["wavelength_nm"] - store.wavelengths).max() > 0.01:
        raise DataError(f"{path}: found {len(table)} bands that are not those of {store.folder}; run bands again")
    return table["kept"].to_numpy(bool)


def composite_bands(nm: np.ndarray, kept: np.ndarray, name: str) -> list[int]:
    """Positions of the three kept bands nearest to those of a composite.

    Raises:
        DataError: one is farther than `NEAR_NM`.
    """
    found = []
    for wanted in COMPOSITES[name]:
        distance = np.where(kept, np.abs(nm - wanted), np.inf)
        if distance.min() > NEAR_NM:
            raise DataError(
                f"composite {name}: {wanted} nm: found no kept band within {NEAR_NM} nm; the sensor does not reach "
                "there, or `bands` removed it"
            )
        found.append(int(distance.argmin()))
    return found


def limits(values: np.ndarray, percentiles: list[float]) -> np.ndarray:
    """(3, 2) reflectance shown as 0 and as 255, by percentiles of (N, 3) values without NaN."""
    low, high = np.percentile(values, percentiles, axis=0)
    return np.stack([low, np.maximum(high, low + 1e-4)], axis=1)


def to_bytes(values: np.ndarray, stretch: np.ndarray) -> np.ndarray:
    """(..., 3) reflectance -> uint8 between `stretch` (3, 2); NaN becomes 0."""
    low, high = stretch.T
    return np.rint(np.clip((np.nan_to_num(values, nan=-1.0) - low) / (high - low), 0, 1) * 255).astype(np.uint8)
