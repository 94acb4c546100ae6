"""Scores of a regression: how far predictions lie from the truth, and in which respect they are right.

R² is 1 - SSE/SST about the mean of the truth that is scored. In a panel (places with several years each) it hides what
was easy, which `panel_scores` tells apart. `jackknife` calls these functions once for each unit that is left out: they
are kept quick.
"""

import numpy as np
from scipy.stats import rankdata

SCORES = ("r2", "mae", "rmse", "pearson_r", "spearman_r", "bias")
PANEL_SCORES = ("r2_within_year", "r2_between_place", "r2_change", "r2_oos")


def fill_missing(prediction: np.ndarray, train_mean: float) -> tuple[np.ndarray, float]:
    """Unparsable answers (NaN) as the training mean -> ((N,) float64, share that was not NaN)."""
    prediction = np.asarray(prediction, dtype=np.float64)
    missing = np.isnan(prediction)
    return np.where(missing, train_mean, prediction), float(1 - missing.mean())


def scores(y: np.ndarray, prediction: np.ndarray) -> dict:
    """r2, mae, rmse, pearson_r, spearman_r, bias (mean of prediction - y) and n of (N,) arrays.

    A score that is not defined (a correlation with a constant, R² of a constant truth) is None.
    Raises ValueError where a value is not finite: `fill_missing` comes first.
    """
    y, prediction = finite(y), finite(prediction)
    error, both = prediction - y, np.stack([y, prediction])
    constant = np.ptp(y) == 0 or np.ptp(prediction) == 0
    return {
        "r2": r2(y, prediction),
        "mae": float(np.mean(np.abs(error))),
        "rmse": float(np.sqrt(np.mean(error**2))),
        "pearson_r": None if constant else float(np.corrcoef(both)[0, 1]),
        "spearman_r": None if constant else float(np.corrcoef(rankdata(both, axis=1))[0, 1]),
        "bias": float(error.mean()),
        "n": len(y),
    }


def panel_scores(
    y: np.ndarray, prediction: np.ndarray, year: np.ndarray, place: np.ndarray, reference: np.ndarray
) -> dict:
    """PANEL_SCORES of (N,) arrays; None where a score is not defined.

    r2_within_year: errors against deviations from each year's own mean, so that a predictor that knows only these
        means scores 0: what is explained beyond the calendar; needs two years.
    r2_between_place: of the places' means, each place counting once; needs two places.
    r2_change: of deviations from the place's own mean (fixed effects); over the places with two rows or more.
    r2_oos: errors against y - `reference`, the mean of the labels that the row's own fold was
        trained on, so that this mean as a prediction scores exactly 0 (Campbell and Thompson 2008).
    """
    y, prediction = finite(y), finite(prediction)
    index, count = _index_and_count(year)
    of_year = y - (np.bincount(index, weights=y) / count)[index]
    several = len(count) > 1
    index, count = _index_and_count(place)
    mean_y, mean_p = (np.bincount(index, weights=values) / count for values in (y, prediction))
    change_y, change_p = y - mean_y[index], prediction - mean_p[index]
    again = count[index] > 1
    return {
        "r2_within_year": _share_explained(prediction - y, of_year, y) if several else None,
        "r2_between_place": _share_explained(mean_p - mean_y, mean_y - mean_y.mean(), y),
        "r2_change": _share_explained((change_p - change_y)[again], change_y[again], y),
        "r2_oos": _share_explained(prediction - y, y - finite(reference), y),
    }


def r2(y: np.ndarray, prediction: np.ndarray) -> float | None:
    """1 - SSE/SST of finite (N,) float64 arrays; None where `y` is constant."""
    return _share_explained(prediction - y, y - y.mean(), y)


def rounded(value: object) -> object:
    """A nested result with its floats rounded, so that the last bits of a sum never reach a file."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    # + 0.0 turns -0.0 into 0.0
    return round(float(value), 6) + 0.0 if isinstance(value, float) else value


def finite(values: np.ndarray) -> np.ndarray:
    """The values as (N,) float64. Raises ValueError where there are none, or one is not finite."""
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(values))} of {values.size} values are not finite")
    return values


def _share_explained(error: np.ndarray, deviation: np.ndarray, y: np.ndarray) -> float | None:
    """1 - SSE/SST; None where the deviations of `y` are no more than rounding."""
    total = np.sum(deviation**2)
    rounding = len(deviation) * (1e-14 * np.abs(y).max()) ** 2
    return float(1 - np.sum(error**2) / total) if total > rounding else None


def _index_and_count(names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row's group (N,) and the rows of each group (groups,)."""
    _, index, count = np.unique(np.asarray(names), return_inverse=True, return_counts=True)
    return index, count
