"""Generator that refines a first guess of an optical image: a diffusion transformer that attends to radar tokens.

It is PixArt's transformer as diffusers has it (Chen and others 2023, arXiv 2310.00426). The first guess and the mask of
its holes are further input channels; the radar image enters through cross-attention alone, as tokens of `patch_px`.
What is denoised is the residual, truth less first guess, so that a generator without any idea changes nothing.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
import torch
from diffusers import DDIMScheduler, PixArtTransformer2DModel
from diffusers.models.embeddings import PatchEmbed
from torch import nn

from src.core.stage import files
from src.core.stage.errors import DataError
from src.grounding.data.sensors import OPTICAL_BANDS, SAR_BANDS
from src.grounding.params import COMPACT

TRANSFORMER, SCHEDULER, TOKENS, SETTINGS = "transformer", "scheduler", "sar_tokens.safetensors", "grounding.json"
FORM = "bandwise-grounding-1"
BANDS = len(OPTICAL_BANDS)
INPUTS = 2 * BANDS + 1  # noisy residual, first guess, holes
POSITION_SCALE = 0.1  # positions count 10 times: sines then differ much between neighbours, not only across a window
SHARPNESS = 4.0  # of queries and keys at the start, for the same reason


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of what the generator reads, from the scenes that it is pretrained on.

    Attributes:
        optical_mean, optical_sd: (4,) reflectance of the first guess.
        sar_mean, sar_sd: (2,) dB.
        residual_sd: (4,) reflectance of truth less first guess.
    """

    optical_mean: list[float]
    optical_sd: list[float]
    sar_mean: list[float]
    sar_sd: list[float]
    residual_sd: list[float]


class Denoiser(nn.Module):
    """Prediction of the noise-free residual (or of v) from a noisy one, the first guess and the radar image.

    Images are (B, C, tile_px, tile_px): reflectance, dB. With `sees_sar` False the radar tokens are those of an image
    that is its mean everywhere: the network of equal size that never sees radar.
    """

    adapted, backbone = "transformer", COMPACT  # the part that LoRA adapts; terramind.py has another

    def __init__(
        self, transformer: nn.Module, sar_tokens: nn.Module, scheduler: DDIMScheduler, scaling: Scaling, sees_sar: bool
    ):
        super().__init__()
        self.transformer, self.sar_tokens = transformer, sar_tokens
        self.scheduler, self.scaling, self.sees_sar = scheduler, scaling, sees_sar
        for name, values in asdict(scaling).items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32)[:, None, None], persistent=False)

    @property
    def tile_px(self) -> int:
        """Side of the windows it reads."""
        return self.transformer.config.sample_size

    def condition(self, first_guess: torch.Tensor, missing: torch.Tensor, sar: torch.Tensor) -> tuple:
        """Channels (B, 5, h, w) and radar tokens (B, N, width), which do not change from step to step."""
        image = (first_guess - self.optical_mean) / self.optical_sd
        known = torch.cat([image, missing[:, None].to(image.dtype)], dim=1)
        radar = (sar - self.sar_mean) / self.sar_sd if self.sees_sar else torch.zeros_like(sar)
        return known, self.sar_tokens(radar)

    def forward(self, noisy: torch.Tensor, timestep: torch.Tensor, condition: tuple) -> torch.Tensor:
        """Target that the scheduler's `prediction_type` names, for a noisy scaled residual; both are (B, 4, h, w)."""
        known, tokens = condition
        inputs = torch.cat([noisy, known], dim=1)
        return self.transformer(inputs, encoder_hidden_states=tokens, timestep=timestep, return_dict=False)[0]

    def noisy(self, residual: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """The scaled residual after `timestep` steps of noising."""
        return self.scheduler.add_noise(residual, noise, timestep)

    def residual_from(self, prediction: torch.Tensor, noisy: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Noise-free scaled residual that a prediction stands for (Salimans and Ho 2022, arXiv 2202.00512)."""
        if self.scheduler.config.prediction_type == "sample":
            return prediction
        kept = self.scheduler.alphas_cumprod.to(noisy)[timestep][:, None, None, None]
        return kept.sqrt() * noisy - (1 - kept).sqrt() * prediction

    def scaled(self, residual: torch.Tensor) -> torch.Tensor:
        """Residual in reflectance -> in units of its standard deviation."""
        return residual / self.residual_sd

    def refined(self, first_guess: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """First guess plus scaled residual, reflectance from 0 to 1."""
        return (first_guess + residual * self.residual_sd).clamp(0, 1)

    @torch.no_grad()
    def sample(
        self, first_guess: torch.Tensor, missing: torch.Tensor, sar: torch.Tensor, noise: torch.Tensor, steps: int
    ) -> torch.Tensor:
        """Refined images (B, 4, h, w) by DDIM (Song and others 2021) in `steps` steps from `noise` of that shape.

        No noise is added on the way, so the same noise gives the same image.
        """
        condition = self.condition(first_guess, missing, sar)
        self.scheduler.set_timesteps(steps, device=noise.device)
        state = noise
        for step in self.scheduler.timesteps:
            prediction = self(state, step.expand(len(state)), condition)
            state, residual = self.scheduler.step(prediction, step, state, return_dict=False)
        # Not `state`, in which noise is left where `steps` does not divide the number of training steps.
        return self.refined(first_guess, residual)


def build(settings, tile_px: int, scaling: Scaling, sees_sar: bool) -> Denoiser:
    """A denoiser with random weights after `settings` (params `model`)."""
    width = settings.width
    transformer = PixArtTransformer2DModel(
        num_attention_heads=settings.heads,
        attention_head_dim=width // settings.heads,
        in_channels=INPUTS,
        out_channels=BANDS,
        num_layers=settings.depth,
        cross_attention_dim=width,
        sample_size=tile_px,
        patch_size=settings.patch_px,
        interpolation_scale=POSITION_SCALE,
        use_additional_conditions=False,
    )
    start_aligned(transformer)
    tokens = token_embedding(transformer.config)
    return Denoiser(transformer, tokens, scheduler(settings.train_steps, settings.prediction), scaling, sees_sar)


def start_aligned(transformer: nn.Module) -> None:
    """Let keys of the cross-attention start as its queries do, so that each place first looks at the radar there.

    Positions are in both as sines and cosines; with unrelated matrices their agreement would have to be learned. With
    the factors above a token of 64 starts with about a sixth of its attention on its own place, in place of a 64th.
    """
    for block in transformer.transformer_blocks:
        with torch.no_grad():
            block.attn2.to_q.weight.mul_(SHARPNESS)
        block.attn2.to_k.load_state_dict(block.attn2.to_q.state_dict())


def token_embedding(shape) -> PatchEmbed:
    """Radar image (B, 2, tile_px, tile_px) -> tokens (B, N, width) with the positions of a transformer's config."""
    side, width, scale = shape.sample_size, shape.cross_attention_dim, shape.interpolation_scale
    return PatchEmbed(side, side, shape.patch_size, len(SAR_BANDS), width, interpolation_scale=scale)


def scheduler(train_steps: int, prediction: str) -> DDIMScheduler:
    """Noise schedule whose last step is noise alone (Lin and others 2024, arXiv 2305.08891)."""
    return DDIMScheduler(
        num_train_timesteps=train_steps,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )


def save(folder: Path, model: Denoiser, facts: dict) -> None:
    """Write weights in diffusers' layout, the radar tokens beside them, and grounding.json with `facts`."""
    model.transformer.register_to_config(_name_or_path="")  # or the folder that it was read from would be written
    model.transformer.save_pretrained(folder / TRANSFORMER)
    model.scheduler.save_pretrained(folder / SCHEDULER)
    weights = {name: value.contiguous() for name, value in model.sar_tokens.state_dict().items()}
    safetensors.torch.save_file(weights, folder / TOKENS, metadata={"format": "pt"})
    own = {"sees_sar": model.sees_sar, "backbone": model.backbone}
    files.write_json(folder / SETTINGS, {"format": FORM} | facts | own | asdict(model.scaling))


def load(folder: Path) -> tuple[Denoiser, dict]:
    """The denoiser that `save` wrote, in evaluation mode, and the contents of grounding.json.

    Raises:
        StorageError: there is no such folder.
        DataError: it holds another format, or weights of another number of bands.
    """
    facts = files.read_json(Path(folder) / SETTINGS)
    if facts.get("format") != FORM:
        raise DataError(f"{folder}/{SETTINGS}: format: found {facts.get('format')!r}, expected {FORM!r}; train again")
    if facts.get("backbone", COMPACT) != COMPACT:
        from src.grounding.models import terramind  # it imports this module

        return terramind.load(folder, facts), facts
    transformer = PixArtTransformer2DModel.from_pretrained(folder / TRANSFORMER)
    shape = transformer.config
    if (shape.in_channels, shape.out_channels) != (INPUTS, BANDS):
        raise DataError(
            f"{folder}: channels: found {shape.in_channels} in and {shape.out_channels} out, expected {INPUTS} and "
            f"{BANDS} for {', '.join(OPTICAL_BANDS)}; it is of other bands: train again"
        )
    tokens = token_embedding(shape)
    weights = {name: torch.from_numpy(array) for name, array in files.read_arrays(folder / TOKENS).items()}
    if weights["proj.weight"].shape != tokens.proj.weight.shape:
        raise DataError(
            f"{folder}/{TOKENS}: found weights of {weights['proj.weight'].shape[1]} radar bands, expected "
            f"{len(SAR_BANDS)} for {', '.join(SAR_BANDS)}; train again"
        )
    tokens.load_state_dict(weights)
    steps = DDIMScheduler.from_pretrained(folder / SCHEDULER)
    scaling = Scaling(**{name: facts[name] for name in Scaling.__dataclass_fields__})
    return Denoiser(transformer, tokens, steps, scaling, facts["sees_sar"]).eval(), facts
