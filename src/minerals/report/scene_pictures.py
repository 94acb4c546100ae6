"""Pictures of scenes: natural colour beside the map of minerals."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from src.core.report.figures import drawing
from src.core.stage.errors import DataError
from src.minerals.data.band_table import COMPOSITES, composite_bands
from src.minerals.mapping.map_classes import CLASSES, COLOURS

DEEP = 0.3  # depth that is drawn brightest
GREY = 2200  # nm, for a sensor without visible light
SIDE_PX = 1200  # of a picture at most; larger scenes are thinned
CMAP = ListedColormap(np.array([COLOURS[name] for name in CLASSES]) / 255).with_extremes(over="white")  # no data
LEGEND = 6.5  # inches that it takes


class Picture(NamedTuple):
    """One scene: title, (H, W, 3) colours 0 to 1, and maps of (H, W) uint8 classes below, one or two."""

    title: str
    rgb: np.ndarray
    classes: np.ndarray
    more: np.ndarray | None = None


def shown_bands(nm: np.ndarray, kept: np.ndarray) -> tuple[list[int], str]:
    """Three bands that show a scene to people, and their title: natural colour, or else one band in grey."""
    try:
        return composite_bands(nm, kept, "natural"), "natural colour"
    except DataError:
        band = int(np.where(kept, np.abs(nm - GREY), np.inf).argmin())
        return [band] * 3, f"reflectance at {nm[band]:.0f} nm"


def natural_colour(cube: np.ndarray, wavelengths: np.ndarray) -> np.ndarray:
    """(H, W, 3), 0 to 1, of (H, W, B) reflectance with visible light, as `stretched`."""
    return stretched(cube[..., [int(np.abs(wavelengths - nm).argmin()) for nm in COMPOSITES["natural"]]])


def stretched(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) reflectance -> 0 to 1 between its 2nd and 98th percentile; NaN becomes 0."""
    if np.isnan(rgb).all():
        return np.zeros_like(rgb)
    low, high = np.nanpercentile(rgb, [2, 98])
    return np.clip((np.nan_to_num(rgb, nan=low) - low) / max(high - low, 1e-6), 0, 1)


def contact_sheet(pictures: list[Picture], title: str, path: Path) -> None:
    """A row of natural colour above a row (or two) of minerals, with one legend."""
    rows = 2 if pictures[0].more is None else 3
    with drawing(path, max(1.9 * len(pictures), LEGEND), 0.8 + 1.9 * rows, 9) as figure:
        for column, picture in zip(figure.subplots(rows, len(pictures), squeeze=False).T, pictures, strict=True):
            column[0].imshow(picture.rgb)
            column[0].set_title(picture.title, fontsize=9)
            for axes, classes in zip(column[1:], picture[2:], strict=False):
                _show_classes(axes, classes)
            for axes in column:
                axes.set_axis_off()
        _legend(figure)
        figure.suptitle(title, fontsize=11)


def depth_sheet(depths: dict[str, np.ndarray], title: str, path: Path) -> None:
    """A row of scenes: name -> (H, W) depth of one absorption; NaN stays white."""
    with drawing(path, max(1.9 * len(depths), LEGEND), 2.9, 9) as figure:
        axes = figure.subplots(1, len(depths), squeeze=False)[0]
        for one, (name, depth) in zip(axes, depths.items(), strict=True):
            image = one.imshow(depth, cmap="magma", vmin=0, vmax=DEEP, interpolation="nearest")
            one.set_title(name, fontsize=9)
            one.set_axis_off()
        figure.colorbar(image, ax=axes, label="depth")
        figure.suptitle(title, fontsize=11)


def beside(picture: Picture, titles: tuple[str, str], path: Path) -> None:
    """One scene and beside it its minerals, each under its title."""
    step = -(-max(picture.classes.shape) // SIDE_PX)
    height, width = picture.classes.shape
    with drawing(path, 11, float(np.clip(5.2 * height / width, 2, 14)) + 1) as figure:
        left, right = figure.subplots(1, 2)
        left.imshow(picture.rgb[::step, ::step])
        _show_classes(right, picture.classes[::step, ::step])
        for axes, title in zip((left, right), titles, strict=True):
            axes.set_axis_off()
            axes.set_title(title, fontsize=10)
        _legend(figure)
        figure.suptitle(picture.title, fontsize=11)


def _show_classes(axes: Axes, classes: np.ndarray) -> None:
    """Draw (H, W) classes; what is no data stays white."""
    axes.imshow(classes, cmap=CMAP, vmin=-0.5, vmax=len(CLASSES) - 0.5, interpolation="nearest")


def _legend(figure: Figure) -> None:
    handles = [Patch(color=CMAP(number), label=name) for number, name in enumerate(CLASSES)]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
