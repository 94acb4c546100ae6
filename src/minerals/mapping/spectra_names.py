"""The mineral of single spectra, by the rules of the map, at the wavelengths that each spectrum has."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from src.core.stage.errors import DataError
from src.minerals.data.spectral_library import Library
from src.minerals.data.wavelengths import Bands
from src.minerals.mapping import scene_map
from src.minerals.mapping.feature_fit import FeatureFit
from src.minerals.mapping.minerals import MINERALS, NAMES, Mineral
from src.minerals.mapping.spectra_table import Spectra
from src.minerals.mapping.thresholds import classify

NONE, UNKNOWN = "none", "not measured"


def name(spectra: Spectra, library: Library, limits: np.ndarray) -> pd.DataFrame:
    """One row a spectrum: name, mineral, fit, depth, runner_up, not_tried, rules_left_out.

    `mineral` is one of the map's, none, or not measured, where the spectrum has no value at any feature. `runner_up` is
    the mineral with the next best score whose rules hold, or blank; beside none it is the one below its threshold.
    `not_tried` are minerals that lack values at a feature, `rules_left_out` absorptions without a value.

    Args:
        limits: (M,) thresholds of fit times depth.

    Raises:
        DataError: no spectrum has the values of any mineral.
    """
    references = scene_map.references(library, spectra.bands)
    fits, depths = np.zeros((2, len(spectra.names), len(NAMES)))
    table = pd.DataFrame({"name": spectra.names, "not_tried": "", "rules_left_out": ""})
    tried = np.zeros(len(spectra.names), bool)
    for rows, measured in _by_measured(spectra.values):
        able, unable = usable(spectra.bands, measured, references)
        table.loc[rows, "not_tried"] = "; ".join(unable)
        if not able:
            continue
        tried[rows] = True
        fit = FeatureFit(spectra.bands.wavelengths, measured, references, able)
        columns = [NAMES.index(mineral.name) for mineral in able]
        fits[np.ix_(rows, columns)], depths[np.ix_(rows, columns)] = fit(spectra.values[rows])
        table.loc[rows, "rules_left_out"] = "; ".join(absorption.name for absorption in fit.unchecked)
    if not tried.any():
        raise DataError(
            f"{spectra.path}: found no spectrum with values where a mineral absorbs, expected one from 2000 to 2450 "
            f"nm: {table['not_tried'][0]}"
        )
    return _ranked(table, tried, fits, depths, limits)


def _by_measured(values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of (N, B) that have values in the same bands, and those bands (B,) bool."""
    kinds, kind = np.unique(np.isfinite(values), axis=0, return_inverse=True)
    for number, measured in enumerate(kinds):
        yield np.flatnonzero(kind.ravel() == number), measured


def usable(bands: Bands, measured: np.ndarray, references: dict) -> tuple[list[Mineral], list[str]]:
    """Minerals whose features the bands of `measured` (B,) bool cover, and of the others name and reason."""
    able, unable = [], []
    for mineral in MINERALS:
        try:
            FeatureFit(bands.wavelengths, measured, references, [mineral])
        except DataError as error:
            unable.append(str(error).partition(", expected")[0])
        else:
            able.append(mineral)
    return able, unable


def _ranked(
    table: pd.DataFrame, tried: np.ndarray, fits: np.ndarray, depths: np.ndarray, limits: np.ndarray
) -> pd.DataFrame:
    scores = fits * depths
    classes = np.where(tried, classify(scores, limits), 0)
    order = np.argsort(-scores, axis=1, kind="stable")
    next_best = order[np.arange(len(table)), np.where(classes > 0, 1, 0)]
    has_next = scores[np.arange(len(table)), next_best] > 0
    named = np.where(tried, np.array([NONE, *NAMES])[classes], UNKNOWN)
    known = np.arange(len(table)), np.maximum(classes, 1) - 1
    return table.assign(
        mineral=named,
        fit=np.where(classes > 0, fits[known], np.nan),
        depth=np.where(classes > 0, depths[known], np.nan),
        runner_up=np.where(has_next, np.array(NAMES)[next_best], ""),
    )[["name", "mineral", "fit", "depth", "runner_up", "not_tried", "rules_left_out"]]
