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
HOLE = 0.6  # grey
REGIONS = {"psnr": ("all pixels", ACCENT), "degraded_psnr": ("degraded pixels", SECOND)}


class Refined(NamedTuple):
    """One scene with its refined image and the standard deviation of the samples, both (4, H, W) in reflectance.

    `scene.optical` is None where there is no truth, `spread` None where one image alone was drawn.
    """

    scene: Scene
    mean: np.ndarray
    spread: np.ndarray | None


def draw_panels(path: Path, shown: Sequence[Refined]) -> None:
    """A row for each scene: radar, first guess, refined, truth, error and spread.

    Optical images are in natural colour: refined image and truth between the 2nd and 98th percentile of the truth (of
    the refined image where there is none), the first guess between its own, for haze would be white else, with holes in
    grey. Error (mean over bands of |refined - truth|) and spread (mean over bands) share
    one scale over all scenes, so that they can be compared. What is not valid is left white. Truth and error are left
    out where a scene has no truth, and spread where a scene has none.
    """
    maps = {}
    if all(one.scene.optical is not None for one in shown):
        maps["error"] = [_over_bands(one, np.abs(one.mean - one.scene.optical)) for one in shown]
    if all(one.spread is not None for one in shown):
        maps["spread"] = [_over_bands(one, one.spread) for one in shown]
    columns = COLUMNS[: 4 if "error" in maps else 3] + tuple(maps)
    with drawing(path, 1.9 * len(columns) + 0.8, 0.5 + 1.75 * len(shown), 9) as figure:
        grid = figure.subplots(len(shown), len(columns), squeeze=False)
        for row, one in zip(grid, shown, strict=True):
            _images(row[: len(columns) - len(maps)], one)
            row[0].set_ylabel(one.scene.name, fontsize=8)
            for axes in row:
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
        for axes, title in zip(grid[0], columns, strict=True):
            axes.set_title(title, fontsize=10)
        if maps:
            _maps(figure, grid[:, -len(maps) :], list(maps.values()))


def _maps(figure, grid: np.ndarray, maps: list[list[np.ndarray]]) -> None:
    """Columns of maps under one scale, the 98th percentile of the first column at its top."""
    limit = float(np.nanpercentile(np.concatenate([values.ravel() for values in maps[0]]), 98)) or 1e-3
    for column, images in zip(grid.T, maps, strict=True):
        for axes, values in zip(column, images, strict=True):
            image = axes.imshow(_thinned(values), cmap="magma", vmin=0, vmax=limit, interpolation="nearest")
    bar = figure.colorbar(image, ax=grid, shrink=min(1, 1.6 / len(grid) + 0.2), extend="max")
    bar.set_label("reflectance, mean over bands")


def _over_bands(one: Refined, values: np.ndarray) -> np.ndarray:
    return np.where(one.scene.valid, values.mean(0), np.nan)


def _images(row: np.ndarray, one: Refined) -> None:
    """Radar image and optical ones in the axes of a row."""
    scene = one.scene
    radar = np.where(scene.valid, scene.sar[0], np.nan)
    low, high = np.nanpercentile(radar, [2, 98])
    row[0].imshow(_thinned(radar), cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    true = one.mean if scene.optical is None else scene.optical
    limits = _limits(true, scene.valid)
    seen = scene.valid & ~scene.missing
    guess = _colours(scene.first_guess, _limits(scene.first_guess, seen) if seen.any() else limits)
    guess[scene.missing] = HOLE
    pictures = guess, _colours(one.mean, limits), _colours(true, limits)
    for axes, colours in zip(row[1:], pictures, strict=False):
        shown = np.where(scene.valid[..., None], colours, 1.0)
        axes.imshow(_thinned(shown), interpolation="nearest")


def _limits(image: np.ndarray, seen: np.ndarray) -> np.ndarray:
    return np.percentile(image[_RGB][:, seen], [2, 98])


def _colours(image: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """(H, W, 3) from 0 to 1."""
    low, high = limits
    return np.clip((image[_RGB] - low) / max(high - low, 1e-6), 0, 1).transpose(1, 2, 0)


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
