"""Refined images of rasters of any size: overlapping windows, blended, a strip of windows at a time.

Noise is drawn for each row of pixels of the whole raster, so that neighbouring windows see the same noise where they
overlap, and a pixel's result hangs on (seed, sample) and its surroundings, not on where a run started.
"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import NamedTuple, Protocol

import numpy as np
import torch

from src.core.data.sliding_windows import Grid
from src.grounding.data.scene_store import Scene
from src.grounding.data.sensors import OPTICAL_BANDS
from src.grounding.models.denoiser import Denoiser
from src.grounding.models.regression import Regression

BANDS = len(OPTICAL_BANDS)
BATCH = 32  # windows at once


class Strip(NamedTuple):
    """Some rows of pixels of a raster, over its whole width.

    Attributes:
        sar: (2, h, W) float32 dB.
        first_guess: (4, h, W) float32 reflectance.
        missing: (h, W) bool.
        wanted: (h, W) bool, pixels to be refined; None: all.
    """

    sar: np.ndarray
    first_guess: np.ndarray
    missing: np.ndarray
    wanted: np.ndarray | None = None


class Reader(Protocol):
    """`read(top, height)` gives a Strip."""

    def __call__(self, top: int, height: int) -> Strip: ...


Refine = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""First guess, holes, radar, noise of a batch of windows -> refined windows."""


def grid(height: int, width: int, side: int, overlap: int) -> Grid:
    """Windows of `side` px that overlap by `overlap` px."""
    return Grid(height, width, side, side - overlap)


def refine_rows(read: Reader, windows: Grid, refine: Refine, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Refine a raster; yields (samples, 4, h, W) float32 reflectance of consecutive runs of rows from the north.

    Held are the rows of one strip of windows. Where a strip says which pixels are wanted, the others are NaN, and a
    window is left out that has no wanted pixel, or nothing but holes: without any first guess it would be invention.

    Args:
        windows: height, width, side and stride; the raster is at least a window large.
    """
    side, width = windows.side, windows.width
    ramp = weights(side)
    total, held = np.zeros((samples, BANDS, side, width)), np.zeros((side, width))
    for number, top in enumerate(windows.tops):
        strip = read(int(top), side)
        lefts = [left for left in windows.lefts if _worth(strip, left, side)]
        noise = np.stack([noise_rows(seed, sample, int(top), side, width) for sample in range(samples)])
        # Windows of all samples fill batches together, or narrow rasters would leave them nearly empty.
        for places, images in _batches(strip, noise, list(product(range(samples), lefts)), refine):
            for (sample, left), image in zip(places, images, strict=True):
                total[sample, :, :, left : left + side] += ramp * image
        for left in lefts:
            held[:, left : left + side] += ramp
        last = number + 1 == len(windows.tops)
        done = side if last else int(windows.tops[number + 1] - top)
        yield _mean(total[:, :, :done], held[:done], strip.wanted)
        for array in (total, held):
            array[..., : side - done, :] = array[..., done:, :]
            array[..., side - done :, :] = 0


def refine_scene(
    scene: Scene, model: Denoiser | Regression, steps: int, overlap: int, samples: int, seed: int
) -> np.ndarray:
    """(samples, 4, H, W) float32 images of a scene in memory, as `refine_rows` gives them; one of a Regression."""

    def read(top: int, height: int) -> Strip:
        rows = slice(top, top + height)
        return Strip(scene.sar[:, rows], scene.first_guess[:, rows], scene.missing[rows])

    windows = grid(*scene.missing.shape, model.tile_px, overlap)
    samples = 1 if isinstance(model, Regression) else samples
    return np.concatenate(list(refine_rows(read, windows, refiner(model, steps), samples, seed)), axis=2)


def refiner(model: Denoiser | Regression, steps: int) -> Refine:
    """`model` as a function of a batch of windows, on the device where it is."""
    device = next(model.parameters()).device

    def refine(first_guess: torch.Tensor, missing: torch.Tensor, sar: torch.Tensor, noise: torch.Tensor):
        images = (image.to(device) for image in (first_guess, missing, sar))
        if isinstance(model, Regression):
            return model.refine(*images).cpu()
        return model.sample(*images, noise.to(device), steps).cpu()

    return refine


def noise_rows(seed: int, sample: int, top: int, height: int, width: int) -> np.ndarray:
    """(4, height, width) float32 of standard normal noise, each row of pixels from a generator of its own."""
    rows = [
        np.random.default_rng([seed, sample, row]).standard_normal((width, BANDS), np.float32)
        for row in range(top, top + height)
    ]
    return np.stack(rows).transpose(2, 0, 1)


def weights(side: int) -> np.ndarray:
    """(side, side): how much a window's pixels count, falling linearly from its centre; nowhere 0.

    It is a product of rows and columns, so that two windows side by side share a pixel alike in every row, those at the
    raster's rim included, where no other window hides a seam.
    """
    distance = np.minimum(np.arange(side), np.arange(side)[::-1]) + 1.0
    return np.multiply.outer(distance, distance)


def _worth(strip: Strip, left: int, side: int) -> bool:
    columns = slice(left, left + side)
    return strip.wanted is None or bool(strip.wanted[:, columns].any() and not strip.missing[:, columns].all())


def _mean(total: np.ndarray, held: np.ndarray, wanted: np.ndarray | None) -> np.ndarray:
    known = held > 0 if wanted is None else (held > 0) & wanted[: len(held)]
    mean = np.full(total.shape, np.nan, np.float32)
    return np.divide(total, held, out=mean, where=known, casting="same_kind")


def _batches(strip: Strip, noise: np.ndarray, places: list[tuple[int, int]], refine: Refine) -> Iterator[tuple]:
    """Places (sample, left) of some windows, and their refined images (N, 4, side, side), batch by batch."""
    side = len(strip.missing)
    for first in range(0, len(places), BATCH):
        batch = places[first : first + BATCH]
        cut = (
            torch.from_numpy(np.stack([array[..., left : left + side] for _, left in batch]))
            for array in (strip.first_guess, strip.missing, strip.sar)
        )
        drawn = torch.from_numpy(np.stack([noise[sample, ..., left : left + side] for sample, left in batch]))
        yield batch, refine(*cut, drawn).numpy()
