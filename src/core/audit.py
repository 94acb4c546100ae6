"""What a split must not have: places, ground or pixels that two roles share.

`audit` measures, `require_clean` stops the stage. Nobody uses the tiles in the buffer, so they are not audited.
"""

import hashlib
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from src.core import splits
from src.core.errors import DataError
from src.core.normalize import band_statistics
from src.core.store import Store

AUDITED = ("train", "validation", "test")


def audit(store: Store, split: pd.DataFrame, mean: np.ndarray, sd: np.ndarray) -> dict[str, Any]:
    """Measure what train, validation and test share.

    Args:
        split: one row per tile of the store, in row order, with place and role.
        mean, sd: (C,) float32 band statistics as the split stage wrote them.

    Returns:
        shared_places: places in more than one role.
        overlapping_footprints: pairs of tiles of two roles that are nearer than the sum of their half
            diagonals, the least distance at which squares cannot share ground; None without coordinates.
        nearest_train_test_km, nearest_validation_test_km, nearest_train_validation_km: geodesic, between
            centres; None without coordinates.
        duplicate_tiles: pairs of tiles of two roles with equal pixels, flipped or rotated or not.
        statistics_difference: largest difference between `mean`, `sd` and a fit on the training tiles alone.
    """
    used = store.tiles.assign(place=split["place"].to_numpy(), role=split["role"].to_numpy())
    used = used[used["role"].isin(AUDITED)]
    train = used.loc[used["role"] == "train", "tile"].to_numpy()
    refit = [array.astype(np.float32) for array in band_statistics(store, train)]
    return {
        "shared_places": int((used.groupby("place")["role"].nunique() > 1).sum()),
        "overlapping_footprints": count_overlaps(used),
        "nearest_train_test_km": _nearest(used, "train", "test"),
        "nearest_validation_test_km": _nearest(used, "validation", "test"),
        "nearest_train_validation_km": _nearest(used, "train", "validation"),
        "duplicate_tiles": count_duplicates(store, used),
        "statistics_difference": float(max(np.abs(refit[0] - mean).max(), np.abs(refit[1] - sd).max())),
    }


def require_clean(findings: dict[str, Any], buffer_km: float, where: str) -> None:
    """Raise DataError, naming every violation, unless the audit found none.

    Args:
        findings: what `audit` returned.
        buffer_km: the least distance allowed between tiles of two roles; 0 where the split has no buffer.
        where: the folder the split would have been written to.
    """
    explanations = {
        "shared_places": "places in two roles, expected 0",
        "overlapping_footprints": "pairs of tiles of two roles that share ground, expected 0; "
        "set split.method: blocks with split.buffer_km of at least a tile's diagonal",
        "duplicate_tiles": "pairs of tiles of two roles with the same pixels (flips and rotations included), "
        "expected 0; remove the copies from data.root",
        "statistics_difference": "between the statistics written and those of the training tiles, expected 0",
    }
    violations = [f"{key}: found {findings[key]} {text}" for key, text in explanations.items() if findings[key]]
    violations += [
        f"{key}: found {value:.3f} km, expected at least split.buffer_km = {buffer_km:g}"
        for key, value in findings.items()
        if key.startswith("nearest_") and value is not None and value < buffer_km
    ]
    if violations:
        raise DataError("\n".join(f"{where}: leakage audit: {line}" for line in violations))


def count_overlaps(tiles: pd.DataFrame) -> int | None:
    """Pairs of tiles of different roles nearer than the sum of their half diagonals.

    Args:
        tiles: role, lat, lon (degrees), half_diagonal_km; None is returned if any of them is unknown.
    """
    if tiles[["lat", "lon", "half_diagonal_km"]].isna().any(axis=None):
        return None
    largest = tiles["half_diagonal_km"].max()
    pairs = 0
    for one, other in combinations(AUDITED, 2):
        a, b = tiles[tiles["role"] == one], tiles[tiles["role"] == other]
        half_a, half_b = a["half_diagonal_km"].to_numpy(), b["half_diagonal_km"].to_numpy()
        i, j, km = splits.pairs_within(*_latlon(a), *_latlon(b), half_a + largest)
        pairs += int((km < half_a[i] + half_b[j]).sum())
    return pairs


def count_duplicates(store: Store, tiles: pd.DataFrame) -> int:
    """Pairs of tiles of different roles that are equal after one of the 8 flips and rotations.

    One pass over the store finds candidates by sums that no flip or rotation changes; only these are
    read again and compared exactly.

    Args:
        tiles: tile (the store's row) and role.
    """
    sums = [_invariant(store.view(row)) for row in tqdm(tiles["tile"], desc="duplicates", unit="tile")]
    candidates = tiles[pd.Series(sums, index=tiles.index).duplicated(keep=False)]
    pixels = [canonical_sha256(store.view(row)) for row in candidates["tile"]]
    per_role = candidates.groupby([pixels, "role"]).size().unstack(fill_value=0).reindex(columns=AUDITED)
    return int(sum((per_role[a] * per_role[b]).sum() for a, b in combinations(AUDITED, 2)))


def canonical_sha256(tile: np.ndarray) -> str:
    """The same digest for a (C, H, W) tile and its 8 flips and rotations: the least of their 8 digests."""
    turned = [np.rot90(tile, turns, axes=(1, 2)) for turns in range(4)]
    orientations = turned + [image[:, :, ::-1] for image in turned]
    return min(
        hashlib.sha256(str(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
        for image in orientations
    )


def _invariant(tile: np.ndarray) -> str:
    """Digest of each band's sum and sum of squares over the stored integers (float16 by its bits)."""
    whole = tile.view(np.int8 if tile.dtype == np.int8 else np.int16)
    digest = hashlib.sha256()
    for band in whole:
        values = band.astype(np.int64).ravel()
        digest.update(np.array([values.sum(), values @ values]).tobytes())
    return digest.hexdigest()


def _nearest(tiles: pd.DataFrame, one: str, other: str) -> float | None:
    a, b = tiles[tiles["role"] == one], tiles[tiles["role"] == other]
    if a[["lat", "lon"]].isna().any(axis=None) or b[["lat", "lon"]].isna().any(axis=None):
        return None
    return float(splits.nearest_km(*_latlon(a), *_latlon(b)).min())


def _latlon(tiles: pd.DataFrame) -> np.ndarray:
    return tiles[["lat", "lon"]].to_numpy().T
