"""Pictures of scenes: natural colour beside the map of minerals."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from src.core.report.figures import drawing
from src.minerals.data.scene_files import COLOURS
from src.minerals.mapping.minerals import NAMES

NATURAL = (660, 550, 470)  # nm, red, green and blue


class Picture(NamedTuple):
    """One scene: title, (H, W, 3) colours 0 to 1, and maps of (H, W) uint8 classes below, one or two."""

    title: str
    rgb: np.ndarray
    classes: np.ndarray
    more: np.ndarray | None = None


def natural_colour(cube: np.ndarray, wavelengths: np.ndarray) -> np.ndarray:
    """(H, W, 3), 0 to 1, of (H, W, B) reflectance, stretched between its 2nd and 98th percentile."""
    rgb = cube[..., [int(np.abs(wavelengths - nm).argmin()) for nm in NATURAL]]
    low, high = np.nanpercentile(rgb, [2, 98])
    return np.clip((np.nan_to_num(rgb, nan=low) - low) / max(high - low, 1e-6), 0, 1)


def contact_sheet(pictures: list[Picture], title: str, path: Path) -> None:
    """A row of natural colour above a row (or two) of minerals, with one legend."""
    names = ("background", *NAMES)
    colours = ListedColormap(np.array([COLOURS[name] for name in names]) / 255).with_extremes(over="white")  # no data
    rows = 2 if pictures[0].more is None else 3
    with drawing(path, 1.9 * len(pictures), 0.8 + 1.9 * rows, 9) as figure:
        for column, picture in zip(figure.subplots(rows, len(pictures), squeeze=False).T, pictures, strict=True):
            column[0].imshow(picture.rgb)
            column[0].set_title(picture.title, fontsize=9)
            for axes, classes in zip(column[1:], picture[2:], strict=False):
                axes.imshow(classes, cmap=colours, vmin=-0.5, vmax=len(NAMES) + 0.5, interpolation="nearest")
            for axes in column:
                axes.set_axis_off()
        handles = [Patch(color=colours(number), label=name) for number, name in enumerate(names)]
        figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
        figure.suptitle(title, fontsize=11)
