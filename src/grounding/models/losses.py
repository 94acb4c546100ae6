"""The five losses of the seed document on a predicted image, beside the generator's own.

Batch first: optical images (B, 4, H, W) in reflectance 0 to 1, radar (B, 2, H, W) in clipped dB, masks (B, H, W) bool.
Each function returns (B,), one number a row; `total` takes the mean over rows, so that a step in several parts or
processes is the step of its whole batch. A row without a pixel that counts gives 0.
"""

from collections.abc import Callable, Mapping

import torch

from src.grounding.models.gradients import (
    correlation,
    despeckled,
    filled,
    gradient_magnitude,
    inner,
    local_mean,
    texture,
)

CONFIDENCE_PX = 7  # side of the square in which signal is told from speckle
COLOUR_GAIN = 2.5  # reflectance 0.4 is white, as is usual for Sentinel-2 in colour

Perceptual = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Two (B, 3, H, W) images, red, green, blue, 0 to 1 -> (B,) distances."""


def sar_consistency(
    predicted: torch.Tensor, sar: torch.Tensor, valid: torch.Tensor, clip_db: tuple[float, float]
) -> torch.Tensor:
    """1 - (r_edges + r_texture) / 2, from 0 to 2; 1 for an image that is flat or has nothing to do with the radar's.

    r_edges correlates Sobel magnitudes of the prediction and of despeckled dB, r_texture their local standard
    deviations. Pixels count by their backscatter, `backscatter_weight`: dark ones are near the noise floor.
    """
    predicted, smooth = filled(predicted, valid), despeckled(sar, valid)
    weight = backscatter_weight(smooth, clip_db)
    edges = correlation(gradient_magnitude(predicted), gradient_magnitude(smooth), weight * inner(valid))
    textures = correlation(texture(predicted, valid), texture(smooth, valid), weight * valid)
    return 1 - (edges + textures) / 2


def backscatter_weight(sar: torch.Tensor, clip_db: tuple[float, float]) -> torch.Tensor:
    """(B, H, W), 0 to 1: where the mean of VV and VH dB lies between the two limits at which dB are clipped."""
    low, high = clip_db
    return ((sar.mean(1) - low) / (high - low)).clamp(0, 1)


def cycle(predicted: torch.Tensor, first_guess: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Mean of |predicted - first guess| over bands and pixels, 0 to 1: stay near the first guess.

    Args:
        known: valid pixels where the first guess has data of its own; a hole is nothing to stay near to.
    """
    return mean_over((predicted.float() - first_guess.float()).abs(), known)


def identity(
    predicted: torch.Tensor, first_guess: torch.Tensor, known: torch.Tensor, confidence: torch.Tensor
) -> torch.Tensor:
    """Mean of (1 - confidence) |predicted - first guess|, 0 to 1: keep the first guess where the radar says little.

    Divided by the number of pixels, not by the sum of weights: where the radar is sure everywhere, nothing is asked.

    Args:
        confidence: (B, H, W), 0 to 1, as from `sar_confidence`.
    """
    change = (predicted.float() - first_guess.float()).abs()
    return mean_over(change * (1 - confidence)[:, None], known)


def sar_confidence(sar: torch.Tensor, valid: torch.Tensor, looks: float) -> torch.Tensor:
    """Share of the local variance of power that is signal and not speckle, mean of VV and VH, (B, H, W), 0 to 1.

    In a square of CONFIDENCE_PX, 1 - (1 / looks) / (variance / mean^2), no less than 0: the weight of the pixel itself
    in the filters of Lee 1980 and Kuan et al. 1985, which is 0 where speckle explains all variance. Over even ground
    it is about 0.07, for 49 pixels vary by chance; on an edge of 10 dB it is about 0.75.

    Args:
        looks: equivalent number of looks of the radar image; speckle's variance / mean^2 is its inverse.
    """
    power = torch.where(valid[:, None], 10 ** (filled(sar, valid) / 10), 0.0)
    mean = local_mean(power, valid, CONFIDENCE_PX)
    count = local_mean(valid[:, None].float(), torch.ones_like(valid), CONFIDENCE_PX) * CONFIDENCE_PX**2
    variance = local_mean(power.square(), valid, CONFIDENCE_PX) - mean.square()
    variance = variance.clamp_min(0) * count / (count - 1).clamp_min(1)
    signal = 1 - mean.square() / looks / variance.clamp_min(1e-20)
    return (signal.clamp(0, 1) * valid[:, None]).mean(1)


def perceptual(predicted: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor, distance: Perceptual) -> torch.Tensor:
    """LPIPS (Zhang et al. 2018) of the images in natural colour, 0 or more. Pixels that are not valid are equal."""
    same = torch.where(valid[:, None], predicted.float(), truth.float())
    colours = [(filled(image, valid)[:, [2, 1, 0]] * COLOUR_GAIN).clamp(0, 1) for image in (same, truth)]
    return distance(*colours)


def spectral(predicted: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean of |predicted - truth| over bands and pixels (L1), 0 to 1."""
    return mean_over((predicted.float() - truth.float()).abs(), valid)


def total(
    predicted: torch.Tensor,
    truth: torch.Tensor,
    first_guess: torch.Tensor,
    sar: torch.Tensor,
    valid: torch.Tensor,
    missing: torch.Tensor,
    *,
    weights: Mapping[str, float],
    clip_db: tuple[float, float],
    looks: float,
    distance: Perceptual | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The weighted sum of the five losses, a mean over rows, and each loss without its weight, for the log.

    Args:
        missing: pixels where the first guess has no data of its own.
        weights: of sar, cycle, identity, lpips and spectral.
        distance: from `read_lpips`; None: this loss is off, and not among the parts.
    """
    known = valid & ~missing
    rows = {
        "sar": sar_consistency(predicted, sar, valid, clip_db),
        "cycle": cycle(predicted, first_guess, known),
        "identity": identity(predicted, first_guess, known, sar_confidence(sar, valid, looks)),
        "spectral": spectral(predicted, truth, valid),
    }
    if distance is not None:
        rows["lpips"] = perceptual(predicted, truth, valid, distance)
    parts = {name: values.mean() for name, values in rows.items()}
    loss = sum(weights[name] * value for name, value in parts.items())
    return loss, {name: value.detach() for name, value in parts.items()}


def mean_over(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of (B, C, H, W) over bands and the pixels in (B, H, W), one number a row; NaN outside counts for nothing."""
    inside = filled(values, mask).sum((1, 2, 3))
    return inside / (mask.sum((1, 2)) * values.shape[1]).clamp_min(1)
