"""Leakage audit of a split of tiles: shared places, overlapping ground, identical pixels, future years.

Tiles in the buffer are not audited. Locked places may lie near test places, because no model learns from either.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from src.core.data.band_statistics import band_statistics, standardised_pixels
from src.core.data.pca import fit_pca
from src.core.data.tile_store import Store
from src.core.geo import distances
from src.core.splits import near_duplicates
from src.core.stage.errors import DataError

AUDITED = ("train", "validation", "test", "locked")
PAIRS = (
    ("train", "test"),
    ("validation", "test"),
    ("train", "validation"),
    ("train", "locked"),
    ("validation", "locked"),
)
PCA_ROUNDING = 1e-3  # another number of threads or processor adds float32 numbers in another order


def audit(
    store: Store,
    tiles: pd.DataFrame,
    samples: pd.DataFrame,
    mean: np.ndarray,
    sd: np.ndarray,
    *,
    origin: int | None = None,
) -> dict[str, Any]:
    """Measure what train, validation, test and locked share.

    Args:
        tiles: one row per tile of the store, in row order, with tile, place, role, lat and lon (degrees or NaN).
        samples: one row per label, with place, year, tile_year and role; a tile may have labels of several roles.
        mean, sd: (C,) float32 band statistics as the split stage wrote them.
        origin: in a task of time the first year of which nothing is known, else None.

    Returns:
        What `require_clean` explains, and
        nearest_A_B_km for each of PAIRS: geodesic, between centres; None without coordinates or such tiles.
        nearest_tile_difference: the least of `near_duplicates.registered_differences` between a training tile and
            one that is held out, 0 for a copy and about 1 for unrelated ones; None where none has a pattern.
        gap_years: from the last year of a training label to the first of a test label; None, as what is of the
            future, without `origin`.
    """
    located = store.tiles[["tile", "half_diagonal_km"]].reset_index(drop=True)
    used = located.assign(**{key: tiles[key].to_numpy() for key in ("place", "role", "lat", "lon")})
    used = used[used["role"].isin(AUDITED)]
    labelled = samples[samples["role"].isin(AUDITED)]
    train = used.loc[used["role"] == "train", "tile"].to_numpy()
    refit = [array.astype(np.float32) for array in band_statistics(store, train)]
    return {
        "shared_places": int((labelled.groupby("place")["role"].nunique() > 1).sum()),
        "overlapping_footprints": count_overlaps(used),
        **{f"nearest_{one}_{other}_km": _nearest(used, one, other) for one, other in PAIRS},
        "duplicate_tiles": count_duplicates(store, used),
        **find_near_identical(store, used, mean, sd),
        "statistics_difference": float(max(np.abs(refit[0] - mean).max(), np.abs(refit[1] - sd).max())),
        **compare_years(labelled, origin),
    }


def require_clean(
    findings: dict[str, Any], *, by_place: bool, by_time: bool, buffer_km: float, retrospective_tiles: bool, where: str
) -> None:
    """Raise DataError, naming every violation, unless `findings` (of `audit`) hold none that is forbidden.

    Args:
        by_place: places separate the roles, so that neither places nor ground nor pixels may be shared.
        by_time: time separates the roles.
        buffer_km: the least distance allowed between tiles of two roles; 0 where the split has no buffer.
        retrospective_tiles: tiles from the origin or later are wanted, and no score is called a forecast.
        where: begins each line of the message.
    """
    explanations = {
        "statistics_difference": "between the statistics written and those of the training tiles, expected 0; "
        "fit them on the training tiles alone"
    }
    if by_place:
        explanations |= {
            "shared_places": "places in two roles, expected 0; give all labels of a place the same role",
            "overlapping_footprints": "pairs of tiles of two roles that share ground, expected 0; "
            "split by blocks (`method`) with `buffer_km` of at least a tile's diagonal",
            "duplicate_tiles": "pairs of tiles of two roles with the same pixels (flips and rotations included), "
            "expected 0; remove the copies from `root`",
            "near_identical_tiles": "pairs of tiles of two roles with the same pixels, shifted, turned or with noise, "
            "expected 0; remove the copies from `root` or raise `buffer_km`",
        }
    if by_time:
        explanations["future_labels"] = (
            "training or validation labels from the origin or later, or training labels as late as validation's, "
            "expected 0; lower `origin` or remove them"
        )
        if not retrospective_tiles:
            explanations["future_tiles"] = (
                "labels with a tile from the origin or later, expected 0; raise `tile_lag` (with `match_year`: "
                "exact), or set `retrospective_tiles`: true and call no score a forecast"
            )
    violations = [f"{key}: found {findings[key]} {text}" for key, text in explanations.items() if findings[key]]
    if by_place:
        violations += [
            f"{key}: found {value:.3f} km, expected at least `buffer_km` = {buffer_km:g}; "
            "lower it or leave the nearer places out"
            for key, value in findings.items()
            if key.startswith("nearest_") and key.endswith("_km") and value is not None and value < buffer_km
        ]
    if violations:
        raise DataError("\n".join(f"{where}: {line}" for line in violations))


def audit_pca(store: Store, train_rows: Sequence[int], stored: dict[str, np.ndarray]) -> float:
    """Difference between a `stored` pca.safetensors and one fitted on the training tiles alone.

    With M = [weight (K, C), bias (K,)] of z = weight @ x + bias, the matrices MᵀM are compared: they do not depend on
    the sign of a component or on the axes among equal variances. The result is the Frobenius norm of their difference,
    relative to the refit's; up to PCA_ROUNDING it is 0.
    """
    mean, sd = (array.astype(np.float32) for array in band_statistics(store, train_rows))
    fitted = fit_pca(standardised_pixels(store, train_rows, mean, sd), len(stored["weight"]))[:2]
    maps = [
        np.column_stack([weight, bias]).astype(float) for weight, bias in (fitted, (stored["weight"], stored["bias"]))
    ]
    expected, found = (matrix.T @ matrix for matrix in maps)
    difference = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    return 0.0 if difference <= PCA_ROUNDING else difference


def find_near_identical(store: Store, tiles: pd.DataFrame, mean: np.ndarray, sd: np.ndarray) -> dict[str, Any]:
    """near_identical_tiles and nearest_tile_difference of `audit`; `tiles` has tile, place and role."""
    pairs = {tuple(pair) for pair in near_duplicates.shared_pixels(store, tiles, PAIRS).tolist()}
    compared = near_duplicates.registered_differences(store, tiles, PAIRS, mean, sd)
    same = compared[compared["difference"] < near_duplicates.SAME_DIFFERENCE]
    pairs |= set(zip(same["tile"], same["other"], strict=True))
    nearest = compared.loc[compared["role"] == "train", "difference"].min()
    return {
        "near_identical_tiles": len(pairs),
        "nearest_tile_difference": None if np.isnan(nearest) else float(nearest),
    }


def compare_years(samples: pd.DataFrame, origin: int | None) -> dict[str, int | None]:
    """gap_years, future_labels and future_tiles of `audit`; `samples` has year, tile_year and role of each label."""
    if origin is None:
        return dict.fromkeys(("gap_years", "future_labels", "future_tiles"))
    role, year = samples["role"], samples["year"]
    first_unknown = role.map({"train": min(origin, year[role == "validation"].min()), "validation": origin})
    gap = year[role == "test"].min() - year[role == "train"].max()
    return {
        "gap_years": None if np.isnan(gap) else int(gap),
        "future_labels": int((year >= first_unknown).sum()),
        "future_tiles": int((samples["tile_year"] >= origin).sum()),
    }


def count_overlaps(tiles: pd.DataFrame) -> int | None:
    """Pairs of tiles of two roles nearer than the sum of their half diagonals (km); None if a coordinate is unknown."""
    if tiles[["lat", "lon", "half_diagonal_km"]].isna().any(axis=None):
        return None
    largest = tiles["half_diagonal_km"].max()
    pairs = 0
    for one, other in PAIRS:
        a, b = tiles[tiles["role"] == one], tiles[tiles["role"] == other]
        half_a, half_b = a["half_diagonal_km"].to_numpy(), b["half_diagonal_km"].to_numpy()
        i, j, km = distances.pairs_within(*_latlon(a), *_latlon(b), half_a + largest)
        pairs += int((km < half_a[i] + half_b[j]).sum())
    return pairs


def count_duplicates(store: Store, tiles: pd.DataFrame) -> int:
    """Pairs of tiles of different roles that are equal after one of the 8 flips and rotations."""
    # a tile and its 8 flips and rotations have the same least digest
    pixels = [
        min(
            hashlib.sha256(str(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
            for image in near_duplicates.orientations(store.view(row))
        )
        for row in tqdm(tiles["tile"], desc="duplicates", unit="tile")
    ]
    per_role = tiles.groupby([pixels, "role"]).size().unstack(fill_value=0).reindex(columns=AUDITED, fill_value=0)
    return int(sum((per_role[a] * per_role[b]).sum() for a, b in PAIRS))


def _nearest(tiles: pd.DataFrame, one: str, other: str) -> float | None:
    a, b = (_latlon(tiles[tiles["role"] == role]) for role in (one, other))
    known = a.size and b.size and not np.isnan(a).any() and not np.isnan(b).any()
    return float(distances.nearest_km(*a, *b).min()) if known else None


def _latlon(tiles: pd.DataFrame) -> np.ndarray:
    return tiles[["lat", "lon"]].to_numpy().T
