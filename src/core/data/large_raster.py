"""A raster of any size, read window by window."""

from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Interleaving

from src.core.data import raster
from src.core.data.raster import Header
from src.core.stage.errors import DataError

MAX_RASTER_BYTES = 2**42  # decoded; 20000 x 20000 px of 64 int8 bands are 2**35
MAX_BLOCK_BYTES = 2**28  # decoded; GDAL decodes whole blocks, whatever the window


def read_header(path: Path, bands: int) -> Header:
    """The checked header of a large GeoTIFF; no pixel is decoded.

    Raises:
        DataError: as `raster.read_header`; not a GeoTIFF; blocks too large to be read window by window.
    """
    if path.suffix.lower() == ".npy":
        raise DataError(f"{path}: format: found .npy, expected a GeoTIFF, whose CRS the map takes; export it as one")
    header = raster.read_header(path, bands, max_bytes=MAX_RASTER_BYTES)
    with raster.opened(header) as dataset:
        height, width = dataset.block_shapes[0]
        together = bands if dataset.interleaving == Interleaving.pixel else 1
    if height * width * together * np.dtype(header.dtype).itemsize > MAX_BLOCK_BYTES:
        raise DataError(
            f"{path}: blocks: found {height} x {width} px of {together} bands, expected at most "
            f"{MAX_BLOCK_BYTES} bytes, so that memory is bounded; rewrite it with gdal_translate -co TILED=YES"
        )
    return header


def read_window(
    header: Header, dataset: rasterio.DatasetReader, top: int, left: int, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (C, height, width), int8 or float16, and valid (height, width) bool, as tiles are stored.

    (top, left) is counted from the north-west. Raises DataError as `raster.read_crop`, but all pixels may be invalid.
    """
    dtype = np.int8 if header.dtype == "int8" else np.float16
    pixels, valid = np.empty((header.bands, height, width), dtype), np.empty((height, width), bool)
    raster.read_window(header, dataset, top, left, False, pixels, valid)
    return pixels, valid
