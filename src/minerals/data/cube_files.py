"""Hyperspectral cubes as users have them: ENVI, GeoTIFF with wavelengths, MATLAB.

A cube is opened for reading line by line; what its file says of wavelengths, scale, no data and place is checked
first. What it does not say comes from `data`, and is an error where it is missing there too.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
BLOCK_BYTES = 2**25  # float32, of the lines that are read at once
TYPICAL = 0.001, 1.2  # where the median reflectance of a cube lies
SAMPLED = 100_000  # pixels, about, of which that median is taken
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


def find(root: Path) -> list[Path]:
    """The cubes directly below `root`, sorted by name; a single cube is its own root.

    Raises:
        StorageError: there is no such folder or file.
        DataError: no cube is there, or two would have one name.
    """
    root = Path(root)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise StorageError(f"{root}: no such folder; correct `root`")
    paths = sorted(path for path in root.iterdir() if path.suffix.lower() in (".hdr", ".tif", ".tiff", ".mat"))
    if not paths:
        raise DataError(f"{root}: found no cube, expected *.hdr (ENVI), *.tif or *.mat; correct `root`")
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{root}: found two cubes named {twice}, expected one; rename or remove one")
    return paths


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


def scaled_blocks(cube: Cube) -> Iterator[tuple[int, np.ndarray]]:
    """First line and (L, samples, B) float32 reflectance, bands by ascending wavelength, NaN without data."""
    lines = lines_at_once(*cube.shape[1:])
    for first in range(0, cube.shape[0], lines):
        stored = cube.read(first, min(first + lines, cube.shape[0]))[..., cube.bands.order]
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
    step = max(8, int(np.sqrt(cube.shape[0] * cube.shape[1] / SAMPLED)))
    for _, values in scaled_blocks(cube):
        filled |= (np.nan_to_num(values) != 0).any((0, 1))
        sample.append(values[::step, ::step].reshape(-1, cube.shape[2]))
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
        header = envi.read_envi_header(str(path))
        shape = tuple(int(header[key]) for key in ("lines", "samples", "bands"))
        dtype = np.dtype(ENVI_DTYPES[header["data type"]]).newbyteorder(">" if header["byte order"] == "1" else "<")
        offset = int(header.get("header offset", 0))
    except OSError as error:
        raise StorageError(f"{path}: cannot read: {error.strerror or error}") from error
    except (KeyError, ValueError, UnicodeDecodeError, SpyException) as error:
        raise DataError(f"{path}: found no complete ENVI header ({error!r}); export the cube again") from error
    data = next((name for name in _data_names(path) if name.is_file()), None)
    if data is None:
        raise StorageError(f"{path}: found no data file beside it, expected {path.stem}.img or like; copy it too")
    if header["byte order"] not in ("0", "1") or min(shape) < 1 or offset < 0:
        raise DataError(
            f"{path}: lines, samples, bands, byte order: found {shape}, {header['byte order']}; correct them"
        )
    expected, found = offset + int(np.prod(shape)) * dtype.itemsize, data.stat().st_size
    if found != expected:
        raise DataError(
            f"{data}: found {found} bytes, its header ({shape[0]} lines, {shape[1]} samples, {shape[2]} bands, "
            f"{dtype.name}) says {expected}; copy data and header again"
        )
    given = None
    if "wavelength" in header:
        unit = header.get("wavelength units", "")
        given = header["wavelength"], header.get("fwhm"), header.get("bbl"), unit
    bands = _bands(path, given, listed, shape[2])
    try:
        memory = envi.open(str(path), str(data)).open_memmap(interleave="bip")
    except (SpyException, ValueError, TypeError) as error:
        raise DataError(f"{path}: cannot be read as ENVI ({error}); export the cube again") from error
    scale, nodata = (header.get(key) for key in ("reflectance scale factor", "data ignore value"))
    return Cube(
        path.stem, path, shape, dtype, bands, _envi_place(data),
        None if scale is None else float(scale), None if nodata is None else float(nodata),
        lambda first, last: np.asarray(memory[first:last]),
    )  # fmt: skip


def _data_names(header: Path) -> list[Path]:
    """Possible data files of an ENVI header: scene.img.hdr has scene.img, scene.hdr one of several."""
    bare = header.with_suffix("")
    return [bare, *(bare.with_name(bare.name + end) for end in (".img", ".dat", ".bil", ".bip", ".bsq", ".raw"))]


@contextmanager
def _without_warning() -> Iterator[None]:
    """Let rasters without a place pass in silence: they are allowed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _envi_place(data: Path) -> Place:
    with _without_warning(), rasterio.open(data.absolute(), driver="ENVI") as dataset:
        if dataset.crs is None or dataset.transform.is_identity:
            return UNKNOWN_PLACE
        return Place(dataset.crs.to_string(), tuple(dataset.transform)[:6])


def _open_geotiff(path: Path, listed: tuple | None) -> Cube:
    try:
        with _without_warning():
            dataset = rasterio.open(path.absolute(), driver="GTiff")
    except RasterioError as error:
        raise DataError(f"{path}: found no GeoTIFF ({error.__cause__ or error}); export it again") from error
    if len(set(dataset.dtypes)) > 1 or len(set(dataset.scales)) > 1 or any(dataset.offsets):
        raise DataError(
            f"{path}: bands: found different dtypes, scales or an offset, expected one scale; export it again"
        )
    shape = (dataset.height, dataset.width, dataset.count)
    bands = _bands(path, _geotiff_wavelengths(dataset), listed, dataset.count)
    place = UNKNOWN_PLACE
    if dataset.crs is not None and not dataset.transform.is_identity:
        place = Place(dataset.crs.to_string(), tuple(dataset.transform)[:6])
    scale = None if dataset.scales[0] == 1 else 1 / dataset.scales[0]

    def read(first: int, last: int) -> np.ndarray:
        return np.moveaxis(dataset.read(window=Window(0, first, dataset.width, last - first)), 0, -1)

    return Cube(path.stem, path, shape, np.dtype(dataset.dtypes[0]), bands, place, scale, dataset.nodata, read)


def _geotiff_wavelengths(dataset: rasterio.DatasetReader) -> tuple | None:
    """From tags of the bands (GDAL's IMAGERY domain, or `wavelength`), else from their descriptions."""
    imagery = [dataset.tags(band, ns="IMAGERY") for band in dataset.indexes]
    if all("CENTRAL_WAVELENGTH_UM" in tags for tags in imagery):
        widths = [tags.get("FWHM_UM") for tags in imagery]
        return [tags["CENTRAL_WAVELENGTH_UM"] for tags in imagery], widths if all(widths) else None, None, "um"
    tags = [{key.lower(): value for key, value in dataset.tags(band).items()} for band in dataset.indexes]
    if all("wavelength" in band for band in tags):
        widths = [band.get("fwhm") for band in tags]
        unit = tags[0].get("wavelength_units", tags[0].get("wavelength_unit", ""))
        return [band["wavelength"] for band in tags], widths if all(widths) else None, None, unit
    found = wavelengths.from_text(dataset.descriptions)
    return None if found is None else (found[0], None, None, found[1])


def _open_mat(path: Path, listed: tuple | None) -> Cube:
    values, centres, fwhm = mat_files.read(path, None if listed is None else len(listed[0]))
    given = None if centres is None else (centres, fwhm, None, "")
    bands = _bands(path, given, listed, values.shape[2])
    return Cube(
        path.stem, path, values.shape, values.dtype, bands, UNKNOWN_PLACE, None, None,
        lambda first, last: values[first:last],
    )  # fmt: skip
