"""Overlapping square windows over a raster, and the one value of each window blended into a map.

The map has one cell per stride, not per pixel. A cell is the weighted mean of the windows that cover it. The weight
of a window falls linearly from its centre to zero at its edge, in both directions, and is integrated over the cell.
This also holds for the last row and column of windows, which are moved inward and match no cell.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from src.core.stage.errors import ParamsError


@dataclass(frozen=True)
class Grid:
    """Windows of `side` px every `stride` px from the raster's north-west corner, and cells of `stride` px.

    `height` and `width` are the raster's, at least `side`. The last row and column of cells may reach past its edge.

    Raises:
        ParamsError: `stride` is not within 1 … `side`: a larger one would leave gaps.
    """

    height: int
    width: int
    side: int
    stride: int

    def __post_init__(self):
        if not 1 <= self.stride <= self.side:
            raise ParamsError(
                f"stride: found {self.stride} px, expected 1 to {self.side} (a window's side); give one of these"
            )

    @cached_property
    def tops(self) -> np.ndarray:
        """First pixel row of each row of windows."""
        return _starts(self.height, self.side, self.stride)

    @cached_property
    def lefts(self) -> np.ndarray:
        """First pixel column of each column of windows."""
        return _starts(self.width, self.side, self.stride)

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of the map."""
        return -(-self.height // self.stride), -(-self.width // self.stride)

    @property
    def reach(self) -> int:
        """The most cells that a window can touch along one axis."""
        return -(-self.side // self.stride) + 1


def chunks(grid: Grid, pixels: int) -> list[slice]:
    """`grid.lefts` in runs whose windows together are at most `pixels` px wide, or of one window."""
    first, runs = 0, []
    for number, left in enumerate(grid.lefts):
        if number > first and left + grid.side - grid.lefts[first] > pixels:
            runs.append(slice(first, number))
            first = number
    return [*runs, slice(first, len(grid.lefts))]


def any_in_cells(mask: np.ndarray, top: int, left: int, cell: int) -> np.ndarray:
    """True for each cell, from (top // cell, left // cell) on, with a True pixel of `mask` (h, w) at (top, left)."""
    rows, columns = (
        np.maximum(np.arange(start // cell, -(-(start + length) // cell)) * cell - start, 0)
        for start, length in zip((top, left), mask.shape, strict=True)
    )
    return np.logical_or.reduceat(np.logical_or.reduceat(mask, rows, axis=0), columns, axis=1)


def overlaps(starts: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """First cell (N,) that each window along one axis touches, and the weights (N, reach) of it and the next cells.

    The weights of one window sum to 1.
    """
    first = starts // grid.stride
    edges = (first[:, None] + np.arange(grid.reach + 1)) * grid.stride - starts[:, None]
    x = np.clip(edges / grid.side, 0, 1)
    integral = np.where(x < 0.5, 2 * x**2, 1 - 2 * (1 - x) ** 2)  # of the triangle of area 1 over 0 … 1
    return first, np.diff(integral, axis=1)


def blend(rows: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], grid: Grid) -> Iterator[np.ndarray]:
    """Rows of windows -> rows of the map, each as soon as no later window touches it.

    Args:
        rows: for each of `grid.tops`: values (N,) of its windows, how much each counts (N,), which is 0
            where it has no value, and (reach, columns) bool: cells from row `top // stride` on that hold data.

    Yields:
        (columns,) float32, NaN where a cell holds no data. Held are `reach` rows of cells.
    """
    height, width = grid.cells
    columns, across = overlaps(grid.lefts, grid)
    columns = columns[:, None] + np.arange(grid.reach)
    first_rows, down = overlaps(grid.tops, grid)
    total, weight = np.zeros((2, grid.reach, width + grid.reach))  # cells past the last one have weight 0
    known = np.zeros((grid.reach, width), bool)
    row = 0
    for (values, counts, data), first, share in zip(rows, first_rows, down, strict=True):
        while row < first:
            yield _mean(total[0, :width], weight[0, :width], known[0])
            for held in (total, weight, known):
                held[:-1] = held[1:]
                held[-1] = 0
            row += 1
        for held, amounts in ((total, np.where(counts > 0, values, 0) * counts), (weight, counts)):
            line = np.zeros(held.shape[1])
            np.add.at(line, columns, across * amounts[:, None])
            held += share[:, None] * line
        known |= data
    for held in range(height - row):
        yield _mean(total[held, :width], weight[held, :width], known[held])


def _mean(total: np.ndarray, weight: np.ndarray, known: np.ndarray) -> np.ndarray:
    mean = np.full(len(known), np.nan)
    return np.divide(total, weight, out=mean, where=known).astype(np.float32)


def _starts(length: int, side: int, stride: int) -> np.ndarray:
    starts = np.arange(0, length - side + 1, stride)
    return starts if starts[-1] + side == length else np.append(starts, length - side)
