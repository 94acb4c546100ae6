"""Windows that cover a raster, and their values blended as a per-pixel mean would."""

import numpy as np
import pytest

from src.core.data import sliding_windows
from src.core.data.sliding_windows import Grid
from src.core.stage.errors import ParamsError

# (height, width, side, stride): aligned, moved inward, strides that divide nothing, no overlap, one window.
GRIDS = [(24, 32, 8, 4), (27, 33, 8, 4), (23, 26, 9, 4), (25, 31, 8, 3), (19, 21, 8, 8), (21, 18, 8, 7), (8, 8, 8, 4)]


def per_pixel(grid, values, counts, valid):
    """The same map from a weight for every pixel: the area under the triangle over each, all in memory."""
    offsets = np.arange(grid.side + 1) / grid.side
    steps = np.diff([2 * x * x if x <= 0.5 else 1 - 2 * (1 - x) ** 2 for x in offsets])
    total, weight = np.zeros((2, grid.height, grid.width))
    for row, top in enumerate(grid.tops):
        for column, left in enumerate(grid.lefts):
            window = np.s_[top : top + grid.side, left : left + grid.side]
            share = counts[row, column] * np.outer(steps, steps)
            weight[window] += share
            total[window] += share * (values[row, column] if counts[row, column] else 0)
    result = np.full(grid.cells, np.nan)
    for row in range(grid.cells[0]):
        for column in range(grid.cells[1]):
            cell = np.s_[row * grid.stride : (row + 1) * grid.stride, column * grid.stride : (column + 1) * grid.stride]
            if valid[cell].any():
                result[row, column] = total[cell].sum() / weight[cell].sum()
    return result


def rows_of(grid, values, counts, valid):
    """Arguments of `blend`, from arrays of the whole raster."""
    for row, top in enumerate(grid.tops):
        data = np.zeros((grid.reach, grid.cells[1]), bool)
        found = sliding_windows.any_in_cells(valid[top : top + grid.side], top, 0, grid.stride)
        data[: len(found)] = found
        yield values[row], counts[row], data


@pytest.mark.parametrize("shape", GRIDS, ids=str)
def test_windows_cover_every_pixel_and_stay_inside(shape):
    grid = Grid(*shape)
    covered = np.zeros(shape[:2], int)
    for top in grid.tops:
        for left in grid.lefts:
            window = covered[top : top + grid.side, left : left + grid.side]
            assert window.shape == (grid.side, grid.side)
            window += 1
    assert covered.min() >= 1
    assert (np.diff(grid.tops) > 0).all() and (np.diff(grid.tops) <= grid.stride).all()


@pytest.mark.parametrize("shape", GRIDS, ids=str)
def test_blend_is_the_mean_over_pixels(shape):
    grid = Grid(*shape)
    rng = np.random.default_rng(0)
    counts = rng.random((len(grid.tops), len(grid.lefts)))
    values = rng.normal(size=counts.shape)
    valid = np.ones(shape[:2], bool)
    found = np.stack(list(sliding_windows.blend(rows_of(grid, values, counts, valid), grid)))
    assert found.shape == grid.cells and found.dtype == np.float32
    np.testing.assert_allclose(found, per_pixel(grid, values, counts, valid), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", GRIDS, ids=str)
def test_cells_and_windows_without_data(shape):
    """A hole that leaves windows without a value, whose NaN must reach no neighbour."""
    grid = Grid(*shape)
    valid = np.ones(shape[:2], bool)
    valid[: grid.side + grid.stride, 2 : 2 + grid.side + grid.stride] = False
    counts = np.array([[valid[t : t + grid.side, x : x + grid.side].mean() for x in grid.lefts] for t in grid.tops])
    values = np.where(counts > 0, np.random.default_rng(1).normal(size=counts.shape), np.nan)
    expected = per_pixel(grid, values, counts, valid)
    found = np.stack(list(sliding_windows.blend(rows_of(grid, values, counts, valid), grid)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert np.isfinite(found).any()
    if shape == GRIDS[0]:
        assert np.isnan(found).sum() == 3 * 2 and (counts == 0).any(), "pixels 0 to 12 by 2 to 14, cells of 4"


def test_half_overlap_has_no_seam():
    """A ramp of values stays a ramp: interpolation between centres, not steps at window edges."""
    grid = Grid(8, 80, 8, 2)
    values = np.arange(len(grid.lefts), dtype=float)[None]
    (row,) = {
        tuple(row) for row in sliding_windows.blend(rows_of(grid, values, np.ones_like(values), np.ones((8, 80))), grid)
    }
    inner = np.diff(row)[3:-3]
    np.testing.assert_allclose(inner, 1, atol=1e-5)


def test_weights_of_a_window_fall_towards_its_edge():
    first, weights = sliding_windows.overlaps(np.array([0, 3]), Grid(20, 20, 8, 2))
    assert first.tolist() == [0, 1]
    np.testing.assert_allclose(
        weights, [[2 / 16, 6 / 16, 6 / 16, 2 / 16, 0], [1 / 32, 8 / 32, 14 / 32, 8 / 32, 1 / 32]]
    )


def test_rows_come_as_soon_as_they_are_known():
    """At most `reach` rows of the map are held, whatever the raster's height."""
    grid = Grid(400, 8, 8, 4)
    taken = 0

    def source():
        nonlocal taken
        for row in rows_of(grid, *np.ones((2, len(grid.tops), 1)), np.ones((400, 8), bool)):
            taken += 1
            yield row

    for number, _ in enumerate(sliding_windows.blend(source(), grid)):
        assert taken <= number + 2


@pytest.mark.parametrize("pixels", [1, 8, 13, 20, 1000])
def test_chunks_hold_every_window_once_and_keep_their_width(pixels):
    grid = Grid(8, 43, 8, 4)
    runs = sliding_windows.chunks(grid, pixels)
    assert np.concatenate([grid.lefts[run] for run in runs]).tolist() == grid.lefts.tolist()
    for run in runs:
        lefts = grid.lefts[run]
        assert len(lefts) == 1 or lefts[-1] + 8 - lefts[0] <= pixels
    expected = {1: 10, 8: 10, 13: 5, 20: 3, 1000: 1}  # windows at 0, 4 … 32, 35: 10 of them
    assert len(runs) == expected[pixels]


def test_any_in_cells_sees_a_single_pixel_in_its_cell():
    mask = np.zeros((8, 9), bool)
    mask[3, 6] = True  # pixel (9, 11) of the raster: cell (2, 2) of 4 px
    found = sliding_windows.any_in_cells(mask, 6, 5, 4)
    expected = np.zeros((3, 3), bool)  # cell rows 1 to 3, columns 1 to 3
    expected[1, 1] = True
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("stride", [0, 9, -1])
def test_a_stride_beyond_the_window_is_refused(stride):
    with pytest.raises(ParamsError, match=rf"stride: found {stride} px, expected 1 to 8"):
        Grid(20, 20, 8, stride)
