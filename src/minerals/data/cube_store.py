"""Cubes of one sensor as memory-mapped reflectance, with a manifest.

A store is a folder:

    <scene>.npy     (lines, samples, bands) int16, reflectance times 10,000, -32768 where there is no data
    truth/, abundance/   <scene>.npy, uint8 classes and float16 shares, where they are known
    manifest.json   format, wavelengths and fwhm (nm), the file's own list of good bands, scenes; written last

A spectrum is contiguous: every method here reads whole spectra, a block of lines at a time.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from src.core.stage import files
from src.core.stage.errors import DataError
from src.minerals.data import cube_files
from src.minerals.data.cube_files import Cube
from src.minerals.data.scene_files import Place

FORMAT = "cubes 1"
SCALE = 10_000
NODATA = -32768
LARGEST = 32767 / SCALE  # reflectance


class CubeStore:
    """A complete store, read-only. Open it with `CubeStore.open`.

    Attributes:
        wavelengths, fwhm: (B,) nm, ascending.
        good, filled: (B,) bool, bands that the files call good, and bands that hold values in every scene.
        scenes: name -> {"shape": [lines, samples], "place": Place, "source": ...}.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]):
        self.folder, self.manifest = folder, manifest
        self.wavelengths, self.fwhm = (np.array(manifest[key]) for key in ("wavelengths", "fwhm"))
        self.good, self.filled = (np.array(manifest[key], bool) for key in ("good", "filled"))
        self.scenes = manifest["scenes"]

    @classmethod
    def open(cls, folder: Path) -> "CubeStore":
        """Open a store.

        Raises:
            StorageError: there is no manifest.
            DataError: it is of another format, or a scene's file has not the size that it says.
        """
        folder = Path(folder)
        manifest = files.read_json(folder / "manifest.json")
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise DataError(f"{folder}/manifest.json: format: expected {FORMAT!r}; run the stage that wrote it again")
        store = cls(folder, manifest)
        for name, scene in store.scenes.items():
            shape = (*scene["shape"], len(store.wavelengths))
            path = folder / f"{name}.npy"
            if not path.is_file() or path.stat().st_size < 2 * np.prod(shape):
                raise DataError(f"{path}: missing or cut, expected {shape} int16; run the stage that wrote it again")
        return store

    def place(self, scene: str) -> Place:
        """CRS and transform of a scene."""
        crs, transform = self.scenes[scene]["place"]
        return Place(crs, tuple(transform))

    def stored(self, scene: str) -> np.ndarray:
        """(lines, samples, bands) int16, mapped and not read."""
        return np.load(self.folder / f"{scene}.npy", mmap_mode="r", allow_pickle=False)

    def truth(self, scene: str) -> np.ndarray | None:
        """(lines, samples) uint8 classes, 255 where unknown; None where nothing is known."""
        return np.load(self.folder / "truth" / f"{scene}.npy") if self.manifest["truth"] else None

    def abundance(self, scene: str) -> np.ndarray | None:
        """(lines, samples, M + 1) float16 area shares of minerals and iron oxide, None where they are not known."""
        path = self.folder / "abundance" / f"{scene}.npy"
        return np.load(path) if path.is_file() else None

    def blocks(self, scene: str) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """First line, (L, samples, bands) float32 reflectance and (L, samples) bool valid, some lines at a time."""
        cube = self.stored(scene)
        lines = cube_files.lines_at_once(*cube.shape[1:])
        for first in range(0, len(cube), lines):
            yield first, *reflectance(cube[first : first + lines])

    def verify(self) -> None:
        """Hash every file again; raises DataError if one differs from the manifest."""
        files.verify(self.folder, self.manifest)


def read_about(root: Path) -> dict:
    """Contents of source.json beside the cubes: simulated (bool) and description; without it, measured."""
    path = Path(root) / "source.json"
    found = files.read_json(path) if path.is_file() else None
    ours = isinstance(found, dict) and isinstance(found.get("simulated"), bool)  # a file of the user may be called so
    return found if ours else {"simulated": False, "description": ""}


def reflectance(stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., bands) int16 -> float32 reflectance, NaN without data, and (...) bool valid."""
    valid = stored[..., 0] != NODATA
    values = stored.astype(np.float32)
    values /= SCALE
    values[~valid] = np.nan
    return values, valid


def stored_blocks(
    cube: Cube, filled: np.ndarray, start: int = 0, stop: int | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """First line and (L, samples, bands) int16 of an opened cube, as a store holds it.

    Args:
        start, stop: lines that pass, as in `cube_files.scaled_blocks`.
        filled: (B,) bool, bands that hold values; a pixel without a value in a good one of them is no data, and so is
            one that is 0 in all: margins are often written so and not declared, and no ground is that black.

    Raises:
        DataError: a value of a good band is too large for a reflectance.
    """
    used = filled & cube.bands.good
    for first, values in cube_files.scaled_blocks(cube, start, stop):
        known = values[..., used]
        valid = np.isfinite(known).all(-1) & known.any(-1)
        _check_range(cube, first, values, valid, used)
        stored = np.rint(np.nan_to_num(values) * SCALE).clip(-32767, 32767)  # only bad bands reach the ends
        yield first, np.where(valid[..., None], stored, NODATA).astype(np.int16)


def _check_range(cube: Cube, first: int, values: np.ndarray, valid: np.ndarray, used: np.ndarray) -> None:
    """Raise DataError where a value of a used band in a valid pixel does not fit into the store."""
    found = values[valid][:, used]
    if found.size and np.abs(found).max() > LARGEST:
        raise DataError(
            f"{cube.path}: lines {first + 1} to {first + len(values)}: found a reflectance of "
            f"{found.flat[np.abs(found).argmax()]:g}, expected at most {LARGEST:g}; declare what it means: `nodata`, "
            "or a bad band (bbl)"
        )
