"""Figures of a classification on places and dates, written as PNG with the same bytes each time."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.patches import Polygon
from sklearn.metrics import confusion_matrix

from src.core.report.figures import ACCENT, FAINT, INK, SECOND, drawing
from src.species.data.task import KINDS

COLOURS = {"temporal": ACCENT, "spatial": SECOND, "both": "#7a5195"}
GROUPS = (ACCENT, SECOND, "#7a5195", "#d69a2d", "#4f7a4c", "#7b8a92", "#20303a", "#b0578d")
FEWEST = 10  # records whose share is drawn


def draw_scores(path: Path, groups: dict[str, dict[str, dict]], title: str) -> None:
    """Top-1 accuracy with its interval, a row per group and a point per kind of test: name -> kind -> scores with
    top1, top1_low and top1_high (None where there is none)."""
    kinds = [kind for kind in KINDS if kind in next(iter(groups.values()))]  # the same of all
    with drawing(path, 8.5, 1.4 + 0.42 * len(groups)) as figure:
        axes = figure.subplots()
        for place, kind in enumerate(kinds):
            table = pd.DataFrame([scores[kind] for scores in groups.values()])
            y = np.arange(len(groups)) + 0.22 * (place - (len(kinds) - 1) / 2)
            axes.plot([table["top1_low"], table["top1_high"]], [y, y], color=COLOURS[kind], linewidth=1.8)
            axes.plot(table["top1"], y, "o", color=COLOURS[kind], markersize=5)
            axes.plot([], [], "o-", color=COLOURS[kind], label=KINDS[kind])
        axes.set_yticks(range(len(groups)), groups)
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xlabel("top-1 accuracy (share of test records named rightly)")
        axes.set_title(title, fontsize=11)
        axes.grid(axis="x", color=FAINT, linewidth=0.5)
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)


def draw_bins(path: Path, bins: dict[str, dict[str, list[dict]]], xlabel: str) -> None:
    """Accuracy by bin, a panel per kind of test and a line per group; bins below FEWEST records are not drawn.

    `bins` is kind -> group -> a dict per bin with label, n, top1, top1_low, top1_high.
    """
    with drawing(path, 4.2 * len(bins), 4.3) as figure:
        panels = figure.subplots(1, len(bins), sharey=True, squeeze=False)[0]
        for axes, (kind, groups) in zip(panels, bins.items(), strict=True):
            for place, (group, rows) in enumerate(groups.items()):
                table = pd.DataFrame(rows)[["n", "top1", "top1_low", "top1_high"]].astype(float)
                shown = table[table["n"] >= FEWEST]
                at = shown.index + 0.06 * (place - (len(groups) - 1) / 2)
                colour = GROUPS[place % len(GROUPS)]
                axes.plot(at, shown["top1"], "o-", color=colour, markersize=4, label=group)
                axes.plot([at, at], [shown["top1_low"], shown["top1_high"]], color=colour, linewidth=1, alpha=0.6)
            rows = next(iter(groups.values()))
            axes.set_xticks(range(len(rows)), [f"{row['label']}\nn = {row['n']}" for row in rows], fontsize=8)
            axes.set_xlim(-0.5, len(rows) - 0.5)
            axes.set_title(KINDS[kind], fontsize=10)
            axes.set_ylim(0, 1)
            axes.set_xlabel(xlabel)
            axes.grid(axis="y", color=FAINT, linewidth=0.5)
        panels[0].set_ylabel("top-1 accuracy")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)


def draw_confusion(path: Path, truth: np.ndarray, predicted: np.ndarray, names: list[str], title: str) -> None:
    """Share of the test records of each of `names` (row) by the species that was named (column), the last any other.

    `truth` and `predicted` are (N,) names of species.
    """
    shown = np.isin(truth, names)
    other = np.where(np.isin(predicted[shown], names), predicted[shown], "any other")
    labels = [*names, "any other"]
    matrix = confusion_matrix(truth[shown], other, labels=labels)[:-1].astype(float)
    count = matrix.sum(axis=1, keepdims=True)
    with drawing(path, 9.5, 8, font_size=8) as figure:
        axes = figure.subplots()
        image = axes.imshow(matrix / np.maximum(count, 1), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(labels)), labels, rotation=60, ha="right")
        axes.set_yticks(range(len(names)), [f"{name} ({n:.0f})" for name, n in zip(names, count[:, 0], strict=True)])
        axes.set(xlabel="named as", ylabel="species (test records)")
        axes.set_title(title, fontsize=11)
        figure.colorbar(image, ax=axes, shrink=0.7).set_label("share of the row")


def draw_calibration(path: Path, tables: dict[str, pd.DataFrame], notes: dict[str, str]) -> None:
    """One square panel per group: accuracy against stated confidence, dots as large as the bin.

    `tables` have confidence, accuracy and count of each bin that is not empty; a note stands below a panel's title.
    """
    across = min(len(tables), 3)
    down = -(-len(tables) // across)
    with drawing(path, 3.6 * across + 0.4, 4.1 * down) as figure:
        panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
        for axes in panels[len(tables) :]:
            axes.set_axis_off()
        for axes, (name, table) in zip(panels, tables.items(), strict=False):
            axes.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle="--")
            axes.plot(table["confidence"], table["accuracy"], color=ACCENT, linewidth=1, alpha=0.6)
            size = 12 + 400 * table["count"] / table["count"].sum()
            points = table["confidence"], table["accuracy"]
            axes.scatter(*points, s=size, color=ACCENT, alpha=0.8, linewidth=0, clip_on=False)
            axes.set(xlim=(0, 1), ylim=(0, 1), box_aspect=1, xlabel="probability of the named species")
            axes.grid(color=FAINT, linewidth=0.5)
            axes.set_title(f"{name}\n{notes[name]}", fontsize=10)
        figure.supylabel("share named rightly", fontsize=10)


def draw_accuracy_map(
    path: Path, records: pd.DataFrame, context: pd.DataFrame, squares: list[dict], title: str
) -> None:
    """Map of the test `records` that were named rightly and wrongly, among those of training, with the accuracy of each
    held-out square.

    Records have lat, lon (degrees), right (bool) and square (-1 outside); `squares` are those of split.json.
    """
    with drawing(path, 9.5, 9) as figure:
        axes = figure.subplots()
        axes.scatter(context["lon"], context["lat"], s=2, color=FAINT, linewidth=0, label="training records")
        for right, colour in ((False, SECOND), (True, ACCENT)):
            here = records[records["right"] == right]
            label = f"test, {'right' if right else 'wrong'} ({len(here)})"
            axes.scatter(here["lon"], here["lat"], s=9, color=colour, alpha=0.7, linewidth=0, label=label)
        for number, square in enumerate(squares):
            if square["use"] != "test":
                continue
            corners = [(lon, lat) for lat, lon in square["corners"]]
            axes.add_patch(Polygon(corners, closed=True, fill=False, edgecolor=INK, linewidth=1.2))
            inside = records.loc[records["square"] == number, "right"]
            if len(inside):
                label, above = f"{inside.mean():.0%} of {len(inside)}", (square["lon"], max(lat for _, lat in corners))
                axes.annotate(label, above, ha="center", va="bottom", fontsize=8)
        middle = records["lat"]
        axes.set_aspect(1 / np.cos(np.radians((middle.min() + middle.max()) / 2)))
        axes.set(xlabel="longitude (degrees east)", ylabel="latitude (degrees north)")
        axes.set_title(title, fontsize=11)
        axes.legend(loc="best", frameon=True, fontsize=8, markerscale=2)
