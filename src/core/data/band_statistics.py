"""Mean and standard deviation of bands and of the target, and standardised tiles.

Statistics are those of dequantised values at valid pixels, accumulated in float64 tile by tile, so memory
does not grow with the number of tiles. int8 is counted in 256 bins per band, which is exact.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from src.core.data.quantisation import Quantisation, dequantise, lookup_table
from src.core.data.tile_store import Store
from src.core.stage import files
from src.core.stage.errors import DataError

SLAB_PIXELS = 65_536  # standardised at once: 16 MB for 64 bands


def band_statistics(store: Store, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(C,) float64 mean and population standard deviation of each band over the valid pixels of the tiles `rows`.

    Raises:
        DataError: no pixel is valid, or a band is constant.
    """
    moments = _moments_of_bins if store.dtype == np.int8 else _moments_of_tiles
    count, mean, variance = moments(store, tqdm(rows, desc="band statistics", unit="tile"))
    if count == 0:
        raise DataError(
            f"{store.folder}: none of {len(rows)} training tiles has a valid pixel, expected at least one; "
            f"look for tiles of no data"
        )
    constant = np.flatnonzero(variance <= 0)
    if len(constant):
        band = constant[0]
        raise DataError(
            f"{store.folder}: band {band} (counted from 0) is {mean[band]:g} at all {count} valid pixels of "
            f"{len(rows)} training tiles, expected a band that varies; {len(constant)} bands are constant: "
            f"leave them out of the tiles and lower `bands`"
        )
    return mean, np.sqrt(variance)


def target_statistics(target: np.ndarray, where: str) -> tuple[float, float]:
    """Mean and population standard deviation of the (N,) `target`; raises DataError if all are equal, or none."""
    target = np.asarray(target, float)
    if len(target) == 0 or np.ptp(target) == 0:
        raise DataError(
            f"{where}: found {len(target)} training labels "
            f"with {len(np.unique(target))} distinct values, expected at least two; check the labels file"
        )
    return float(target.mean()), float(target.std())


def read_statistics(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(C,) float32 mean and sd as the split stage wrote them."""
    arrays = files.read_arrays(path)
    return arrays["mean"], arrays["sd"]


def standardise(
    pixels: np.ndarray, valid: np.ndarray, quantisation: Quantisation, mean: np.ndarray, sd: np.ndarray
) -> np.ndarray:
    """(C, H, W) float32: dequantised, standardised pixels; 0, the training mean, where not valid.

    `pixels` are (C, H, W) int8 or float16, as stored, `valid` is (H, W) bool, `mean` and `sd` are (C,) float32.
    """
    if pixels.dtype == np.int8:
        # adding 128 wraps around in uint8, which maps -128 … 127 to 0 … 255
        index = np.asarray(pixels).view(np.uint8) + np.uint8(128)
        table = (lookup_table(quantisation)[None] - mean[:, None]) / sd[:, None]  # (C, 256)
        values = np.stack([np.take(band, at) for band, at in zip(table, index, strict=True)])
    else:
        values = (dequantise(pixels, quantisation) - mean[:, None, None]) / sd[:, None, None]
    return np.where(valid, values, np.float32(0))


def standardised_pixels(store: Store, rows: Sequence[int], mean: np.ndarray, sd: np.ndarray) -> Iterator[np.ndarray]:
    """Standardised valid pixels of the tiles `rows`, as (n, C) float32 chunks of at most SLAB_PIXELS."""
    lines = max(1, SLAB_PIXELS // store.width)
    for row in tqdm(rows, desc="pixels", unit="tile"):
        pixels, valid = store.view(row), store.valid([row])[0]
        for top in range(0, store.height, lines):
            slab = np.s_[top : top + lines]
            values = standardise(pixels[:, slab], valid[slab], store.quantisation, mean, sd)
            yield values[:, valid[slab]].T


def _moments_of_bins(store: Store, rows: Sequence[int]) -> tuple[int, np.ndarray, np.ndarray]:
    """Count, mean and variance from how often each of the 256 stored values occurs in each band."""
    bins = np.zeros((store.bands, 256), np.int64)
    for row in rows:
        valid = store.valid([row])[0]
        for band, pixels in enumerate(store.view(row)):
            bins[band] += np.bincount(pixels[valid].view(np.uint8), minlength=256)
    bins = np.roll(bins, 128, axis=1)  # from two's complement to -128 … 127
    count = int(bins[0].sum())
    table = lookup_table(store.quantisation).astype(np.float64)
    mean = bins @ table / max(count, 1)
    variance = (bins * (table - mean[:, None]) ** 2).sum(axis=1) / max(count, 1)
    return count, mean, variance


def _moments_of_tiles(store: Store, rows: Sequence[int]) -> tuple[int, np.ndarray, np.ndarray]:
    scaler = StandardScaler()
    for row in rows:
        valid = store.valid([row])[0]
        if valid.any():
            scaler.partial_fit(dequantise(store.view(row)[:, valid], store.quantisation).T.astype(np.float64))
    if not hasattr(scaler, "mean_"):
        return 0, np.zeros(store.bands), np.zeros(store.bands)
    return int(scaler.n_samples_seen_), scaler.mean_, scaler.var_
