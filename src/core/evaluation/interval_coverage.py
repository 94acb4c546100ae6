"""Coverage of prediction intervals by place and by region, and nominal against observed coverage.

A place counts once: the guarantee of `conformal` is about one row of a new place.
"""

import math
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import norm

from src.core.evaluation.conformal import required_places
from src.core.evaluation.jackknife import MINIMUM_UNITS
from src.core.evaluation.regression_scores import finite
from src.core.report.figures import ACCENT, FAINT, INK, STYLE, save

MINIMUM_REGION_PLACES = 20
"""Below this many places a region's coverage is mostly chance, and is not given."""

LEVELS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
REPORTED = ("level", "coverage", "low", "high", "mean_width", "n_places", "calibration_places")


def coverage(
    y: np.ndarray, low: np.ndarray, high: np.ndarray, place: np.ndarray, region: np.ndarray | None = None
) -> dict:
    """Share of rows inside their interval, each place weighing equally.

    Args:
        y, low, high, place: (N,); the ends belong to the interval.
        region: (N,) names; adds `regions`, those with MINIMUM_REGION_PLACES places, and how many were left out.

    Returns:
        coverage, coverage_low, coverage_high (95 %, None below MINIMUM_UNITS places), mean_width, n_places.

    Raises ValueError where a number is not finite: an infinite interval says nothing.
    """
    y, low, high = finite(y), finite(low), finite(high)
    names, index = np.unique(np.asarray(place, dtype=str), return_inverse=True)
    rows = np.bincount(index)
    share, width = (np.bincount(index, weights=values) / rows for values in ((low <= y) & (y <= high), high - low))
    result = {
        "coverage": float(share.mean()),
        "coverage_low": None,
        "coverage_high": None,
        "mean_width": float(width.mean()),
        "n_places": len(names),
    }
    if len(names) >= MINIMUM_UNITS:
        result["coverage_low"], result["coverage_high"] = _wilson(result["coverage"], len(names))
    if region is not None:
        here = [(str(name), np.asarray(region) == name) for name in np.unique(region)]
        kept = [(name, of) for name, of in here if len(np.unique(index[of])) >= MINIMUM_REGION_PLACES]
        result["regions"] = {name: coverage(y[of], low[of], high[of], index[of]) for name, of in kept}
        result["regions_left_out"] = len(here) - len(kept)
    return result


def reliability(
    y: np.ndarray,
    place: np.ndarray,
    bounds: Callable[[float], tuple[np.ndarray, np.ndarray]],
    calibration_places: int,
) -> pd.DataFrame:
    """Observed coverage at each of LEVELS -> its row of REPORTED.

    `low` and `high` hold the chance of the test places alone: all levels share their calibration places too, and stray
    from the diagonal together.

    Args:
        bounds: level -> (low (N,), high (N,)), as calibrated for that level.
        calibration_places: levels that so few places cannot support are left out.
    """
    rows = []
    for level in LEVELS:
        if required_places(level) <= calibration_places:
            rows.append((level, *coverage(y, *bounds(level), place).values(), calibration_places))
    kinds = {name: np.int64 if "places" in name else np.float64 for name in REPORTED}
    return pd.DataFrame(rows, columns=list(REPORTED)).astype(kinds)


def draw_reliability(path: Path, tables: dict[str, pd.DataFrame], note: str) -> None:
    """One square panel for each `reliability` of `tables`; `note` (the guarantee) stands above."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(3.9 * len(tables), 5), 4.9), layout="constrained")
        panels = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
        for axes, (name, table) in zip(panels, tables.items(), strict=True):
            axes.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle="--", label="observed = nominal")
            given = table.dropna(subset=["low", "high"])
            axes.vlines(given.level, given.low, given.high, color=ACCENT, linewidth=1.6, alpha=0.55)
            axes.plot(table.level, table.coverage, "o", color=ACCENT, markersize=5, label="observed (95 % over places)")
            axes.set(xlim=(0.45, 1), ylim=(0, 1.02), box_aspect=1, xlabel="nominal level")
            axes.grid(color=FAINT, linewidth=0.5)
            axes.set_title(f"{name}\n{_describe_places(table)}", fontsize=10)
        panels[0].set_ylabel("observed coverage (places weigh equally)")
        panels[0].legend(loc="lower right", frameon=False, fontsize=8)
        figure.suptitle(note, fontsize=9)
        save(figure, path)


def _describe_places(table: pd.DataFrame) -> str:
    if table.empty:
        return "too few calibration places for any level"
    tested, calibrated = table.n_places.iloc[0], table.calibration_places.iloc[0]
    short = "" if tested >= MINIMUM_UNITS else f" (no interval below {MINIMUM_UNITS})"
    return f"{calibrated} calibration, {tested} test places{short}"


def _wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a mean of n shares (Wilson 1927), as if the rows of a place were all covered or none.

    No mean of numbers between 0 and 1 varies more than that, so it is never too narrow for years
    that are less alike, and unlike a t interval it has a width where every place is covered.
    """
    z = norm.ppf(0.975)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # exact where every place is covered or none is: rounding would leave 1 just outside
    return 0.0 if share == 0 else float(centre - half), 1.0 if share == 1 else float(centre + half)
