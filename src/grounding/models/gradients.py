"""Edges and texture of radar and optical images, and how alike two of them are; differentiable, batch first.

A radar image is smoothed before its gradient is taken: at 4 looks speckle alone has a standard deviation of 2.3 dB.
Power is averaged, not dB (whose mean speckle biases), over a square of DESPECKLE_PX: multilooking, the simplest of the
filters in Lee and Pottier 2009 (Polarimetric Radar Imaging, ch. 5). The gradient is then that of dB, a ratio of powers,
which speckle disturbs alike in dark and bright areas (Touzi, Lopes and Bousquet 1988).
"""

import torch
from torch.nn import functional

DESPECKLE_PX = 3  # of 1, 3, 5 and 7, the one that keeps most of real pairs' common edges (10 m, Sentinel-1 and -2)
TEXTURE_PX = 5  # 25 pixels for a standard deviation
FLOOR = 1e-6  # of a gradient's magnitude, far below a step of the sensors: its root has a slope everywhere
FLAT = 1e-5  # standard deviation of magnitudes below which an image counts as flat


def despeckled(sar: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean power of the valid pixels in a square of DESPECKLE_PX: (B, 2, H, W) dB -> the same in dB.

    Args:
        valid: (B, H, W) bool; what is not valid may be NaN, and becomes 0 dB where its whole square is not valid.
    """
    power = torch.where(valid[:, None], 10 ** (filled(sar, valid) / 10), 0.0)
    mean = local_mean(power, valid, DESPECKLE_PX)
    return 10 * torch.where(mean > 0, mean, 1.0).log10()


def gradient_magnitude(image: torch.Tensor) -> torch.Tensor:
    """Length of the gradient over all bands, (B, C, H, W) -> (B, 1, H, W), in the image's unit for each pixel.

    Bands are added as squares (Di Zenzo 1986): a border where red falls and near infrared rises is one, and in the
    mean of both it would be none. Sobel's weights over 8; no smaller than FLOOR.
    """
    across = image.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    bands = image.shape[1]
    weights = torch.stack([across, across.T])[:, None].repeat(bands, 1, 1, 1)  # (2 C, 1, 3, 3)
    slopes = functional.conv2d(functional.pad(image, (1, 1, 1, 1), mode="replicate"), weights, groups=bands)
    return (slopes.square().sum(1, keepdim=True) + FLOOR**2).sqrt()


def texture(image: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Standard deviation in a square of TEXTURE_PX over all bands, (B, C, H, W) -> (B, 1, H, W), in its unit."""
    image = filled(image, valid)
    image = image - _row_mean(image, valid)  # or squares of dB would lose the digits that matter
    variance = local_mean(image.square(), valid, TEXTURE_PX) - local_mean(image, valid, TEXTURE_PX).square()
    return (variance.clamp_min(0).sum(1, keepdim=True) + FLOOR**2).sqrt()


def correlation(one: torch.Tensor, other: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted centred correlation of each row's pixels, (B, 1, H, W) twice and (B, H, W) weights -> (B,), -1 to 1.

    0 where one of the two is flat, or all weights are 0: nothing can be said there.
    """
    weight = weight[:, None].to(one.dtype)
    share = weight / weight.sum((1, 2, 3), keepdim=True).clamp_min(FLOOR)
    one, other = (image - (share * image).sum((1, 2, 3), keepdim=True) for image in (one, other))
    variances = [(share * image.square()).sum((1, 2, 3)) for image in (one, other)]
    both = (variances[0] > FLAT**2) & (variances[1] > FLAT**2)
    lengths = [variance.clamp_min(FLAT**2).sqrt() for variance in variances]
    return torch.where(both, (share * one * other).sum((1, 2, 3)) / (lengths[0] * lengths[1]), 0.0)


def inner(valid: torch.Tensor) -> torch.Tensor:
    """(B, H, W) bool: pixels whose eight neighbours are valid too and within the image, so that their gradient is."""
    bad = functional.pad((~valid).float()[:, None], (1, 1, 1, 1), value=1.0)
    return functional.max_pool2d(bad, 3, stride=1)[:, 0] == 0


def local_mean(image: torch.Tensor, valid: torch.Tensor, side: int) -> torch.Tensor:
    """Mean of the valid pixels in a square of `side` px, odd; 0 where there are none. `image` is 0 outside `valid`."""
    count = functional.avg_pool2d(valid[:, None].to(image.dtype), side, 1, side // 2)
    return functional.avg_pool2d(image, side, 1, side // 2) / count.clamp_min(1 / (2 * side**2))


def filled(image: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """The image in float32, 0 where it is not valid, also in place of NaN."""
    return torch.where(valid[:, None], image.float(), 0.0)


def _row_mean(image: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean of each band over the valid pixels, (B, C, 1, 1), subtracted where they are valid."""
    count = valid.sum((1, 2)).clamp_min(1)[:, None, None, None]
    return image.sum((2, 3), keepdim=True) / count * valid[:, None]
