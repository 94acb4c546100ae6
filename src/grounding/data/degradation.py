"""A first guess made from the truth: blurred, hazy, noisy and with holes. Two classical fillings of such holes.

No value of the truth under a hole is used anywhere, not even for the blur or the mean of its surroundings.
"""

import cv2
import numpy as np
from scipy.interpolate import griddata
from scipy.ndimage import gaussian_filter

from src.core.stage.errors import DataError
from src.grounding.data.random_surface import smooth
from src.grounding.params import Degradation

HOLE_PX = 4, 9  # shortest and longest smoothness of holes: their widths are about two to three times that
HAZE_PX = 40  # smoothness of haze
AIRLIGHT = 0.25  # reflectance of haze so thick that the ground is not seen
# Share of light from haze in B02, B03, B04, B08 relative to blue: scattering falls with wavelength to the power -1.3
# (Ångström 1929, Geografiska Annaler 11, 156).
HAZE_OF_BAND = (np.array([490, 560, 665, 842]) / 490) ** -1.3
TELEA_PX, TELEA_SCALE = 3, 10_000  # pixels around that a filled pixel is made of
BLOCK_PX = 4


def degrade(
    optical: np.ndarray, valid: np.ndarray, strengths: Degradation, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """A first guess of (4, H, W) reflectance, of which `valid` (H, W) bool is clear.

    Each strength is drawn between its two limits; a kind whose strength is 0 is off, and changes no draw of the others.
    Blur is a Gaussian over what is visible; haze lays airlight over the ground, I = (1 - h) J + h A (Koschmieder), with
    a smooth share h; noise is Gaussian. Holes are irregular and filled with the mean of what is visible.

    Returns:
        The first guess, (4, H, W) float32 from 0 to 1; (H, W) bool where it has no data of its own, in holes and where
        the truth is not valid; the strengths drawn by name: blur_px, noise, haze, and holes as share of valid pixels.

    Raises:
        DataError: no pixel is left visible.
    """
    strength = {name: float(generator.uniform(*limits)) for name, limits in strengths}
    of_holes, of_haze, of_noise = generator.spawn(3)
    missing = ~valid | _holes(valid, strength["holes"], of_holes)
    seen = ~missing
    if not seen.any():
        raise DataError("found no clear pixel, expected some to make a first guess of; leave the scene out")
    guess = _blurred(np.where(seen, optical, 0), seen, strength["blur_px"])
    guess = _hazy(guess, strength["haze"], of_haze)
    guess += strength["noise"] * of_noise.standard_normal(guess.shape, np.float32)
    guess = np.clip(guess, 0, 1).astype(np.float32)
    guess[:, missing] = guess[:, seen].mean(axis=1, keepdims=True)
    return guess, missing, strength | {"holes": float((missing & valid).sum() / valid.sum())}


def fill_telea(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """(4, H, W) float32 with `missing` (H, W) bool filled from their rim inwards (Telea 2004, Journal of Graphics Tools
    9, 23), each band by itself."""
    # OpenCV adds a term of about 1 to each value, which reflectance from 0 to 1 would drown in.
    scaled = np.ascontiguousarray(image, np.float32) * TELEA_SCALE
    bands = [cv2.inpaint(band, missing.astype(np.uint8), TELEA_PX, cv2.INPAINT_TELEA) for band in scaled]
    return np.where(missing, np.clip(np.stack(bands) / TELEA_SCALE, 0, 1), image).astype(np.float32)


def fill_bicubic(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """(4, H, W) float32 with `missing` (H, W) bool filled by piecewise cubic interpolation (Clough and Tocher); beyond
    the outermost points by the nearest.

    The points are means of what is seen in blocks of `BLOCK_PX`: between single pixels, noise would swing the surface.
    """
    filled = image.astype(np.float32)
    if not missing.any() or missing.all():
        return filled
    rows, columns = np.nonzero(~missing)
    across = -(-missing.shape[1] // BLOCK_PX)
    blocks = rows // BLOCK_PX * across + columns // BLOCK_PX
    counts = np.bincount(blocks)
    kept = counts > 0
    sums = [np.bincount(blocks, weights)[kept] for weights in (rows, columns, *image[:, rows, columns])]
    means = np.stack(sums, axis=1) / counts[kept, None]  # (points, row, column and bands)
    points, values, holes = means[:, :2], means[:, 2:], np.argwhere(missing)
    found = griddata(points, values, holes, method="nearest")
    if np.linalg.matrix_rank(points - points[0]) == 2:  # else they span no triangle
        smooth_values = griddata(points, values, holes, method="cubic")
        found = np.where(np.isnan(smooth_values), found, smooth_values)
    filled[:, missing] = np.clip(found.T, 0, 1)
    return filled


def _holes(valid: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """(H, W) bool: patches over a share of the valid pixels."""
    height, width = valid.shape
    surface = smooth(generator, max(height, width), generator.uniform(*HOLE_PX))[:height, :width]
    surface = surface + 0.2 * smooth(generator, max(height, width), 1.5)[:height, :width]  # ragged
    count = round(share * np.count_nonzero(valid))
    holes = np.zeros_like(valid)
    if count:
        order = np.argsort(np.where(valid, surface, np.inf), axis=None, kind="stable")
        holes.flat[order[:count]] = True
    return holes


def _blurred(image: np.ndarray, seen: np.ndarray, deviation_px: float) -> np.ndarray:
    """(4, H, W) image, 0 where it is not `seen`, as the mean of seen pixels weighted by a Gaussian."""
    if deviation_px == 0:
        return image.astype(np.float32)
    weight = gaussian_filter(seen.astype(np.float32), deviation_px)
    blurred = np.stack([gaussian_filter(band.astype(np.float32), deviation_px) for band in image])
    return np.where(seen, blurred / np.maximum(weight, 1e-6), 0)


def _hazy(image: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """(4, H, W) image under haze that gives `share` of the blue light on average over many scenes."""
    height, width = image.shape[1:]
    surface = smooth(generator, max(height, width), HAZE_PX)[:height, :width]
    haze = np.clip(share * (1 + 0.5 * surface), 0, 0.95) * HAZE_OF_BAND[:, None, None].astype(np.float32)
    return image * (1 - haze) + AIRLIGHT * haze
