"""GeoTIFF pairs of radar and optical images.

Files are matched by name: <scene>_s1.tif with <scene>_s2.tif (anything may follow the digit: _S1Hand, _S2L2A), or files
of one name in two folders whose names begin with S1 and S2, as in TerraMesh. Other files are left alone.

Bands are found by their descriptions, or by declared names (data.sar.bands, data.optical.bands), never by position.
B2 is B02. The date is the tag `datetime` or TIFFTAG_DATETIME. <file name>.json beside a file may declare its `date`,
and beside an optical one also `offset` (of its numbers) and `split` (the scene's role).
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from rasterio import DatasetReader
from rasterio.errors import RasterioError

from src.core.stage.errors import DataError
from src.grounding.data import pairs
from src.grounding.data.pairs import Pair
from src.grounding.data.sensors import OPTICAL_BANDS, SAR_BANDS

NAMED = re.compile(r"(?P<scene>.+)_s(?P<sensor>[12])[a-z0-9]*", re.IGNORECASE)
FOLDER = re.compile(r"s(?P<sensor>[12])[a-z0-9]*", re.IGNORECASE)
SENSORS = {"1": "radar", "2": "optical"}
SAME_PX = 1e-3  # of two transforms: what rounding leaves


def find(root: Path, beside: Sequence[Path] = ()) -> dict[str, tuple[Path, Path]]:
    """Scene -> radar and optical file below `root`, sorted; empty where there is none. Folders `beside` do not count.

    Raises:
        DataError: a scene has one image alone, or two of one sensor.
    """
    found = defaultdict(dict)
    for path in sorted([*root.rglob("*.tif"), *root.rglob("*.tiff")]):
        named, folder = NAMED.fullmatch(path.stem), FOLDER.fullmatch(path.parent.name)
        if path.name.startswith(".") or not (named or folder) or set(beside) & set(path.parents):
            continue
        scene, sensor = (named["scene"], named["sensor"]) if named else (path.stem, folder["sensor"])
        if other := found[scene].get(sensor):
            raise DataError(f"{path}: a second {SENSORS[sensor]} image of {scene}, beside {other}; remove one")
        found[scene][sensor] = path
    for scene, images in found.items():
        if len(images) < 2:
            (sensor, path), *_ = images.items()
            raise DataError(
                f"{path}: found the {SENSORS[sensor]} image of {scene} alone, expected one of each sensor, "
                f"{scene}_s1.tif and {scene}_s2.tif; add the other or remove it"
            )
    return {scene: (images["1"], images["2"]) for scene, images in sorted(found.items())}


def open_pair(
    name: str, sar: Path, optical: Path, sar_names: list[str] | None, names: list[str] | None,
    largest: int | None = None,
) -> Pair:  # fmt: skip
    """Headers of both files, checked; no pixel is read.

    Args:
        sar_names, names: declared names of all bands of the radar and of the optical file; None: the files name them.
        largest: bytes that either image may need; None: those of a scene that is read whole.

    Raises:
        DataError: not a GeoTIFF, a band that is not there, scale or offset in tags, no CRS, another grid, no date.
    """
    grids = []
    for path, wanted, declared, key in (
        (sar, SAR_BANDS, sar_names, "data.sar.bands"), (optical, OPTICAL_BANDS, names, "data.optical.bands")
    ):  # fmt: skip
        with opened(path) as dataset:
            numbers = find_bands(dataset, wanted, declared, key, path)
            _check_numbers(dataset, numbers, path, largest)
            grids.append((dataset.crs, tuple(dataset.transform)[:6], dataset.shape, _date(dataset, path)))
    (crs, transform, shape, sar_date), (other_crs, other, other_shape, optical_date) = grids
    fix = "warp one of them to the other's grid"
    if not crs or crs != other_crs:
        raise DataError(f"{sar}: crs: found {crs}, and {other_crs} in {optical.name}, expected one CRS; {fix}")
    if shape != other_shape:
        raise DataError(f"{sar}: size: found {shape} px, and {other_shape} in {optical.name}, expected the same; {fix}")
    pairs.check_north_up(transform, str(sar))
    apart = np.abs(np.subtract(transform, other)) / abs(transform[0])
    if apart.max() > SAME_PX:
        raise DataError(f"{sar}: transform: found {transform}, and {other} in {optical.name}, expected the same; {fix}")
    sidecar_path = _sidecar(optical)
    sidecar = pairs.read_sidecar(sidecar_path)
    return Pair(
        name, sar, optical, *shape, crs.to_string(), transform, sar_date, optical_date,
        pairs.role_given(sidecar, sidecar_path), pairs.offset_given(sidecar, sidecar_path),
    )  # fmt: skip


def read_bands(path: Path, wanted: Sequence[str], declared: list[str] | None, key: str) -> np.ndarray:
    """(len(wanted), H, W) float32 as stored, NaN where the file or its mask has no data."""
    with opened(path) as dataset:
        numbers = find_bands(dataset, wanted, declared, key, path)
        _check_numbers(dataset, numbers, path)
        try:
            values = dataset.read(numbers).astype(np.float32)
            known = dataset.read_masks(numbers) > 0
        except RasterioError as error:
            raise DataError(
                f"{path}: pixels: found {error.__cause__ or error}, expected data; copy or export it again"
            ) from error
    values[~known | ~np.isfinite(values)] = np.nan
    return values


def opened(path: Path) -> DatasetReader:
    """A GeoTIFF, by that driver alone; raises DataError where it is none."""
    try:
        return rasterio.open(path.absolute(), driver="GTiff")
    except RasterioError as error:
        raise DataError(f"{path}: found no GeoTIFF ({error.__cause__ or error}); export it again") from error


def check_grid(dataset: DatasetReader, pair: Pair, path: Path) -> None:
    """Raise DataError where a raster that belongs to a scene has another grid."""
    crs = dataset.crs.to_string() if dataset.crs else ""
    found, expected = (crs, dataset.shape), (pair.crs, (pair.height, pair.width))
    transform = tuple(dataset.transform)[:6]
    apart = np.abs(np.subtract(transform, pair.transform)).max() / abs(pair.transform[0]) if pair.crs else 0
    if found != expected or apart > SAME_PX:
        raise DataError(
            f"{path}: grid: found {crs or 'no CRS'}, {dataset.shape} px, {transform}, expected {pair.crs or 'no CRS'}, "
            f"{expected[1]} px, {pair.transform} as {pair.optical.name}; warp it to that grid"
        )


def find_bands(
    dataset: DatasetReader, wanted: Sequence[str], declared: list[str] | None, key: str, path: Path
) -> list[int]:
    """Numbers, from 1, of the `wanted` bands.

    Raises:
        DataError: a band is not named, or twice; declared names are not as many as the file has bands, or contradict
            the names in the file.
    """
    described = [_name(text or "") for text in dataset.descriptions]
    names = described if declared is None else [_name(text) for text in declared]
    if len(names) != dataset.count:
        raise DataError(
            f"{path}: bands: found {dataset.count}, expected {len(names)} as `{key}` names; name every band of the file"
        )
    for band in wanted:
        if names.count(band) != 1:
            listed = ", ".join(name or "(no name)" for name in names)
            raise DataError(
                f"{path}: bands: found {listed}, expected {band} once; describe the bands in the file, or name all of "
                f"them in `{key}` in the file's order"
            )
        if band in described and described.index(band) != names.index(band):
            raise DataError(
                f"{path}: bands: found {band} as band {described.index(band) + 1}, expected band "
                f"{names.index(band) + 1} as `{key}` says; correct it or leave it blank"
            )
    return [names.index(band) + 1 for band in wanted]


def _name(text: str) -> str:
    """B02 for B2, capitals for all."""
    text = text.strip().upper()
    return f"B0{text[1]}" if re.fullmatch(r"B\d", text) else text


def _check_numbers(dataset: DatasetReader, numbers: list[int], path: Path, largest: int | None = None) -> None:
    dtypes = {np.dtype(dataset.dtypes[number - 1]) for number in numbers}
    if any(dtype.kind not in "iuf" for dtype in dtypes):
        found = ", ".join(sorted(map(str, dtypes)))
        raise DataError(f"{path}: dtype: found {found}, expected real numbers; export the intensity")
    pairs.check_size((len(numbers), *dataset.shape), max(dtype.itemsize for dtype in dtypes), str(path), largest)
    for number in numbers:
        scale, offset = dataset.scales[number - 1], dataset.offsets[number - 1]
        if (scale, offset) != (1, 0):
            raise DataError(
                f"{path}: band {number}: found the tags scale {scale:g} and offset {offset:g}, expected numbers that "
                "mean themselves, because the params declare what they mean; apply them (gdal_translate -unscale -ot "
                "Float32) and set data.optical.scale: 1"
            )


def _date(dataset: DatasetReader, path: Path) -> str:
    sidecar = _sidecar(path)
    declared = pairs.read_sidecar(sidecar, ("date", "offset", "split")).get("date")
    if declared is not None:
        return pairs.day(declared, f"{sidecar}: date")
    tags = dataset.tags()
    return pairs.day(tags.get("datetime", tags.get("TIFFTAG_DATETIME", "")), f"{path}: datetime")


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
