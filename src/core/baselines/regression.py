"""Baselines of a regression: statistics of tiles, ridge, kriging, and forecasts from a place's own past.

Every choice is made by squared error on validation among as many settings as any other baseline has (`tune`).
A fit sees the training rows alone; the network's `anchored` head stores the same `Ridge`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import qmc
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern
from tqdm import tqdm

from src.core.data.crop import centre_crop
from src.core.data.quantisation import Quantisation, dequantise, lookup_table
from src.core.data.tile_store import Store
from src.core.stage.errors import DataError

ALPHAS = tuple(float(alpha) for alpha in np.logspace(-2, 6, 33))
"""Penalties tried: from almost none to all weights near zero, for 10² to 10⁵ standardised rows."""

QUANTILES = (0.1, 0.5, 0.9)
PER_BAND = 2 + len(QUANTILES)  # mean, standard deviation, quantiles


@dataclass(frozen=True)
class Ridge:
    """A linear model in the features' own units: prediction = features @ weight + intercept."""

    weight: np.ndarray  # (C,) float64
    intercept: float
    alpha: float  # penalty on standardised features

    def predict(self, features: np.ndarray) -> np.ndarray:
        """(N, C) -> (N,) float64."""
        return np.asarray(features, dtype=np.float64) @ self.weight + self.intercept


class RidgePath:
    """Ridge regressions on the same standardised features, for any labels and penalty.

    One singular value decomposition serves them all (Hastie et al. 2009, eq. 3.47).
    """

    def __init__(self, features: np.ndarray):
        features = np.asarray(features, dtype=np.float64)
        self.mean, sd = features.mean(axis=0), features.std(axis=0)
        # A constant feature is zero once centred and gets weight zero; its sd may be rounding, not 0.
        self.sd = np.where(sd > 1e-12 * np.abs(self.mean), sd, 1.0)
        self.u, self.s, self.vt = np.linalg.svd((features - self.mean) / self.sd, full_matrices=False)

    def solve(self, y: np.ndarray, alpha: float) -> Ridge:
        """The regression of y (N,) with penalty `alpha`."""
        shrunk = self.s / (self.s**2 + alpha) * (self.u.T @ (y - y.mean()))
        weight = self.vt.T @ shrunk / self.sd
        return Ridge(weight, float(y.mean() - self.mean @ weight), alpha)


def fit_ridge(features: np.ndarray, y: np.ndarray, validation: tuple[np.ndarray, np.ndarray]) -> Ridge:
    """Ridge regression of (N, C) features, that of ALPHAS with the least squared error on `validation` (features, y).

    Of equal errors the larger penalty is kept.
    """
    path = RidgePath(features)
    ridges = [path.solve(y, alpha) for alpha in reversed(ALPHAS)]
    return min(ridges, key=lambda ridge: np.mean((ridge.predict(validation[0]) - validation[1]) ** 2))


def spread(budget: int, **ranges: tuple[float, float]) -> list[dict[str, float]]:
    """`budget` settings, evenly over the first of `ranges` (low, high) in log and scattered over the others.

    Together they are a Hammersley set (Niederreiter 1992), so each range is covered whatever the budget. Between two
    integers numbers are rounded, and settings that become equal are there once.
    """
    units = np.empty((budget, len(ranges)))
    units[:, 0] = (np.arange(budget) + 0.5) / budget
    if len(ranges) > 1:
        units[:, 1:] = qmc.Halton(len(ranges) - 1, scramble=False).random(budget)
    low, high = np.log(np.array(list(ranges.values()), dtype=np.float64)).T
    kinds = [round if all(isinstance(end, int) for end in ends) else float for ends in ranges.values()]
    settings = [
        {name: kind(value) for name, kind, value in zip(ranges, kinds, row.tolist(), strict=True)}
        for row in np.exp(low + units * (high - low))
    ]
    return [setting for number, setting in enumerate(settings) if setting not in settings[:number]]


def tune(settings: Sequence[dict], predict: Callable[[dict], np.ndarray], y: np.ndarray) -> tuple[np.ndarray, dict]:
    """The prediction with the least squared error on validation.

    Args:
        predict: setting -> (M,) predictions of the held-out rows; of equal ones the first is kept.
        y: (M,) labels of validation rows, NaN at all others.

    Returns:
        (M,) predictions; the choice for JSON.
    """
    checked = np.isfinite(y)
    best, chosen, least, tried = None, None, np.inf, []
    for setting in settings:
        prediction = np.asarray(predict(setting), dtype=np.float64)
        error = float(np.mean((prediction[checked] - y[checked]) ** 2))
        tried.append(setting | {"validation_mse": error if np.isfinite(error) else None})
        if best is None or error < least:
            best, chosen, least = prediction, setting, error
    variance = np.var(y[checked])
    r2 = float(1 - least / variance) if variance > 0 and np.isfinite(least) else None
    return best, {"setting": chosen, "validation_r2": r2, "tried": tried}


def tile_summary(values: np.ndarray, valid: np.ndarray, quantisation: Quantisation) -> np.ndarray:
    """(PER_BAND, C) float64 dequantised mean, sd and QUANTILES over the valid pixels of one tile, (C, H, W) as stored.

    A quantile is a value that occurs, so that dequantising before or after is the same.
    """
    table = lookup_table(quantisation).astype(np.float64)
    columns = []
    for band in values:
        pixels = band[valid]
        if pixels.dtype == np.int8:  # counting is 20 times as fast as sorting
            count = np.roll(np.bincount(pixels.view(np.uint8), minlength=256), 128)  # -128 … 127
            mean = count @ table / len(pixels)
            sd = np.sqrt(count @ (table - mean) ** 2 / len(pixels))
            below = np.cumsum(count)
            quantiles = table[[np.searchsorted(below, q * len(pixels)) for q in QUANTILES]]
        else:
            pixels = dequantise(pixels, quantisation).astype(np.float64)
            mean, sd = pixels.mean(), pixels.std()
            quantiles = np.quantile(pixels, QUANTILES, method="inverted_cdf")
        columns.append([mean, sd, *quantiles])
    return np.array(columns).T


def band_summaries(store: Store, rows: np.ndarray, side: int) -> np.ndarray:
    """`tile_summary` over the centre crop of `side` px of the tiles `rows` -> (N, PER_BAND, C); [:, 0] are the means.

    Raises DataError if a tile has no valid pixel in the crop.
    """
    tiles, index = np.unique(np.asarray(rows), return_inverse=True)
    found = []
    for tile in tqdm(tiles, desc="band statistics", unit="tile", leave=False):
        valid = centre_crop(store.valid([tile])[0], side, side)
        if not valid.any():
            raise DataError(
                f"{store.folder}: {store.tiles.tile_id[tile]}: valid pixels: found none in the centre {side} px, "
                "expected some; remove the tile and its label"
            )
        found.append(tile_summary(centre_crop(store.view(tile), side, side), valid, store.quantisation))
    return np.array(found)[index]


def past_forecasts(known: pd.DataFrame, rows: pd.DataFrame, before: np.ndarray) -> pd.DataFrame:
    """Forecasts of `rows` (place, time) from their place's `known` labels (place, time, target) dated `before` (N,).

    Returns:
        One row for each of `rows`: `labels`, how many were used; `last` of them; their `mean`; `trend`, the line
        through them at the row's time (least squares), or their mean where they are of fewer than two times. NaN
        where there is none.
    """
    panel = {name: part.sort_values("time") for name, part in known.groupby("place")}
    found = []
    for row, limit in zip(rows.itertuples(), before, strict=True):
        past = panel.get(row.place, known[:0])
        past = past[past.time < limit]
        y, time = past.target.to_numpy(np.float64), past.time.to_numpy(np.float64)
        if not len(y):
            found.append((0, np.nan, np.nan, np.nan))
            continue
        centred = time - time.mean()
        slope = centred @ y / (centred @ centred) if np.ptp(time) else 0.0
        found.append((len(y), y[-1], y.mean(), y.mean() + slope * (row.time - time.mean())))
    return pd.DataFrame(found, columns=["labels", "last", "mean", "trend"], index=rows.index)


def unit_vectors(lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Degrees -> (N, 3) on the unit sphere, where distances are right across the date line and the poles."""
    lat, lon = np.radians(lat), np.radians(lon)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


def gaussian_process(where: np.ndarray, y: np.ndarray, held: np.ndarray, length: float, noise: float) -> np.ndarray:
    """Gaussian process regression (kriging) with a Matérn 3/2 kernel on standardised labels.

    where (N, 3) and held (M, 3) of `unit_vectors`; length in their unit, 1 is 57 degrees; noise is a variance, 1 is
    that of the labels. Labels at one point enter as their mean with a noise smaller by their number, which is the same
    regression on fewer rows (Rasmussen and Williams 2006, eq. 2.23).
    """
    points, at, count = np.unique(where, axis=0, return_inverse=True, return_counts=True)
    z = (y - y.mean()) / y.std()
    model = GaussianProcessRegressor(Matern(length, nu=1.5), alpha=noise / count, optimizer=None)
    model.fit(points, np.bincount(at.ravel(), weights=z) / count)
    return model.predict(held) * y.std() + y.mean()
