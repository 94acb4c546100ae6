"""Dependence of the rows of a panel on one another: intraclass correlation, Moran's I, effective sample size."""

import numpy as np
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from src.core.geo.distances import to_cartesian

NEIGHBOURS = 8
MINIMUM_PLACES = 10  # with fewer, eight neighbours are nearly all others, and Moran's I says nothing
PERMUTATIONS = 999


def icc(values: np.ndarray, groups: np.ndarray) -> float | None:
    """Intraclass correlation of (N,) values: the share of their variance that the rows of a group have in common.

    The one-way analysis of variance estimator for groups of unequal size (Donner 1986, Int. Stat. Rev. 54:67), 0 where
    it is negative. None with one group, no group of two rows, or no variance.
    """
    values = np.asarray(values, dtype=np.float64)
    _, index, size = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    n, count = len(values), len(size)
    if count < 2 or n == count or np.ptp(values) == 0:
        return None
    mean = np.bincount(index, weights=values) / size
    between = np.sum(size * (mean - values.mean()) ** 2) / (count - 1)
    within = np.sum((values - mean[index]) ** 2) / (n - count)
    typical = (n - np.sum(size**2) / n) / (count - 1)
    return float(max(0.0, (between - within) / (between + (typical - 1) * within)))


def effective_size(groups: np.ndarray, correlation: float) -> float:
    """Independent rows that say as much about a mean as the (N,) rows in `groups`, whose ICC is `correlation`.

    n / (1 + (m - 1) ICC) with m = sum m_g^2 / sum m_g for groups of unequal size (Kish 1965).
    """
    size = np.unique(np.asarray(groups), return_counts=True)[1]
    return float(size.sum() / (1 + (np.sum(size**2) / size.sum() - 1) * correlation))


def morans_i(values: np.ndarray, lat: np.ndarray, lon: np.ndarray, seed: int) -> tuple[float, float] | None:
    """Moran's I of (N,) values of N places at degrees `lat`, `lon`, and its p-value.

    Weights are 1/8 for the 8 nearest places on the sphere. Without spatial correlation -1/(N - 1) is expected; the
    p-value is one-sided (neighbours are alike), from 999 permutations of the values over the places (Cliff and Ord
    1981). None below MINIMUM_PLACES places or without variance.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < MINIMUM_PLACES or np.ptp(values) == 0:
        return None
    weights = _nearest(lat, lon)
    centred = values - values.mean()
    drawn = np.random.default_rng(seed).permuted(np.tile(centred, (PERMUTATIONS, 1)), axis=1)
    # (draws, N), the values as they lie first
    drawn = np.vstack([centred, drawn])
    found = np.sum(drawn * (weights @ drawn.T).T, axis=1) / np.sum(centred**2)
    # As high as the value itself up to the order of summation.
    above = np.count_nonzero(found[1:] >= found[0] - 1e-12)
    return float(found[0]), float((1 + above) / (1 + PERMUTATIONS))


def describe(
    y: np.ndarray,
    prediction: np.ndarray,
    place: np.ndarray,
    block: np.ndarray | None,
    lat: np.ndarray,
    lon: np.ndarray,
    seed: int,
) -> dict:
    """Dependence of the residuals of (N,) rows on one another, for JSON; None where something is not defined.

    Moran's I is that of the places' mean residuals at their mean coordinates (degrees or NaN), n_effective the smaller
    of the effective sizes by place and block.
    """
    residual = np.asarray(prediction, dtype=np.float64) - np.asarray(y, dtype=np.float64)
    names, index, size = np.unique(np.asarray(place), return_inverse=True, return_counts=True)
    found = None
    if np.isfinite(lat).all() and np.isfinite(lon).all():
        found = morans_i(*(np.bincount(index, weights=values) / size for values in (residual, lat, lon)), seed)
    by_place, by_block = (None if groups is None else icc(residual, groups) for groups in (place, block))
    pairs = ((place, by_place), (block, by_block))
    effective = [effective_size(groups, correlation) for groups, correlation in pairs if correlation is not None]
    return {
        "n_units_place": len(names),
        "n_units_block": None if block is None else len(np.unique(block)),
        "morans_i": found and found[0],
        "morans_i_p": found and found[1],
        "icc_place": by_place,
        "icc_block": by_block,
        "n_effective": min(effective, default=None),
    }


def _nearest(lat: np.ndarray, lon: np.ndarray) -> csr_array:
    """(N, N) weights: 1 / NEIGHBOURS for each place's nearest, never itself."""
    points = to_cartesian(lat, lon)
    count = len(points)
    # Places at one point come in any order, oneself among them: one more is asked for, and oneself dropped.
    found = cKDTree(points).query(points, k=NEIGHBOURS + 1)[1]
    others = found != np.arange(count)[:, None]
    others[others.all(axis=1), -1] = False
    columns = found[others].reshape(count, NEIGHBOURS)
    rows = np.repeat(np.arange(count), NEIGHBOURS)
    return csr_array((np.full(rows.size, 1 / NEIGHBOURS), (rows, columns.ravel())), shape=(count, count))
