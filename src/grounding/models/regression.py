"""Regression network that any generator has to beat: a plain U-Net from first guess and radar image to the residual.

The kind is that of DSen2-CR (Meraner and others 2020, doi 10.1016/j.isprsjprs.2020.05.013): inputs side by side, the
optical image added to the output, L1 loss. The blocks are those of diffusers' `UNet2DModel`, without a time step.
"""

from dataclasses import asdict
from pathlib import Path

import torch
from diffusers import UNet2DModel
from torch import nn

from src.core.stage import files
from src.core.stage.errors import DataError
from src.grounding.data.sensors import OPTICAL_BANDS, SAR_BANDS
from src.grounding.models.denoiser import Scaling

NETWORK, SETTINGS = "unet", "grounding.json"
FORM = "bandwise-grounding-regression-1"
BANDS = len(OPTICAL_BANDS)
INPUTS = BANDS + 1 + len(SAR_BANDS)


class Regression(nn.Module):
    """Refined image from first guess, holes and radar image, (B, C, h, w) as `denoiser.Denoiser` reads them."""

    def __init__(self, unet: nn.Module, scaling: Scaling):
        super().__init__()
        self.unet, self.scaling = unet, scaling
        for name, values in asdict(scaling).items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32)[:, None, None], persistent=False)

    @property
    def tile_px(self) -> int:
        """Side of the windows it was trained on."""
        return self.unet.config.sample_size

    def forward(self, first_guess: torch.Tensor, missing: torch.Tensor, sar: torch.Tensor) -> torch.Tensor:
        """Residual in units of its standard deviation, (B, 4, h, w)."""
        image = (first_guess - self.optical_mean) / self.optical_sd
        radar = (sar - self.sar_mean) / self.sar_sd
        inputs = torch.cat([image, missing[:, None].to(image.dtype), radar], dim=1)
        return self.unet(inputs, 0, return_dict=False)[0]

    @torch.no_grad()
    def refine(self, first_guess: torch.Tensor, missing: torch.Tensor, sar: torch.Tensor) -> torch.Tensor:
        """Refined images (B, 4, h, w), reflectance from 0 to 1."""
        return (first_guess + self(first_guess, missing, sar) * self.residual_sd).clamp(0, 1)


def build(tile_px: int, width: int, scaling: Scaling) -> Regression:
    """A network of random weights with `width` channels at full resolution and twice as many at half of it."""
    unet = UNet2DModel(
        sample_size=tile_px,
        in_channels=INPUTS,
        out_channels=BANDS,
        block_out_channels=(width, 2 * width),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        add_attention=False,
    )
    return Regression(unet, scaling)


def save(folder: Path, model: Regression, facts: dict) -> None:
    """Write weights in diffusers' layout and grounding.json with `facts`."""
    model.unet.register_to_config(_name_or_path="")  # or the folder that it was read from would be written
    model.unet.save_pretrained(folder / NETWORK)
    files.write_json(folder / SETTINGS, {"format": FORM} | facts | asdict(model.scaling))


def load(folder: Path) -> Regression:
    """The network that `save` wrote, in evaluation mode; raises DataError where the folder holds something else."""
    facts = files.read_json(Path(folder) / SETTINGS)
    if facts.get("format") != FORM:
        raise DataError(f"{folder}/{SETTINGS}: format: found {facts.get('format')!r}, expected {FORM!r}; train again")
    unet = UNet2DModel.from_pretrained(folder / NETWORK)
    if (unet.config.in_channels, unet.config.out_channels) != (INPUTS, BANDS):
        raise DataError(
            f"{folder}: channels: found {unet.config.in_channels} in and {unet.config.out_channels} out, expected "
            f"{INPUTS} and {BANDS}; it is of other bands: train again"
        )
    return Regression(unet, Scaling(**{name: facts[name] for name in Scaling.__dataclass_fields__})).eval()
