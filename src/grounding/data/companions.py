"""Files that may lie beside the pairs: cloud masks, and first guesses that another method made."""

from pathlib import Path

import numpy as np
from rasterio.errors import RasterioError

from src.core.stage.errors import DataError, StorageError
from src.grounding.data import geotiff_pairs, npz_tiles
from src.grounding.data.pairs import Pair
from src.grounding.data.sensors import OPTICAL_BANDS


def read_cloud_mask(folder: Path, pair: Pair) -> np.ndarray:
    """(H, W) bool, True where <scene>.tif is 1 (cloud or shadow) or has no data.

    Raises:
        StorageError: the file is missing.
        DataError: another grid, or values other than 0 and 1.
    """
    path = folder / f"{pair.name}.tif"
    if not path.is_file():
        raise StorageError(f"{path}: no such file; add it (all 0 where it is clear), or correct `cloud_mask`")
    with geotiff_pairs.opened(path) as dataset:
        geotiff_pairs.check_grid(dataset, pair, path)
        try:
            values, known = dataset.read(1), dataset.dataset_mask() > 0
        except RasterioError as error:
            raise DataError(
                f"{path}: pixels: found {error.__cause__ or error}, expected data; copy it again"
            ) from error
    if strange := sorted(set(np.unique(values[known]).tolist()) - {0, 1}):
        raise DataError(
            f"{path}: pixels: found the value {strange[0]:g}, expected 0 (clear) and 1 (cloud or shadow); write the "
            "classes that hide the ground as 1"
        )
    return ~known | (values == 1)


def read_first_guess(folder: Path, pair: Pair, names: list[str] | None) -> np.ndarray:
    """(4, H, W) float32 numbers of the first guess, NaN without data, from <scene>.npz (opt_v2) or <scene>.tif.

    Args:
        names: declared names of the bands of a GeoTIFF, None where it names them.

    Raises:
        StorageError: there is neither file. The truth never takes its place.
        DataError: another shape or grid; a band or the key is missing.
    """
    tile, raster = folder / f"{pair.name}.npz", folder / f"{pair.name}.tif"
    shape = (len(OPTICAL_BANDS), pair.height, pair.width)
    if tile.is_file():
        found = npz_tiles.header(tile, npz_tiles.FIRST_GUESS_KEY)
        if found != shape:
            raise DataError(
                f"{tile}: {npz_tiles.FIRST_GUESS_KEY}: found shape {found}, expected {shape}: blue, green, red, near "
                "infrared; save it so"
            )
        return npz_tiles.read_array(tile, npz_tiles.FIRST_GUESS_KEY)
    if not raster.is_file():
        raise StorageError(
            f"{tile}: {npz_tiles.FIRST_GUESS_KEY}: found no such file, nor {raster.name}, expected the first guess of "
            "this scene; make it, leave the scene out, or set `first_guess`: degrade, which makes all of them from the "
            "truth and says so"
        )
    with geotiff_pairs.opened(raster) as dataset:
        geotiff_pairs.check_grid(dataset, pair, raster)
        names = names if dataset.count == len(names or ()) else None  # a first guess may have fewer bands
    return geotiff_pairs.read_bands(raster, OPTICAL_BANDS, names, "data.optical.bands")
