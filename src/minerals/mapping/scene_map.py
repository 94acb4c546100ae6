"""Scores of whole scenes, a block of lines at a time, and the maps that are written of them."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from src.core.stage.errors import DataError
from src.minerals.data import scene_files
from src.minerals.data.cube_store import CubeStore
from src.minerals.data.scene_files import Place
from src.minerals.data.spectral_library import Library
from src.minerals.data.wavelengths import Bands
from src.minerals.mapping.feature_fit import FeatureFit, continuum
from src.minerals.mapping.map_classes import NO_DATA
from src.minerals.mapping.minerals import NAMES, Absorption
from src.minerals.mapping.thresholds import classify

FERRIC_IRON = Absorption("ferric iron at 870 nm", (740, 770), (850, 890), (1030, 1060))
AL_OH_2200 = Absorption("clay index: Al-OH at 2200 nm", (2120, 2155), (2195, 2217), (2252, 2290))
MEASURED = {"iron": FERRIC_IRON, "clay": AL_OH_2200}  # maps of one absorption each, which compete with no mineral
MAPS = ("minerals", "fit", "depth", *MEASURED)


def fitter(library: Library, bands: CubeStore | Bands, kept: np.ndarray) -> FeatureFit:
    """The feature fit for the sensor that has `bands`, with the library's references."""
    return FeatureFit(bands.wavelengths, kept, references(library, bands))


def references(library: Library, bands: CubeStore | Bands) -> dict[str, np.ndarray]:
    """Name of each mineral -> (R, B) reflectance of the library's references, as the sensor measures them."""
    sensed = library.at(bands.wavelengths, bands.fwhm)
    return {name: sensed[library.rows(name, "reference")] for name in NAMES}


def measures(wavelengths: np.ndarray, kept: np.ndarray) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Name in `MEASURED` -> function of (N, B) spectra: (N,) depth; without those that the sensor does not see."""
    found = {}
    for name, absorption in MEASURED.items():
        lists = absorption.left, absorption.right, absorption.centre
        try:
            window = continuum(wavelengths, kept, *lists, absorption.name)
        except DataError:
            continue
        found[name] = lambda spectra, window=window: 1 - window.remove(spectra).mean(1)
    return found


def fit_scene(
    shape: tuple[int, int], blocks: Iterable[tuple], fit: FeatureFit, measured: dict[str, Callable], shown: list[int]
) -> dict[str, np.ndarray]:
    """Maps of a scene that passes once, a block of lines at a time.

    Args:
        shape: lines and samples.
        blocks: first line, (L, samples, B) reflectance, (L, samples) bool valid, as `CubeStore.blocks` gives them.
        shown: bands of a picture.

    Returns:
        `fit` and `depth` (lines, samples, M), each of `MEASURED` (lines, samples) and `shown` (lines, samples,
        len(shown)), float32 and NaN without data; `valid` (lines, samples) bool.
    """
    wide = {"fit": len(NAMES), "depth": len(NAMES), "shown": len(shown)}
    out = {name: np.full((*shape, count), np.nan, np.float32) for name, count in wide.items()}
    out |= {name: np.full(shape, np.nan, np.float32) for name in MEASURED} | {"valid": np.zeros(shape, bool)}
    for first, spectra, valid in blocks:
        rows = slice(first, first + len(valid))
        out["valid"][rows], out["shown"][rows] = valid, spectra[..., shown]
        out["fit"][rows][valid], out["depth"][rows][valid] = fit(spectra[valid])
        for name, depth in measured.items():
            out[name][rows][valid] = depth(spectra[valid])
    return out


def classes_of(fitted: dict[str, np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    """(lines, samples) uint8 classes of `fit_scene`'s output, 255 without data."""
    valid = fitted["valid"]
    classes = np.full(valid.shape, NO_DATA, np.uint8)
    classes[valid] = classify(fitted["fit"][valid] * fitted["depth"][valid], thresholds)
    return classes


def write_maps(paths: dict[str, Path], place: Place, fitted: dict[str, np.ndarray], classes: np.ndarray) -> None:
    """Write each of `MAPS` to its path as cloud-optimised GeoTIFF."""
    for path in paths.values():
        path.parent.mkdir(exist_ok=True)
    scene_files.write_classes_map(paths["minerals"], classes, place)
    for name in ("fit", "depth"):
        scene_files.write_bands(paths[name], fitted[name], list(NAMES), place)
    for name, absorption in MEASURED.items():
        scene_files.write_bands(paths[name], fitted[name][..., None], [absorption.name], place)
