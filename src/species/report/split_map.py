"""Two figures of a split: a map of all roles, and distances of held-out observations to training."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from src.core.geo.distances import nearest_km
from src.core.report.figures import FAINT, INK, drawing
from src.core.splits.squares import outline

DPI = 120
# (role, kind): colour, shape, area in points². Drawn in this order, so that the many never hide the few.
POINTS = {
    ("uncertain", ""): ("#999999", "x", 9),
    ("buffer", ""): ("#b5b5b5", "o", 4),
    ("train", ""): ("#88b3d6", "o", 4),
    ("validation", "temporal"): ("#ddaa33", "s", 6),
    ("test", "temporal"): ("#7b3fa0", "^", 9),
    ("validation", "spatial"): ("#8c6d00", "s", 9),
    ("test", "spatial"): ("#c8382e", "o", 9),
    ("validation", "both"): ("#4d3c00", "P", 14),
    ("test", "both"): ("#5c0f0a", "^", 14),
}
SQUARES = {use: POINTS[use, "spatial"][0] for use in ("test", "validation")}
BEYOND = 0.001  # share of the observations that may lie beyond each side of the map
LEAST_KM = 1e-3  # smaller distances are drawn here: coordinates are no more exact, and zero has no logarithm


def draw_map(
    path: Path,
    points: pd.DataFrame,
    squares: pd.DataFrame,
    *,
    side_km: float,
    buffer_km: float,
    title: str,
) -> None:
    """All observations by role and kind at lat, lon in degrees, with their squares, numbered by row, and buffers."""
    with drawing(path, 10, 9, dpi=DPI) as figure:
        axes = figure.subplots()
        for (role, kind), (colour, shape, area) in POINTS.items():
            here = points[(points["role"] == role) & (points["kind"] == kind)]
            if len(here):
                name = f"{role}, {kind}" if kind else role
                label = f"{name}: {len(here)} ({len(here) / len(points):.1%})"
                style = {"marker": shape, "color": colour, "linewidths": 0.6 if shape == "x" else 0, "label": label}
                axes.scatter(here["lon"], here["lat"], s=area, **style)
        for number, square in enumerate(squares.itertuples()):
            _draw_square(axes, number, square, side_km, buffer_km)
        for use, colour in SQUARES.items():
            label = f"{use} squares: {(squares['use'] == use).sum()}, dashed: their buffers"
            axes.plot([], [], color=colour, linewidth=1.1, label=label)
        rings = [outline(one.lat, one.lon, side_km=side_km, beyond_km=buffer_km) for one in squares.itertuples()]
        at = points[["lat", "lon"]].to_numpy()
        low, high = _extent(at, np.concatenate(rings))
        beyond = int(((at < low) | (at > high)).any(axis=1).sum())
        (south, west), (north, east) = low, high
        axes.set(xlim=(west, east), ylim=(south, north))
        axes.set_aspect(1 / np.cos(np.radians((south + north) / 2)), adjustable="box")
        axes.set(xlabel="longitude (degrees east)", ylabel="latitude (degrees north)")
        axes.set_title(title + (f"\n{beyond} observations lie beyond the map" if beyond else ""), fontsize=11)
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9, markerscale=2)


def draw_distances(path: Path, km: dict[str, np.ndarray], random_km: np.ndarray) -> None:
    """Cumulative curves, logarithmic, of the `km` from each test observation to the nearest training one, by kind of
    test, and of a test drawn at random."""
    with drawing(path, 7.5, 4.6, dpi=DPI) as figure:
        axes = figure.subplots()
        curves = [(kind, values, POINTS["test", kind][0], "-") for kind, values in km.items()]
        for name, values, colour, line in [*curves, ("a random split's", random_km, INK, "--")]:
            if len(values):
                label = f"{name} (n = {len(values)}): median {_kilometres(np.median(values))}"
                axes.ecdf(np.maximum(values, LEAST_KM), color=colour, linestyle=line, linewidth=1.8, label=label)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _kilometres(value)))
        axes.set(ylim=(0, 1.02), xlabel="distance to the nearest training record", ylabel="share at most so far")
        axes.set_title("Test records and the training record nearest to each", fontsize=11)
        axes.grid(color=FAINT, linewidth=0.5)
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)


def random_split_km(observations: pd.DataFrame, role: np.ndarray, seed: int) -> np.ndarray:
    """Kilometres to the nearest training record in a split that draws as many test records, but at random: each
    `role` (N,) of our split is dealt anew among its training and test records."""
    used = np.isin(role, ["train", "test"])
    records = observations[used].assign(role=role[used]).drop_duplicates("gbif_id")
    dealt = np.random.default_rng(seed).permutation(records["role"].to_numpy())
    lat, lon = records[["lat", "lon"]].to_numpy(float).T
    test, train = dealt == "test", dealt == "train"
    return nearest_km(lat[test], lon[test], lat[train], lon[train])


def _extent(points: np.ndarray, rings: np.ndarray) -> np.ndarray:
    """South-west and north-east corner of a map of nearly all points and all rings, (2, 2) lat, lon.

    One record far out at sea would leave no room for all others.
    """
    low, high = np.quantile(points, [BEYOND, 1 - BEYOND], axis=0)
    low, high = np.minimum(low, rings.min(axis=0)), np.maximum(high, rings.max(axis=0))
    margin = 0.04 * (high - low)
    return np.stack([low - margin, high + margin])


def _draw_square(axes: Axes, number: int, square, side_km: float, buffer_km: float) -> None:
    colour = SQUARES[square.use]
    corners = outline(square.lat, square.lon, side_km=side_km)
    ring = outline(square.lat, square.lon, side_km=side_km, beyond_km=buffer_km)
    axes.fill(corners[:, 1], corners[:, 0], facecolor="none", edgecolor=colour, linewidth=1.1)
    if buffer_km:
        axes.fill(ring[:, 1], ring[:, 0], facecolor="none", edgecolor=colour, linewidth=0.7, linestyle=(0, (3, 2)))
    halo, corner = patheffects.withStroke(linewidth=2.5, foreground="white"), (ring[:, 1].max(), ring[:, 0].max())
    axes.annotate(str(number), corner, color=colour, fontsize=8, fontweight="bold", path_effects=[halo])


def _kilometres(km: float) -> str:
    return f"{km * 1000:.3g} m" if km < 1 else f"{km:.3g} km" if km < 100 else f"{km:.0f} km"
