"""The cube of a MATLAB file, version 5 (scipy) or 7.3 (HDF5); only numeric arrays are read."""

from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
import scipy.io
from scipy.io.matlab import MatReadError

from src.core.stage.errors import DataError, StorageError

MAX_BYTES = 2**34  # a .mat file is read whole
NUMERIC = {"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "single", "double"}


def read(path: Path, bands: int | None) -> tuple[np.ndarray, list[float] | None, list[float] | None]:
    """The cube (lines, samples, bands), and the wavelengths and fwhm beside it, None where there are none.

    The band axis is the one as long as the wavelengths (or as `bands`); without either, the last one. The file that was
    read last stays in memory, and no other.

    Raises:
        StorageError: the file cannot be read.
        DataError: it is no MATLAB file, holds objects, has no array of three dimensions or several.
    """
    if not path.is_file():
        raise StorageError(f"{path}: no such file")
    about = path.stat()
    return _read(path, (about.st_mtime_ns, about.st_size), bands)


@lru_cache(maxsize=1)
def _read(
    path: Path, _version: tuple[int, int], bands: int | None
) -> tuple[np.ndarray, list[float] | None, list[float] | None]:
    """As `read`; `_version` tells a file from the one that it replaced."""
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path}: found {path.stat().st_size} bytes, expected at most {MAX_BYTES}; export it as ENVI")
    arrays = _hdf5(path) if h5py.is_hdf5(path) else _version5(path)
    cubes = [name for name, array in arrays.items() if array.ndim == 3]
    if len(cubes) != 1:
        found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "nothing numeric"
        raise DataError(f"{path}: found {found}, expected one array of lines x samples x bands; save it alone")
    cube = arrays[cubes[0]]
    lists = {name.lower(): array.ravel() for name, array in arrays.items() if array.size == max(array.shape)}
    centres = next((array for name, array in lists.items() if "wave" in name or name == "wl"), None)
    fwhm = next((array for name, array in lists.items() if "fwhm" in name), None)
    length = bands if centres is None else len(centres)
    axes = [axis for axis in range(3) if cube.shape[axis] == length]
    cube = np.moveaxis(cube, axes[-1] if axes else 2, 2)
    return cube, None if centres is None else centres.tolist(), None if fwhm is None else fwhm.tolist()


def _version5(path: Path) -> dict[str, np.ndarray]:
    try:
        listed = scipy.io.whosmat(path)
        other = [f"{name} ({kind})" for name, _, kind in listed if kind not in NUMERIC | {"char", "logical"}]
        if other:
            raise DataError(f"{path}: found {other[0]}, expected numeric arrays; save cube and wavelengths alone")
        names = [name for name, _, kind in listed if kind in NUMERIC]
        return {name: scipy.io.loadmat(path, variable_names=[name])[name] for name in names}
    except (MatReadError, ValueError, TypeError, NotImplementedError, OSError) as error:
        raise DataError(f"{path}: found no MATLAB file ({error}); save it again") from error


def _hdf5(path: Path) -> dict[str, np.ndarray]:
    """Arrays of the root group, turned to MATLAB's order; links and data outside the file are refused."""
    arrays = {}
    try:
        with h5py.File(path, "r") as file:
            for name in file:
                if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                    raise DataError(f"{path}: {name}: found a link, expected data in the file itself; save it again")
                item = file[name]
                if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "iuf":
                    continue
                if item.external or item.is_virtual:
                    raise DataError(f"{path}: {name}: found data outside the file; save it again as one file")
                if item.size * item.dtype.itemsize > MAX_BYTES:
                    found = f"{item.shape} {item.dtype}"
                    raise DataError(f"{path}: {name}: found {found}, expected at most {MAX_BYTES} bytes; cut it")
                arrays[name] = item[()].T
    except OSError as error:
        raise DataError(f"{path}: found no MATLAB 7.3 file ({error}); save it again") from error
    return arrays
