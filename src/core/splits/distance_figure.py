"""Distances to the nearest training tile: of test places, and of the places where the model is to be used.

A test score predicts the error in use only if both distributions are similar (Meyer and Pebesma 2022, "Machine
learning-based global maps of ecological variables and the challenge of assessing them", Nature Communications 13).
"""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from scipy.spatial import cKDTree

from src.core.geo import distances
from src.core.report.figures import ACCENT, FAINT, INK, SECOND, STYLE, save


def nearest_training_distances(tiles: pd.DataFrame, use: pd.DataFrame | None) -> dict[str, np.ndarray]:
    """Geodesic distances in km, one for each place; places without coordinates are left out.

    Args:
        tiles: place, role, lat, lon (degrees or NaN) of every tile.
        use: lat, lon of the points where the model is to be used.

    Returns:
        to_test, to_validation, to_use: from each such place to the nearest training tile; to_use without `use` is
            from each place of any role to the nearest other place.
    """
    located = tiles.dropna(subset=["lat", "lon"])
    train = located[located["role"] == "train"]

    def to_train(points: pd.DataFrame) -> np.ndarray:
        km = distances.nearest_km(*points[["lat", "lon"]].to_numpy(float).T, *train[["lat", "lon"]].to_numpy(float).T)
        return km[np.isfinite(km)]

    places = {role: located[located["role"] == role].drop_duplicates("place") for role in ("test", "validation")}
    return {f"to_{role}": to_train(of_role) for role, of_role in places.items()} | {
        "to_use": _to_nearest_other(located.drop_duplicates("place")) if use is None else to_train(use)
    }


def draw_distances(path: Path, to_test: np.ndarray, to_validation: np.ndarray, to_use: np.ndarray, title: str) -> None:
    """PNG of what `nearest_training_distances` returns, as cumulative curves."""
    curves = [
        ("test places", to_test, ACCENT, "-"),
        ("validation places", to_validation, SECOND, "-"),
        ("places of use", to_use, INK, "--"),
    ]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 4.4), layout="constrained")
        axes = figure.subplots()
        for name, km, colour, line in curves:
            if len(km):
                label = f"{name} (n = {len(km)}): median {_kilometres(np.median(km))} km"
                axes.ecdf(km, color=colour, linestyle=line, linewidth=1.8, label=label)
        drawn = np.concatenate([km for _, km, _, _ in curves])
        if len(drawn):
            axes.set_xscale("symlog", linthresh=1, linscale=0.4)  # a place that was trained on lies 0 km away
            axes.set_xlim(-0.1 if drawn.min() < 1 else 0.8 * drawn.min(), 1.25 * max(drawn.max(), 1))
            _mark_kilometres(axes)
            figure.legend(loc="outside lower center", frameon=False, fontsize=9)
        axes.set(ylim=(0, 1.02), xlabel="distance (km)", ylabel="share that lies at most so far")
        axes.set_title(title, fontsize=11)
        axes.grid(color=FAINT, linewidth=0.5)
        save(figure, path)


def _to_nearest_other(places: pd.DataFrame) -> np.ndarray:
    if len(places) < 2:
        return np.empty(0)
    lat, lon = places[["lat", "lon"]].to_numpy(float).T
    points = distances.to_cartesian(lat, lon)
    # the nearest of two is the place itself, or another at the same spot
    other = cKDTree(points).query(points, k=2)[1][:, 1]
    return distances.geodesic_km(lat, lon, lat[other], lon[other])


def _mark_kilometres(axes) -> None:
    """Ticks at powers of ten, and at 2 and 5 times them where there is room, as plain numbers."""
    low, high = axes.get_xlim()
    steps = (1, 2, 5) if high < 1000 * max(low, 1) else (1,)
    ticks = [0, *(step * 10.0**power for power in range(5) for step in steps)]
    axes.set_xticks([tick for tick in ticks if low <= tick <= high])
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda km, _: _kilometres(km)))


def _kilometres(km: float) -> str:
    return f"{km:.3g}" if km < 100 else f"{km:.0f}"
