"""Figure of tiles as they are, as a masked autoencoder sees them, and as it reconstructs them."""

from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from src.core.report import fonts
from src.core.report.figures import save


def reconstruction_grid(path: Path, images: np.ndarray, masks: np.ndarray, mended: np.ndarray, titles: list[str]):
    """Three columns a tile: original, masked, reconstructed; the first three channels as red, green and blue.

    `images` and `mended` are (N, 3, S, S) standardised, `masks` (N, S, S) bool, True where masked.
    """
    low, high = np.percentile(images, (2, 98), axis=(0, 2, 3))

    def colours(image: np.ndarray) -> np.ndarray:
        scaled = (image - low[:, None, None]) / np.maximum(high - low, 1e-6)[:, None, None]
        return scaled.clip(0, 1).transpose(1, 2, 0)

    with rc_context({"font.family": fonts.with_chinese()}):
        figure = Figure(figsize=(6.6, 2.3 * len(images)), layout="tight")
        axes = figure.subplots(len(images), 3, squeeze=False)
        for row, image, mask, repaired, title in zip(axes, images, masks, mended, titles, strict=True):
            masked = np.where(mask[..., None], 0.92, colours(image))
            for axis, picture in zip(row, (colours(image), masked, colours(repaired)), strict=True):
                axis.imshow(picture, interpolation="nearest")
                axis.set(xticks=[], yticks=[])
            row[0].set_ylabel(fonts.verbatim(title), fontsize=8)
        for axis, name in zip(axes[0], ("original", "visible", "reconstructed"), strict=True):
            axis.set_title(name, fontsize=10)
        save(figure, path, dpi=120)
