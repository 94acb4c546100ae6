"""Widen a pretrained RGB patch embedding to N bands."""

import torch
from torch import nn
from transformers import PreTrainedModel

from src.core.stage.errors import ParamsError

RGB = 3
SPREAD = 0.02  # standard deviation of new weights, as in Qwen's own initialisation


def widen(
    model: PreTrainedModel, bands: int, init: str, seed: int, projection: torch.Tensor | None = None
) -> PreTrainedModel:
    """`model` in place, its patch embedding reading `bands` bands of one frame instead of RGB.

    Args:
        init: `normal` and `zero` keep RGB's weights on the first three bands and draw or leave empty the rest;
            `copy` tiles them over all bands and divides by bands / 3, so that activations keep their scale;
            `pca` multiplies them with `projection`: the encoder starts with principal components as its input.
        seed: of `normal` alone.
        projection: (3, bands), from standardised bands to z-scored components. Its offset belongs into the
            input (`shifted_mean`), because masked pixels must stay 0.

    Raises ParamsError where the model does not read RGB, or there are fewer than three bands.
    """
    visual = model.model.visual
    embed = visual.patch_embed
    # (D, 3, p, p): a still image, repeated over T frames, meets the sum of their kernels
    old = embed.proj.weight.data.float().sum(2)
    if old.shape[1] != RGB or bands < RGB:
        raise ParamsError(
            f"`init`: {init} widens a patch embedding of 3 channels to at least 3 bands, found {old.shape[1]} "
            f"channels and {bands} bands; use a pretrained RGB model"
        )
    if init == "pca":
        weight = torch.einsum("dkhw,kc->dchw", old, projection.float().to(old.device))
    elif init == "copy":
        weight = old[:, torch.arange(bands) % RGB] * (RGB / bands)
    else:
        weight = torch.zeros(old.shape[0], bands, *old.shape[2:], device="cpu")  # where the draw is the same for all
        if init == "normal":
            weight.normal_(0, SPREAD, generator=torch.Generator().manual_seed(seed))
        weight = weight.to(old.device)
        weight[:, :RGB] = old
    patch = visual.config.patch_size
    kernel = (1, patch, patch)
    bias, dtype = embed.proj.bias is not None, embed.proj.weight.dtype
    proj = nn.Conv3d(bands, len(old), kernel, kernel, bias=bias, device=old.device, dtype=dtype)
    proj.weight.data.copy_(weight[:, :, None])
    if proj.bias is not None:
        proj.bias.data.copy_(embed.proj.bias.data)
    embed.proj, embed.in_channels, embed.temporal_patch_size = proj, bands, 1
    for config in {id(config): config for config in (visual.config, model.config.vision_config)}.values():
        config.in_channels, config.temporal_patch_size = bands, 1
        if hasattr(config, "in_chans"):  # published, read by nobody here, and wrong from now on
            config.in_chans = bands
    return model


def shifted_mean(mean: torch.Tensor, sd: torch.Tensor, projection: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """(C,) band means that include `offset` (3,) of `projection` (3, C); a bias would change masked pixels from 0."""
    shift = torch.linalg.pinv(projection.double()) @ offset.double()
    return (mean.double() - sd.double() * shift).float()
