"""The model that training starts from: tiny with random weights, or a pretrained Qwen-VL whose patch embedding is
widened where it is to read all bands."""

from typing import NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from src.core.models import chat, lora, qwen_vl
from src.core.models.more_bands import RGB, widen
from src.core.stage.model_params import TINY
from src.core.training.parameter_groups import ParameterGroups, checkpoint_activations, train_only
from src.core.training.precision import hold_weights, weights_dtype
from src.minerals.models.mineral_model import MineralModel
from src.minerals.params import Params


class Start(NamedTuple):
    """A model before training."""

    vlm: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def start(params: Params, channels: int, side: int, corpus: list[str], meta: bool) -> Start:
    """The backbone of the params, reading `channels`.

    Args:
        side: px of a tile as the model sees it.
        corpus: questions and answers, on which a tiny model's tokenizer is trained.
        meta: shapes alone, without reading any weights.
    """
    model = params.model
    if model.backbone == TINY:
        tokenizer = chat.tiny_tokenizer(corpus)
        known = {"channels": channels, "side": side, "tokenizer": tokenizer}
        config = qwen_vl.tiny_config(model.family, **model.tiny.sizes(), **known)
        return Start(qwen_vl.build(config, params.seed), tokenizer)
    known = {"channels": (RGB, channels), "dtype": weights_dtype(model.backbone, params.sft.precision)}
    vlm = qwen_vl.outline(model.backbone, **known) if meta else qwen_vl.load(model.backbone, **known)
    tokenizer = qwen_vl.read_tokenizer(model.backbone, vlm)
    if vlm.config.vision_config.in_channels != channels:
        widen(vlm, channels, model.init, params.seed)
    checkpoint_activations(vlm)
    adapter = params.sft.lora
    return Start(lora.wrap(vlm, lora.config(**adapter.model_dump(), encoder=False)), tokenizer)


def groups(model: MineralModel, params: Params, kind: str) -> ParameterGroups:
    """The parameters that train, with their rates.

    Of a pretrained model: LoRA on the language model's attention, the merger (which the official fine-tuning script
    freezes beside LoRA), and the patch embedding where it is new to these bands. Of a tiny one, whose weights are
    random, everything.
    """
    core = lora.core(model.vlm)
    parts = qwen_vl.vision_parts(core.model.visual)
    adapted = [p for name, p in core.named_parameters() if "lora_" in name]
    if params.model.backbone == TINY:
        seen, rate = {id(p) for p in core.model.visual.parameters()}, params.sft.lr.tiny
        language = [p for p in core.parameters() if id(p) not in seen]
        chosen = {"language": (language, rate, 0)} | {name: (part, rate, 0) for name, part in parts.items()}
    else:
        rates = params.sft.lr.pretrained
        new = list(core.model.visual.patch_embed.parameters()) if kind == "bands" else []
        chosen = {
            "lora": (adapted, rates.lora, 0),
            "merger": (parts["merger"], rates.merger, 0),
            "patch_embed": (new, rates.patch_embed, 0),
        }
    found = train_only(model, chosen)
    hold_weights(model, found.parameters(), weights_dtype(params.model.backbone, params.sft.precision))
    return found
