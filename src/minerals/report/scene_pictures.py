"""Pictures of scenes: natural colour beside the map of minerals."""

from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from src.core.report.figures import STYLE, save
from src.minerals.data.scene_files import COLOURS
from src.minerals.mapping.minerals import NAMES

NATURAL = (660, 550, 470)  # nm, red, green and blue


class Picture(NamedTuple):
    """One scene: title, (H, W, 3) colours 0 to 1, (H, W) uint8 classes."""

    title: str
    rgb: np.ndarray
    classes: np.ndarray


def natural_colour(cube: np.ndarray, wavelengths: np.ndarray) -> np.ndarray:
    """(H, W, 3), 0 to 1, of (H, W, B) reflectance, stretched between its 2nd and 98th percentile."""
    rgb = cube[..., [int(np.abs(wavelengths - nm).argmin()) for nm in NATURAL]]
    low, high = np.nanpercentile(rgb, [2, 98])
    return np.clip((np.nan_to_num(rgb, nan=low) - low) / max(high - low, 1e-6), 0, 1)


def contact_sheet(pictures: list[Picture], title: str, path: Path) -> None:
    """A row of natural colour above a row of minerals, with one legend."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.9 * len(pictures), 4.6), layout="constrained")
        axes = figure.subplots(2, len(pictures), squeeze=False)
        colours = ListedColormap(np.array([COLOURS[name] for name in ("background", *NAMES)]) / 255)
        colours = colours.with_extremes(over="white")  # no data, or the last mineral would have its colour
        for (above, below), picture in zip(axes.T, pictures, strict=True):
            above.imshow(picture.rgb)
            above.set_title(picture.title, fontsize=9)
            below.imshow(picture.classes, cmap=colours, vmin=-0.5, vmax=len(NAMES) + 0.5, interpolation="nearest")
            for side in (above, below):
                side.set_axis_off()
        handles = [Patch(color=colours(number), label=name) for number, name in enumerate(("background", *NAMES))]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
        figure.suptitle(title, fontsize=11)
        save(figure, path)
