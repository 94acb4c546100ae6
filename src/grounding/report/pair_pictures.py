"""Pictures of pairs of radar and optical images."""

from pathlib import Path

import numpy as np
from scipy.ndimage import uniform_filter

from src.core.report.figures import drawing

SAR_LIMITS = ((-20, 0), (-26, -6), (2, 12))  # dB drawn from black to full colour: VV, VH, VV - VH
BRIGHT = 0.22  # reflectance that is drawn white
GAMMA = 1.4


def natural_colour(optical: np.ndarray) -> np.ndarray:
    """(H, W, 3), 0 to 1, of (4, H, W) reflectance; the same stretch for all scenes, so that they can be compared."""
    return np.clip(optical[[2, 1, 0]].transpose(1, 2, 0) / BRIGHT, 0, 1) ** (1 / GAMMA)


def radar_colour(sar: np.ndarray) -> np.ndarray:
    """(H, W, 3), 0 to 1: VV in red, VH in green, their ratio in blue, of (2, H, W) dB.

    The ratio is a mean of 5 x 5 px, for it has the speckle of both bands.
    """
    layers = (sar[0], sar[1], uniform_filter(sar[0] - sar[1], 5))
    scaled = [(layer - low) / (high - low) for layer, (low, high) in zip(layers, SAR_LIMITS, strict=True)]
    return np.clip(np.stack(scaled, axis=-1), 0, 1)


def contact_sheet(pairs: dict[str, tuple[np.ndarray, np.ndarray]], title: str, path: Path) -> None:
    """A row of optical images above a row of radar images; `pairs` is name -> (radar, optical)."""
    with drawing(path, 2.2 * len(pairs), 5.2, 9) as figure:
        for (upper, lower), (name, (sar, optical)) in zip(
            figure.subplots(2, len(pairs), squeeze=False).T, pairs.items(), strict=True
        ):
            upper.imshow(natural_colour(optical), interpolation="nearest")
            upper.set_title(name, fontsize=9)
            lower.imshow(radar_colour(sar), interpolation="nearest")
            for axes in (upper, lower):
                axes.set_axis_off()
        figure.suptitle(title, fontsize=11)
