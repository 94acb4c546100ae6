"""Tiles from disk: the header is checked before any pixel is decoded, then the crop is read in one window.

GeoTIFF is opened with the GTiff driver alone (a VRT named .tif may point anywhere); `.npy` may have a sidecar
`<file>.npy.json`, see `npy.read_sidecar`. Arrays are (C, H, W), row 0 north.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from pyproj import Transformer
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.windows import Window

from src.core.data import npy
from src.core.data.crop import centre_origin
from src.core.data.quantisation import NODATA, Quantisation, declared
from src.core.geo.distances import geodesic_km
from src.core.stage.errors import DataError

MAX_TILE_BYTES = 2**30  # decoded; a header may claim anything, and one tile must fit into one shard
MIN_SIDE = 2
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
DTYPES = ("int8", "float16", "float32")
Source = rasterio.DatasetReader | np.ndarray


@dataclass(frozen=True)
class Header:
    """Header of one tile; `name` is the tile's name in error messages.

    `transform` is north-up; `flipped` is True if the rows of the file run from south to north.
    `crs` and `transform` are None, and `lat`, `lon` may be NaN, for `.npy` alone.
    """

    path: Path
    name: str
    bands: int
    height: int
    width: int
    dtype: str
    crs: str | None
    transform: Affine | None
    flipped: bool
    nodata: float | None
    quantisation: Quantisation | None
    band_names: tuple[str, ...] | None
    lat: float = math.nan
    lon: float = math.nan

    @property
    def pixel_size(self) -> tuple[float, float]:
        """Width and height of a pixel in CRS units, NaN without coordinates."""
        return (self.transform.a, -self.transform.e) if self.transform else (math.nan, math.nan)


def read_header(path: Path, bands: int, name: str | None = None, max_bytes: int = MAX_TILE_BYTES) -> Header:
    """The checked header of one `.tif`, `.tiff` or `.npy` tile of at most `max_bytes` decoded; no pixel is decoded.

    Raises:
        DataError: not such a file, or truncated; another number of bands than `bands`; a dtype other
            than int8, float16 or float32; sides or bytes out of range; no usable georeference in a
            GeoTIFF; an int8 no-data value other than -128; malformed quantisation tags.
    """
    read = _npy_header if path.suffix.lower() == ".npy" else _geotiff_header
    header = read(path, name or str(path), max_bytes)
    name = header.name
    if header.bands != bands:
        raise _unexpected(name, "bands", header.bands, bands, "export all bands or set `bands`")
    if header.dtype not in DTYPES:
        raise _unexpected(name, "dtype", header.dtype, " or ".join(DTYPES), "export it as one of these")
    if min(header.height, header.width) < MIN_SIDE:
        found = f"{header.height} x {header.width} px"
        raise _unexpected(name, "size", found, f"at least {MIN_SIDE} px a side", "export a larger tile")
    if header.dtype == "int8" and header.nodata not in (None, NODATA):
        raise _unexpected(name, "nodata", header.nodata, f"{NODATA} for int8", f"rewrite it with {NODATA}")
    return header


def footprint(header: Header, size: int) -> tuple[float, float, float]:
    """Latitude and longitude (WGS 84 degrees) of the centre of the `size` px centre crop, and half its diagonal in km.

    NaN where unknown. Raises DataError if the coordinates do not lie on Earth.
    """
    if header.transform is None:
        return header.lat, header.lon, math.nan
    top, left = centre_origin(header.height, header.width, size, size)
    columns = left + size * np.array([0.5, 0.0, 1.0, 0.0, 1.0])
    rows = top + size * np.array([0.5, 0.0, 0.0, 1.0, 1.0])
    x = header.transform.c + header.transform.a * columns
    y = header.transform.f + header.transform.e * rows
    try:
        lon, lat = _to_wgs84(header.crs).transform(x, y, errcheck=True)
        on_earth = bool((np.abs(lat) <= 90).all() and (np.abs(lon) <= 540).all())
    except ProjError:
        on_earth = False
    if not on_earth:
        found = f"a centre at x {x[0]:g}, y {y[0]:g} in {header.crs}"
        raise _unexpected(header.name, "transform", found, "a place on Earth", "export it with its true CRS")
    to_corners = geodesic_km(np.full(4, lat[0]), np.full(4, lon[0]), lat[1:], lon[1:])
    return float(lat[0]), float((lon[0] + 180) % 360 - 180), float(to_corners.max())


def read_crop(header: Header, size: int, nan_is_nodata: bool, pixels: np.ndarray, valid: np.ndarray) -> None:
    """Decode the north-up centre crop of `size` px into `pixels` (C, size, size) and `valid` (size, size) bool.

    An int8 tile gives int8 pixels, invalid where any band is -128. A float tile gives float16 pixels, invalid (and
    stored as 0) where any band is no data, or NaN with `nan_is_nodata` or a no-data value of NaN.

    Raises:
        DataError: the pixels cannot be decoded, none is valid, a float is NaN (without
            `nan_is_nodata`) or outside the range of float16.
    """
    top, left = centre_origin(header.height, header.width, size, size)
    with opened(header) as source:
        read_window(header, source, top, left, nan_is_nodata, pixels, valid)
    if not valid.any():
        raise _unexpected(header.name, "pixels", "nothing but no data", "a valid pixel", "remove the tile")


def read_window(
    header: Header, source: Source, top: int, left: int, nan_is_nodata: bool, pixels: np.ndarray, valid: np.ndarray
) -> None:
    """Decode the window whose first pixel is (top, left) of the north-up raster, as `read_crop` does the centre."""
    height, width = valid.shape
    if header.flipped:
        top = header.height - height - top
    values = pixels if header.dtype == "int8" else np.empty(pixels.shape, header.dtype)
    if isinstance(source, np.ndarray):
        np.copyto(values, source[:, top : top + height, left : left + width])
    else:
        try:
            source.read(out=values, window=Window(left, top, width, height))
        except RasterioError as error:
            raise _unexpected(header.name, "pixels", _reason(error), "data", "copy or export it again") from error
    if header.flipped:
        values[:] = values[:, ::-1].copy()
    if header.dtype == "int8":
        np.greater(pixels.min(axis=0), NODATA, out=valid)
    else:
        _store_floats(header, values, nan_is_nodata, pixels, valid)


def opened(header: Header) -> AbstractContextManager[Source]:
    """Source for `read_window`; while a GeoTIFF is open, GDAL keeps decoded blocks, which windows may share."""
    if header.path.suffix.lower() == ".npy":
        return nullcontext(np.load(header.path, mmap_mode="r"))
    try:
        return _open(header.path, num_threads=THREADS)
    except RasterioError as error:
        raise _unexpected(header.name, "pixels", _reason(error), "data", "copy or export it again") from error


def _store_floats(
    header: Header, values: np.ndarray, nan_is_nodata: bool, pixels: np.ndarray, valid: np.ndarray
) -> None:
    """Convert `values` (C, h, w), which are overwritten, as `read_crop` says."""
    missing = np.isnan(values).any(axis=0)
    nan_declared = header.nodata is not None and math.isnan(header.nodata)
    if missing.any() and not (nan_is_nodata or nan_declared):
        found = f"NaN in {int(missing.sum())} of {valid.size}"
        fix = "if they mean no data, say so (gdal_edit -a_nodata nan or `nan_is_nodata`: true), or fill them"
        raise _unexpected(header.name, "pixels", found, "numbers", fix)
    if header.nodata is not None:
        missing |= (values == header.nodata).any(axis=0)
    np.logical_not(missing, out=valid)
    if missing.any():
        values[:, missing] = 0
    largest = max(float(values.max()), -float(values.min()))
    if largest > float(np.finfo(np.float16).max):
        found = f"a value of magnitude {largest:g}"
        raise _unexpected(header.name, "pixels", found, "at most 65504 (float16)", "rescale the tile")
    # numpy converts to float16 one value at a time and without the GIL; it takes as long as decoding.
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(np.copyto, pixels, values))


def _geotiff_header(path: Path, name: str, max_bytes: int) -> Header:
    try:
        with _open(path) as dataset:
            if len(set(dataset.dtypes)) > 1:
                found = ", ".join(sorted(set(dataset.dtypes)))
                raise _unexpected(name, "dtype", found, "one for all bands", "export it again")
            shape = (dataset.count, dataset.height, dataset.width)
            _check_bytes(name, shape, dataset.dtypes[0], max_bytes)
            _check_blocks(dataset, path, name)
            position = _georeference(dataset.crs, dataset.transform, dataset.height, name)
            meaning = dataset.nodata, declared(dataset.tags(), name)
            names = dataset.descriptions if all(dataset.descriptions) else None
            return Header(path, name, *shape, dataset.dtypes[0], *position, *meaning, names)
    except RasterioError as error:
        raise _unexpected(name, "format", _reason(error), "a GeoTIFF", "export it again as GeoTIFF") from error


def _npy_header(path: Path, name: str, max_bytes: int) -> Header:
    _, shape, _, dtype = npy.read_array_header(path, name)
    if len(shape) != 3 or min(shape) < 1:
        raise _unexpected(name, "shape", shape, "(bands, height, width)", "save it in that order")
    _check_bytes(name, shape, dtype.name, max_bytes)
    where = f"{name}.json"
    sidecar = npy.read_sidecar(path, where)
    position = (None, None, False)
    if "crs" in sidecar:
        position = _georeference(sidecar["crs"], Affine(*sidecar["transform"]), shape[1], where)
    meaning = sidecar.get("nodata"), declared(sidecar, where)
    centre = sidecar.get("lat", math.nan), sidecar.get("lon", math.nan)
    return Header(path, name, *shape, dtype.name, *position, *meaning, None, *centre)


def _georeference(crs: CRS | str | None, transform: Affine, height: int, where: str) -> tuple[str, Affine, bool]:
    try:
        text = CRS.from_user_input(crs).to_string() if crs else ""
        _to_wgs84(text)
    except (CRSError, ProjError) as error:
        found = f"{crs!s:.80}"
        raise _unexpected(where, "crs", found, "one such as EPSG:32650", "use gdal_edit -a_srs") from error
    a, b, c, d, e, f = transform[:6]
    if transform == Affine.identity() or b or d or a <= 0 or e == 0:
        expected = "north-up pixels (a > 0, b = d = 0, e < 0)"
        raise _unexpected(where, "transform", tuple(transform[:6]), expected, "warp the tile")
    return (text, Affine(a, b, c, d, -e, f + e * height), True) if e > 0 else (text, transform, False)


@cache
def _to_wgs84(crs: str) -> Transformer:
    return Transformer.from_crs(crs, "EPSG:4326", always_xy=True)


def _check_bytes(name: str, shape: tuple[int, int, int], dtype: str, max_bytes: int) -> None:
    if math.prod(shape) * np.dtype(dtype).itemsize > max_bytes:
        claimed = f"{' x '.join(map(str, shape))} {dtype}"
        raise _unexpected(name, "size", claimed, f"at most {max_bytes} bytes", "cut it into smaller tiles")


def _check_blocks(dataset: rasterio.DatasetReader, path: Path, name: str) -> None:
    """Compare the end of the last block with the file's size: a truncated GeoTIFF often has a complete header."""
    block_height, block_width = dataset.block_shapes[0]
    across, down = -(-dataset.width // block_width), -(-dataset.height // block_height)
    bands = [1] if dataset.interleaving == rasterio.enums.Interleaving.pixel else dataset.indexes
    end = 0
    for band in bands:
        for row, column in np.ndindex(down, across):
            offset = dataset.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", dm="TIFF", bidx=band)
            length = dataset.get_tag_item(f"BLOCK_SIZE_{column}_{row}", dm="TIFF", bidx=band)
            if offset and length:  # absent for a block of nothing but no data
                end = max(end, int(offset) + int(length))
    if end > (found := path.stat().st_size):
        raise _unexpected(name, "bytes", found, f"{end} as its header says (truncated)", "copy it again")


def _open(path: Path, **options: Any) -> rasterio.DatasetReader:
    # EMPTY_DIR: no .aux.xml, .ovr or .msk beside the tile is opened.
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        return rasterio.open(path.absolute(), driver="GTiff", **options)


def _unexpected(where: str, field: str, found: object, expected: object, fix: str) -> DataError:
    return DataError(f"{where}: {field}: found {found}, expected {expected}; {fix}")


def _reason(error: Exception) -> str:
    """GDAL's own error message; rasterio's often only says "see previous exception"."""
    return str(error.__cause__ or error)
