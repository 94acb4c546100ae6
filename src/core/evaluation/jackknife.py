"""95 % intervals of scores that are functions of sums over rows, from leaving out one unit at a time.

The method is that of `core/intervals.py`: delete-one-unit jackknife, Student's quantile with one degree of freedom less
than there are effective units. Here a score may have many sums (of every class, of every bin), rows may lie in units
of two kinds (their region and their date), and the wider of both intervals is kept: rows share a region's species and a
day's observers, and each kind of unit alone takes the other's rows for independent ones.
"""

from collections.abc import Callable

import numpy as np
from scipy.stats import t

from src.core.evaluation.intervals import LEVEL, effective_units, interval_method

Scores = dict[str, np.ndarray]


def left_out(sums: np.ndarray) -> np.ndarray:
    """Sums of each unit (U, ...) -> of all units, and of all but each (1 + U, ...)."""
    total = sums.sum(axis=0, keepdims=True)
    return np.concatenate([total, total - sums])


def unit_sums(index: np.ndarray, code: np.ndarray, count: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Rows (or the sum of their weights) in each cell of unit and code, (U, count) float64.

    Args:
        index: (N,) int64 unit of each row.
        code: (N,) int64 below `count`, a class or a bin.
        weights: (N,); 1 where None.
    """
    units = int(index.max()) + 1
    cells = np.bincount(index * count + code, weights, minlength=units * count)
    return cells.reshape(units, count).astype(np.float64)


def intervals(scores: Callable[[np.ndarray], Scores], units: dict[str, np.ndarray], shares: frozenset[str]) -> dict:
    """`<score>_low` and `<score>_high` of every score, and "method", a sentence.

    Bounds are None where any kind of unit allows none (`intervals.interval_method`): the other kind alone would claim
    too much. So they are where a score does not vary between units: no spread does not mean no doubt.

    Args:
        scores: (N,) int64 unit of each row -> score -> (1 + U,) its values of all rows and without each unit; NaN
            where not defined.
        units: kind ("regions") -> (N,) names.
        shares: scores whose bounds stay within 0 and 1.
    """
    if not units:
        raise ValueError("units: found no kind, expected one at least")
    bounds, sentences, refused = {}, {}, []
    for kind, names in units.items():
        found, index, size = np.unique(np.asarray(names, dtype=str), return_inverse=True, return_counts=True)
        method, sentence = interval_method(names) if len(found) else (None, "none: no rows")
        sentences[kind] = sentence.replace("units", kind)
        if method is None:
            refused.append(sentences[kind])
        if len(found):
            with np.errstate(divide="ignore", invalid="ignore"):  # of a single unit nothing is left
                values = scores(index)
            bounds[kind] = {name: _bounds(column, size, name in shares) for name, column in values.items()}
    names = list(next(iter(bounds.values()))) if bounds else []
    if refused:
        return _none(names) | {"method": "; ".join(refused)}
    result, widest = _none(names), dict.fromkeys(units, ())
    for name in names:
        given = {kind: bounds[kind][name] for kind in units}
        if all(given.values()):
            kind = max(given, key=lambda kind: given[kind][1] - given[kind][0])
            result[f"{name}_low"], result[f"{name}_high"] = given[kind]
            widest[kind] += (name,)
    if len(units) == 1:
        return result | {"method": next(iter(sentences.values()))}
    parts = [f"{', '.join(found)}: {sentences[kind]}" for kind, found in widest.items() if found]
    return result | {"method": "; ".join(parts) or "none: no score varies between units of every kind"}


def _none(names: list[str]) -> dict:
    return {f"{name}_{end}": None for name in names for end in ("low", "high")}


def _bounds(values: np.ndarray, size: np.ndarray, share: bool) -> tuple[float, float] | None:
    """Bounds from a score of all units (values[0]) and without each of them (values[1:])."""
    parts = values[1:]
    if not np.isfinite(values).all() or len(parts) < 2 or np.ptp(parts) < 1e-12:
        return None
    error = np.sqrt((len(parts) - 1) * np.mean((parts - parts.mean()) ** 2))
    reach = error * t.ppf((1 + LEVEL) / 2, effective_units(size) - 1)
    low, high = float(values[0] - reach), float(values[0] + reach)
    return (max(low, 0.0), min(high, 1.0)) if share else (low, high)
