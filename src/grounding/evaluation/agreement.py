"""Agreement of the edges of an optical and a radar image: the seed document's, and one that scores 0 without any.

The document's is the cosine of two images of gradient magnitudes. Magnitudes are never negative, so that the cosine is
high for any two images. Those of noise have a Rayleigh distribution: unrelated noise scores E[m]^2 / E[m^2] = pi / 4 =
0.79. A flat image's all equal the floor that keeps the root differentiable, and it scores against noise
E[m] / sqrt(E[m^2]) = sqrt(pi / 4) = 0.89. Real pairs score less, for few edges hold most of their gradients.

All functions take batches and return (B,), float32, without gradient; one serves early stopping and whole scenes.
"""

import torch

from src.grounding.models.gradients import correlation, despeckled, filled, gradient_magnitude, inner


@torch.no_grad()
def seed_agreement(optical: torch.Tensor, sar: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """The seed document's agreement, 0 to 1: cosine of Sobel magnitudes of the means over bands, speckle included.

    For comparison alone: noise scores 0.79, a flat image 0.89.

    Args:
        optical: (B, 4, H, W) reflectance.
        sar: (B, 2, H, W) dB.
        valid: (B, H, W) bool.
    """
    weight = inner(valid)[:, None].float()
    one, other = (weight * gradient_magnitude(filled(image, valid).mean(1, keepdim=True)) for image in (optical, sar))
    lengths = [image.square().sum((1, 2, 3)).sqrt() for image in (one, other)]
    return (one * other).sum((1, 2, 3)) / (lengths[0] * lengths[1]).clamp_min(1e-20)


@torch.no_grad()
def centred(optical: torch.Tensor, sar: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Correlation of gradient magnitudes, over all bands and of despeckled dB, -1 to 1; 0 for a flat image.

    Arguments as for `seed_agreement`. Pixels with a neighbour that is not valid, or outside the image, do not count.
    """
    edges = gradient_magnitude(filled(optical, valid)), gradient_magnitude(despeckled(sar, valid))
    return correlation(*edges, inner(valid))


@torch.no_grad()
def agreement(
    optical: torch.Tensor,
    sar: torch.Tensor,
    valid: torch.Tensor,
    other_sar: torch.Tensor,
    other_valid: torch.Tensor,
) -> torch.Tensor:
    """`centred` with the scene's own radar image minus that with another scene's, -2 to 2; unrelated images score 0.

    What any two images of the kind share, such as the effect of a border or of smoothing, is taken away. Both are
    scored over the pixels that are valid in both scenes, in the height and width that they share from their upper left
    corners.

    Args:
        other_sar, other_valid: (B, 2, H', W') dB and (B, H', W') bool, each row another scene's.
    """
    height, width = (min(sizes) for sizes in zip(sar.shape[2:], other_sar.shape[2:], strict=True))
    optical, sar, other_sar = (image[..., :height, :width] for image in (optical, sar, other_sar))
    both = valid[:, :height, :width] & other_valid[:, :height, :width]
    return centred(optical, sar, both) - centred(optical, other_sar, both)
