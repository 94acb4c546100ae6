"""Masked autoencoder over a Qwen vision encoder that sees visible tokens only.

He et al., "Masked Autoencoders Are Scalable Vision Learners" (CVPR 2022), with two changes that the
encoder asks for: whole 2 x 2 merge units are masked, and pixels are dropped before the patch embedding.
"""

import torch
from torch import nn
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

from src.core.models.patches import patchify


class MaskedAutoencoder(nn.Module):
    """`visual` (a Qwen vision transformer, trained in place) with a transformer decoder that predicts masked pixels.

    Args:
        side: px of the square images.
        encoder: "full" runs every block, "patch_embed" the patch embedding alone.
        decoder: (depth, width, heads).
        norm_pix_loss: standardise each masked unit per band before the squared error.
    """

    def __init__(self, visual: nn.Module, side: int, encoder: str, decoder: tuple, norm_pix_loss: bool):
        super().__init__()
        config = visual.config
        depth, width, heads = decoder
        self.visual = visual
        self.encoder = encoder
        self.norm_pix_loss = norm_pix_loss
        self.patch_size, self.merge_size = config.patch_size, config.spatial_merge_size
        self.unit = self.merge_size**2
        self.grid = side // config.patch_size
        encoder_width = visual.patch_embed.proj.out_channels
        self.decoder_embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.decoder_blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.decoder_norm = nn.LayerNorm(width)
        self.decoder_pred = nn.Linear(width, config.in_channels * self.patch_size**2)
        nn.init.normal_(self.mask_token, std=0.02)
        for block in self.decoder_blocks:
            attend_locally(block)
        grid_thw = torch.tensor([[1, self.grid, self.grid]])
        positions = get_vision_position_ids(grid_thw, self.merge_size)  # (N, 2) row and column, merge order
        self.register_buffer("decoder_pos", sine_positions(positions, width), persistent=False)

    def forward(self, images: torch.Tensor, valid: torch.Tensor, noise: torch.Tensor, mask_ratio: float) -> dict:
        """Mask, encode, decode.

        Args:
            images: (B, C, S, S) float, standardised.
            valid: (B, S, S) bool; invalid pixels carry no loss.
            noise: (B, units); the units with the lowest values stay visible.

        Returns:
            `loss`, `prediction` (B, N, C, p, p) in the units of the loss and `mask` (B, N) bool, True where masked.
        """
        patches = patchify(images, self.patch_size, self.merge_size)  # (B, N, C, p, p)
        keep = self.random_masking(noise, mask_ratio)
        latent, keep = self.forward_encoder(patches, keep)
        prediction = self.forward_decoder(latent, keep).view_as(patches)
        mask = self.mask_of(keep)
        weight = patchify(valid[:, None].float(), self.patch_size, self.merge_size)  # (B, N, 1, p, p)
        loss, _ = self.forward_loss(patches, prediction, weight, mask)
        return {"loss": loss, "prediction": prediction, "mask": mask}

    def random_masking(self, noise: torch.Tensor, mask_ratio: float) -> torch.Tensor:
        """(B, units) -> ids of the units that stay visible, (B, kept) ascending."""
        kept = max(1, round(noise.shape[1] * (1 - mask_ratio)))
        return noise.argsort(dim=1)[:, :kept].sort(dim=1).values

    def mask_of(self, keep: torch.Tensor) -> torch.Tensor:
        """(B, kept) unit ids -> (B, N) bool, True where a patch is masked."""
        units = torch.ones(keep.shape[0], self.grid**2 // self.unit, dtype=torch.bool, device=keep.device)
        return units.scatter(1, keep, False).repeat_interleave(self.unit, dim=1)

    def forward_encoder(self, patches: torch.Tensor, keep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the encoder on visible units; returns (B, kept * unit, width) and the unit ids in their order."""
        visual, config = self.visual, self.visual.config
        batch, device = len(keep), patches.device
        grid_thw = torch.tensor([[1, self.grid, self.grid]], device=device)
        windowed = hasattr(config, "window_size")
        if windowed:
            # 2.5 runs in window order; the real encoder permutes units, here the kept ids are sorted by it.
            order, bounds = get_vision_window_index(grid_thw, self.merge_size, config.window_size, self.patch_size)
            rank = torch.argsort(order).to(device)  # place of a unit in window order
            keep = keep.gather(1, rank[keep].argsort(dim=1))
        tokens = (keep[..., None] * self.unit + torch.arange(self.unit, device=device)).flatten(1)  # (B, kept * unit)
        visible = patches[torch.arange(batch, device=device)[:, None], tokens]  # (B, kept * unit, C, p, p)
        frames = config.temporal_patch_size
        flat = visible.unsqueeze(3).expand(-1, -1, -1, frames, -1, -1).flatten(2).flatten(0, 1)
        hidden = visual.patch_embed(flat)  # (B * kept * unit, width)
        if self.encoder == "patch_embed":
            return hidden.unflatten(0, (batch, -1)), keep

        if hasattr(visual, "pos_embed"):
            taps, weights = get_vision_interpolation_indices_and_weights(
                grid_thw,
                visual.num_grid_per_side,
                mode=visual.interpolation_mode,
                align_corners=visual.interpolation_align_corners,
                spatial_merge_size=self.merge_size,
            )
            table = (visual.pos_embed(taps) * weights[..., None]).sum(1)
            hidden = hidden + table[tokens].flatten(0, 1).to(hidden.dtype)
        positions = get_vision_position_ids(grid_thw, self.merge_size)
        rotary = tuple(part[tokens].flatten(0, 1) for part in visual.rotary_pos_emb(hidden, positions))

        whole = torch.full((batch,), tokens.shape[1], device=device)
        everything = _bounds(whole)
        windows = everything
        if windowed:
            starts = (bounds // self.unit).to(device)  # in units, window order
            window = torch.bucketize(rank[keep], starts[1:], right=True)  # (B, kept) window of each unit
            counts = nn.functional.one_hot(window, len(starts) - 1).sum(1).flatten()  # (B * windows)
            windows = _bounds(counts[counts > 0] * self.unit)
        for index, block in enumerate(visual.blocks):
            local = windowed and index not in config.fullatt_block_indexes
            hidden = block(hidden, cu_seqlens=windows if local else everything, position_embeddings=rotary)
        return hidden.unflatten(0, (batch, -1)), keep

    def forward_decoder(self, latent: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """(B, visible, width) and unit ids -> predicted pixels (B, N, C * p * p) of every patch."""
        tokens = (keep[..., None] * self.unit + torch.arange(self.unit, device=keep.device)).flatten(1)
        embedded = self.decoder_embed(latent)
        full = self.mask_token.to(embedded.dtype).expand(len(keep), self.grid**2, -1)
        full = full.scatter(1, tokens[..., None].expand_as(embedded), embedded) + self.decoder_pos
        for block in self.decoder_blocks:
            full = block(full)
        return self.decoder_pred(self.decoder_norm(full))

    def forward_loss(self, patches, prediction, weight, mask) -> tuple[torch.Tensor, torch.Tensor]:
        """Squared error over valid pixels of masked patches, and the target it was taken against.

        The sum over valid pixels is divided by the number of all masked ones: each valid pixel of a batch counts
        alike, however the batch is split.
        """
        target = patches
        if self.norm_pix_loss:
            mean, sd = unit_statistics(patches, weight, self.unit)
            target = (patches - mean).div_(sd)
        counted = weight * mask[:, :, None, None, None]  # (B, N, 1, p, p)
        # Pixels without weight get their own prediction as target: faster than a product with the weight.
        wanted = torch.where(counted > 0, target, prediction.detach())
        squared = nn.functional.mse_loss(prediction, wanted, reduction="sum")
        return squared / (mask.sum() * patches[0, 0].numel()), target

    def reconstruct(self, images: torch.Tensor, valid: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
        """Predicted patches in standardised band units; per-patch statistics are undone with the true ones."""
        if not self.norm_pix_loss:
            return prediction
        patches = patchify(images, self.patch_size, self.merge_size)
        weight = patchify(valid[:, None].float(), self.patch_size, self.merge_size)
        mean, sd = unit_statistics(patches, weight, self.unit)
        return prediction * sd + mean


def unit_statistics(patches: torch.Tensor, weight: torch.Tensor, unit: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation per band over the valid pixels of each merge unit, (B, N, C, 1, 1).

    A merge unit is `unit` patches and is masked as a whole. Over a single patch of 2 x 2 px little but noise would
    be left to predict (docs/log.md, 2026-11-21).
    """
    values, counts = patches.unflatten(1, (-1, unit)), weight.unflatten(1, (-1, unit))  # (B, units, unit, C, p, p)
    pixels = (2, 4, 5)
    count = counts.sum(pixels, keepdim=True).clamp_min(1)
    mean = (values * counts).sum(pixels, keepdim=True) / count
    variance = ((values - mean) ** 2 * counts).sum(pixels, keepdim=True) / count
    return tuple(part.expand(-1, -1, unit, -1, -1, -1).flatten(1, 2) for part in (mean, (variance + 1e-6).sqrt()))


def sine_positions(positions: torch.Tensor, width: int) -> torch.Tensor:
    """Fixed sine-cosine embedding of (N, 2) rows and columns, (N, width); half the width each.

    Wavelengths run from about 4 patches to 4 grids; the usual 10000 would be constant over a small grid.
    """
    quarter = width // 4
    grid = float(positions.max() + 1)
    frequencies = 1.5 * grid ** (-torch.arange(quarter) / quarter)
    angles = positions[..., None].float() * frequencies  # (N, 2, quarter)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)


def attend_locally(block: nn.TransformerEncoderLayer) -> None:
    """Start queries and keys near the identity, so that a token first attends to its neighbours.

    Mimetic initialisation (Trockman and Kolter 2023). Without it the loss stays flat for hundreds of steps.
    """
    width = block.self_attn.embed_dim
    with torch.no_grad():
        for part in block.self_attn.in_proj_weight[: 2 * width].split(width):
            part.copy_(torch.eye(width) + 0.02 * torch.randn(width, width))


def _bounds(lengths: torch.Tensor) -> torch.Tensor:
    return nn.functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
