"""`.npy` files: new ones, the header, read without unpickling, and a tile's JSON sidecar."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from src.core.stage import files
from src.core.stage.errors import DataError

SIDECAR_KEYS = ("quantisation", "scale", "nodata", "crs", "transform", "lat", "lon")


def create(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap:
    """A mapped array of zeros to write into; raises OSError where the disk has no room for it."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    # A mapped hole that finds the disk full kills the process with SIGBUS; reserving raises here instead.
    if hasattr(os, "posix_fallocate"):  # Linux; macOS has no such call
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def read_array_header(path: Path, name: str) -> tuple[int, tuple[int, ...], bool, np.dtype]:
    """Bytes before the values, shape, whether columns come first (Fortran order) and dtype; errors call it `name`.

    Raises:
        DataError: not a `.npy` header, Python objects, or a file of another size than the header needs.
    """
    with path.open("rb") as file:
        try:
            # Version 3 differs from 2 in the names of fields alone, and plain numbers have no fields.
            old = np.lib.format.read_magic(file) == (1, 0)
            read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
            shape, columns_first, dtype = read(file)
        except ValueError as error:  # no header, or part of one
            raise DataError(
                f"{name}: header: found {error}, expected plain numbers by numpy.save; save it again"
            ) from error
        offset = file.tell()
    if dtype.hasobject:
        raise DataError(f"{name}: dtype: found Python objects (a pickle), expected plain numbers; save plain numbers")
    expected, found = offset + math.prod(shape) * dtype.itemsize, path.stat().st_size
    if found != expected:
        cut = ", it is cut short" if found < expected else ""
        raise DataError(f"{name}: bytes: found {found}, expected {expected} as its header says{cut}; copy it again")
    return offset, shape, columns_first, dtype


def read_sidecar(path: Path, name: str) -> dict[str, Any]:
    """The values in `<file>.npy.json`, empty without one; lat and lon are the tile's centre.

    Raises:
        DataError: an unknown key, half a position or two of them, or a value of the wrong kind.
    """
    sidecar = path.with_name(path.name + ".json")
    if not sidecar.exists():
        return {}
    try:
        values = files.read_json(sidecar)
    except DataError as error:
        raise DataError(f"{name}: found something that is not JSON; write an object or remove it") from error
    if not isinstance(values, dict):
        raise DataError(f"{name}: found {type(values).__name__}, expected an object; write {{...}}")
    values = {key: value for key, value in values.items() if value is not None}
    if unknown := sorted(set(values) - set(SIDECAR_KEYS)):
        raise DataError(f"{name}: {unknown[0]}: unknown key, expected {', '.join(SIDECAR_KEYS)}; correct it")
    position = {"crs", "transform", "lat", "lon"} & set(values)
    if position not in (set(), {"crs", "transform"}, {"lat", "lon"}):
        raise DataError(f"{name}: found {sorted(position)}, expected crs and transform, or lat and lon; give one pair")
    for key, limit in (("lat", 90.0), ("lon", 180.0), ("nodata", math.inf)):
        if key in values and not (_is_number(values[key]) and abs(values[key]) <= limit):
            raise DataError(f"{name}: {key}: found {values[key]!r}, expected a number within ±{limit:g}; correct it")
    numbers = values.get("transform", [0] * 6)
    if not (isinstance(numbers, list) and len(numbers) == 6 and all(map(_is_number, numbers))):
        raise DataError(f"{name}: transform: found {numbers!r}, expected [a, b, c, d, e, f]; correct it")
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
