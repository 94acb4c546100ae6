"""Views of a tile: each a function of (seed, epoch, index) alone, so workers, resuming and batches change nothing."""

import numpy as np
import torch
from torch.nn import functional

VIEW, MASK, ORIENT = 1, 2, 3  # streams of random numbers that must not repeat one another


def generator(seed: int, epoch: int, index: int, stream: int) -> np.random.Generator:
    """Random numbers of one sample in one epoch, for one purpose."""
    return np.random.default_rng([seed, epoch, index, stream])


def orient(images: torch.Tensor, orientation: torch.Tensor) -> torch.Tensor:
    """Turn each of (B, ..., H, W), H = W, by orientation % 4 quarter turns, mirrored first where it is >= 4."""
    turned = [
        torch.rot90(image.flip(-1) if k >= 4 else image, k % 4, (-2, -1))
        for image, k in zip(images, orientation.tolist(), strict=True)
    ]
    return torch.stack(turned)


def draw_box(rng: np.random.Generator, side: int, scales: list[float]) -> tuple[int, int, int]:
    """(top, left, side) of a square crop whose side is a drawn scale of `side`."""
    crop = max(1, round(side * scales[rng.integers(len(scales))]))
    top, left = rng.integers(side - crop + 1, size=2)
    return int(top), int(left), crop


def resized_crop(
    values: torch.Tensor, valid: torch.Tensor, boxes: torch.Tensor, *, unit_norm: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Crop each dequantised tile of (B, C, S, S) to its box, (B, 3) top, left, side, and resize it back, bilinearly.

    A new pixel of `valid` (B, S, S) is valid when no invalid one takes part in it. With `unit_norm` each pixel's vector
    is renormalised to length 1 (AlphaEarth embeddings live on the sphere).
    """
    side = values.shape[-1]
    crops, masks = [], []
    for value, mask, (top, left, crop) in zip(values, valid, boxes.tolist(), strict=True):
        if crop == side:
            crops.append(value)
            masks.append(mask)
            continue
        window = (slice(top, top + crop), slice(left, left + crop))
        piece = value[:, *window].masked_fill(~mask[window], 0.0)
        resized, share = (
            functional.interpolate(part[None], size=(side, side), mode="bilinear", align_corners=False)[0]
            for part in (piece, mask[window][None].to(value.dtype))
        )
        if unit_norm:
            resized = functional.normalize(resized, dim=0)
        crops.append(resized)
        masks.append(share[0] > 0.999)
    return torch.stack(crops), torch.stack(masks)
