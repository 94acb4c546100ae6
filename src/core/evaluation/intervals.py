"""95 % intervals of scores from leaving out whole correlated units, and when there are none.

Rows of one unit (a spatial block, or a place with all its years) share their surroundings, and
intervals from resampled rows are several times too narrow. Here one unit at a time is left out,
the standard error of the score is the delete-one-unit jackknife's on a scale where the score
varies alike wherever it lies, and the quantile is Student's with n - 1 degrees of freedom (Efron and
Tibshirani 1993, ch. 11 and 12; for clusters Cameron, Gelbach and Miller 2008 and MacKinnon, Nielsen
and Webb 2023), n being Kish's effective number of units, (sum m)^2 / sum m^2 for units of m rows.

Why one method for every number of units: over 1000 simulations the percentile bootstrap of whole
units covered 0.77 to 0.91 at 10 units and 0.92 to 0.95 at 110 (r2, mae and paired r2; BCa 0.80 to
0.94 and 0.92 to 0.94), this one 0.90 to 0.96 and 0.94 to 0.95. `python -m tests.panels` prints its
table; COVERAGE holds what is outside 0.92 to 0.98, and every result carries that as its label.
"""

import numpy as np
from scipy.stats import t

from src.core.evaluation.regression_scores import MINIMUM_UNITS, PANEL_SCORES, SCORES, finite, panel_scores, scores

LEVEL = 0.95
MINIMUM_EFFECTIVE_UNITS = 5
"""Where one of 12 units holds half of all rows (3.7 effective units), 0.97 to 0.99 is covered, not 0.95."""

AT_ONCE = 2_000_000
"""Ranks held at a time, rows times units: about 100 MB."""

COVERAGE = {
    10: {"r2": (0.90, 0.96), "rmse": (0.90, 0.95), "r2_within_year": (0.89, 0.96), "r2_oos": (0.91, 0.95)},
    22: {"r2": (0.90, 0.95), "r2_within_year": (0.89, 0.95), "r2_oos": (0.91, 0.95)},
    45: {},
}
"""From so many units on: scores whose coverage leaves 0.92 to 0.98 in a setting of `python -m tests.panels 2000`, and
the lowest and highest over its settings (ICC of the residual 0 to 0.8, of the prediction 0.5 and 0.9)."""

# A score is turned onto its scale and back. R2 onto the error relative to the truth's spread, not onto its logarithm:
# at 10 units and R2 of 0.3 to 0.9 that covers 0.87 to 0.94, the error itself 0.89 to 0.95.
_R2 = (lambda r2: np.sqrt(np.maximum(1 - r2, 0)), lambda z: 1 - np.maximum(z, 0) ** 2)
_LOG = (np.log, np.exp)
_FISHER = (lambda r: np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)), np.tanh)
_AS_IS = (lambda value: value, lambda value: value)
_SCALES = dict.fromkeys(("r2", *PANEL_SCORES), _R2)
_SCALES |= {"mae": _LOG, "rmse": _LOG, "pearson_r": _FISHER, "spearman_r": _FISHER}


def interval_method(units: np.ndarray) -> tuple[str | None, str]:
    """Which interval (N,) names of units allow: ("jackknife-t" or None, a sentence for the reader).

    None below MINIMUM_UNITS units and below MINIMUM_EFFECTIVE_UNITS effective ones.
    """
    size = np.unique(np.asarray(units, dtype=str), return_counts=True)[1]
    effective = effective_units(size)
    if len(size) < MINIMUM_UNITS:
        return None, f"none: {len(size)} units, expected at least {MINIMUM_UNITS}"
    if effective < MINIMUM_EFFECTIVE_UNITS:
        return None, (
            f"none: the {len(size)} units are so unequal that they count as {effective:.1f}, "
            f"expected at least {MINIMUM_EFFECTIVE_UNITS}"
        )
    return "jackknife-t", f"jackknife-t over {len(size)} units, which count as {effective:.1f} equal ones"


def effective_units(size: np.ndarray) -> float:
    """Kish's (sum m)^2 / sum m^2 of units with m rows (units,): their number where all are equal."""
    return float(np.sum(size) ** 2 / np.sum(np.square(size, dtype=np.float64)))


def intervals(
    y: np.ndarray,
    prediction: np.ndarray,
    units: np.ndarray,
    *,
    year: np.ndarray | None = None,
    place: np.ndarray | None = None,
    reference: np.ndarray | None = None,
) -> dict:
    """`<score>_low` and `<score>_high` of every score of (N,) arrays, "method" and "label".

    The scores are SCORES and those of PANEL_SCORES whose column (N,) is given, as `metrics.panel_scores`
    defines them. Bounds are None where `interval_method` gives none or the score is not defined with
    every unit left out. "label" says which scores the method covers badly, with the number, or is None.

    Raises ValueError where a value is not finite or a place lies in two units.
    """
    y, prediction = finite(y), finite(prediction)
    given = {"r2_within_year": year, "r2_between_place": place, "r2_change": place, "r2_oos": reference}
    names = (*SCORES, *(name for name in PANEL_SCORES if given[name] is not None))
    method, sentence = interval_method(units)
    if method is None:
        return _none(names) | {"method": sentence, "label": None}
    size, index = _sizes(units)
    values = _left_out_scores(y, prediction, index) | {"spearman_r": _left_out_spearman(y, prediction, index)}
    if year is not None and len(np.unique(year)) > 1:
        values["r2_within_year"] = _left_out_within_year(y, prediction, year, index)
    if place is not None:
        values |= _left_out_by_place(y, prediction, place, index)
    if reference is not None:
        error, total = _left_out_sums(index, (prediction - y) ** 2, (y - finite(reference)) ** 2).T
        values["r2_oos"] = 1 - _ratio(error, total)
    defined = scores(y, prediction) | panel_scores(y, prediction, year, place, reference)
    result = _none(names)
    for name, left_out in values.items():
        if defined[name] is not None:  # what is left of rounding has no bounds
            result |= _bounds(name, left_out, size)
    return result | {"method": sentence, "label": coverage_label(names, len(size))}


def paired_interval(y: np.ndarray, a: np.ndarray, b: np.ndarray, units: np.ndarray) -> dict:
    """Differences a - b in R² and MAE with intervals; both are scored without the same unit each time.

    Keys r2, r2_low, r2_high, mae, mae_low, mae_high, n, n_units, method. a is better where r2 > 0 and
    mae < 0. In simulation they cover 0.93 to 0.96 at every number of units, so there is no label.
    """
    y, a, b = finite(y), finite(a), finite(b)
    method, sentence = interval_method(units)
    size, index = _sizes(units)
    with np.errstate(divide="ignore", invalid="ignore"):  # of a single unit nothing is left
        ours, theirs = _left_out_scores(y, a, index), _left_out_scores(y, b, index)
    result = {}
    for name in ("r2", "mae"):
        difference = ours[name] - theirs[name]
        result[name] = None if np.isnan(difference[0]) else float(difference[0])
        result |= _none([name]) if method is None else _bounds(name, difference, size, _AS_IS)
    return result | {"n": len(y), "n_units": len(size), "method": sentence}


def mean_interval(values: np.ndarray, units: np.ndarray) -> dict:
    """Mean of (N,) values with its interval: keys "" (the mean), "_low", "_high", "method".

    The bounds of a share (all values are 0 or 1) stay within 0 and 1. None as in `interval_method`,
    and where all values are equal: no spread does not mean no doubt.
    """
    values = finite(values)
    method, sentence = interval_method(units)
    mean = {"": float(values.mean())}
    if method is not None and np.ptp(values) == 0:
        method, sentence = None, f"none: all {len(values)} values are equal"
    if method is None:
        return mean | _none([""]) | {"method": sentence}
    size, index = _sizes(units)
    total, count = _left_out_sums(index, values, np.ones_like(values)).T
    bounds = _bounds("", total / count, size, _AS_IS)
    if np.isin(values, (0, 1)).all():
        bounds = {key: float(np.clip(bound, 0, 1)) for key, bound in bounds.items()}
    return mean | bounds | {"method": sentence}


def coverage_label(names: tuple[str, ...], n_units: int) -> str | None:
    """Of the named scores those whose intervals cover badly with so many units, or None."""
    reached = [number for number in COVERAGE if number <= n_units]
    found = COVERAGE[max(reached)] if reached else {}
    parts = [f"{name} {found[name][0]:.2f} to {found[name][1]:.2f}" for name in names if name in found]
    return f"coverage of these 95 % intervals in simulation: {', '.join(parts)}" if parts else None


def _none(names: tuple[str, ...] | list[str]) -> dict:
    return {f"{name}_{end}": None for name in names for end in ("low", "high")}


def _sizes(units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each unit (units,) and each row's unit (N,), in the order of their names."""
    _, index, size = np.unique(np.asarray(units, dtype=str), return_inverse=True, return_counts=True)
    return size, index


def _bounds(name: str, values: np.ndarray, size: np.ndarray, scale: tuple | None = None) -> dict:
    """Bounds from a score of all units (values[0]) and without each of them (values[1:])."""
    forward, backward = scale or _SCALES.get(name, _AS_IS)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        whole, parts = forward(values[0]), forward(values[1:])
        error = np.sqrt((len(parts) - 1) * np.mean((parts - parts.mean()) ** 2))
        reach = error * t.ppf((1 + LEVEL) / 2, effective_units(size) - 1)
        low, high = sorted(backward(np.array([whole - reach, whole + reach])).tolist())
    if not np.isfinite([low, high]).all():
        return _none([name])
    return {f"{name}_low": low, f"{name}_high": high}


def _left_out_sums(index: np.ndarray, *columns: np.ndarray) -> np.ndarray:
    """Sums of (N,) columns over all units, and over all but each -> (1 + units, columns)."""
    by_unit = np.stack([np.bincount(index, weights=column) for column in columns], axis=1)
    total = by_unit.sum(axis=0)
    return np.vstack([total, total - by_unit])


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below of (1 + units,) sums of squares, NaN where `below` is only rounding of its whole."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 1e-12 * below[0], np.maximum(above, 0) / below, np.nan)


def _left_out_scores(y: np.ndarray, prediction: np.ndarray, index: np.ndarray) -> dict[str, np.ndarray]:
    """Every score of rows alone but the rank correlation: of all units, and without each (1 + units,)."""
    # Centred first: the differences of large sums below would lose digits otherwise.
    s, p, error = y - y.mean(), prediction - prediction.mean(), prediction - y
    sums = _left_out_sums(index, np.ones_like(y), s, p, s * s, p * p, s * p, np.abs(error), error, error**2)
    n, s1, p1, ss, pp, sp, absolute, signed, squared = sums.T
    total, spread = ss - s1**2 / n, pp - p1**2 / n
    return {
        "r2": 1 - _ratio(squared, total),
        "mae": absolute / n,
        "rmse": np.sqrt(np.maximum(squared, 0) / n),
        "pearson_r": (sp - s1 * p1 / n) * np.sqrt(_ratio(np.ones_like(n), total) * _ratio(np.ones_like(n), spread)),
        "bias": signed / n,
    }


def _left_out_spearman(y: np.ndarray, prediction: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Spearman's rho of all rows, and without each unit (1 + units,), ranks taken anew each time."""
    values = np.full(index.max() + 2, np.nan)
    step = max(1, AT_ONCE // len(y))
    for start in range(0, len(values), step):
        out = np.arange(start, min(start + step, len(values))) - 1  # -1: no unit
        kept = index[:, None] != out
        a, b = (_left_out_ranks(column, index, out) * kept for column in (y, prediction))
        below = np.sum(a * a, axis=0) * np.sum(b * b, axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            values[out + 1] = np.where(below > 0, np.sum(a * b, axis=0) / np.sqrt(below), np.nan)
    return values


def _left_out_ranks(column: np.ndarray, index: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Midranks of (N,) values without the rows of each unit of `out`, about their mean (N, out)."""
    _, rank, count = np.unique(column, return_inverse=True, return_counts=True)
    rows = (index >= out[0]) & (index <= out[-1])
    gone = np.bincount(rank[rows] * len(out) + index[rows] - out[0], minlength=len(count) * len(out))
    tied = count[:, None] - gone.reshape(len(count), len(out))
    middle = np.cumsum(tied, axis=0) - tied / 2
    return (middle - tied.sum(axis=0) / 2)[rank]


def _left_out_within_year(y: np.ndarray, prediction: np.ndarray, year: np.ndarray, index: np.ndarray) -> np.ndarray:
    _, at, count = np.unique(year, return_inverse=True, return_counts=True)
    deviation = y - (np.bincount(at, weights=y) / count)[at]
    error, squares = _left_out_sums(index, (prediction - y) ** 2, deviation**2).T
    # (units, years): what leaving a unit out moves in each year's mean
    shape = index.max() + 1, len(count)
    rows = np.bincount(index * shape[1] + at, minlength=shape[0] * shape[1]).reshape(shape)
    moved = np.bincount(index * shape[1] + at, weights=deviation, minlength=shape[0] * shape[1]).reshape(shape)
    means = np.sum(moved**2 / np.maximum(count - rows, 1), axis=1)
    return 1 - _ratio(error, squares - np.concatenate([[0.0], means]))


def _left_out_by_place(y: np.ndarray, prediction: np.ndarray, place: np.ndarray, index: np.ndarray) -> dict:
    _, first, at, count = np.unique(np.asarray(place), return_index=True, return_inverse=True, return_counts=True)
    unit = index[first]
    if (unit[at] != index).any():
        name = np.asarray(place)[unit[at] != index][0]
        raise ValueError(f"place {name} lies in two units: expected units that hold whole places")
    mean_y, mean_p = (np.bincount(at, weights=values) / count for values in (y, prediction))
    centred = mean_y - mean_y.mean()
    n, c1, cc, error = _left_out_sums(unit, np.ones(len(unit)), centred, centred**2, (mean_p - mean_y) ** 2).T
    change_y, change_p = y - mean_y[at], prediction - mean_p[at]
    # A place with one row has no change: both deviations are 0 and add nothing.
    change_error, change = _left_out_sums(index, (change_p - change_y) ** 2, change_y**2).T
    return {"r2_between_place": 1 - _ratio(error, cc - c1**2 / n), "r2_change": 1 - _ratio(change_error, change)}
