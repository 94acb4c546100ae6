"""A locked test: whole regions that are kept back until the final evaluation, identified by a hash of their places.

The choice of regions depends on their names alone, so no seed can be tried out. params.yaml holds the hash of the
locked places' names: if the places change, the stage stops. Changed labels or tiles are not noticed.
"""

import hashlib

import pandas as pd

from src.core.splits.spatial_temporal import require_regions
from src.core.stage.errors import DataError

SHARE = 0.2  # of the places, at least


def draw_locked(places: pd.DataFrame, share: float = SHARE) -> list[str]:
    """Names of whole regions that hold at least `share` of `places` (place, region), in the order of their sha256.

    Raises:
        DataError: a region is missing or holds all places, or locking would leave no region.
    """
    require_regions(places["place"], places["region"])
    counts = places.drop_duplicates("place")["region"].value_counts()
    order = sorted(counts.index, key=_sha256)
    reached = counts[order].cumsum() / counts.sum() >= share
    locked = order[: reached.to_numpy().argmax() + 1]
    if len(locked) == len(order):
        raise DataError(
            f"index.parquet: `region`: locking {share:.0%} of {counts.sum()} places takes all {len(order)} regions "
            f"({', '.join(order[:5])}), expected one to be left; leave `lock` blank or bring more regions"
        )
    return locked


def lock_hash(places: pd.DataFrame, regions: list[str]) -> str:
    """sha256 of the sorted names of the places in `regions`, one a line."""
    names = sorted(set(places.loc[places["region"].isin(regions), "place"]))
    return _sha256("".join(f"{name}\n" for name in names))


def check_lock(places: pd.DataFrame, expected: str) -> pd.Series:
    """Mask of the locked rows of `places` (place, region), (N,) bool; `expected` is the hash in params.yaml.

    Raises:
        DataError: the data's own lock has another hash; or see `draw_locked`.
    """
    regions = draw_locked(places)
    locked = places["region"].isin(regions)
    found = lock_hash(places, regions)
    if found != expected:
        raise DataError(
            f"params.yaml: `lock`: expected {expected}, found {found} for the {places['place'][locked].nunique()} "
            f"places of {', '.join(regions)}: these are not the data that were locked; restore them, or set `lock` "
            f"to the found hash if the data are new, or leave it blank to lock nothing"
        )
    return locked


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
