"""Prediction intervals that hold for a new place: conformal prediction where places are exchangeable and rows are not.

The years of one place share their surroundings, so K places with all their years are K observations and not N. A row of
a new place is covered with a probability of at least `level`, whatever the years of a place have in common and however
unequal their numbers, by either of two rules:

- fewer than HIERARCHICAL_PLACES: one year is drawn of every place and the K drawn scores are ranked as split conformal
  prediction ranks rows (Dunn, Wasserman and Ramdas 2022, single subsampling). Coverage is m / (K + 1) with
  m = ceil((K + 1) level), so at most 1 / (K + 1) above `level`;
- from there on every year is kept, weighing 1 / ((K + 1) n_k) where its place has n_k (Lee, Barber and Willett 2023,
  HCP). The result varies half as much between calibration sets, but where the years of a place are nearly independent
  it covers about level / K too much: 0.94 for 0.90 at 20 places.

A score is one number per row, larger where the prediction is worse: |y - prediction| for a point prediction, whose
interval is prediction -/+ the calibrated score; `sample_scores` for sampled answers.
"""

import math

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GroupKFold

from src.core.evaluation.regression_scores import finite
from src.core.stage.errors import DataError

ROUNDING = 1e-9
"""0.9 / (1 - 0.9) is 9.000000000000002, which must not ask for a tenth place."""

HIERARCHICAL_PLACES = 50
"""Places from which on the hierarchical rule's excess, level / K, stays within 2 points."""


def required_places(level: float) -> int:
    """Fewest calibration places that support `level` (between 0 and 1): with fewer the interval would be infinite."""
    return math.ceil(level / (1 - level) - ROUNDING)


def calibrate(scores: np.ndarray, place: np.ndarray, level: float, seed: int) -> float:
    """The score that a row of a new place exceeds with probability at most 1 - level.

    `scores` are (N,) of rows that the model was not fitted on, `place` their names; `seed` draws years.

    Raises:
        DataError: too few places for `level`.
        ValueError: a score is not finite.
    """
    weights = weigh(place, scores, level, seed)
    return float(_quantile(finite(scores)[:, None], weights, level)[0])


def weigh(place: np.ndarray, scores: np.ndarray, level: float, seed: int) -> np.ndarray:
    """Weights (N,) of the scores, K / (K + 1) together; the rest lies at infinity, where the new row's may be."""
    _, index, counts = np.unique(np.asarray(place, dtype=str), return_inverse=True, return_counts=True)
    places = len(counts)
    if places < (needed := required_places(level)):
        highest = f"a level of at most {math.floor(1000 * places / (places + 1)) / 1000:g}" if places else "labels"
        raise DataError(
            f"`level`: found {level:g} with {places} calibration places, expected at least {needed} places or "
            f"{highest}; lower `level` or calibrate on more places"
        )
    if places >= HIERARCHICAL_PLACES:
        return 1 / ((places + 1) * counts[index])
    weights = np.zeros(len(index))
    weights[draw_years(place, scores, seed)] = 1 / (places + 1)
    return weights


def draw_years(place: np.ndarray, scores: np.ndarray, seed: int) -> np.ndarray:
    """Index of one row of each place, (K,), every row of a place as likely as the others."""
    # Sorted by score within a place, so that the order of the file decides nothing.
    order = np.lexsort((scores, np.asarray(place, dtype=str)))
    _, starts, counts = np.unique(np.asarray(place, dtype=str)[order], return_index=True, return_counts=True)
    return order[starts + np.random.default_rng(seed).integers(counts)]


def sample_range(samples: np.ndarray, level: float, fallback: float) -> tuple[np.ndarray, np.ndarray]:
    """The middle `level` of each row's sampled answers, uncalibrated -> (low (N,), high (N,)).

    Order statistics, symmetric: the smallest and largest answer where there are fewer than 2 / (1 - level).

    Args:
        samples: (N, S), NaN where an answer could not be parsed.
        fallback: the training mean, which is both ends for a row without any parsed answer, as it is that row's
            prediction in every score. Such rows are calibrated with all others: they cost width, never coverage.
    """
    ordered = np.sort(np.asarray(samples, dtype=np.float64), axis=1)  # NaN last
    parsed = np.count_nonzero(~np.isnan(ordered), axis=1)
    tail = np.maximum(np.ceil(parsed * (1 - level) / 2 - ROUNDING).astype(int) - 1, 0)
    rows = np.arange(len(ordered))
    low, high = ordered[rows, tail], ordered[rows, np.maximum(parsed - 1 - tail, 0)]
    return np.where(parsed > 0, low, fallback), np.where(parsed > 0, high, fallback)


def sample_scores(y: np.ndarray, samples: np.ndarray, level: float, fallback: float) -> np.ndarray:
    """Distance of (N,) `y` from `sample_range`, negative inside (Romano, Patterson and Candès 2019, CQR)."""
    low, high = sample_range(samples, level, fallback)
    return np.maximum(low - y, y - high)


def sample_bounds(samples: np.ndarray, q: float, level: float, fallback: float) -> tuple[np.ndarray, np.ndarray]:
    """`sample_range` widened by the calibrated score `q`, or narrowed by a negative one -> (low (N,), high (N,))."""
    low, high = sample_range(samples, level, fallback)
    return _uncrossed(low - q, high + q)


def cv_plus(
    residual: np.ndarray,
    place: np.ndarray,
    fold: np.ndarray,
    fold_predictions: np.ndarray,
    level: float,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """CV+ over folds of places (Barber, Candès, Ramdas and Tibshirani 2021) -> (low (M,), high (M,)).

    Every place calibrates, and every place but one fold's trains: no label is set aside. Proven is a coverage of
    1 - 2 (1 - level) less a term that falls with the number of places; usual is `level`.

    Args:
        residual: (N,) |y - prediction| by the model that was not fitted on the row's `fold`, numbered from 0.
        fold_predictions: (F, M) of the new rows by the model fitted without each fold.

    Raises:
        DataError: too few places for `level`.
        ValueError: a place lies in two folds, or a number is not finite.
    """
    residual, fold, fold_predictions = finite(residual), np.asarray(fold), finite(fold_predictions)
    names, index = np.unique(np.asarray(place, dtype=str), return_inverse=True)
    pairs = np.unique(np.stack([index, fold], axis=1), axis=0)
    if len(pairs) > len(names):
        split = names[np.bincount(pairs[:, 0]) > 1]
        raise ValueError(f"places in several folds: {', '.join(split[:5])}")
    weights = weigh(place, residual, level, seed)
    used = weights > 0
    weights, centre, width = weights[used], fold_predictions[fold[used]], residual[used, None]  # (n,), (n, M), (n, 1)
    # folds that disagree about a row by more than their residuals would turn its interval inside out
    return _uncrossed(-_quantile(width - centre, weights, level), _quantile(centre + width, weights, level))


def cross_fit(
    estimator: BaseEstimator, x: np.ndarray, y: np.ndarray, place: np.ndarray, x_new: np.ndarray, folds: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """residual (N,), fold (N,) and fold_predictions (folds, M) for `cv_plus`, refitted without each fold of places.

    `x` (N, D), `y` and `place` are those of the labels that may be learned from, `x_new` is (M, D).
    """
    residual, fold = np.empty(len(y)), np.empty(len(y), dtype=int)
    fold_predictions = []
    splitter = GroupKFold(folds, shuffle=True, random_state=seed)
    for number, (kept, held) in enumerate(splitter.split(x, y, np.asarray(place, dtype=str))):
        model = clone(estimator).fit(x[kept], y[kept])
        residual[held] = np.abs(y[held] - model.predict(x[held]))
        fold[held] = number
        fold_predictions.append(model.predict(x_new))
    return residual, fold, np.stack(fold_predictions)


def _uncrossed(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same bounds, but the middle of an interval that is inside out, which can only cover more."""
    middle = (low + high) / 2
    return np.minimum(low, middle), np.maximum(high, middle)


def _quantile(values: np.ndarray, weights: np.ndarray, level: float) -> np.ndarray:
    """Smallest of each column of (N, M) `values` that at least `level` of the weight does not exceed -> (M,)."""
    order = np.argsort(values, axis=0, kind="stable")
    enough = np.cumsum(weights[order], axis=0) >= level - ROUNDING
    return np.take_along_axis(values, order, axis=0)[enough.argmax(axis=0), np.arange(values.shape[1])]
