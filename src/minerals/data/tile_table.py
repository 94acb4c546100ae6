"""Tiles: windows of scenes that lie within one block, and what is known and mapped in each.

`tiles.parquet` has one row a tile: tile (its name), scene, block, role, top, left (px), valid (share of pixels with
data), for each mineral `map_<mineral>` and, where minerals are known, `truth_<mineral>` (share of valid pixels of that
class), `map_altered` and `truth_altered` (bool).
"""

from pathlib import Path

import numpy as np
import pandas as pd

from src.core.stage import files
from src.core.stage.errors import DataError
from src.minerals.mapping.minerals import MINERALS, NAMES

TABLE = "tiles.parquet"
COPPER = [1 + number for number, mineral in enumerate(MINERALS) if mineral.copper]


def shares(classes: np.ndarray) -> np.ndarray:
    """(M,) share of each mineral among the pixels of (h, w) classes that are minerals or background; 0 without any."""
    known = classes[classes <= len(NAMES)]
    return np.bincount(known, minlength=len(NAMES) + 1)[1:] / max(len(known), 1)


def is_altered(mineral_shares: np.ndarray, threshold: float) -> bool:
    """True where the minerals that copper deposits bring cover more than `threshold` of a tile.

    The one place of this rule: of truth, map, answers and scores.
    """
    return bool(sum(mineral_shares[code - 1] for code in COPPER) > threshold)


def columns(prefix: str, classes: np.ndarray, threshold: float) -> dict[str, float | bool]:
    """The columns of one tile from its classes; `prefix` is map or truth."""
    found = shares(classes)
    named = {f"{prefix}_{name}": float(share) for name, share in zip(NAMES, found, strict=True)}
    return named | {f"{prefix}_altered": is_altered(found, threshold)}


def read(folder: Path) -> pd.DataFrame:
    """The table that the stage `tiles` wrote."""
    return files.read_table(Path(folder) / TABLE)


def apart(table: pd.DataFrame, side: int) -> pd.DataFrame:
    """Those of `table` that share no pixel: from the north-west of each block on, each that meets none before it."""
    chosen = []
    for _, rows in table.groupby("block", sort=False):
        taken = np.empty((0, 2), int)
        for index, *place in rows[["top", "left"]].itertuples():
            if not (np.abs(taken - place) < side).all(1).any():
                taken = np.vstack([taken, place])
                chosen.append(index)
    return table[table.index.isin(chosen)]


def check(table: pd.DataFrame, side: int) -> dict:
    """Audit: pairs of tiles of different roles that share a pixel, which must be none.

    Raises:
        DataError: there is one.
    """
    shared = 0
    for _, rows in table.groupby("scene"):
        top, left, role = (rows[name].to_numpy() for name in ("top", "left", "role"))
        near = (np.abs(top[:, None] - top) < side) & (np.abs(left[:, None] - left) < side)
        shared += int((near & (role[:, None] != role)).sum()) // 2
    if shared:
        raise DataError(f"tiles: {shared} pairs of tiles of two roles share pixels, expected none; run split again")
    return {
        "pairs_of_roles_that_share_pixels": shared,
        "tiles": table["role"].value_counts().to_dict(),
        "tiles_without_overlap": apart(table, side)["role"].value_counts().to_dict(),
    }
