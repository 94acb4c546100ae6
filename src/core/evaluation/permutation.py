"""Permutation test: labels moved between places as whole trajectories, times kept.

Labels of one place resemble each other over time, and all places share what a time brings. Moving labels one by one
would destroy both, and so make the null easier to beat than it is.
"""

import numpy as np

PERMUTE = 4  # stream of random numbers, beside those of src.core.data.augment


def permute_trajectories(
    y: np.ndarray, place: np.ndarray, time: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Labels in which every place has those that another, drawn place has at the same times.

    Where the donor lacks a time, it gives its mean deviation from the times' means plus that time's mean. No place is
    its own donor unless it is the only one, so a balanced panel is permuted within each time. The order of places and
    rows changes nothing but rounding.
    """
    y = np.asarray(y, dtype=np.float64)
    names, at = np.unique(np.asarray(place, dtype=str), return_inverse=True)
    times, when = np.unique(time, return_inverse=True)
    panel = np.full((len(names), len(times)), np.nan)
    panel[at, when] = y
    time_mean = np.bincount(when, weights=y) / np.bincount(when)
    deviation = np.nanmean(panel - time_mean, axis=1)
    filled = np.where(np.isnan(panel), deviation[:, None] + time_mean, panel)
    return filled[_derangement(len(names), generator)[at], when]


def permute_roles(
    y: np.ndarray, place: np.ndarray, time: np.ndarray, role: np.ndarray, seed: int, draw: int
) -> np.ndarray:
    """The labels y (N,) with those of training and validation permuted, a function of (seed, draw).

    Places of training and validation are permuted apart, or together where both share them (forecasts).
    """
    generator = np.random.default_rng([seed, draw, PERMUTE])
    train, validation = (np.asarray(role) == name for name in ("train", "validation"))
    shared = set(place[train]) & set(place[validation])
    permuted = y.astype(np.float64)
    for part in [train | validation] if shared else [train, validation]:
        if part.any():
            permuted[part] = permute_trajectories(y[part], place[part], time[part], generator)
    return permuted


def permutation_p_value(observed: float, null: np.ndarray) -> float:
    """Share of draws `null` (D,) that reach `observed`, itself among them, so never 0 (Phipson and Smyth 2010)."""
    return float((1 + np.count_nonzero(null >= observed)) / (1 + len(null)))


def _derangement(count: int, generator: np.random.Generator) -> np.ndarray:
    """A permutation of `count` that leaves none in place; drawn again until it does, e = 2.7 times on average."""
    while True:
        drawn = generator.permutation(count)
        if count < 2 or not np.any(drawn == np.arange(count)):
            return drawn
