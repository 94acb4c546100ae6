"""Scores of whole scenes, a block of lines at a time, and the maps that are written of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from src.core.stage.errors import DataError
from src.minerals.data import scene_files
from src.minerals.data.cube_store import CubeStore
from src.minerals.data.spectral_library import Library
from src.minerals.mapping.feature_fit import FeatureFit, continuum
from src.minerals.mapping.minerals import NAMES, Absorption
from src.minerals.mapping.thresholds import classify

FERRIC_IRON = Absorption("ferric iron at 870 nm", (740, 770), (850, 890), (1030, 1060))
NO_DATA = 255  # class


def fitter(library: Library, store: CubeStore, kept: np.ndarray) -> FeatureFit:
    """The feature fit for the store's sensor, with the library's references."""
    sensed = library.at(store.wavelengths, store.fwhm)
    references = {name: sensed[library.rows(name, "reference")] for name in NAMES}
    return FeatureFit(store.wavelengths, kept, references)


def iron_depth(wavelengths: np.ndarray, kept: np.ndarray) -> Callable[[np.ndarray], np.ndarray] | None:
    """Function of (N, B) spectra: (N,) depth of ferric iron's band; None where the sensor does not see it."""
    lists = FERRIC_IRON.left, FERRIC_IRON.right, FERRIC_IRON.centre
    try:
        window = continuum(wavelengths, kept, *lists, FERRIC_IRON.name)
    except DataError:
        return None
    return lambda spectra: 1 - window.remove(spectra).mean(1)


def fit_scene(store: CubeStore, scene: str, fit: FeatureFit, iron: Callable | None) -> dict[str, np.ndarray]:
    """`fit`, `depth` (lines, samples, M) float32, `iron` and `valid` (lines, samples) of a scene; NaN without data."""
    lines, samples = store.scenes[scene]["shape"]
    out = {name: np.full((lines, samples, len(NAMES)), np.nan, np.float32) for name in ("fit", "depth")}
    out |= {"iron": np.full((lines, samples), np.nan, np.float32), "valid": np.zeros((lines, samples), bool)}
    for first, spectra, valid in store.blocks(scene):
        rows = slice(first, first + len(valid))
        out["valid"][rows] = valid
        out["fit"][rows][valid], out["depth"][rows][valid] = fit(spectra[valid])
        if iron:
            out["iron"][rows][valid] = iron(spectra[valid])
    return out


def classes_of(fitted: dict[str, np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    """(lines, samples) uint8 classes of `fit_scene`'s output, 255 without data."""
    valid = fitted["valid"]
    classes = np.full(valid.shape, NO_DATA, np.uint8)
    classes[valid] = classify(fitted["fit"][valid] * fitted["depth"][valid], thresholds)
    return classes


def write_maps(folder: Path, scene: str, store: CubeStore, fitted: dict[str, np.ndarray], classes: np.ndarray) -> None:
    """Write minerals/, fit/, depth/ and iron/<scene>.tif below `folder`."""
    place = store.place(scene)
    for name in ("minerals", "fit", "depth", "iron"):
        (folder / name).mkdir(exist_ok=True)
    scene_files.write_classes_map(folder / "minerals" / f"{scene}.tif", classes, place)
    for name in ("fit", "depth"):
        scene_files.write_bands(folder / name / f"{scene}.tif", fitted[name], list(NAMES), place)
    scene_files.write_bands(folder / "iron" / f"{scene}.tif", fitted["iron"][..., None], [FERRIC_IRON.name], place)
