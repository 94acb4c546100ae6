"""Parameters that pretrain and sft train, in named groups with their learning rates from params.yaml."""

from src.core.models import lora
from src.core.models.mae import MaskedAutoencoder
from src.core.models.qwen_vl import vision_parts
from src.core.training.parameter_groups import ParameterGroups, train_only
from src.population.models.growth_model import GrowthModel
from src.population.params import PretrainRates, SftRates


def pretrain_groups(mae: MaskedAutoencoder, rates: PretrainRates) -> ParameterGroups:
    """Parameters that the reconstruction loss reaches. The merger comes after the encoder, so it gets no gradient."""
    parts = vision_parts(mae.visual)
    decoder = [p for name, p in mae.named_parameters() if not name.startswith("visual.")]
    return train_only(
        mae,
        {
            "patch_embed": (parts["patch_embed"], rates.patch_embed, 0),
            "blocks": (parts["blocks"] if mae.encoder == "full" else [], rates.blocks, 0),
            "decoder": (decoder, rates.decoder, 0),
        },
    )


def sft_groups(model: GrowthModel, rates: SftRates, freeze_encoder_epochs: int, head: bool = True) -> ParameterGroups:
    """Language model, merger and head from the start; patch embedding and blocks from `freeze_encoder_epochs` on.

    Where peft has put LoRA into a group's modules, its matrices train in their place. `head`: whether any loss
    reaches the regression head.
    """
    core = lora.core(model.vlm)
    visual = core.model.visual
    parts = vision_parts(visual)
    seen = {id(p) for p in visual.parameters()}
    language = [(name, p) for name, p in core.named_parameters() if id(p) not in seen]
    adapted = [p for name, p in language if "lora_" in name]
    encoder = [p for name, p in visual.named_parameters() if "lora_" in name]
    return train_only(
        model,
        {
            # First, because Trainer logs the rate of the first group.
            "lora" if adapted else "language": (adapted or [p for _, p in language], rates.language, 0),
            "merger": (parts["merger"], rates.merger, 0),
            "head": (list(model.head.parameters()) if head else [], rates.head, 0),
            "blocks_lora" if encoder else "blocks": (encoder or parts["blocks"], rates.blocks, freeze_encoder_epochs),
            "patch_embed": (parts["patch_embed"], rates.patch_embed, freeze_encoder_epochs),
        },
    )
