"""Scores of a regression, and their intervals from resampling whole correlated units.

R² is 1 - SSE/SST about the mean of the truth that is scored. Intervals are 95 % percentile
intervals of a bootstrap that draws units (spatial blocks, or places with all their years) with
replacement, never rows: rows of one unit share their surroundings, and resampling them
understates an interval about fivefold (Davison and Hinkley 1997, ch. 3.8, call it the cluster
bootstrap). A draw of units is a vector of multiplicities, so every score but the rank
correlation is a function of per-unit sums and thousands of draws are one matrix product.
"""

import numpy as np
from scipy.stats import pearsonr, spearmanr

MINIMUM_UNITS = 10
"""Below this many units a percentile interval means nothing, and none is given."""

SCORES = ("r2", "mae", "rmse", "pearson_r", "spearman_r", "bias")


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
    y, prediction = _finite(y), _finite(prediction)
    error = prediction - y
    total = np.sum((y - y.mean()) ** 2)
    constant = np.ptp(y) == 0 or np.ptp(prediction) == 0
    return {
        "r2": float(1 - np.sum(error**2) / total) if total > 0 else None,
        "mae": float(np.mean(np.abs(error))),
        "rmse": float(np.sqrt(np.mean(error**2))),
        "pearson_r": None if constant else float(pearsonr(y, prediction).statistic),
        "spearman_r": None if constant else float(spearmanr(y, prediction).statistic),
        "bias": float(error.mean()),
        "n": len(y),
    }


def r2_within_year(y: np.ndarray, prediction: np.ndarray, year: np.ndarray) -> float | None:
    """1 - SSE/SST with SST about each year's own mean of `y`: what is explained beyond the calendar.

    0 for a predictor that knows only each year's mean; None if no year holds two different values.
    """
    y, prediction = _finite(y), _finite(prediction)
    _, index = np.unique(year, return_inverse=True)
    mean = np.bincount(index, weights=y) / np.bincount(index)
    total = np.sum((y - mean[index]) ** 2)
    return float(1 - np.sum((prediction - y) ** 2) / total) if total > 0 else None


def intervals(
    y: np.ndarray,
    prediction: np.ndarray,
    units: np.ndarray,
    resamples: int,
    seed: int,
    year: np.ndarray | None = None,
) -> dict:
    """`<score>_low` and `<score>_high` of every score: 95 % percentile intervals over `units` (N,).

    With `year` (N,) also `r2_within_year_low` and `_high`. All are None below MINIMUM_UNITS units,
    and where a draw leaves the score undefined.
    """
    y, prediction = _finite(y), _finite(prediction)
    draws, index = _draws(units, resamples, seed)
    names = (*SCORES, *(() if year is None else ("r2_within_year",)))
    if draws is None:
        return {f"{name}_{end}": None for name in names for end in ("low", "high")}
    samples = _drawn_scores(y, prediction, index, draws)
    samples["spearman_r"] = _drawn_spearman(y, prediction, draws[:, index])
    if year is not None:
        samples["r2_within_year"] = _drawn_r2_within_year(y, prediction, year, index, draws)
    return {key: value for name in names for key, value in _percentiles(name, samples[name]).items()}


def paired_interval(y: np.ndarray, a: np.ndarray, b: np.ndarray, units: np.ndarray, resamples: int, seed: int) -> dict:
    """Differences a - b in R² and MAE with 95 % intervals; both are scored on the same drawn units.

    Keys r2, r2_low, r2_high, mae, mae_low, mae_high, n, n_units. a is better where r2 > 0 and mae < 0.
    """
    y, a, b = _finite(y), _finite(a), _finite(b)
    draws, index = _draws(units, resamples, seed)
    ours, theirs = scores(y, a), scores(y, b)
    result = {}
    if draws is not None:
        drawn_a, drawn_b = _drawn_scores(y, a, index, draws), _drawn_scores(y, b, index, draws)
    for name in ("r2", "mae"):
        result[name] = None if ours[name] is None else ours[name] - theirs[name]
        if draws is None:
            result |= {f"{name}_low": None, f"{name}_high": None}
        else:
            result |= _percentiles(name, drawn_a[name] - drawn_b[name])
    return result | {"n": len(y), "n_units": int(index.max()) + 1}


def mean_interval(values: np.ndarray, units: np.ndarray, resamples: int, seed: int) -> dict:
    """Mean of (N,) values with its interval: keys "" (the mean), "_low", "_high"; None below MINIMUM_UNITS units."""
    values = _finite(values)
    draws, index = _draws(units, resamples, seed)
    if draws is None:
        return {"": float(values.mean()), "_low": None, "_high": None}
    sums = draws @ _unit_sums(index, values, np.ones_like(values))
    return {"": float(values.mean())} | _percentiles("", sums[:, 0] / sums[:, 1])


def rounded(value: object, digits: int = 6) -> object:
    """A nested result with its floats rounded, so that the last bits of a sum never reach a file."""
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, digits) for item in value]
    # + 0.0 turns -0.0 into 0.0
    return round(float(value), digits) + 0.0 if isinstance(value, float) else value


def _finite(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(values))} of {values.size} values are not finite")
    return values


def _draws(units: np.ndarray, resamples: int, seed: int) -> tuple[np.ndarray | None, np.ndarray]:
    """How often each unit is drawn, (resamples, units) float64, and each row's unit (N,)."""
    names, index = np.unique(np.asarray(units, dtype=str), return_inverse=True)
    if len(names) < MINIMUM_UNITS:
        return None, index
    share = np.full(len(names), 1 / len(names))
    draws = np.random.default_rng(seed).multinomial(len(names), share, size=resamples)
    return draws.astype(np.float64), index


def _unit_sums(index: np.ndarray, *columns: np.ndarray) -> np.ndarray:
    """Sums of (N,) columns within units -> (units, columns)."""
    return np.stack([np.bincount(index, weights=column) for column in columns], axis=1)


def _drawn_scores(y: np.ndarray, prediction: np.ndarray, index: np.ndarray, draws: np.ndarray) -> dict[str, np.ndarray]:
    """Every score but the rank correlation, for each draw (resamples,)."""
    # Centred first: the differences of large sums below would lose digits otherwise.
    centre_y, centre_p = y.mean(), prediction.mean()
    t, p, error = y - centre_y, prediction - centre_p, prediction - y
    sums = draws @ _unit_sums(index, np.ones_like(y), t, p, t * t, p * p, t * p, np.abs(error), error, error**2)
    n, t1, p1, tt, pp, tp, absolute, signed, squared = sums.T
    total, spread, together = tt - t1**2 / n, pp - p1**2 / n, tp - t1 * p1 / n
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "r2": np.where(total > 0, 1 - squared / total, np.nan),
            "mae": absolute / n,
            "rmse": np.sqrt(squared / n),
            "pearson_r": _correlation(together, total, spread, np.sum(t * t), np.sum(p * p)),
            "bias": signed / n,
        }


def _correlation(
    together: np.ndarray, spread_a: np.ndarray, spread_b: np.ndarray, scale_a: float, scale_b: float
) -> np.ndarray:
    """together / sqrt(spread_a spread_b), NaN where a spread is no more than rounding of its scale."""
    defined = (spread_a > 1e-12 * scale_a) & (spread_b > 1e-12 * scale_b)
    return np.where(defined, together / np.sqrt(spread_a * spread_b), np.nan)


def _drawn_spearman(y: np.ndarray, prediction: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Spearman's rho of each draw (resamples,), ranks taken within the draw; weights (resamples, N)."""
    a, b = _drawn_ranks(y, weights), _drawn_ranks(prediction, weights)
    n = weights.sum(axis=1)
    a -= ((weights * a).sum(axis=1) / n)[:, None]
    b -= ((weights * b).sum(axis=1) / n)[:, None]
    spreads = [(weights * x * x).sum(axis=1) for x in (a, b)]
    with np.errstate(divide="ignore", invalid="ignore"):
        return _correlation((weights * a * b).sum(axis=1), *spreads, *(n**3 for _ in spreads))


def _drawn_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Midrank of every row in a sample that holds it `weights` times, (resamples, N)."""
    distinct, index = np.unique(values, return_inverse=True)
    tied = np.zeros((len(weights), len(distinct)))
    for row, value in enumerate(index):
        tied[:, value] += weights[:, row]
    return (np.cumsum(tied, axis=1) - tied / 2 + 0.5)[:, index]


def _drawn_r2_within_year(
    y: np.ndarray, prediction: np.ndarray, year: np.ndarray, index: np.ndarray, draws: np.ndarray
) -> np.ndarray:
    error = draws @ _unit_sums(index, (prediction - y) ** 2)[:, 0]
    total = np.zeros(len(draws))
    for value in np.unique(year):
        here = year == value
        t = np.where(here, y - y[here].mean(), 0.0)
        n, t1, tt = (draws @ _unit_sums(index, here.astype(np.float64), t, t * t)).T
        total += tt - t1**2 / np.maximum(n, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > 0, 1 - error / total, np.nan)


def _percentiles(name: str, values: np.ndarray) -> dict:
    if np.isnan(values).any():
        return {f"{name}_low": None, f"{name}_high": None}
    low, high = np.percentile(values, [2.5, 97.5])
    return {f"{name}_low": float(low), f"{name}_high": float(high)}
