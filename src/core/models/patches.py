"""Tiles -> what a Qwen-VL model reads: standardised images, flattened patches in merge order, grids.

Tiles stay as stored integers until they are on the model's device: dequantising on the CPU costs five times the read.
"""

import torch
from torch import nn

from src.core.data.crop import centre_crop
from src.core.data.quantisation import Quantisation, dequantise

MAX_PIXEL_BYTES = 2**29  # float32, in one of the several copies that a forward makes


def usable_side(side: int, patch_size: int, merge_size: int = 2) -> int:
    """Largest multiple of patch x merge not above `side`; 1000 px with patch 14 give 980."""
    unit = patch_size * merge_size
    return side // unit * unit


def tokens_per_sample(side: int, vision_config) -> tuple[int, int]:
    """Patches the encoder sees and tokens the language model sees of a square tile, cropped as `usable_side` does."""
    patch, merge = vision_config.patch_size, vision_config.spatial_merge_size
    patches = (usable_side(side, patch, merge) // patch) ** 2
    return patches, patches // merge**2


def tiles_at_once(batch_size: int, bands: int, side: int) -> int:
    """`batch_size`, or fewer tiles where their pixels alone would fill a GPU (two of 64 bands and 980 px remain)."""
    return max(min(batch_size, MAX_PIXEL_BYTES // (4 * bands * side**2)), 1)


def patchify(images: torch.Tensor, patch_size: int, merge_size: int = 2) -> torch.Tensor:
    """(B, C, H, W) -> (B, H/p * W/p, C, p, p), patches in 2 x 2 merge-block order as Qwen's processor gives them."""
    batch, channels, height, width = images.shape
    p, m = patch_size, merge_size
    blocks = images.reshape(batch, channels, height // (p * m), m, p, width // (p * m), m, p)
    # (B, block row, block column, row in block, column in block, C, p, p)
    blocks = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7)
    return blocks.reshape(batch, -1, channels, p, p)


def unpatchify(patches: torch.Tensor, height: int, width: int, merge_size: int = 2) -> torch.Tensor:
    """Inverse of `patchify`: (B, N, C, p, p) -> (B, C, height, width)."""
    batch, _, channels, p, _ = patches.shape
    m = merge_size
    blocks = patches.reshape(batch, height // (p * m), width // (p * m), m, m, channels, p, p)
    return blocks.permute(0, 5, 1, 3, 6, 2, 4, 7).reshape(batch, channels, height, width)


def pixel_values(images: torch.Tensor, vision_config) -> tuple[torch.Tensor, torch.Tensor]:
    """Model inputs for images (B, C, H, W) of floats, with sides that are multiples of patch x merge.

    Returns:
        `pixel_values` (B * N, C * T * p * p), a still image repeated over the T frames, and
        `image_grid_thw` (B, 3) long: frames, rows and columns in patches.
    """
    p = vision_config.patch_size
    patches = patchify(images, p, vision_config.spatial_merge_size)  # (B, N, C, p, p)
    flat = patches.unsqueeze(3).expand(-1, -1, -1, vision_config.temporal_patch_size, -1, -1).flatten(2).flatten(0, 1)
    grid = torch.tensor([1, images.shape[-2] // p, images.shape[-1] // p], device=images.device)
    return flat, grid.repeat(images.shape[0], 1)


class BandFrontEnd(nn.Module):
    """Stored tiles -> dequantised, standardised, optionally projected images; no-data pixels become 0.

    Buffers: `mean`, `sd` (C,) of dequantised training pixels; with pca3 `weight` (3, C) and `bias` (3,),
    applied to standardised bands (see the pca stage).
    """

    def __init__(
        self,
        quantisation: Quantisation,
        mean: torch.Tensor,
        sd: torch.Tensor,
        side: int,
        pca: tuple[torch.Tensor, torch.Tensor] | None = None,
    ):
        super().__init__()
        self.quantisation = quantisation
        self.side = side
        self.register_buffer("mean", mean.float(), persistent=False)
        self.register_buffer("sd", sd.float(), persistent=False)
        weight, bias = pca if pca is not None else (None, None)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    @property
    def channels(self) -> int:
        return len(self.mean) if self.weight is None else len(self.weight)

    def dequantise(self, tiles: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, C, H, W) as stored, (B, H, W) bool -> float32 values and validity, both centre-cropped to `side`."""
        tiles, valid = (centre_crop(x, self.side, self.side) for x in (tiles, valid))
        return dequantise(tiles, self.quantisation), valid

    def images(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Dequantised (B, C, h, w) and valid (B, h, w) -> (B, channels, h, w) float32."""
        standardised = (values - self.mean[:, None, None]) / self.sd[:, None, None]
        if self.weight is not None:
            standardised = torch.einsum("kc,bchw->bkhw", self.weight, standardised) + self.bias[:, None, None]
        return standardised.masked_fill(~valid[:, None], 0.0)

    def forward(self, tiles: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return self.images(*self.dequantise(tiles, valid))


def band_means(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean of dequantised (B, C, h, w) over valid (B, h, w) pixels -> (B, C)."""
    weight = valid[:, None].to(values.dtype)
    return (values * weight).sum((2, 3)) / weight.sum((2, 3)).clamp_min(1)
