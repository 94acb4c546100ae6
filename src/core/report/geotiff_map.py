"""A map as GeoTIFF, written row by row."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from src.core.stage import files

BLOCK = 256  # px


def write_map(
    path: Path,
    rows: Iterable[np.ndarray],
    shape: tuple[int, int],
    crs: CRS,
    transform: Affine,
    description: str,
    tags: dict[str, object],
) -> None:
    """Write `shape[0]` rows (shape[1],) of a map, north first, to the GeoTIFF `path`; complete or absent.

    One float32 band, 256 px blocks, DEFLATE, no-data value NaN. Raises StorageError where the file cannot be written;
    errors of `rows` pass through.
    """
    height, width = shape
    rows = iter(rows)
    profile = {"driver": "GTiff", "crs": crs, "transform": transform, "count": 1, "height": height, "width": width}
    profile |= {"dtype": "float32", "nodata": np.nan, "compress": "deflate", "predictor": 3}
    profile |= {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}
    # A file that rasterio cannot write is an OSError.
    with files.complete_file(path) as aside, rasterio.open(aside, "w", **profile) as dataset:
        dataset.set_band_description(1, description)
        dataset.update_tags(**tags)
        for top in range(0, height, BLOCK):
            block = np.stack(list(islice(rows, BLOCK)))
            dataset.write(block, 1, window=Window(0, top, width, len(block)))
