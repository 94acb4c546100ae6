"""Figures of a regression on places, drawn from arrays and written as PNG with the same bytes each time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from src.core.stage.files import complete_file

DPI = 110
INK, ACCENT, SECOND, FAINT = "#20303a", "#1f6f8b", "#c8553d", "#c9d1d5"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def save(figure: Figure, path: Path, dpi: int = DPI, **options) -> None:
    """Write `figure` as PNG, complete or absent, without matplotlib's version in it; `options` are savefig's."""
    with complete_file(path) as aside:
        figure.savefig(aside, format="png", dpi=dpi, metadata={"Software": None}, **options)


@contextmanager
def drawing(
    path: Path, width: float, height: float, font_size: float = STYLE["font.size"], dpi: int = DPI
) -> Iterator[Figure]:
    """An empty figure in STYLE, width and height in inches, which is saved to `path` at the end."""
    with matplotlib.rc_context(STYLE | {"font.size": font_size}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        save(figure, path, dpi)


@dataclass(frozen=True)
class Curve:
    """One panel of `curves`: `lines` maps a name (train, validation) to steps and values, each (S,)."""

    title: str
    unit: str
    lines: dict[str, tuple[np.ndarray, np.ndarray]]


def predicted_vs_actual(path: Path, y: np.ndarray, panels: dict[str, tuple[np.ndarray, dict]], unit: str) -> None:
    """One square panel per entry of `panels`: name -> ((N,) prediction, its `scores`); all share their axes."""
    values = np.concatenate([y, *(prediction for prediction, _ in panels.values())])
    margin = 0.04 * np.ptp(values)
    limits = values.min() - margin, values.max() + margin
    with drawing(path, 3.9 * len(panels), 4.7) as figure:
        row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (name, (prediction, score)) in zip(row, panels.items(), strict=True):
            axes.plot(limits, limits, color=INK, linewidth=0.9, linestyle="--", label="prediction = truth")
            axes.scatter(y, prediction, s=17, color=ACCENT, alpha=0.65, linewidth=0)
            axes.set(xlim=limits, ylim=limits, box_aspect=1, xlabel=f"actual ({unit})")
            axes.set_title(f"{name}\nR² {_number(score['r2'])}   MAE {_number(score['mae'])}", fontsize=10)
        row[0].set_ylabel(f"predicted ({unit})")
        row[0].legend(loc="upper left", frameon=False, fontsize=8)


def residual_map(
    path: Path,
    lat: np.ndarray,
    lon: np.ndarray,
    residual: np.ndarray,
    context: tuple[np.ndarray, np.ndarray],
    title: str,
    unit: str,
) -> None:
    """Residuals (N,), predicted minus actual, at degrees `lat`, `lon`; `context` (lat, lon) are the other tiles.

    Colours are centred on 0; the 2 % of largest residuals share the last colour.
    """
    limit = np.percentile(np.abs(residual), 98) or 1.0
    order = np.argsort(np.abs(residual), kind="stable")  # large residuals are drawn on top
    with drawing(path, 9.5, 4.8) as figure:
        axes = figure.subplots()
        axes.scatter(context[1], context[0], s=8, color=FAINT, linewidth=0, label="tiles not tested")
        points = axes.scatter(
            lon[order],
            lat[order],
            c=residual[order],
            cmap="RdBu_r",
            vmin=-limit,
            vmax=limit,
            s=34,
            edgecolor=INK,
            linewidth=0.4,
            label="test tiles",
        )
        middle = np.concatenate([lat, context[0]])
        axes.set_aspect(1 / np.cos(np.radians((middle.min() + middle.max()) / 2)))
        axes.set(xlabel="longitude (degrees east)", ylabel="latitude (degrees north)")
        axes.set_title(title, fontsize=11)
        axes.legend(loc="lower left", frameon=False, fontsize=8)
        bar = figure.colorbar(points, ax=axes, shrink=0.8, extend="both")
        bar.set_label(f"predicted minus actual ({unit})\nblue: too low, red: too high")


def curves(path: Path, stages: dict[str, Sequence[Curve]]) -> None:
    """Small multiples, one block of panels per training stage, four panels to a row."""
    rows = {stage: -(-len(panels) // 4) for stage, panels in stages.items()}
    with drawing(path, 11, 0.45 * len(stages) + 2.1 * sum(rows.values()), font_size=8) as figure:
        blocks = figure.subfigures(len(stages), 1, squeeze=False, height_ratios=[*rows.values()])[:, 0]
        for block, (stage, panels) in zip(blocks, stages.items(), strict=True):
            block.suptitle(stage, fontsize=11, fontweight="bold", x=0.01, ha="left")
            grid = block.subplots(rows[stage], 4, squeeze=False).ravel()
            for axes in grid[len(panels) :]:
                axes.set_axis_off()
            for axes, panel in zip(grid, panels, strict=False):
                _curve(axes, panel)


def score_intervals(path: Path, groups: dict[str, dict], highlight: Sequence[str], title: str) -> None:
    """R² of every group as a point with its interval, one under the other; `highlight` ones in colour."""
    with drawing(path, 7.5, 0.8 + 0.3 * len(groups)) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=0.9, linestyle="--")
        for height, (name, score) in enumerate(groups.items()):
            colour = ACCENT if name in highlight else "#7b8a92"
            if score["r2_low"] is not None:
                axes.plot([score["r2_low"], score["r2_high"]], [height, height], color=colour, linewidth=2)
            if score["r2"] is not None:
                axes.plot(score["r2"], height, "o", color=colour, markersize=6)
        axes.set_yticks(range(len(groups)), groups)
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlabel("R² (0: no better than the mean of what is scored)")
        axes.set_title(title, fontsize=11)
        axes.grid(axis="x", color=FAINT, linewidth=0.5)


def _curve(axes, panel: Curve) -> None:
    colours = {"train": SECOND, "validation": ACCENT}
    for name, (steps, values) in panel.lines.items():
        marker = "o" if len(steps) < 40 else None
        axes.plot(steps, values, marker=marker, markersize=2.5, linewidth=1.3, color=colours.get(name, INK), label=name)
    axes.set_title(panel.title, fontsize=9)
    axes.set(xlabel="epoch", ylabel=panel.unit)
    axes.grid(color=FAINT, linewidth=0.4)
    axes.legend(frameon=False, fontsize=7)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
