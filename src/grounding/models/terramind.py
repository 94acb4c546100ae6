"""TerraMind as the part of the generator that reads radar, in place of the small token embedding.

TerraMind (Jakubik and others 2025, arXiv 2504.11171) makes an image in three steps: its encoder reads radar and first
guess, its decoder attends to them and says which of its image tokens are likely at each place, and tokens are drawn
from that, which a diffusion decoder paints. A draw has no gradient, and terratorch makes it under `no_grad`: no loss on
the painted image can train what comes before. So the last states of TerraMind's decoder are taken, from which it would
draw, one for 16 x 16 px, and the denoiser attends to them. `pretrain` trains the denoiser with TerraMind as it is in
its checkpoint, `ground` LoRA in TerraMind's attention (`attn.qkv`, `attn.proj`, `cross_attn.q`, `.kv`, `.proj`).

Weights are read from a safetensors file, for a pickle is never opened here. Convert the file of the hub once, in a
Python of its own, with `w = torch.load("TerraMind_v1_tiny.pt", weights_only=True)` and
`safetensors.torch.save_file({k: v.clone() for k, v in w.items()}, "TerraMind_v1_tiny.safetensors")`.
"""

from importlib.util import find_spec
from pathlib import Path

import safetensors.torch
import torch
from diffusers import DDIMScheduler, PixArtTransformer2DModel
from diffusers.models.embeddings import PatchEmbed
from safetensors import SafetensorError
from torch import nn

from src.core.stage.errors import DataError, DependencyError, ParamsError
from src.grounding.data.sensors import OPTICAL_BANDS
from src.grounding.models import denoiser
from src.grounding.models.denoiser import Denoiser, Scaling
from src.grounding.params import COMPACT, Params

VARIANTS = ("terramind_v1_tiny", "terramind_v1_small", "terramind_v1_base", "terramind_v1_large")
REQUIREMENTS = "requirements-terramind.txt"
PATCH_PX = 16  # side of a token of TerraMind
OPTICAL, TARGET = "untok_sen2l2a@224", "tok_sen2l2a@224"  # terratorch's names of the image that is read, and asked for
RADAR = {"RTC": "untok_sen1rtc@224", "GRD": "untok_sen1grd@224"}
NAMES = {"B02": "BLUE", "B03": "GREEN", "B04": "RED", "B08": "NIR_BROAD"}  # of bands, in terratorch
DN = 10000  # TerraMind's statistics are of stored numbers without ESA's offset, and we hold reflectance
CHANNELS = 64  # of the map between TerraMind's states and the denoiser's tokens


class TerraMindTokens(nn.Module):
    """Tokens of the denoiser's width, one for `patch_px`, from TerraMind's states.

    Args:
        terramind: encoder and token decoder, with weights.
        product: RTC or GRD, which have embeddings of their own.
    """

    def __init__(self, terramind: nn.Module, product: str, tile_px: int, patch_px: int, width: int):
        super().__init__()
        self.terramind, self.radar, self.slots = terramind, RADAR[product], band_slots()
        finer, side = PATCH_PX // patch_px, tile_px // patch_px
        self.finer = nn.Sequential(nn.Conv2d(terramind.dim, CHANNELS * finer**2, 1), nn.PixelShuffle(finer))
        self.embed = PatchEmbed(side, side, 1, CHANNELS, width)

    def forward(self, image: torch.Tensor, radar: torch.Tensor) -> torch.Tensor:
        """(B, N, width) from (B, 4, h, w) and (B, 2, h, w), both standardised as TerraMind's were; 0 is unknown."""
        side = image.shape[-1] // PATCH_PX
        states = self.states(image, radar).transpose(1, 2).unflatten(2, (side, side))
        return self.embed(self.finer(states))

    def states(self, image: torch.Tensor, radar: torch.Tensor) -> torch.Tensor:
        """(B, n, dim): last states of the decoder, asked for the tokens of the optical image at all n places."""
        model, (count, _, height, width) = self.terramind, image.shape
        optical = image.new_zeros(count, model.encoder_embeddings[OPTICAL].num_channels, height, width)
        optical[:, self.slots] = image
        read = [model.encoder_embeddings[OPTICAL](optical), model.encoder_embeddings[self.radar](radar)]
        places = torch.cat([one["emb"] for one in read], dim=1)
        encoded = model.forward_encoder(torch.cat([one["x"] for one in read], dim=1) + places, encoder_mask=None)
        context = model.decoder_proj_context(encoded) + places
        unknown = torch.zeros(count, height // PATCH_PX, width // PATCH_PX, dtype=torch.long, device=image.device)
        asked = model.mask_token + model.decoder_embeddings[TARGET].forward_embed({"tensor": unknown})["emb"]
        return model.forward_decoder(asked, context, encoder_mask=None, decoder_attention_mask=None)


class TerraMindDenoiser(Denoiser):
    """A denoiser whose cross-attention reads TerraMind's states of radar and first guess."""

    adapted = "sar_tokens.terramind"

    def __init__(self, *parts, backbone: str):
        super().__init__(*parts)
        self.backbone = backbone

    def condition(self, first_guess: torch.Tensor, missing: torch.Tensor, sar: torch.Tensor) -> tuple:
        """As `Denoiser.condition`; holes are TerraMind's mean, as bands are that we do not have."""
        image = (first_guess - self.optical_mean) / self.optical_sd
        holes = missing[:, None].to(image.dtype)
        radar = (sar - self.sar_mean) / self.sar_sd if self.sees_sar else torch.zeros_like(sar)
        return torch.cat([image, holes], dim=1), self.sar_tokens(image * (1 - holes), radar)


def is_terramind(backbone: str) -> bool:
    """True where `model.backbone` names a TerraMind."""
    return Path(backbone).stem.lower().startswith("terramind")


def require_terratorch() -> None:
    """Raise DependencyError where terratorch is not installed."""
    if not find_spec("terratorch"):
        raise DependencyError(
            f"`backbone`: terratorch is not installed; run pip install -r {REQUIREMENTS} in an environment of its own, "
            f"or set {COMPACT}"
        )


def build(params: Params, residual_sd: list[float], sees_sar: bool) -> TerraMindDenoiser:
    """A denoiser with random weights on TerraMind with those of `model.backbone`, which are frozen.

    Raises:
        DependencyError: terratorch is not installed.
        ParamsError: sides do not fit TerraMind's patches, or there is no such TerraMind.
        DataError: the file of the weights cannot be read, or does not hold them.
    """
    require_terratorch()
    settings, product, side = params.model, params.data.sar.product, params.tiles.tile_px
    if side % PATCH_PX or PATCH_PX % settings.patch_px:
        raise ParamsError(
            f"tiles.tile_px, model.patch_px: found {side} and {settings.patch_px}, expected a multiple and a divisor "
            f"of {PATCH_PX}, TerraMind's patch; set them to 64 and 4"
        )
    variant, weights = Path(settings.backbone).stem.lower(), Path(settings.backbone)
    if variant not in VARIANTS or weights.suffix != ".safetensors":
        raise ParamsError(
            f"model.backbone: found {settings.backbone}, expected a file such as weights/{VARIANTS[0]}.safetensors, "
            f"named as one of {', '.join(VARIANTS)}; src/grounding/models/terramind.py says how to convert the hub's"
        )
    network = architecture(variant, product)
    fill(network, weights)
    scales = scaling(product, residual_sd)
    plain = denoiser.build(settings, side, scales, sees_sar)
    tokens = TerraMindTokens(network.requires_grad_(False), product, side, settings.patch_px, settings.width)
    return TerraMindDenoiser(plain.transformer, tokens, plain.scheduler, scales, sees_sar, backbone=variant)


def architecture(variant: str, product: str) -> nn.Module:
    """Encoder and token decoder of `variant` with random weights, without the tokenizers and the drawing of tokens."""
    from terratorch.registry import FULL_MODEL_REGISTRY

    generator = FULL_MODEL_REGISTRY.build(
        f"{variant}_generate", modalities=["S2L2A", f"S1{product}"], output_modalities=["S2L2A"], pretrained=False
    )
    network = generator.sampler.model
    # The draw alone reads it; its weights are those of the embedding, and safetensors stores nothing twice.
    del network.decoder_embeddings[TARGET].to_logits
    return network


def fill(network: nn.Module, path: Path) -> None:
    """Replace every weight of `network` by that of the file; none stays random."""
    try:
        stored = safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{path}: `backbone`: found no readable safetensors file ({error}), expected TerraMind's weights; "
            "src/grounding/models/terramind.py says how to convert those of the hub"
        ) from error
    for name, random in network.named_parameters():
        found = tuple(stored[name].shape) if name in stored else None
        if found != tuple(random.shape):
            raise DataError(
                f"{path}: {name}: found {found or 'none'}, expected shape {tuple(random.shape)}; give the weights of "
                "the TerraMind that the file's name says"
            )
    network.load_state_dict({name: stored[name] for name, _ in network.named_parameters()}, strict=False)


def band_slots() -> list[int]:
    """Places of OPTICAL_BANDS among the twelve of TerraMind's Sentinel-2 L2A image."""
    from terratorch.models.backbones.terramind.model.terramind_register import PRETRAINED_BANDS

    return [PRETRAINED_BANDS[OPTICAL].index(NAMES[band]) for band in OPTICAL_BANDS]


def scaling(product: str, residual_sd: list[float]) -> Scaling:
    """Statistics that TerraMind was trained with: reflectance of our bands, and dB of `product`, which are VV, VH."""
    from terratorch.models.backbones.terramind.model import terramind_register as register

    mean, sd = register.v1_pretraining_mean, register.v1_pretraining_std
    slots, radar = band_slots(), RADAR[product]
    return Scaling(
        optical_mean=[mean[OPTICAL][slot] / DN for slot in slots],
        optical_sd=[sd[OPTICAL][slot] / DN for slot in slots],
        sar_mean=list(mean[radar]),
        sar_sd=list(sd[radar]),
        residual_sd=residual_sd,
    )


def load(folder: Path, facts: dict) -> TerraMindDenoiser:
    """The model that `denoiser.save` wrote with `facts`; raises DependencyError where terratorch is not installed."""
    require_terratorch()
    transformer = PixArtTransformer2DModel.from_pretrained(folder / denoiser.TRANSFORMER)
    shape, product = transformer.config, facts["sar"]["product"]
    network = architecture(facts["backbone"], product)
    tokens = TerraMindTokens(network, product, shape.sample_size, shape.patch_size, shape.cross_attention_dim)
    tokens.load_state_dict(safetensors.torch.load_file(folder / denoiser.TOKENS))
    steps = DDIMScheduler.from_pretrained(folder / denoiser.SCHEDULER)
    scales = Scaling(**{name: facts[name] for name in Scaling.__dataclass_fields__})
    parts = (transformer, tokens, steps, scales, facts["sees_sar"])
    return TerraMindDenoiser(*parts, backbone=facts["backbone"]).eval()
