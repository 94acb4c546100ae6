"""Pairs of tiles with the same pixels that are not equal files: shifted, rotated, flipped, or with added noise.

The store is read tile by tile; memory does not grow with a tile's size.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from scipy import fft
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree
from tqdm import tqdm

from src.core.data.band_statistics import SLAB_PIXELS, standardise
from src.core.data.crop import centre_origin
from src.core.data.tile_store import Store

SHARED = 0.25  # of a tile's distinct pixels: shifts by half a side both ways leave a quarter of the ground in common
LEAST_SHARED = 8  # pixels; tiles of a few distinct values (water, no vegetation) share some of them by chance
NUMBERS = 64  # compared at once: fewer coincide by chance
SKETCH = 1024  # hashes kept of a tile
SIDE = 64  # px; larger tiles are averaged to it before they are registered
CHANNELS = 8  # principal directions kept of the bands: they hold what varies in space, and little noise
WEAK = 0.1  # a direction's variance (an average band's is 1) below which it counts less, or noise would decide
DIRECTION_TILES = 64  # from which the directions come
PLACES = 3  # whose likeliest tile each is registered
NEIGHBOURS = 16  # of a window, looked through for those places, which have several years each
SAME_DIFFERENCE = 0.1  # of the variance; sample: copies with noise of 0.1 sd at most 0.034, others at least 0.80
LEAST_PIXELS = 16  # on which two tiles are compared
FLAT = 1e-3  # variance per channel below which there is no pattern to recognise (a training pixel's is about 1)


def shared_pixels(store: Store, tiles: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Pairs of tiles that have at least a quarter of their distinct pixels in common, in any arrangement.

    A pixel is the vector of its stored bands. Where a tile has fewer than 64 bands, it is instead the square of
    neighbouring pixels that holds 64 numbers, in any order, so that flips and rotations do not matter. Each is hashed
    to 64 bits. Of large tiles only the hashes below a bound are kept, which are the same in every copy (Broder 1997,
    "On the resemblance and containment of documents"). Masked pixels do not count.

    Args:
        tiles: tile (the store's row) and role.
        pairs: roles that are compared with each other.

    Returns:
        (P, 2) int64 rows of the store.
    """
    sketches = [_sketch(store, row) for row in tqdm(tiles["tile"], desc="shared pixels", unit="tile")]
    hashes, column = np.unique(np.concatenate([*sketches, np.empty(0, np.uint64)]), return_inverse=True)
    sizes = np.array([len(sketch) for sketch in sketches], dtype=np.int64)
    where = np.concatenate([[0], np.cumsum(sizes)])
    holds = csr_matrix((np.ones(len(column), np.int32), column, where), shape=(len(tiles), len(hashes)))
    rows, roles = tiles["tile"].to_numpy(), tiles["role"].to_numpy()
    found = [np.empty((0, 2), np.int64)]
    for one, other in pairs:
        a, b = np.flatnonzero(roles == one), np.flatnonzero(roles == other)
        common = (holds[a] @ holds[b].T).tocoo()
        i, j = a[common.row], b[common.col]
        same = (common.data >= LEAST_SHARED) & (common.data >= SHARED * np.minimum(sizes[i], sizes[j]))
        found.append(np.column_stack([rows[i[same]], rows[j[same]]]))
    return np.concatenate(found)


def registered_differences(
    store: Store, tiles: pd.DataFrame, pairs: Sequence[tuple[str, str]], mean: np.ndarray, sd: np.ndarray
) -> pd.DataFrame:
    """Smallest difference between each tile and the most similar tiles of another role.

    The first principal components of the standardised bands are compared, averaged to at most 64 px a side. The
    difference is sum |a - b|² / (sum |a - mean a|² + sum |b - mean b|²) over the valid pixels of the overlap: 0 for
    a copy, about 1 or more for unrelated tiles. It is the smallest over the 8 orientations and all shifts that keep
    half of the smaller tile (masked registration by Fourier transforms, Padfield 2012).

    A tile is compared with one tile of each of 3 places: those with the most similar window (mean and standard
    deviation of each component in a quarter of the area). So a copy can be missed. Of 132 copies on the sample, with
    noise of a tenth of the bands' sd, none was missed when shifted by a quarter of a side, and 8 when shifted by an
    eighth both ways.

    Args:
        tiles: tile (the store's row), place and role.
        pairs: roles that are compared with each other.
        mean, sd: (C,) float32 band statistics.

    Returns:
        tile, other (rows of the store), role (the first one's), difference (NaN where neither has a pattern).
    """
    rows = tiles["tile"].to_numpy()
    directions = _directions(store, rows, mean, sd)
    reduced = []
    for row in tqdm(rows, desc="near-identical", unit="tile"):
        bands, valid = _reduced(store, row, mean, sd)
        reduced.append((np.tensordot(directions, bands, axes=1), valid))
    windows = [_windows(*tile) for tile in reduced]
    ranked = []
    for one, other in pairs:
        a, b = (np.flatnonzero(tiles["role"] == role) for role in (one, other))
        for j, counterparts in zip(b, _counterparts(windows, tiles["place"].to_numpy(), a, b), strict=True):
            ranked += [(rows[i], rows[j], one, _registered(reduced[i], reduced[j])) for i in counterparts]
    return pd.DataFrame(ranked, columns=["tile", "other", "role", "difference"])


def orientations(tile: np.ndarray) -> list[np.ndarray]:
    """Views of a (..., H, W) tile: its 4 rotations, then their mirror images."""
    turned = [np.rot90(tile, turns, axes=(-2, -1)) for turns in range(4)]
    return turned + [image[..., ::-1] for image in turned]


def _sketch(store: Store, row: int) -> np.ndarray:
    pixels, valid = np.asarray(store.view(row)), store.valid([row])[0]
    weights = np.random.default_rng(0).integers(2**64, size=store.bands, dtype=np.uint64) | np.uint64(1)
    hashes = np.zeros(valid.shape, np.uint64)
    for band, weight in zip(pixels, weights, strict=True):
        hashes += band.view(np.uint8 if band.dtype == np.int8 else np.uint16) * weight
    hashes = _mix(hashes)
    side = min(math.ceil(math.sqrt(NUMBERS / store.bands)), *valid.shape)
    sums, whole = (sliding_window_view(array, (side, side)) for array in (hashes, valid))
    hashes = sums.sum(axis=(2, 3))[whole.all(axis=(2, 3))]
    one_in = max(1, store.height * store.width // SKETCH)
    return np.unique(hashes[hashes <= np.uint64((2**64 - 1) // one_in)])


def _mix(values: np.ndarray) -> np.ndarray:
    """Spread (…) uint64 over all 64 bits (the finaliser of SplitMix64; Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _reduced(store: Store, row: int, mean: np.ndarray, sd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standardised bands averaged to at most SIDE px, 0 where masked: (C, h, w) float32 and (h, w) bool."""
    step = min(math.ceil(max(store.height, store.width) / SIDE), store.height, store.width)
    height, width = store.height // step, store.width // step
    # cropped evenly, so that a flipped tile is averaged over the same squares
    top, left = centre_origin(store.height, store.width, height * step, width * step)
    across = np.s_[left : left + width * step]
    pixels, valid = store.view(row), store.valid([row])[0]
    bands, counts = np.zeros((store.bands, height, width), np.float32), np.empty((height, width))
    at_once = max(1, SLAB_PIXELS // (step**2 * width))
    for first in range(0, height, at_once):
        lines = np.s_[first : min(first + at_once, height)]
        slab = np.s_[top + lines.start * step : top + lines.stop * step], across
        values = standardise(pixels[:, *slab], valid[slab], store.quantisation, mean, sd)
        bands[:, lines] = values.reshape(store.bands, -1, step, width, step).sum(axis=(2, 4))
        counts[lines] = valid[slab].reshape(-1, step, width, step).sum(axis=(1, 3))
    kept = counts > step**2 / 2
    return np.divide(bands, counts, out=np.zeros_like(bands), where=kept, casting="same_kind"), kept


def _directions(store: Store, rows: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """First principal directions of the standardised bands over tiles evenly spread among `rows`, (K, C) float32.

    They are scaled to variance 1: else one contrast, as of land and water, would outweigh all other detail.
    """
    total, moments, count = np.zeros(store.bands), np.zeros((store.bands, store.bands)), 0
    for row in np.unique(rows[np.linspace(0, len(rows) - 1, DIRECTION_TILES).round().astype(int)]):
        bands, valid = _reduced(store, row, mean, sd)
        values = bands[:, valid].astype(np.float64)
        total += values.sum(axis=1)
        moments += values @ values.T
        count += values.shape[1]
    average = total / max(count, 1)
    variance, vectors = np.linalg.eigh(moments / max(count, 1) - np.outer(average, average))
    scaled = vectors / np.sqrt(np.maximum(variance, WEAK))
    return np.ascontiguousarray(scaled.T[::-1][:CHANNELS], dtype=np.float32)


def _windows(channels: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Mean and standard deviation of each channel in squares of half a side, a quarter apart, (M, 2 K).

    They stay the same when a tile is turned, and a shifted copy still has some of them. Squares that are masked by
    half, or flat, are left out.
    """
    side = max(1, min(valid.shape) // 2)
    tops, lefts = (
        np.linspace(0, length - side, max(2, 1 + round((length - side) / max(1, side / 2)))).astype(int)
        for length in valid.shape
    )
    found = [np.empty((0, 2 * len(channels)))]
    for top, left in product(tops, lefts):
        window = np.s_[top : top + side, left : left + side]
        values = channels[:, *window][:, valid[window]]
        if 2 * values.shape[1] >= side**2 and values.var(axis=1).mean() > FLAT:
            found.append(np.concatenate([values.mean(axis=1), values.std(axis=1)])[None])
    return np.concatenate(found)


def _counterparts(windows: list[np.ndarray], places: np.ndarray, a: np.ndarray, b: np.ndarray) -> Iterator[list[int]]:
    """For each of the tiles `b`, the tiles of `a` with the most alike window, one for each of PLACES places."""
    owner = np.repeat(a, [len(windows[i]) for i in a])
    tree = cKDTree(np.concatenate([windows[i] for i in a])) if len(owner) else None
    for j in b:
        if tree is None or len(windows[j]) == 0:
            yield []
            continue
        distance, at = tree.query(windows[j], k=range(1, min(NEIGHBOURS, len(owner)) + 1))
        nearest = owner[at.ravel()[np.argsort(distance.ravel(), kind="stable")]]
        first = np.unique(places[nearest], return_index=True)[1]
        yield nearest[np.sort(first)[:PLACES]].tolist()


def _registered(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> float:
    """Smallest difference of two tiles over orientations and shifts; each is (K, h, w) channels and (h, w) valid."""
    side = fft.next_fast_len(2 * max(one[1].shape) - 1, real=True)
    # subtract a common level first, because the transforms are in float32
    level = one[0].sum(axis=(1, 2), keepdims=True) / max(one[1].sum(), 1)
    one, other = ((np.where(valid, channels - level, 0).astype(np.float32), valid) for channels, valid in (one, other))
    fixed, fixed_mask, fixed_energy = _spectra(*one, side)
    least = max(min(one[1].sum(), other[1].sum()) / 2, LEAST_PIXELS)
    best = math.inf
    for channels, valid in zip(orientations(other[0]), orientations(other[1]), strict=True):
        moved, mask, energy = (spectrum.conj() for spectrum in _spectra(channels, valid, side))
        products = np.concatenate(
            [
                [fixed_mask * mask, fixed_energy * mask, fixed_mask * energy, (fixed * moved).sum(axis=0)],
                fixed * mask,
                fixed_mask * moved,
            ]
        )
        count, of_fixed, of_moved, cross, *sums = fft.irfft2(products, s=(side, side))
        with np.errstate(divide="ignore", invalid="ignore"):
            variation = of_fixed + of_moved - np.square(sums).sum(axis=0) / count
            judged = (count > least - 0.5) & (variation > FLAT * len(channels) * 2 * count)
            difference = (of_fixed + of_moved - 2 * cross)[judged] / variation[judged]
        best = min(best, difference.min(initial=math.inf))
    return max(best, 0.0) if math.isfinite(best) else math.nan


def _spectra(channels: np.ndarray, valid: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fourier transforms, padded to `side`, of channels, mask, and squares summed over channels."""
    stacked = np.concatenate([channels, [valid.astype(np.float32), np.square(channels).sum(axis=0)]])
    spectra = fft.rfft2(stacked, s=(side, side))
    return spectra[:-2], spectra[-2], spectra[-1]
