"""A growth rate for every place of a large raster: windows read in strips, through the model, blended into a map.

Only the regression head is mapped. Words need a pass of the language model for every token, and answers that cannot be
parsed would leave holes, which blending would hide.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from affine import Affine
from rasterio import DatasetReader
from tqdm import tqdm

from src.core.data import large_raster, raster, sliding_windows
from src.core.data.raster import Header
from src.core.data.sliding_windows import Grid
from src.core.report import geotiff_map

MAX_STRIP_BYTES = 2**28  # of decoded pixels at once, or one window where that is more


class Strip:
    """A run of windows side by side, read as a store is: row n is the window that begins at column `lefts[n]`."""

    def __init__(self, pixels: np.ndarray, valid: np.ndarray, lefts: np.ndarray):
        self.pixels, self.mask, self.lefts = pixels, valid, lefts  # (C, side, w), (side, w), (N,)
        self.side = len(valid)

    def read(self, rows: list[int]) -> np.ndarray:
        """(N, C, side, side) pixels as stored."""
        return np.stack([self.pixels[:, :, left : left + self.side] for left in self.lefts[rows]])

    def valid(self, rows: list[int]) -> np.ndarray:
        """(N, side, side) bool: True where no band is no data."""
        return np.stack([self.mask[:, left : left + self.side] for left in self.lefts[rows]])


Head = Callable[[Strip, np.ndarray], np.ndarray]  # growth rates (n,) of rows (n,) of a strip


def write_growth(header: Header, grid: Grid, head: Head, out: Path, tags: dict[str, object]) -> None:
    """The map of `header`'s raster as GeoTIFF: a cell for every stride of `grid`, NaN where no pixel is valid.

    A window without a valid pixel has no value; the others count by the share of their pixels that are
    valid, since an embedding of few pixels says little. Held are one strip of at most MAX_STRIP_BYTES,
    what GDAL caches (5 % of memory unless GDAL_CACHEMAX says else) and a few rows of the map.

    Raises:
        DataError: pixels cannot be decoded, or a float is NaN or too large.
        StorageError: the map cannot be written.
    """
    with raster.opened(header) as dataset:
        transform = header.transform * Affine.scale(grid.stride)
        rows = sliding_windows.blend(_window_rows(header, dataset, grid, head), grid)
        geotiff_map.write_map(
            out, rows, grid.cells, dataset.crs, transform, "population growth rate, per mille per year", tags
        )


def _window_rows(
    header: Header, dataset: DatasetReader, grid: Grid, head: Head
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Values, valid shares and cells with data of each row of windows, as `sliding_windows.blend` takes them."""
    pixel_bytes = header.bands * grid.side * np.dtype(header.dtype).itemsize  # of one column of a strip
    runs = sliding_windows.chunks(grid, MAX_STRIP_BYTES // pixel_bytes)
    with tqdm(total=len(grid.tops) * len(grid.lefts), desc="map", unit="window") as progress:
        for top in grid.tops:
            values, shares = np.zeros((2, len(grid.lefts)))
            data = np.zeros((grid.reach, grid.cells[1]), bool)
            for run in runs:
                first, lefts = grid.lefts[run][0], grid.lefts[run] - grid.lefts[run][0]
                pixels, valid = large_raster.read_window(header, dataset, top, first, grid.side, lefts[-1] + grid.side)
                found = sliding_windows.any_in_cells(valid, top, first, grid.stride)
                column = first // grid.stride
                data[: found.shape[0], column : column + found.shape[1]] |= found
                counts = np.concatenate([[0], np.cumsum(valid.sum(axis=0))])
                shares[run] = (counts[lefts + grid.side] - counts[lefts]) / grid.side**2
                known = np.flatnonzero(shares[run])
                if len(known):
                    values[run][known] = head(Strip(pixels, valid, lefts), known)
                progress.update(run.stop - run.start)
            yield values, shares, data
