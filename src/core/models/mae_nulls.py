"""Baselines of a masked autoencoder: guesses of the masked patches that need no learning."""

import torch

from src.core.models.mae import MaskedAutoencoder, unit_statistics
from src.core.models.patches import patchify


def mean_spectrum(patches: torch.Tensor, weight: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the tile's visible pixels, per band: (B, 1, C, 1, 1)."""
    seen = weight * ~mask[:, :, None, None, None]
    total = (patches * seen).sum((1, 3, 4), keepdim=True)
    return total / seen.sum((1, 3, 4), keepdim=True).clamp_min(1)


def inverse_distance(
    patches: torch.Tensor, weight: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """Visible valid pixels weighted by 1 / squared distance of their patches at `positions` (N, 2): (B, N, C, 1, 1)."""
    distance = torch.cdist(positions.float(), positions.float()) ** 2  # (N, N)
    nearness = (~mask[:, None, :]) / distance.clamp_min(1e-6)  # (B, N, N)
    sums, counts = (patches * weight).sum((-2, -1)), weight.sum((-2, -1))  # (B, N, C), (B, N, 1)
    return ((nearness @ sums) / (nearness @ counts).clamp_min(1e-12))[..., None, None]


@torch.no_grad()
def masked_errors(
    model: MaskedAutoencoder,
    images: torch.Tensor,
    valid: torch.Tensor,
    noise: torch.Tensor,
    mask_ratio: float,
    positions: torch.Tensor,
) -> tuple[dict[str, float], float]:
    """Sums of squared errors on masked patches (standardised band units) of model and nulls, and the number of values.

    The model's predictions are rescaled with each unit's true mean and sd, as in He et al. The null `true_unit_mean`
    knows this mean and nothing else. `swapped_context` gives the model the next tile's visible patches.
    """
    patches = patchify(images, model.patch_size, model.merge_size)
    weight = patchify(valid[:, None].float(), model.patch_size, model.merge_size)
    out = model(images, valid, noise, mask_ratio)
    mask = out["mask"]
    swapped = model(images.roll(1, 0), valid.roll(1, 0), noise, mask_ratio)["prediction"]
    mean, _ = unit_statistics(patches, weight, model.unit)
    guesses = {
        "model": model.reconstruct(images, valid, out["prediction"]),
        "mean_spectrum": mean_spectrum(patches, weight, mask),
        "inverse_distance": inverse_distance(patches, weight, mask, positions),
        "swapped_context": model.reconstruct(images, valid, swapped),
        "true_unit_mean": mean,
    }
    counted = (weight * mask[:, :, None, None, None]).expand_as(patches)
    sums = {name: float(((guess - patches) ** 2 * counted).sum()) for name, guess in guesses.items()}
    return sums, float(counted.sum())
