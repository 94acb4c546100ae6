"""Hyperspectral cubes as users have them: ENVI, GeoTIFF with wavelengths, MATLAB.

A cube is opened for reading line by line; what its file says of wavelengths, scale, no data and place is checked
first. What it does not say comes from `data`, and is an error where it is missing there too.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window
from spectral.io import envi
from spectral.utilities.errors import SpyException

from src.core.stage.errors import DataError, StorageError
from src.minerals.data import mat_files, wavelengths
from src.minerals.data.scene_files import Place
from src.minerals.data.wavelengths import Bands

MAX_BYTES = 2**40
ENVI_DTYPES = {"1": "u1", "2": "i2", "3": "i4", "4": "f4", "5": "f8", "12": "u2", "13": "u4", "14": "i8", "15": "u8"}
ENVI_AXES = {"bsq": "bls", "bil": "lbs", "bip": "lsb"}  # order of lines, samples and bands in the data
BLOCK_BYTES = 2**25  # float32, of the lines that are read at once
TYPICAL = 0.001, 1.2  # where the median reflectance of a cube lies
SAMPLED = 10_000  # pixels with data, about, of which that median is taken
UNKNOWN_PLACE = Place("", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))


@dataclass(frozen=True)
class Cube:
    """An opened cube.

    Attributes:
        shape: lines, samples, bands.
        scale: stored number of a reflectance of 1, None where neither file nor params say it.
        nodata: stored number of no data, None where there is none.
        read: (first, last line) -> (L, samples, bands) as stored, bands in the file's order.
    """

    name: str
    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype
    bands: Bands
    place: Place
    scale: float | None
    nodata: float | None
    read: Callable[[int, int], np.ndarray]


def open_cube(path: Path, listed: tuple | None, scale: float | None, nodata: float | None) -> Cube:
    """The cube in `path`.

    Args:
        listed: wavelengths and fwhm from `data.wavelengths`, for a cube that has none.
        scale, nodata: from params, for a cube that does not say them.

    Raises:
        StorageError: a file cannot be read.
        DataError: it is no cube, header and data differ in size, or its wavelengths are missing or wrong.
    """
    openers = {".hdr": _open_envi, ".mat": _open_mat, ".tif": _open_geotiff, ".tiff": _open_geotiff}
    if not path.is_file():
        raise StorageError(f"{path}: no such file; correct `root`")
    if path.suffix.lower() not in openers:
        raise DataError(
            f"{path}: found *{path.suffix}, expected .hdr (the header of ENVI data), .tif or .mat; give that"
        )
    cube = openers[path.suffix.lower()](path, listed)
    if np.prod(cube.shape, dtype=float) * cube.dtype.itemsize > MAX_BYTES:
        raise DataError(f"{path}: found {cube.shape} {cube.dtype}, expected at most {MAX_BYTES} bytes; cut it")
    if cube.dtype.kind not in "iuf":
        raise DataError(f"{path}: found {cube.dtype.name} values, expected integers or floats; export reflectance")
    values = {"scale": cube.scale if cube.scale is not None else scale}
    values["nodata"] = cube.nodata if cube.nodata is not None else nodata
    return Cube(**(vars(cube) | values))


def require_scale(cube: Cube) -> None:
    """Raise DataError where integers are stored and nobody says what a reflectance of 1 is."""
    if cube.scale is None and cube.dtype.kind in "iu":
        raise DataError(
            f"{cube.path}: reflectance scale factor: found {cube.dtype.name} and no scale, expected the stored number "
            "of a reflectance of 1; set `scale` (10000 is usual)"
        )


def lines_at_once(samples: int, bands: int) -> int:
    """Lines of a cube that are read together."""
    return max(BLOCK_BYTES // (4 * samples * bands), 1)


def scaled_blocks(cube: Cube, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """First line and (L, samples, B) float32 reflectance, bands by ascending wavelength, NaN without data.

    The lines `start` to `stop` pass, all of them unless said otherwise.
    """
    lines, stop = lines_at_once(*cube.shape[1:]), cube.shape[0] if stop is None else stop
    for first in range(start, stop, lines):
        stored = cube.read(first, min(first + lines, stop))[..., cube.bands.order]
        values = stored.astype(np.float32)
        if cube.nodata is not None:
            values[stored == cube.nodata] = np.nan
        values[~np.isfinite(values)] = np.nan
        values /= np.float32(cube.scale or 1)
        yield first, values


def bands_with_values(cube: Cube) -> np.ndarray:
    """(B,) bool: bands with a value other than 0 and no data somewhere.

    Raises:
        DataError: there is none; the median of the cube is no reflectance.
    """
    filled, sample = np.zeros(cube.shape[2], bool), []
    for _, values in scaled_blocks(cube):
        finite = np.isfinite(values)
        held = finite & (values != 0)
        filled |= held.any((0, 1))
        known = np.argwhere(held.any(-1))  # a scene may lie in a wide margin without data
        wanted = max(SAMPLED * len(values) // cube.shape[0], 1)
        sample.append(values[tuple(known[:: max(len(known) // wanted, 1)].T)])
    if not filled.any():
        raise DataError(f"{cube.path}: found 0 or no data in every band and pixel; export the cube again")
    usual = np.concatenate(sample)[:, filled & cube.bands.good]
    usual = usual[np.isfinite(usual).all(1)]
    median = float(np.median(usual)) if usual.size else np.nan
    if not TYPICAL[0] <= median <= TYPICAL[1]:
        raise DataError(
            f"{cube.path}: values: found a median of {median:.4g} after division by {cube.scale or 1:g}, expected "
            f"reflectance of 0 to 1. {_advice(median)}"
        )
    return filled


def _advice(median: float) -> str:
    """Most likely reason for a median that is no reflectance."""
    if np.isnan(median):
        return "No pixel has a value in every band: check data ignore value and the list of bad bands"
    if median < TYPICAL[0]:
        return "The scale seems too large: correct `scale`, or the file's reflectance scale factor"
    if median > 100:
        return "Reflectance times 10000 without its scale factor? Set `scale`: 10000; digital numbers need calibration"
    return "Radiance? Correct it for the atmosphere first (to surface reflectance); per cent: set `scale`: 100"


def _bands(path: Path, given: tuple | None, listed: tuple | None, count: int) -> Bands:
    """`given` (centres, fwhm, good, unit) of the file, or else those of `data.wavelengths`."""
    if given is None and listed is None:
        raise DataError(
            f"{path}: wavelength: found none, expected one for each of {count} bands; write them to a CSV file and set "
            "`wavelengths` to it"
        )
    centres, fwhm, good, unit = given or (*listed, None, "")
    return wavelengths.check(str(path), centres, fwhm, good, unit, count)


def _open_envi(path: Path, listed: tuple | None) -> Cube:
    try:
        header = _envi_header(path)
        shape = tuple(int(header[key]) for key in ("lines", "samples", "bands"))
        dtype = np.dtype(ENVI_DTYPES[header["data type"]]).newbyteorder(">" if header["byte order"] == "1" else "<")
        offset = int(header.get("header offset", 0))
    except OSError as error:
        raise StorageError(f"{path}: cannot read: {error.strerror or error}") from error
    except (KeyError, ValueError, SpyException) as error:
        raise DataError(f"{path}: found no complete ENVI header ({error!r}); export the cube again") from error
    data = next((name for name in _data_names(path) if name.is_file()), None)
    if data is None:
        raise StorageError(f"{path}: found no data file beside it, expected {path.stem}.img or like; copy it too")
    if header["byte order"] not in ("0", "1") or min(shape) < 1 or offset < 0:
        order = header["byte order"]
        raise DataError(f"{path}: lines, samples, bands, byte order: found {shape}, {order}; correct them")
    interleave, packed = header.get("interleave", "").lower(), header.get("file compression", "0")
    if interleave not in ENVI_AXES or packed != "0":
        raise DataError(
            f"{path}: interleave, file compression: found {interleave!r}, {packed}, expected bsq, bil or bip, and 0; "
            "export the cube again"
        )
    expected, found = offset + int(np.prod(shape)) * dtype.itemsize, data.stat().st_size
    if found != expected:
        raise DataError(
            f"{data}: found {found} bytes, its header ({shape[0]} lines, {shape[1]} samples, {shape[2]} bands, "
            f"{dtype.name}) says {expected}; copy data and header again"
        )
    scale, nodata = (_number(path, header, key) for key in ("reflectance scale factor", "data ignore value"))
    if scale is not None and not scale > 0:
        raise DataError(f"{path}: reflectance scale factor: found {scale:g}, expected a number above 0; correct it")
    given = None
    if "wavelength" in header:
        unit = header.get("wavelength units", "")
        given = header["wavelength"], header.get("fwhm"), header.get("bbl"), unit
    bands = _bands(path, given, listed, shape[2])
    axes, sizes = ENVI_AXES[interleave], dict(zip("lsb", shape, strict=True))
    memory = np.memmap(data, dtype, "r", offset, tuple(sizes[axis] for axis in axes))
    memory = memory.transpose([axes.index(axis) for axis in "lsb"])
    return Cube(
        path.stem, path, shape, dtype, bands, _envi_place(data), scale, nodata,
        lambda first, last: np.asarray(memory[first:last]),
    )  # fmt: skip


def _envi_header(path: Path) -> dict:
    """Fields of a header in UTF-8 or, as older programs write it, Latin-1; SPy reads a file in UTF-8 alone."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    with TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_text(text, errors="replace", newline="")  # in the encoding of the machine, as SPy opens it
        return envi.read_envi_header(str(copy))


def _number(path: Path, header: dict, key: str) -> float | None:
    """A number of the header, None where it is not there."""
    try:
        return float(header[key]) if key in header else None
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {key}: found {header[key]!r}, expected a number; correct or remove it") from error


def _data_names(header: Path) -> list[Path]:
    """Names that the data of an ENVI header can have: scene.img.hdr has scene.img, scene.hdr one of several."""
    bare = header.with_suffix("")
    return [bare, *(bare.with_name(bare.name + end) for end in (".img", ".dat", ".bil", ".bip", ".bsq", ".raw"))]


@contextmanager
def _without_warning() -> Iterator[None]:
    """Let rasters without a place pass in silence: they are allowed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _envi_place(data: Path) -> Place:
    try:
        with _without_warning(), rasterio.open(data.absolute(), driver="ENVI") as dataset:
            return _place(dataset)
    except RasterioError as error:
        raise DataError(f"{data}: map info: cannot be read ({error}); export the cube again") from error


def _place(dataset: rasterio.DatasetReader) -> Place:
    if dataset.crs is None or dataset.transform.is_identity:
        return UNKNOWN_PLACE
    return Place(dataset.crs.to_string(), tuple(dataset.transform)[:6])


def _open_geotiff(path: Path, listed: tuple | None) -> Cube:
    try:
        with _without_warning():
            dataset = rasterio.open(path.absolute(), driver="GTiff")
    except RasterioError as error:
        raise DataError(f"{path}: found no GeoTIFF ({error.__cause__ or error}); export it again") from error
    scales = set(dataset.scales)
    if len(set(dataset.dtypes)) > 1 or len(scales) > 1 or not min(scales) > 0 or any(dataset.offsets):
        raise DataError(f"{path}: bands: found several dtypes or scales, a scale of 0 or an offset; export it again")
    shape = (dataset.height, dataset.width, dataset.count)
    bands = _bands(path, wavelengths.from_geotiff(dataset), listed, dataset.count)
    scale = None if dataset.scales[0] == 1 else 1 / dataset.scales[0]

    def read(first: int, last: int) -> np.ndarray:
        try:
            return np.moveaxis(dataset.read(window=Window(0, first, dataset.width, last - first)), 0, -1)
        except RasterioError as error:
            raise DataError(f"{path}: lines {first + 1} to {last}: cannot be read ({error}); copy it again") from error

    return Cube(
        path.stem, path, shape, np.dtype(dataset.dtypes[0]), bands, _place(dataset), scale, dataset.nodata, read
    )


def _open_mat(path: Path, listed: tuple | None) -> Cube:
    known = None if listed is None else len(listed[0])
    values, centres, fwhm = mat_files.read(path, known)
    given = None if centres is None else (centres, fwhm, None, "")
    bands = _bands(path, given, listed, values.shape[2])
    return Cube(
        path.stem, path, values.shape, values.dtype, bands, UNKNOWN_PLACE, None, None,
        lambda first, last: mat_files.read(path, known)[0][first:last],
    )  # fmt: skip
