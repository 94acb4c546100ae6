"""Figures of grounding: images of scenes side by side, gains in dB, and calibration of the spread."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.core.report.figures import ACCENT, FAINT, INK, SECOND, drawing
from src.grounding.data.scene_store import Scene
from src.grounding.data.sensors import OPTICAL_BANDS
from src.grounding.evaluation.predictors import COMPARISONS, TITLES

SIDE_PX = 400  # of an image at most; larger scenes are thinned
COLUMNS = ("radar (VV)", "first guess (v2)", "refined (v3)", "truth", "error", "spread")
_RGB = [OPTICAL_BANDS.index(band) for band in ("B04", "B03", "B02")]
REGIONS = {"psnr": ("all pixels", ACCENT), "degraded_psnr": ("degraded pixels", SECOND)}


class Refined(NamedTuple):
    """One scene with its refined image and the standard deviation of the samples, both (4, H, W) in reflectance."""

    scene: Scene
    mean: np.ndarray
    spread: np.ndarray


def draw_panels(path: Path, shown: Sequence[Refined]) -> None:
    """A row for each scene: radar, first guess, refined, truth, error and spread.

    Optical images are in natural colour, between the truth's 2nd and 98th percentile in all three. Error (mean over
    bands of |refined - truth|) and spread (mean over bands) share one scale over all scenes, so that they can be
    compared. What is not valid is left white.
    """
    errors = [np.where(one.scene.valid, np.abs(one.mean - one.scene.optical).mean(0), np.nan) for one in shown]
    spreads = [np.where(one.scene.valid, one.spread.mean(0), np.nan) for one in shown]
    limit = float(np.nanpercentile(np.concatenate([error.ravel() for error in errors]), 98)) or 1e-3
    with drawing(path, 1.9 * len(COLUMNS) + 0.8, 0.5 + 1.75 * len(shown), 9) as figure:
        grid = figure.subplots(len(shown), len(COLUMNS), squeeze=False)
        for row, one, error, spread in zip(grid, shown, errors, spreads, strict=True):
            _images(row[:4], one)
            for axes, values in zip(row[4:], (error, spread), strict=True):
                image = axes.imshow(_thinned(values), cmap="magma", vmin=0, vmax=limit, interpolation="nearest")
            row[0].set_ylabel(one.scene.name, fontsize=8)
            for axes in row:
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
        for axes, title in zip(grid[0], COLUMNS, strict=True):
            axes.set_title(title, fontsize=10)
        bar = figure.colorbar(image, ax=grid[:, 4:], shrink=min(1, 1.6 / len(shown) + 0.2), extend="max")
        bar.set_label("reflectance, mean over bands")


def _images(row: np.ndarray, one: Refined) -> None:
    """Radar image and three optical ones in four axes."""
    scene = one.scene
    radar = np.where(scene.valid, scene.sar[0], np.nan)
    low, high = np.nanpercentile(radar, [2, 98])
    row[0].imshow(_thinned(radar), cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    low, high = np.percentile(scene.optical[_RGB][:, scene.valid], [2, 98])
    for axes, image in zip(row[1:], (scene.first_guess, one.mean, scene.optical), strict=True):
        colours = np.clip((image[_RGB] - low) / max(high - low, 1e-6), 0, 1)
        shown = np.where(scene.valid, colours, 1.0)
        axes.imshow(_thinned(shown.transpose(1, 2, 0)), interpolation="nearest")


def _thinned(image: np.ndarray) -> np.ndarray:
    step = -(-max(image.shape[:2]) // SIDE_PX)
    return image[::step, ::step]


def draw_gains(path: Path, gains: Mapping[str, dict]) -> None:
    """Differences in PSNR with intervals, a row for each of COMPARISONS that `gains` has.

    Args:
        gains: key of a comparison -> its result from `image_scores.paired`, with psnr and degraded_psnr.
    """
    rows = [one for one in COMPARISONS if one.key in gains]
    with drawing(path, 9, 1.1 + 0.5 * len(rows)) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=0.9, linestyle="--")
        for at, one in enumerate(rows):
            for (name, (_, colour)), shift in zip(REGIONS.items(), (-0.13, 0.13), strict=True):
                _interval(axes, gains[one.key], name, at + shift, colour)
        for label, colour in REGIONS.values():
            axes.plot([], [], "o-", color=colour, label=label)
        axes.set_yticks(range(len(rows)), [f"against {TITLES[one.theirs]}" for one in rows], fontsize=9)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("gain of the generator with LoRA in PSNR (dB), with 95 % intervals")
        axes.grid(axis="x", color=FAINT, linewidth=0.5)
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)


def _interval(axes, gain: dict, name: str, at: float, colour: str) -> None:
    if gain[name] is None:
        return
    if gain[f"{name}_low"] is not None:
        axes.plot([gain[f"{name}_low"], gain[f"{name}_high"]], [at, at], color=colour, linewidth=2)
    axes.plot(gain[name], at, "o", color=colour, markersize=6)


def draw_calibration(path: Path, table: Sequence[dict], coverage: Mapping[float, float]) -> None:
    """Left: error against expected error, a point for each bin. Right: share of errors within intervals of each level.

    Args:
        table: from `calibration.reliability`.
        coverage: level (0.95) -> share of errors within its interval.
    """
    expected, found = (np.array([row[name] for row in table]) for name in ("expected_rmse", "rmse"))
    with drawing(path, 8.5, 4) as figure:
        left, right = figure.subplots(1, 2)
        top = 1.08 * max(expected.max(), found.max())
        left.plot([0, top], [0, top], color=INK, linewidth=0.9, linestyle="--", label="right spread")
        left.plot(expected, found, "o-", color=ACCENT, label="tenths of all values")
        left.set(xlabel="error expected from the spread (reflectance)", ylabel="error found, RMSE (reflectance)")
        left.set(xlim=(0, top), ylim=(0, top), box_aspect=1)
        right.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle="--")
        right.plot([*coverage], [*coverage.values()], "o-", color=SECOND)
        right.set(xlabel="level of the interval", ylabel="share of errors within it", xlim=(0, 1), ylim=(0, 1))
        right.set(box_aspect=1)
        left.legend(loc="upper left", frameon=False, fontsize=8)
