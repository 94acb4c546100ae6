"""Spread of a score over repeated runs; interval and variance components of a difference between two models."""

import numpy as np
import pandas as pd
from scipy.stats import t

from src.core.stage.errors import DataError

MINIMUM_DRAWS = 5  # fewer repeated splits say too little of how far their differences scatter
LEVEL = 0.95


def spread(scores: np.ndarray) -> dict:
    """Mean, standard deviation (ddof 1), low, high and number J of one score over J >= 2 runs, scores (J,).

    No interval of the mean: three runs give none worth having, and the data are the same in all.
    Raises ValueError for fewer than two, or where one is not finite.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if len(scores) < 2 or not np.isfinite(scores).all():
        raise ValueError(f"found the scores {scores.tolist()}, expected at least two, all finite")
    moments = {"mean": float(scores.mean()), "sd": float(scores.std(ddof=1))}
    return moments | {"low": float(scores.min()), "high": float(scores.max()), "J": len(scores)}


def corrected_interval(differences: np.ndarray, n_train: float, n_test: float) -> dict:
    """Mean of the differences (J,) over J repeated splits with its 95 % interval and two-sided p-value.

    The corrected resampled t-test of Nadeau and Bengio (2003, Machine Learning 52:239): the training sets overlap, so
    the variance of the mean is (1/J + n_test/n_train) s², with t of J - 1 degrees of freedom. `n_train` and `n_test`
    count units (places, blocks) of one split, not rows. Keys low, high and p may be None, for a `reason`. Raises
    ValueError where a difference is not finite.
    """
    differences = np.asarray(differences, dtype=np.float64)
    count = len(differences)
    if not np.isfinite(differences).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(differences))} of {count} differences are not finite")
    result = {"mean": float(differences.mean()) if count else None, "low": None, "high": None, "p": None, "J": count}
    if count < MINIMUM_DRAWS:
        return result | {"reason": f"{count} splits, expected at least {MINIMUM_DRAWS}"}
    if np.ptp(differences) == 0:
        return result | {"reason": f"all {count} differences are equal"}
    error = np.sqrt((1 / count + n_test / n_train) * differences.var(ddof=1))
    reach = error * t.ppf((1 + LEVEL) / 2, count - 1)
    low, high = result["mean"] - reach, result["mean"] + reach
    p = 2 * t.sf(abs(result["mean"]) / error, count - 1)
    return result | {"low": float(low), "high": float(high), "p": float(p), "reason": None}


def variance_components(table: pd.DataFrame) -> dict:
    """Variances of one run's difference between two models: from the split, the models' seed and the data.

    A run is all folds of one split_seed and seed; its difference is the mean over folds, and its data variance their
    sum over the squared number of folds, as no unit is tested in two. Split and seed are crossed random effects, by the
    method of moments (Searle, Casella and McCulloch 1992, ch. 4).

    Args:
        table: one row for each split_seed, seed and fold (one where the run is pooled over folds), with the
            `difference` and its `data_variance`, the square of its standard error over the units of that fold.

    Returns:
        split: between splits, beyond what the seeds within them explain, 0 where negative; None with one split or seed.
        seed: between seeds within one split, their interaction with the split included; None with one seed.
        data: mean over the runs.
        n_splits, n_seeds, reason (of a None, else None).

    Raises:
        DataError: a run or a fold is missing.
    """
    runs = _runs(table)
    means = runs["difference"].unstack("seed").to_numpy()  # (splits, seeds)
    splits, seeds = means.shape
    result = {"split": None, "seed": None, "data": float(runs["data"].mean()), "n_splits": splits, "n_seeds": seeds}
    if seeds == 1:
        return result | {"reason": "one seed: the variance between splits and between seeds cannot be told apart"}
    if splits == 1:
        return result | {"seed": float(means.var(ddof=1)), "reason": "one split: no variance between splits"}
    by_split, by_seed = means.mean(axis=1), means.mean(axis=0)
    rest = means - by_split[:, None] - by_seed[None, :] + means.mean()
    interaction = np.sum(rest**2) / ((splits - 1) * (seeds - 1))
    result["split"] = float(max(0.0, by_split.var(ddof=1) - interaction / seeds))
    result["seed"] = float(means.var(axis=1, ddof=1).mean())
    return result | {"reason": None}


def _runs(table: pd.DataFrame) -> pd.DataFrame:
    """Mean difference and data variance of each run, indexed by split_seed and seed; every run is there."""
    keys = ["split_seed", "seed", "fold"]
    whole = pd.MultiIndex.from_product([sorted(table[key].unique()) for key in keys], names=keys)
    absent = whole.difference(pd.MultiIndex.from_frame(table[keys]))
    if len(absent):
        first = ", ".join(f"{key} {value}" for key, value in zip(keys, absent[0], strict=True))
        raise DataError(
            f"comparison: {len(absent)} of {len(whole)} results are missing (first: {first}); expected every seed and "
            "fold for every split: run them, or leave the others out"
        )
    grouped = table.groupby(["split_seed", "seed"])
    folds = table["fold"].nunique()
    return pd.DataFrame({"difference": grouped["difference"].mean(), "data": grouped["data_variance"].sum() / folds**2})
