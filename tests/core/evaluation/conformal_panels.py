"""Simulated panels of errors, and intervals for them."""

import numpy as np

from src.core.evaluation import conformal
from src.core.evaluation.interval_coverage import coverage


def cv_plus_by_place(estimator, x, y, place, x_new, level, folds, seed):
    """Intervals of new rows from an estimator that is fitted anew without each fold of places."""
    residual, fold, predictions = conformal.cross_fit(estimator, x, y, place, x_new, folds, seed)
    return conformal.cv_plus(residual, place, fold, predictions, level, seed)


def draw_panel(places, icc, generator):
    """Place of each row and its error, variance 1, of which `icc` is the place's own; 1 to 12 years a place."""
    place = np.repeat(np.arange(places), generator.integers(1, 13, places))
    error = np.sqrt(icc) * generator.normal(size=places)[place] + np.sqrt(1 - icc) * generator.normal(size=len(place))
    return place, error


def covered(y, bounds, place):
    return coverage(y, *bounds, place)["coverage"]


def hierarchical(scores, place, level):
    """Lee, Barber and Willett 2023: a row weighs 1 / ((K + 1) n_k), and 1 / (K + 1) lies at infinity."""
    counts = np.bincount(place)
    order = np.argsort(scores)
    weight = 1 / ((len(counts) + 1) * counts[place[order]])
    return scores[order][np.searchsorted(np.cumsum(weight), level - 1e-9)]
