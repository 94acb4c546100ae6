"""Shift between a radar and an optical image of one scene.

Brightness differs between the two, edges of fields, shores and roads do not: gradient magnitudes are compared by their
cross-correlation (Guizar-Sicairos et al. 2008, "Efficient subpixel image registration algorithms", as in
skimage.registration). It needs such edges. On flat scenes, and under strong speckle, the highest correlation lies
anywhere: the scene and its four quarters are compared, the median of the five counts, and where they disagree the shift
is not known.

It is a shift of what shows edges. Trees and buildings lie nearer to the radar than their ground does (layover), and
beside a shadow: among them a shift of one or two pixels along the radar's line of sight is no fault of the grid.
"""

import numpy as np
from scipy import ndimage
from skimage.registration import phase_cross_correlation

SMOOTHING_PX = 1  # against speckle
STEPS = 10  # a shift is found to the tenth of a pixel
AGREE_PX = 1.5  # median distance of the five shifts from their median
LARGEST = 1024  # px a side; the centre of a larger scene is compared
LEAST = 0.5  # share of a quarter that must be valid


def shift_px(sar: np.ndarray, optical: np.ndarray, valid: np.ndarray) -> float:
    """Distance in pixels by which the radar image lies off the optical one, NaN where it cannot be told.

    Args:
        sar: (2, H, W) dB.
        optical: (4, H, W) reflectance.
        valid: (H, W) bool; the values of other pixels do not matter.
    """
    window = tuple(slice((side - min(side, LARGEST)) // 2, (side + min(side, LARGEST)) // 2) for side in valid.shape)
    sar, optical, valid = sar[:, *window], optical[:, *window], valid[window]
    edges = _edges(optical, valid), _edges(sar, valid)
    height, width = valid.shape
    rows, columns = (slice(0, height // 2), slice(height // 2, None)), (slice(0, width // 2), slice(width // 2, None))
    quarters = [(down, right) for down in rows for right in columns]
    if min(valid[quarter].mean() for quarter in quarters) < LEAST:
        return float("nan")
    shifts = np.array([_shift(*(image[part] for image in edges)) for part in [*quarters, np.s_[:, :]]])
    middle = np.median(shifts, axis=0)
    apart = np.median(np.hypot(*(shifts - middle).T))
    return float(np.hypot(*middle)) if apart <= AGREE_PX else float("nan")  # NaN too where an image is flat


def _edges(bands: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(H, W) float64 sum of the bands' gradient magnitudes, each by its standard deviation; 0 beside no data."""
    inside = ndimage.binary_erosion(valid, iterations=3 * SMOOTHING_PX + 1, border_value=1)
    total = np.zeros(valid.shape)
    for band in bands:
        smooth = ndimage.gaussian_filter(np.where(valid, band, band[valid].mean() if valid.any() else 0), SMOOTHING_PX)
        magnitude = np.hypot(ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1))
        spread = magnitude[inside].std() if inside.any() else 0
        if spread > 0:
            total += np.where(inside, magnitude - magnitude[inside].mean(), 0) / spread
    return total


def _shift(fixed: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Rows and columns by which `moved` has to go back; NaN where one of them is flat."""
    if not (fixed.any() and moved.any()):
        return np.full(2, np.nan)
    fade = np.outer(*map(np.hanning, fixed.shape))  # or the borders would be the strongest edges
    images = (image * fade for image in (fixed - fixed.mean(), moved - moved.mean()))
    return phase_cross_correlation(*images, upsample_factor=STEPS, normalization=None)[0]
