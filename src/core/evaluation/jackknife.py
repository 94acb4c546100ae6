"""95 % intervals of scores from leaving out whole correlated units, and when there are none.

Rows of one unit (a spatial block, or a place with all its years) share their surroundings, and intervals from resampled
rows are several times too narrow. The standard error is the delete-one-unit jackknife's on a scale where the score
varies alike wherever it lies, and the quantile is Student's with n - 1 degrees of freedom (Efron and Tibshirani 1993,
ch. 11 and 12; for clusters Cameron, Gelbach and Miller 2008 and MacKinnon, Nielsen and Webb 2023), n being Kish's
effective number of units.

One method serves every number of units: over 1000 simulations the percentile bootstrap of whole units covered 0.77 to
0.91 at 10 units and 0.92 to 0.95 at 110 (r2, mae and paired r2; BCa 0.80 to 0.94 and 0.92 to 0.94), this one 0.90 to
0.96 and 0.94 to 0.95. `python -m tests.panels` prints its table.
"""

from collections.abc import Callable

import numpy as np
from scipy.stats import t

from src.core.evaluation import regression_scores
from src.core.evaluation.regression_scores import PANEL_SCORES, finite

LEVEL = 0.95
MINIMUM_UNITS = 10
"""With fewer independent units no interval is given."""

MINIMUM_EFFECTIVE_UNITS = 5
"""If one of 12 units holds half of all rows (3.7 effective units), 0.97 to 0.99 is covered, not 0.95."""

NO_WIDTH = 1e-9
"""An interval of a classification that is narrower varies by rounding alone."""

COVERAGE = {
    10: {"r2": (0.90, 0.96), "rmse": (0.90, 0.95), "r2_within_year": (0.89, 0.96), "r2_oos": (0.91, 0.95)},
    22: {"r2": (0.90, 0.95), "r2_within_year": (0.89, 0.95), "r2_oos": (0.91, 0.95)},
    45: {},
}
"""From so many units on: scores whose coverage leaves 0.92 to 0.98 in a setting of `python -m tests.panels 2000`, and
the lowest and highest over its settings (ICC of the residual 0 to 0.8, of the prediction 0.5 and 0.9)."""

Score = Callable[[np.ndarray], dict[str, float | None]]
"""Mask of rows, (N,) bool -> the scores of those rows; None where one is not defined."""

Bounds = dict[str, tuple[float, float] | None]

# A score is turned onto its scale and back. R2 onto the error relative to the truth's spread, not onto its logarithm:
# at 10 units and R2 of 0.3 to 0.9 that covers 0.87 to 0.94, the error itself 0.89 to 0.95.
_R2 = (lambda r2: np.sqrt(np.maximum(1 - r2, 0)), lambda z: 1 - np.maximum(z, 0) ** 2)
_LOG = (np.log, np.exp)
_FISHER = (lambda r: np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)), np.tanh)
_AS_IS = (lambda value: value, lambda value: value)
_SCALES = dict.fromkeys(("r2", *PANEL_SCORES), _R2)
_SCALES |= {"mae": _LOG, "rmse": _LOG, "pearson_r": _FISHER, "spearman_r": _FISHER}


def interval_method(units: np.ndarray) -> tuple[str | None, str]:
    """Kind of interval that (N,) names of units allow: ("jackknife-t" or None, a sentence for the reader)."""
    size = np.unique(np.asarray(units, dtype=str), return_counts=True)[1]
    if len(size) == 0:
        return None, "none: no rows"
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


def bounds_of(score: Score, units: np.ndarray, scales: dict[str, tuple] | None = None) -> Bounds:
    """Lower and upper bound of each score, None where it is not defined with every unit left out.

    Args:
        units: (N,) names, two at least.
        scales: name -> (onto its scale, and back); a score without one varies on its own.
    """
    _, index, size = np.unique(np.asarray(units, dtype=str), return_inverse=True, return_counts=True)
    found = [score(index != left_out) for left_out in range(-1, len(size))]  # -1 is no unit: the score of all rows
    quantile = t.ppf((1 + LEVEL) / 2, effective_units(size) - 1)
    bounds = {}
    for name in found[0]:
        forward, backward = (scales or {}).get(name, _AS_IS)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            whole, *parts = forward(np.array([scores[name] for scores in found], dtype=np.float64))
            reach = quantile * np.sqrt(len(parts) - 1) * np.std(parts)
            low, high = sorted(backward(np.array([whole - reach, whole + reach])).tolist())
        bounds[name] = (low, high) if np.isfinite([low, high]).all() else None
    return bounds


def score_panel(
    y: np.ndarray,
    prediction: np.ndarray,
    units: np.ndarray,
    year: np.ndarray,
    place: np.ndarray,
    reference: np.ndarray,
) -> dict:
    """All scores of `regression_scores`, of (N,) arrays, with `<score>_low`, `<score>_high`, n, "method" and "label".

    Bounds are None where `interval_method` or `bounds_of` gives none; "label" is the `coverage_label`. Raises
    ValueError where a value is not finite or a place lies in two units.
    """
    y, prediction, units = finite(y), finite(prediction), np.asarray(units, dtype=str)

    def score(rows: np.ndarray) -> dict[str, float | None]:
        some = [column[rows] for column in (y, prediction, year, place, reference)]
        return regression_scores.scores(*some[:2]) | regression_scores.panel_scores(*some)

    points, (method, sentence), label = score(np.ones(len(y), dtype=bool)), interval_method(units), None
    bounds = dict.fromkeys(points)
    if method is not None:
        names, first, place = np.unique(np.asarray(place, dtype=str), return_index=True, return_inverse=True)
        elsewhere = units[first][place] != units
        if elsewhere.any():
            name = names[place[elsewhere][0]]
            raise ValueError(f"place {name} lies in two units: expected units that hold whole places")
        bounds, label = bounds_of(score, units, _SCALES), coverage_label(tuple(points), len(np.unique(units)))
    del bounds["n"]
    return _with_ends(points, bounds) | {"method": sentence, "label": label}


def paired_interval(y: np.ndarray, a: np.ndarray, b: np.ndarray, units: np.ndarray) -> dict:
    """Differences a - b in R² and MAE with intervals; both are scored without the same unit each time.

    Keys r2, r2_low, r2_high, mae, mae_low, mae_high, n, n_units, method. In simulation they cover 0.93 to 0.96 at every
    number of units, so there is no label.
    """
    y, a, b = finite(y), finite(a), finite(b)

    def difference(rows: np.ndarray) -> dict[str, float | None]:
        r2, other = (regression_scores.r2(y[rows], prediction[rows]) for prediction in (a, b))
        mae = np.mean(np.abs(a[rows] - y[rows])) - np.mean(np.abs(b[rows] - y[rows]))
        return {"r2": None if r2 is None else r2 - other, "mae": float(mae)}

    method, sentence = interval_method(units)
    points = difference(np.ones(len(y), dtype=bool))
    result = _with_ends(points, dict.fromkeys(points) if method is None else bounds_of(difference, units))
    return result | {"n": len(y), "n_units": len(np.unique(np.asarray(units, dtype=str))), "method": sentence}


def mean_interval(values: np.ndarray, units: np.ndarray) -> dict:
    """Mean of (N,) values with its interval: keys "" (the mean), "_low", "_high", "method".

    The bounds of a share (all values are 0 or 1) stay within 0 and 1, and are None where all values are equal.
    """
    values = finite(values)
    method, sentence = interval_method(units)
    if method is not None and np.ptp(values) == 0:
        method, sentence = None, f"none: all {len(values)} values are equal"
    bounds = {"": None} if method is None else bounds_of(lambda rows: {"": values[rows].mean()}, units)
    if bounds[""] is not None and np.isin(values, (0, 1)).all():
        bounds[""] = np.clip(bounds[""], 0, 1).tolist()
    return {"": float(values.mean())} | _ends(bounds) | {"method": sentence}


def widest_intervals(score: Score, units: dict[str, np.ndarray], shares: frozenset[str]) -> dict:
    """`<score>_low` and `<score>_high` of rows that share more than one kind of unit, and "method", a sentence.

    The wider interval of all kinds is kept: rows share a region and a day, and each kind of unit alone takes the
    other's rows for independent ones. There are no bounds where any kind of unit allows none, or where a score does not
    vary between units: no spread does not mean no doubt.

    Args:
        units: kind ("regions") -> (N,) names; one kind at least.
        shares: scores whose bounds stay within 0 and 1.
    """
    methods = {kind: interval_method(names) for kind, names in units.items()}
    sentences = {kind: sentence.replace("units", kind) for kind, (_, sentence) in methods.items()}
    refused = [sentences[kind] for kind, (method, _) in methods.items() if method is None]
    if refused:
        return {"method": "; ".join(refused)}
    found = {kind: bounds_of(score, names) for kind, names in units.items()}
    widest, kinds = {}, {kind: [] for kind in units}
    for name in next(iter(found.values())):
        given = {kind: bounds[name] for kind, bounds in found.items()}
        if any(pair is None or pair[1] - pair[0] < NO_WIDTH for pair in given.values()):
            continue
        if name in shares:
            given = {kind: np.clip(pair, 0, 1).tolist() for kind, pair in given.items()}
        kind = max(given, key=lambda kind: given[kind][1] - given[kind][0])
        widest[name] = given[kind]
        kinds[kind].append(name)
    if len(units) == 1:
        return _ends(widest) | {"method": next(iter(sentences.values()))}
    parts = [f"{', '.join(names)}: {sentences[kind]}" for kind, names in kinds.items() if names]
    return _ends(widest) | {"method": "; ".join(parts) or "none: no score varies between units of every kind"}


def coverage_label(names: tuple[str, ...], n_units: int) -> str | None:
    """Of the named scores those whose intervals cover badly with so many units, or None."""
    reached = [number for number in COVERAGE if number <= n_units]
    found = COVERAGE[max(reached)] if reached else {}
    parts = [f"{name} {found[name][0]:.2f} to {found[name][1]:.2f}" for name in names if name in found]
    return f"coverage of these 95 % intervals in simulation: {', '.join(parts)}" if parts else None


def _ends(bounds: Bounds) -> dict[str, float | None]:
    """`<name>_low` and `<name>_high`, None where there are no bounds."""
    return {
        f"{name}_{end}": value
        for name, pair in bounds.items()
        for end, value in zip(("low", "high"), pair or (None, None), strict=True)
    }


def _with_ends(points: dict[str, float | None], bounds: Bounds) -> dict[str, float | None]:
    """Each score followed by its `_low` and `_high`, if it is among the bounds."""
    result = {}
    for name, point in points.items():
        result |= {name: point} | _ends({name: bounds[name]} if name in bounds else {})
    return result
