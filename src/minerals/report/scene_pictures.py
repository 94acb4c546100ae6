"""Pictures of scenes: natural colour beside the map of minerals."""

from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from src.core.report.figures import STYLE, drawing, save
from src.core.stage.errors import DataError
from src.minerals.data.band_table import composite_bands
from src.minerals.data.scene_files import COLOURS
from src.minerals.mapping.minerals import NAMES

NATURAL = (660, 550, 470)  # nm, red, green and blue
GREY = 2200  # nm, for a sensor without visible light
SIDE_PX = 1200  # of a picture at most; larger scenes are thinned
CLASSES = ("background", *NAMES)


class Picture(NamedTuple):
    """One scene: title, (H, W, 3) colours 0 to 1, (H, W) uint8 classes."""

    title: str
    rgb: np.ndarray
    classes: np.ndarray


def shown_bands(nm: np.ndarray, kept: np.ndarray) -> tuple[list[int], str]:
    """Three bands that show a scene to people, and their title: natural colour, or else one band in grey."""
    try:
        return composite_bands(nm, kept, "natural"), "natural colour"
    except DataError:
        band = int(np.where(kept, np.abs(nm - GREY), np.inf).argmin())
        return [band] * 3, f"reflectance at {nm[band]:.0f} nm"


def natural_colour(cube: np.ndarray, wavelengths: np.ndarray) -> np.ndarray:
    """(H, W, 3), 0 to 1, of (H, W, B) reflectance with visible light, as `stretched`."""
    return stretched(cube[..., [int(np.abs(wavelengths - nm).argmin()) for nm in NATURAL]])


def stretched(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) reflectance -> 0 to 1 between its 2nd and 98th percentile; NaN becomes 0."""
    low, high = np.nanpercentile(rgb, [2, 98])
    return np.clip((np.nan_to_num(rgb, nan=low) - low) / max(high - low, 1e-6), 0, 1)


def contact_sheet(pictures: list[Picture], title: str, path: Path) -> None:
    """A row of natural colour above a row of minerals, with one legend."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(1.9 * len(pictures), 9.5), 4.6), layout="constrained")  # the legend takes 9.5
        axes = figure.subplots(2, len(pictures), squeeze=False)
        for (above, below), picture in zip(axes.T, pictures, strict=True):
            above.imshow(picture.rgb)
            above.set_title(picture.title, fontsize=9)
            _show_classes(below, picture.classes)
            for side in (above, below):
                side.set_axis_off()
        figure.legend(handles=_legend(), loc="outside lower center", ncols=len(CLASSES), fontsize=8, frameon=False)
        figure.suptitle(title, fontsize=11)
        save(figure, path)


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
        figure.legend(handles=_legend(), loc="outside lower center", ncols=len(CLASSES), fontsize=8, frameon=False)
        figure.suptitle(picture.title, fontsize=11)


def _colours() -> ListedColormap:
    return ListedColormap(np.array([COLOURS[name] for name in CLASSES]) / 255)


def _show_classes(axes, classes: np.ndarray) -> None:
    """Draw (H, W) classes; what is no data stays white."""
    known = np.ma.masked_greater(classes, len(NAMES))
    axes.imshow(known, cmap=_colours(), vmin=-0.5, vmax=len(NAMES) + 0.5, interpolation="nearest")


def _legend() -> list[Patch]:
    return [Patch(color=_colours()(number), label=name) for number, name in enumerate(CLASSES)]
