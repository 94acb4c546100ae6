"""Spatial blocks of scenes, their roles, and the windows of tiles that lie wholly within one."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd

from src.core.evaluation.jackknife import MINIMUM_UNITS
from src.core.stage import files
from src.core.stage.errors import DataError
from src.minerals.data.cube_store import CubeStore
from src.minerals.params import Split

ROLES = ("train", "validation", "test")
TABLE = "blocks.parquet"
SMALLEST_TILE = 32  # px, as tiles.tile_px is checked
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
    test, validation = _held_out(len(table), split)
    if len(table) - test - validation < 1:
        shapes = [tuple(about["shape"]) for about in store.scenes.values()]
        raise DataError(_too_few(store.folder, len(table), shapes, split))
    table.loc[order[:test], "role"] = "test"
    table.loc[order[test : test + validation], "role"] = "validation"
    return table


def _held_out(number: int, split: Split) -> tuple[int, int]:
    """Blocks of test and of validation among `number`."""
    test, validation = (max(round(share * number), 1) for share in (split.test, split.validation))
    return test, validation


def _too_few(folder: Path, found: int, shapes: list[tuple[int, int]], split: Split) -> str:
    """Message about too few blocks: sizes of the scenes, and the largest blocks of which there would be enough."""
    needed = next(number for number in count(3) if sum(_held_out(number, split)) < number)
    sizes = ", ".join(f"{lines} x {samples}" for lines, samples in list(dict.fromkeys(shapes))[:3])
    more = ", ..." if len(set(shapes)) > 3 else ""
    say = (
        f"{folder}: found {found} spatial block{'s' if found > 1 else ''} in {len(shapes)} "
        f"scene{'s' if len(shapes) > 1 else ''} of {sizes}{more} px (lines x samples), expected at least {needed}, so "
        f"that {', '.join(ROLES)} have one each"
    )
    if (enough := largest(shapes, needed, split.gap_px)) is None:
        smallest = f"blocks of {2 * SMALLEST_TILE} px, the smallest, are too few as well"
        return f"{say}; {smallest}: add scenes, or take a larger one"
    return f"{say}; {advice(enough)} would do, or add scenes" + _interval(shapes, split, enough)


def _interval(shapes: list[tuple[int, int]], split: Split, enough: tuple[int, int, int]) -> str:
    """Sentence on the blocks that give scores an interval, where they are smaller than those of `enough`."""
    found = largest(shapes, int(np.ceil((MINIMUM_UNITS - 0.5) / split.test)), split.gap_px)
    if found == enough:
        return ""
    if found is None:
        return f". Scores have no interval with fewer than {MINIMUM_UNITS} test blocks, and these scenes are too small"
    return f". Scores have an interval from {MINIMUM_UNITS} test blocks on: {advice(found)}"


def largest(shapes: list[tuple[int, int]], needed: int, gap: int) -> tuple[int, int, int] | None:
    """The largest `block_px` with which scenes give `needed` blocks, a gap for it, and the largest tile that then fits.

    The gap is `gap`, or half a block where that is smaller, as a multiple of 16. None where no tile of `SMALLEST_TILE`
    fits.
    """
    narrowest = min(map(min, shapes))
    for block in range(max(map(max, shapes)), 2 * SMALLEST_TILE - 1, -1):
        if sum(max(lines // block, 1) * max(samples // block, 1) for lines, samples in shapes) >= needed:
            between = gap if SMALLEST_TILE <= gap <= block // 2 else block // 2 // 16 * 16
            return (block, between, min(between, narrowest)) if narrowest >= SMALLEST_TILE else None
    return None


def advice(found: tuple[int, int, int]) -> str:
    """Keys and values of what `largest` found."""
    return "`block_px` {}, `gap_px` {} and `tile_px` of at most {}".format(*found)


def _cut(length: int, split: Split) -> list[tuple[int, int]]:
    """Start and length of each block along one side."""
    blocks = max(length // split.block_px, 1) if split.block_px else 1
    edges = [number * split.block_px for number in range(blocks)] + [length]
    half = split.gap_px / 2
    starts = [edges[n] + (int(np.ceil(half)) if n else 0) for n in range(blocks)]
    ends = [edges[n + 1] - (int(np.floor(half)) if n < blocks - 1 else 0) for n in range(blocks)]
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
