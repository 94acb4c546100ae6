"""Spatial blocks of scenes, their roles, and the windows of tiles that lie wholly within one."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from src.core.stage import files
from src.core.stage.errors import DataError
from src.minerals.data.cube_store import CubeStore
from src.minerals.params import Split

ROLES = ("train", "validation", "test")
TABLE = "blocks.parquet"
COLUMNS = ("scene", "block", "role", "top", "left", "height", "width")


def divide(store: CubeStore, split: Split) -> pd.DataFrame:
    """One row a block: scene, block (from 0), role, and its rectangle in px without the gap.

    A scene is cut into squares of `block_px`, whose edges to other blocks lose half the gap, so that two blocks lie
    `gap_px` apart; the last row and column take what is left over. With `block_px` 0, or where it is no smaller than
    the scene, the scene is one block.

    Raises:
        DataError: fewer than three blocks, so that a role would have none.
    """
    rows = []
    for scene, about in store.scenes.items():
        lines, samples = about["shape"]
        for top, height in _cut(lines, split):
            for left, width in _cut(samples, split):
                rows.append((scene, len(rows), "train", top, left, height, width))
    table = pd.DataFrame(rows, columns=COLUMNS)
    order = np.random.default_rng(split.seed).permutation(len(table))
    test, validation = (max(round(share * len(table)), 1) for share in (split.test, split.validation))
    if len(table) - test - validation < 1:
        cut = "lower `block_px`" if split.block_px else "set `block_px`, which cuts a scene into blocks"
        raise DataError(
            f"{store.folder}: found {len(table)} spatial blocks, expected at least 3, one for each of "
            f"{', '.join(ROLES)}; {cut}, or add scenes"
        )
    table.loc[order[:test], "role"] = "test"
    table.loc[order[test : test + validation], "role"] = "validation"
    return table


def _cut(length: int, split: Split) -> list[tuple[int, int]]:
    """Start and length of each block along one side."""
    count = max(length // split.block_px, 1) if split.block_px else 1
    edges = [number * split.block_px for number in range(count)] + [length]
    half = split.gap_px / 2
    starts = [edges[n] + (int(np.ceil(half)) if n else 0) for n in range(count)]
    ends = [edges[n + 1] - (int(np.floor(half)) if n < count - 1 else 0) for n in range(count)]
    return [(start, end - start) for start, end in zip(starts, ends, strict=True)]


def read(folder: Path, store: CubeStore) -> pd.DataFrame:
    """The table that the stage `split` wrote; raises DataError where it is of other scenes."""
    table = files.read_table(Path(folder) / TABLE)
    if list(dict.fromkeys(table["scene"])) != list(store.scenes):
        raise DataError(f"{folder}/{TABLE}: scenes are not those of {store.folder}; run split again")
    return table


def inside(block) -> tuple[slice, slice]:
    """Lines and samples of a row of the table, as a pair of slices."""
    return slice(block.top, block.top + block.height), slice(block.left, block.left + block.width)


def windows(table: pd.DataFrame, side: int, stride: int) -> Iterator[tuple[int, str, str, int, int]]:
    """Block, scene, role, top and left of every window of `side` px that lies within a block, every `stride` px."""
    for block in table.itertuples():
        for top in range(block.top, block.top + block.height - side + 1, stride):
            for left in range(block.left, block.left + block.width - side + 1, stride):
                yield block.block, block.scene, block.role, top, left
