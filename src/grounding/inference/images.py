"""Radar image and first guess of a scene of any size, read some rows at a time and made physical.

Whether the numbers are what they are declared to be is told from a thinned image: a single strip may be all sea.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window

from src.core.data.large_raster import MAX_BLOCK_BYTES, MAX_RASTER_BYTES
from src.core.stage.errors import DataError, StorageError
from src.grounding.data import geotiff_pairs, npz_tiles, pairs, units
from src.grounding.data.pairs import Pair
from src.grounding.data.sensors import OPTICAL_BANDS, SAR_BANDS
from src.grounding.data.units import Measured
from src.grounding.params import Data

THIN_PX = 400  # of a thinned image; as large as pictures show it


class Files(NamedTuple):
    """Files of one scene; `optical` holds the first guess, `truth` an optical image to compare with."""

    name: str
    sar: Path
    optical: Path
    truth: Path | None = None


class Image(NamedTuple):
    """Bands of one image as stored, float32, NaN without data: `rows(top, height)`, or all of it `thinned()`."""

    path: Path
    rows: Callable[[int, int], np.ndarray]
    thinned: Callable[[], np.ndarray]


class Opened(NamedTuple):
    """Images of one scene on one grid."""

    pair: Pair
    sar: Image
    optical: Image
    truth: Image | None


class Physical(NamedTuple):
    """Thinned images of a scene in physical units, checked, and what its rows are converted with."""

    sar: Measured
    optical: Measured
    truth: Measured | None
    linear: bool
    clip_db: tuple[float, float]
    scale: float
    offset: float
    fill: np.ndarray  # (4, 1, 1) float32: put where the first guess has no data, as in training


def find(folder: Path, first_guess: Path | None) -> list[Files]:
    """Scenes below a folder, sorted by name.

    GeoTIFF pairs hold the first guess as <scene>_s2.tif, and NPZ tiles under the key opt_v2. With a folder
    `first_guess` it is <scene>.tif or <scene>.npz there, and <scene>_s2.tif is the truth. The truth of an NPZ tile are
    its optical bands, where it has them.

    Raises:
        DataError: no scene, or both formats.
    """
    beside = [first_guess] if first_guess else []
    tiles, rasters = npz_tiles.find(folder, beside), geotiff_pairs.find(folder, beside)
    if bool(tiles) == bool(rasters):
        found = f"{len(tiles)} NPZ tiles and {len(rasters)} GeoTIFF pairs"
        raise DataError(f"{folder}: found {found}, expected scenes of one of the two formats; correct --input-dir")
    if first_guess:
        scenes = {name: (path, first_guess / f"{name}.npz") for name, path in tiles.items()}
        scenes |= {name: (sar, first_guess / f"{name}.tif", truth) for name, (sar, truth) in rasters.items()}
    else:
        scenes = {name: (path, path) for name, path in tiles.items()} | rasters
    return [Files(name, *paths) for name, paths in scenes.items()]


@contextmanager
def opened(files: Files, data: Data, side: int) -> Iterator[Opened]:
    """Open a scene; headers are checked and no pixel of a GeoTIFF is read.

    Raises:
        StorageError: a file is missing.
        DataError: as `geotiff_pairs.open_pair` and `npz_tiles.header`; smaller than a window of `side` px; blocks that
            are too large to be read in strips.
    """
    for path in (files.sar, files.optical):
        if not path.is_file():
            raise StorageError(f"{path}: no such file; correct its name, or leave the scene out")
    with ExitStack() as stack:
        images = _tile(files) if files.sar.suffix.lower() == ".npz" else _rasters(files, data, stack)
        pair = images.pair
        if min(pair.height, pair.width) < side:
            raise DataError(
                f"{files.sar}: size: found {pair.height} x {pair.width} px, the model reads {side} x {side}; use a "
                "larger one"
            )
        yield images


def measured(images: Opened, data: Data, clip_db: tuple[float, float]) -> Physical:
    """Thinned images as `units` makes them physical, with all its checks."""
    sar, optical = data.sar.model_copy(update={"clip_db": list(clip_db)}), data.optical
    offset = optical.offset if images.pair.offset is None else images.pair.offset

    def reflectance(image: Image) -> Measured:
        where, declared = str(image.path), images.pair.offset is not None
        return units.to_reflectance(image.thinned(), optical.scale, offset, where, declared)

    radar = units.to_db(images.sar.thinned(), sar, str(images.sar.path))
    guess, truth = reflectance(images.optical), reflectance(images.truth) if images.truth else None
    fill = guess.values[:, guess.known].mean(axis=1)[:, None, None]
    return Physical(radar, guess, truth, sar.scale == "linear", clip_db, optical.scale, offset, fill)


def radar_db(stored: np.ndarray, physical: Physical) -> tuple[np.ndarray, np.ndarray]:
    """Rows of radar numbers as `units.to_db` converts them, at the lower end where there is no data, and known."""
    known = np.isfinite(stored).all(0) & (stored != 0).any(0)
    if physical.linear:
        known &= (stored > 0).all(0)
    values = np.where(known, stored, 1)
    low, high = physical.clip_db
    db = 10 * np.log10(values) if physical.linear else values
    return np.where(known, db.clip(low, high), low).astype(np.float32), known


def reflectance(stored: np.ndarray, physical: Physical) -> tuple[np.ndarray, np.ndarray]:
    """Rows of optical numbers as `units.to_reflectance` converts them, filled where there is no data, and known."""
    known = np.isfinite(stored).all(0) & (stored != 0).any(0)
    values = ((stored + np.float32(physical.offset)) / np.float32(physical.scale)).clip(0, 1)
    return np.where(known, values, physical.fill).astype(np.float32), known


def thinned(path: Path, numbers: list[int]) -> np.ndarray:
    """Bands of a GeoTIFF thinned to THIN_PX, float32, NaN without data; the same pixels of every raster of one size."""
    # Overviews may be means, and of other pixels.
    with rasterio.open(path.absolute(), driver="GTiff", OVERVIEW_LEVEL="NONE") as dataset:
        step = -(-max(dataset.shape) // THIN_PX)
        shape = len(numbers), *(-(-side // step) for side in dataset.shape)
        values, masks = (read(numbers, out_shape=shape) for read in (dataset.read, dataset.read_masks))
    return _nan_without_data(values, masks)


def _rasters(files: Files, data: Data, stack: ExitStack) -> Opened:
    sar_names, names = data.sar.bands, data.optical.bands
    truth, guess_names = None, names
    if files.truth:  # then the names are those of its bands, and the first guess may have fewer
        truth = _raster(files.truth, OPTICAL_BANDS, names, "data.optical.bands", stack)
        with geotiff_pairs.opened(files.optical) as dataset:
            guess_names = names if dataset.count == len(names or ()) else None
    pair = geotiff_pairs.open_pair(files.name, files.sar, files.optical, sar_names, guess_names, MAX_RASTER_BYTES)
    if files.truth:
        with geotiff_pairs.opened(files.truth) as dataset:
            geotiff_pairs.check_grid(dataset, pair, files.truth)
    sar = _raster(files.sar, SAR_BANDS, sar_names, "data.sar.bands", stack)
    guess = _raster(files.optical, OPTICAL_BANDS, guess_names, "data.optical.bands", stack)
    return Opened(pair, sar, guess, truth)


def _raster(path: Path, wanted: tuple[str, ...], names: list[str] | None, key: str, stack: ExitStack) -> Image:
    dataset = stack.enter_context(geotiff_pairs.opened(path))
    numbers = geotiff_pairs.find_bands(dataset, wanted, names, key, path)
    height, width = dataset.block_shapes[0]
    together = dataset.count if dataset.profile.get("interleave") == "pixel" else 1
    if height * width * together * np.dtype(dataset.dtypes[0]).itemsize > MAX_BLOCK_BYTES:
        raise DataError(
            f"{path}: blocks: found {height} x {width} px of {together} bands, expected at most {MAX_BLOCK_BYTES} "
            "bytes, so that memory is bounded; rewrite it with gdal_translate -co TILED=YES"
        )

    def rows(top: int, height: int) -> np.ndarray:
        with _pixels_named(path):
            window = Window(0, top, dataset.width, height)
            return _nan_without_data(dataset.read(numbers, window=window), dataset.read_masks(numbers, window=window))

    def whole() -> np.ndarray:
        with _pixels_named(path):
            return thinned(path, numbers)

    return Image(path, rows, whole)


def _tile(files: Files) -> Opened:
    """Images of an NPZ tile, which are in memory."""
    sidecar = files.sar.with_suffix(".json")
    declared = pairs.read_sidecar(sidecar)
    place, offset = npz_tiles.place(declared, sidecar), pairs.offset_given(declared, sidecar)
    shape = npz_tiles.header(files.sar, npz_tiles.SAR_KEYS[0])
    expected = [(files.sar, key, shape[-2:]) for key in npz_tiles.SAR_KEYS]
    expected.append((files.optical, npz_tiles.FIRST_GUESS_KEY, (len(OPTICAL_BANDS), *shape)))
    for path, key, wanted in expected:
        if (found := npz_tiles.header(path, key)) != wanted:
            raise DataError(f"{path}: {key}: found shape {found}, expected {wanted}, (H, W) of one grid; save it so")
    sar = npz_tiles.read(files.sar, npz_tiles.SAR_KEYS)
    guess, truth = npz_tiles.read_array(files.optical, npz_tiles.FIRST_GUESS_KEY), None
    with suppress(DataError):  # bands that are not there, or not sound: there is no truth
        truth = npz_tiles.open_tile(files.sar) and npz_tiles.read(files.sar, npz_tiles.OPTICAL_KEYS)
    images = _array(files.sar, sar), _array(files.optical, guess), None if truth is None else _array(files.sar, truth)
    return Opened(Pair(files.name, files.sar, files.optical, *shape, *place, offset=offset), *images)


def _array(path: Path, values: np.ndarray) -> Image:
    # Written as GDAL thins, so that pictures of the result show the same pixels.
    step = -(-max(values.shape[1:]) // THIN_PX)
    places = [((np.arange(-(-side // step)) + 0.5) * side / -(-side // step)).astype(int) for side in values.shape[1:]]
    return Image(
        path, lambda top, height: values[:, top : top + height], lambda: values[:, places[0][:, None], places[1]]
    )


def _nan_without_data(values: np.ndarray, masks: np.ndarray) -> np.ndarray:
    values = values.astype(np.float32)
    values[(masks == 0) | ~np.isfinite(values)] = np.nan
    return values


@contextmanager
def _pixels_named(path: Path) -> Iterator[None]:
    try:
        yield
    except RasterioError as error:
        raise DataError(
            f"{path}: pixels: found {error.__cause__ or error}, expected data; copy or export it again"
        ) from error
