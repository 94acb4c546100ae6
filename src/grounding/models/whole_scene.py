"""Refined images of rasters of any size: overlapping windows, blended, a strip of windows at a time.

Noise is drawn for each row of pixels of the whole raster, so that neighbouring windows see the same noise where they
overlap, and a pixel's result hangs on (seed, sample) and its surroundings, not on where a run started.
"""

from collections.abc import Callable, Iterator
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
    """

    sar: np.ndarray
    first_guess: np.ndarray
    missing: np.ndarray


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

    Held are the rows of one strip of windows.

    Args:
        windows: height, width, side and stride; the raster is at least a window large.
    """
    side, width = windows.side, windows.width
    ramp = weights(side)
    total, held = np.zeros((samples, BANDS, side, width)), np.zeros((side, width))
    for number, top in enumerate(windows.tops):
        strip = read(int(top), side)
        for sample in range(samples):
            noise = noise_rows(seed, sample, int(top), side, width)
            for lefts, images in _batches(strip, noise, windows, refine):
                for left, image in zip(lefts, images, strict=True):
                    total[sample, :, :, left : left + side] += ramp * image
        for left in windows.lefts:
            held[:, left : left + side] += ramp
        last = number + 1 == len(windows.tops)
        done = side if last else int(windows.tops[number + 1] - top)
        yield (total[:, :, :done] / held[:done]).astype(np.float32)
        for array, axis in ((total, 2), (held, 0)):
            array[...] = np.roll(array, -done, axis)
            array[(slice(None),) * axis + (slice(side - done, None),)] = 0


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
    """`model` as a function of a batch of windows."""
    if isinstance(model, Regression):
        return lambda first_guess, missing, sar, noise: model.refine(first_guess, missing, sar)
    return lambda first_guess, missing, sar, noise: model.sample(first_guess, missing, sar, noise, steps)


def noise_rows(seed: int, sample: int, top: int, height: int, width: int) -> np.ndarray:
    """(4, height, width) float32 of standard normal noise, each row of pixels from a generator of its own."""
    rows = [
        np.random.default_rng([seed, sample, row]).standard_normal((width, BANDS), np.float32)
        for row in range(top, top + height)
    ]
    return np.stack(rows).transpose(2, 0, 1)


def weights(side: int) -> np.ndarray:
    """(side, side): how much a window's pixels count, falling linearly from its centre; nowhere 0."""
    distance = np.minimum(np.arange(side), np.arange(side)[::-1]) + 1.0
    return np.minimum.outer(distance, distance)


def _batches(strip: Strip, noise: np.ndarray, windows: Grid, refine: Refine) -> Iterator[tuple]:
    side = windows.side
    for first in range(0, len(windows.lefts), BATCH):
        lefts = windows.lefts[first : first + BATCH]
        cut = (
            torch.from_numpy(np.stack([array[..., left : left + side] for left in lefts]))
            for array in (strip.first_guess, strip.missing, strip.sar, noise)
        )
        yield lefts, refine(*cut).numpy()
