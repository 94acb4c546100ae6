"""NPZ tiles: one file a scene, with one array a band, and a JSON file beside it.

    <tile>.npz    s1_vv, s1_vh, s2_b2, s2_b3, s2_b4, s2_b8, each (H, W)
    <tile>.json   split: train | val | test; optional: crs and transform (six numbers, north-up), sar_date and
                  optical_date, offset (of the optical numbers). Other keys are left alone.

Tiles may lie in folders train, val and test, which must agree with `split`. A first guess is <tile>.npz in a folder of
its own, with the key opt_v2, (4, H, W). Nothing is unpickled, and sizes are checked before an array is read.
"""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pyproj import CRS
from pyproj.exceptions import CRSError

from src.core.stage.errors import DataError
from src.grounding.data import pairs
from src.grounding.data.pairs import Pair

SAR_KEYS = ("s1_vv", "s1_vh")
OPTICAL_KEYS = ("s2_b2", "s2_b3", "s2_b4", "s2_b8")
FIRST_GUESS_KEY = "opt_v2"
FOLDERS = ("train", "val", "test")


def find(root: Path, beside: Sequence[Path] = ()) -> dict[str, Path]:
    """Scene -> tile below `root`, sorted; folders `beside` do not count. Raises DataError where two have one name."""
    found = {}
    for path in sorted(root.rglob("*.npz")):
        if path.name.startswith(".") or set(beside) & set(path.parents):
            continue
        if other := found.get(path.stem):
            raise DataError(f"{path}: a second tile of the name {path.stem}, beside {other}; rename or remove one")
        found[path.stem] = path
    return dict(sorted(found.items()))


def open_tile(path: Path) -> Pair:
    """Headers and sidecar of a tile, checked; no pixel is read.

    Raises:
        DataError: a key is missing, an array is none of plain numbers, has another shape or is too large; the sidecar
            is not JSON, or contradicts the folder.
    """
    shapes = {key: header(path, key) for key in (*SAR_KEYS, *OPTICAL_KEYS)}
    first = shapes[SAR_KEYS[0]]
    for key, shape in shapes.items():
        if len(shape) != 2 or shape != first:
            raise DataError(
                f"{path}: {key}: found shape {shape}, expected (H, W) as {SAR_KEYS[0]} {first}; cut all to one grid"
            )
    beside = path.with_suffix(".json")
    sidecar = pairs.read_sidecar(beside)
    split = pairs.role_given(sidecar, beside)
    folder = path.parent.name
    if folder in FOLDERS and split is None:
        split = folder
    elif folder in FOLDERS and split != folder:
        raise DataError(f"{beside}: split: found {split!r}, expected {folder!r} as its folder; move it or correct it")
    crs, transform = place(sidecar, beside)
    dates = (pairs.day(sidecar.get(key, ""), f"{beside}: {key}") for key in ("sar_date", "optical_date"))
    return Pair(path.stem, path, path, *first, crs, transform, *dates, split, pairs.offset_given(sidecar, beside))


def read(path: Path, keys: tuple[str, ...]) -> np.ndarray:
    """(len(keys), H, W) float32 as stored, NaN where a value is not finite."""
    return np.stack([read_array(path, key) for key in keys])


def read_array(path: Path, key: str) -> np.ndarray:
    """One array as float32, NaN where a value is not finite; raises DataError as `header`, or where it is damaged."""
    header(path, key)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values = arrays[key].astype(np.float32)
    except (ValueError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: {key}: found a damaged array ({error}), expected numbers; save it again") from error
    values[~np.isfinite(values)] = np.nan
    return values


def header(path: Path, key: str) -> tuple[int, ...]:
    """Shape of an array of an NPZ file; nothing but its header is read.

    Raises:
        DataError: no NPZ file; no such key; Python objects, text or complex numbers; more bytes than MAX_BYTES, or
            others than the header needs.
    """
    where = f"{path}: {key}"
    try:
        with zipfile.ZipFile(path) as archive:
            listed = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            if key not in listed:
                found = ", ".join(sorted(listed)) or "nothing"
                raise DataError(f"{where}: missing, found {found}; save the array under this key")
            member = listed[key]
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
                start = file.tell()
    except (ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{where}: found no array ({error}), expected numpy.savez; save it again") from error
    if dtype.hasobject:
        raise DataError(f"{where}: dtype: found Python objects (a pickle), expected plain numbers; save plain numbers")
    if dtype.kind not in "iuf":
        raise DataError(f"{where}: dtype: found {dtype}, expected real numbers; save them so")
    pairs.check_size(shape, dtype.itemsize, where)
    expected = start + int(np.prod(shape)) * dtype.itemsize
    if member.file_size != expected:
        raise DataError(f"{where}: bytes: found {member.file_size}, expected {expected} by its header; save it again")
    return shape


def place(sidecar: dict, path: Path) -> tuple[str, tuple[float, ...]]:
    """CRS and transform, "" and PIXELS where neither is declared; raises DataError where one is wrong or alone."""
    crs, transform = sidecar.get("crs"), sidecar.get("transform")
    if crs is None and transform is None:
        return "", pairs.PIXELS
    if not (isinstance(transform, list) and len(transform) == 6 and all(map(pairs.is_number, transform))):
        raise DataError(
            f"{path}: transform: found {transform!r}, expected six numbers [a, b, c, d, e, f] beside crs; correct it"
        )
    try:
        text = CRS.from_user_input(crs).to_string()
    except CRSError as error:
        raise DataError(f"{path}: crs: found {crs!r}, expected one such as EPSG:32650; correct it") from error
    pairs.check_north_up(transform, str(path))
    return text, tuple(map(float, transform))
