"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: build a tiny model or load a folder; other architectures are an error."""

from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.qwen2_5_vl import Qwen2_5_VLConfig
from transformers.models.qwen2_vl import Qwen2VLConfig
from transformers.models.qwen3_vl import Qwen3VLConfig

from src.core.models import hub
from src.core.models.chat import IMAGE_PAD
from src.core.models.fast_encoder import quicken
from src.core.stage import distributed
from src.core.stage.errors import DataError, DependencyError, ParamsError, require

FAMILIES = {"qwen2_vl": Qwen2VLConfig, "qwen2_5_vl": Qwen2_5_VLConfig, "qwen3_vl": Qwen3VLConfig}


def tiny_config(
    family: str,
    *,
    channels: int,
    patch_size: int,
    side: int,
    vision: tuple[int, int, int],
    text: tuple[int, int, int],
    tokenizer: PreTrainedTokenizerBase,
):
    """Config of a small model of `family`; `vision` and `text` are (depth, width, heads), `side` the tile in px.

    Temporal patches hold one frame: a still image need not be doubled. All 2.5 blocks but the last attend
    within windows of half the side, as the real model does with 112 of its pixels.
    """
    depth, width, heads = text
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    ids |= {name: tokenizer.convert_tokens_to_ids(f"<|{name}_pad|>") for name in ("image", "video")}
    half = width // heads // 2
    # Rotary frequencies of a head, shared between time, row and column as in the real models (16:24:24).
    time, row = half // 4, (half - half // 4) // 2
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [time, row, half - time - row]}
    text_config = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "num_key_value_heads": max(heads // 2, 1),
        "head_dim": width // heads,
        "max_position_embeddings": 4096,
        "rope_parameters": rope | ({"mrope_interleaved": True} if family == "qwen3_vl" else {}),
        "bos_token_id": None,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "pad_token_id": tokenizer.pad_token_id,
    }
    return FAMILIES[family](
        vision_config=_tiny_vision(family, channels, patch_size, side, vision, text_width=width),
        text_config=text_config,
        tie_word_embeddings=False,
        **{f"{name}_token_id": number for name, number in ids.items()},
    )


def _tiny_vision(
    family: str, channels: int, patch_size: int, side: int, vision: tuple[int, int, int], text_width: int
) -> dict:
    depth, width, heads = vision
    shared = {"depth": depth, "in_channels": channels, "patch_size": patch_size, "temporal_patch_size": 1}
    shared |= {"spatial_merge_size": 2, "num_heads": heads, "initializer_range": 0.02}
    if family == "qwen2_vl":
        return shared | {"embed_dim": width, "hidden_size": text_width, "mlp_ratio": 4}
    shared |= {"hidden_size": width, "out_hidden_size": text_width, "intermediate_size": 4 * width}
    if family == "qwen2_5_vl":
        full = [index for index in range(depth) if index % 2 == 1 or index == depth - 1]
        return shared | {"window_size": max(side // 2, 2 * patch_size), "fullatt_block_indexes": full}
    return shared | {"num_position_embeddings": (side // patch_size) ** 2, "deepstack_visual_indexes": [0]}


def build(config, seed: int) -> PreTrainedModel:
    """A model of `config` with weights drawn from `seed` alone, float32, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    text = model.config.get_text_config()
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = text.eos_token_id, text.pad_token_id
    return quicken(model)


def outline(source: str | Path, *, channels: tuple[int, ...], dtype: torch.dtype) -> PreTrainedModel:
    """The model in `source` as shapes on the `meta` device, without its weights; raises what `read_config` does."""
    config = read_config(source, channels)
    if Path(source).is_dir() and hub.has_weights(Path(source)):
        hub.check_weights(Path(source))
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa", dtype=dtype)
    return quicken(model)


def read_config(source: str | Path, channels: tuple[int, ...]):
    """The config of the model in `source` (a folder or a hub id), checked; no weights are read or fetched.

    Raises:
        DataError: `source` is out of reach, its architecture is none of the three families, or it holds what
            `hub.check_config` refuses.
        ParamsError: the patch embedding has none of the numbers of `channels`, of which the last is the tiles'.
    """
    folder = hub.fetch(source, weights=False)
    raw = hub.check_config(folder)
    file, family = folder / hub.CONFIG, raw.get("model_type")
    if family not in FAMILIES:
        raise DataError(f"{file}: model_type is {family!r}, expected one of {', '.join(FAMILIES)}; use another model")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError, StrictDataclassError) as error:
        raise DataError(f"{file}: found fields that do not make a {family} ({error}); copy the folder again") from error
    vision, found = raw.get("vision_config") or {}, config.vision_config.in_channels
    # The published name, which transformers ignores: a folder of 64 channels would be taken for one of 3.
    if "in_channels" not in vision and vision.get("in_chans", found) != found:
        raise DataError(
            f"{file}: vision_config.in_chans: found {vision['in_chans']}, which transformers does not read (it takes "
            f"{found} channels); write in_channels: {vision['in_chans']} if that is what the weights have"
        )
    if found not in channels:
        raise ParamsError(
            f"{source}: vision_config.in_channels: its patch embedding reads {found} channels and the tiles have "
            f"{channels[-1]}, expected {' or '.join(map(str, dict.fromkeys(channels)))}; use "
            + ("`input`: pca3 for a 3-channel model, or " if found == 3 else "")
            + f"a model of {channels[-1]} channels"
        )
    return config


def load(
    source: str | Path,
    *,
    channels: int | tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    four_bit: bool = False,
    attention: str = "sdpa",
    device: str | None = None,
) -> PreTrainedModel:
    """Load the model in `source`, a folder in Hugging Face layout or a hub id, from safetensors alone.

    Args:
        channels: that the patch embedding may read: the tiles' bands, or (3, bands) where the caller widens RGB.
        dtype: of the weights (of those that stay whole, with `four_bit`).
        four_bit: hold the linear layers of the language model in 4 bits (NF4, double quantisation; Dettmers et
            al. 2023), to train LoRA on. Vision encoder, merger, embeddings and `lm_head` stay whole.
        attention: sdpa or flash_attention_2.
        device: for 4 bits, which otherwise go to this process's GPU.

    Raises:
        DataError: see `read_config`; or weights are missing, damaged, pickled, or do not fit the config.
        ParamsError: see `read_config`; or flash attention is asked for in float32.
        DependencyError: bitsandbytes or flash-attn is asked for and absent.
    """
    _check_options(four_bit, attention, dtype)
    config = read_config(source, channels if isinstance(channels, tuple) else (channels,))
    folder = hub.fetch(source)
    hub.check_weights(folder)
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            folder,
            config=config,
            attn_implementation=attention,
            dtype=dtype,
            output_loading_info=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported below, with the others
            quantization_config=_four_bits() if four_bit else None,
            device_map=device or ({"": distributed.local_rank()} if four_bit and torch.cuda.is_available() else None),
        )
    except ImportError as error:
        raise DependencyError(f"`four_bit` or `attention` cannot be had here: {error}") from error
    except (OSError, SafetensorError) as error:
        raise DataError(f"{folder}: found no readable weights ({error}); copy the folder again") from error
    mismatched = [name for name, *_ in report["mismatched_keys"]]
    wrong = [*sorted(report["missing_keys"]), *sorted(report["unexpected_keys"]), *sorted(mismatched)]
    if wrong:
        raise DataError(f"{folder}: weights do not fit the config, e.g. {wrong[:3]}; copy the folder again")
    if config.tie_word_embeddings and model.lm_head.weight is not model.get_input_embeddings().weight:
        raise DataError(
            f"{folder / hub.CONFIG}: tie_word_embeddings: found true, and weights of lm_head that differ from the "
            "embedding's; write false"
        )
    return quicken(model)


def _check_options(four_bit: bool, attention: str, dtype: torch.dtype) -> None:
    if four_bit and distributed.sharding():
        raise ParamsError(
            f"`four_bit`: {distributed.sharding()} cannot share out packed weights; set false, or launch with "
            "accelerate/ddp.yaml"
        )
    if four_bit:
        require("bitsandbytes", "four_bit", "false")
    if attention == "flash_attention_2":
        require("flash-attn --no-build-isolation", "attention", "sdpa")
        if dtype == torch.float32:
            raise ParamsError("`attention`: flash_attention_2 does not compute in float32; use bfloat16 or sdpa")


def _four_bits() -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=["model.visual", "lm_head"],  # so named, but it holds for 4 bits too
    )


def vision_parts(visual: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Parameters of a vision encoder by part; qwen3_vl's position table counts as patch embedding."""
    parts: dict[str, list[nn.Parameter]] = {"patch_embed": [], "blocks": [], "merger": []}
    for name, p in visual.named_parameters():
        part = "merger" if "merger" in name else "blocks" if name.startswith("blocks.") else "patch_embed"
        parts[part].append(p)
    return parts


def read_tokenizer(backbone: str, vlm: PreTrainedModel) -> PreTrainedTokenizerBase:
    """The tokenizer beside a pretrained backbone; raises DataError where it is missing or another model's."""
    folder = hub.fetch(backbone, weights=False)
    if not any(folder.glob("tokenizer*.json")):
        raise DataError(f"{folder}: found no tokenizer.json, expected the model's tokenizer; copy the whole repository")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    marker, expected = tokenizer.convert_tokens_to_ids(IMAGE_PAD), vlm.config.image_token_id
    if marker != expected:
        raise DataError(
            f"{backbone}: tokenizer: found id {marker} of {IMAGE_PAD}, expected {expected}, as config.json says; "
            "copy tokenizer and config from the same model"
        )
    return tokenizer
