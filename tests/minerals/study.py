"""Stores for tests, without the stages that usually write them."""

from pathlib import Path

import numpy as np
import pandas as pd

from src.core.stage import files
from src.minerals.data import band_table, blocks, cube_store
from src.minerals.data.cube_store import CubeStore
from src.minerals.data.simulated_spectra import FWHM, WAVELENGTHS
from tests.conftest import minerals_params

PLACE = "EPSG:32611", (15.0, 0.0, 494000.0, 0.0, -15.0, 4156000.0)


def write_store(
    folder: Path, scenes: dict[str, np.ndarray], *, truth: dict | None = None, good=None, filled=None,
    wavelengths: np.ndarray = WAVELENGTHS, fwhm: np.ndarray = FWHM,
) -> Path:  # fmt: skip
    """`folder` as a store of (H, W, B) reflectance, NaN without data, and of (H, W) uint8 classes; scenes lie apart."""
    folder.mkdir(parents=True)
    for name, cube in scenes.items():
        stored = np.where(np.isnan(cube), cube_store.NODATA, np.rint(np.nan_to_num(cube) * cube_store.SCALE))
        np.save(folder / f"{name}.npy", stored.astype(np.int16))
    for name, classes in (truth or {}).items():
        (folder / "truth").mkdir(exist_ok=True)
        np.save(folder / "truth" / f"{name}.npy", classes)
    crs, a = PLACE
    every = [True] * len(wavelengths)
    files.write_json(folder / "manifest.json", {
        "format": cube_store.FORMAT, "wavelengths": wavelengths.tolist(), "fwhm": fwhm.tolist(),
        "good": every if good is None else list(map(bool, good)),
        "filled": every if filled is None else list(map(bool, filled)),
        "about": {"simulated": True, "description": ""},
        "scenes": {
            name: {"shape": cube.shape[:2], "place": (crs, (*a[:2], a[2] + 9000 * number, *a[3:])), "source": name}
            for number, (name, cube) in enumerate(scenes.items())
        },
        "truth": truth is not None,
        "files": {path.relative_to(folder).as_posix(): files.sha256(path) for path in sorted(folder.rglob("*.npy"))},
    })  # fmt: skip
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Path below `folder` -> bytes of every file."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_blocks(folder: Path, rows: list[tuple]) -> Path:
    """`folder` as the output of split: (scene, block, role, top, left, height, width) each."""
    folder.mkdir()
    files.write_table(folder / blocks.TABLE, pd.DataFrame(rows, columns=blocks.COLUMNS))
    return folder


def write_kept(folder: Path, store: Path) -> Path:
    """`folder` as the output of bands, by the committed params."""
    folder.mkdir()
    opened = CubeStore.open(store)
    band_table.write(band_table.choose(opened, opened.filled, minerals_params().bands, str(store)), folder)
    return folder
