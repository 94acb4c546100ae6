"""Tiny folders in the layout in which Qwen2-VL, Qwen2.5-VL and Qwen3-VL are published, and batches for what they hold.

Real in structure, small in numbers: RGB patches of two frames, 14 or 16 px, windows of 2.5, deepstack of 3, biases
where the family has them, bfloat16 shards with an index, flat text fields in config.json where they are flat.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText

from src.core.models import chat, qwen_vl
from src.core.models.patches import pixel_values

FAMILIES = list(qwen_vl.FAMILIES)
# One language layer more than Qwen3's deepstack feeds: what is added after the last one reaches no answer.
WIDTH, TEXT_WIDTH, TEXT_DEPTH = 32, 32, 3
ARCHITECTURES = {
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
}


def tokenizer():
    return chat.tiny_tokenizer(["predict 1.23"])


def published_config(family: str, *, channels: int = 3, tied: bool = False) -> dict:
    """config.json as the family's authors wrote it, with small numbers."""
    tokens = tokenizer()
    text = {
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": TEXT_DEPTH,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-06,
        "max_position_embeddings": 4096,
        "vocab_size": len(tokens),
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "bos_token_id": tokens.pad_token_id,
        "eos_token_id": tokens.eos_token_id,
    }
    marks = ("vision_start", "vision_end", "image", "video")
    texts = (chat.VISION_START, chat.VISION_END, chat.IMAGE_PAD, chat.VIDEO_PAD)
    ids = {f"{mark}_token_id": tokens.convert_tokens_to_ids(text) for mark, text in zip(marks, texts, strict=True)}
    config = {"architectures": [ARCHITECTURES[family]], "model_type": family, "tie_word_embeddings": tied, **ids}
    if family == "qwen3_vl":
        rope = {"mrope_interleaved": True, "mrope_section": [4, 2, 2], "rope_type": "default"}
        text |= {"model_type": "qwen3_vl_text", "dtype": "bfloat16", "head_dim": 16, "attention_bias": False}
        text |= {"rope_scaling": rope, "rope_theta": 5000000}
        vision = {
            "model_type": "qwen3_vl",
            "depth": 3,
            "hidden_size": WIDTH,
            "intermediate_size": 64,
            "out_hidden_size": TEXT_WIDTH,
            "hidden_act": "gelu_pytorch_tanh",
            "num_heads": 2,
            "num_position_embeddings": 36,
            "deepstack_visual_indexes": [0, 1],
            "in_channels": channels,
            "initializer_range": 0.02,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        }
        return config | {"text_config": text, "vision_config": vision, "transformers_version": "4.57.0.dev0"}
    vision = {
        "depth": 4,
        "num_heads": 2,
        "in_chans": 3,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
    }
    if channels != 3:  # `in_chans` is not read: a folder of more channels was saved by transformers
        vision["in_channels"] = channels
    if family == "qwen2_vl":
        vision |= {"embed_dim": WIDTH, "hidden_size": TEXT_WIDTH, "mlp_ratio": 4, "hidden_act": "quick_gelu"}
    else:
        vision |= {"hidden_size": WIDTH, "out_hidden_size": TEXT_WIDTH, "intermediate_size": 84, "hidden_act": "silu"}
        vision |= {"window_size": 56, "fullatt_block_indexes": [1, 3], "tokens_per_second": 2}
    text |= {"use_sliding_window": False, "sliding_window": 32768, "max_window_layers": TEXT_DEPTH}
    text |= {"rope_theta": 1000000.0, "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}
    return config | text | {"torch_dtype": "bfloat16", "transformers_version": "4.41.2", "vision_config": vision}


def write(
    folder: Path,
    family: str,
    *,
    channels: int = 3,
    tied: bool = False,
    shards: int = 2,
    layout: str = "published",
    seed: int = 0,
) -> Path:
    """`folder` with a model of random bfloat16 weights; the tied `lm_head` is left out, as it is on the hub.

    `layout` new: names of weights and config as transformers 5 holds them; they differ for Qwen2-VL and 2.5.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = published_config(family, channels=channels, tied=tied)
    config = qwen_vl.FAMILIES[family].from_dict(values)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # zero until trained, and a lost one would not be seen
                torch.nn.init.normal_(parameter, 0, 0.1)
    weights = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
    if tied:
        del weights["lm_head.weight"]
    if layout == "published":
        if family != "qwen3_vl":
            weights = {_published_name(name): value for name, value in weights.items()}
    else:
        values = config.to_dict() | {"architectures": [ARCHITECTURES[family]]}
    (folder / "config.json").write_text(json.dumps(values, indent=2))
    write_shards(folder, weights, shards)
    tokens = tokenizer()
    tokens.save_pretrained(folder)
    generation = {"bos_token_id": tokens.pad_token_id, "pad_token_id": tokens.pad_token_id, "do_sample": True}
    generation |= {"eos_token_id": [tokens.eos_token_id, tokens.pad_token_id], "repetition_penalty": 1.05}
    generation |= {"temperature": 0.1, "top_p": 0.001, "top_k": 1}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2))
    return folder


def write_shards(folder: Path, weights: dict[str, torch.Tensor], shards: int) -> None:
    """`weights` in `shards` files with an index, or in model.safetensors for one."""
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    where = {name: f"model-{1 + i % shards:05}-of-{shards:05}.safetensors" for i, name in enumerate(weights)}
    for file in set(where.values()):
        part = {name: value for name, value in weights.items() if where[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    size = sum(value.nbytes for value in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def _published_name(name: str) -> str:
    return name.removeprefix("model.") if ".visual." in name else name.replace("model.language_model.", "model.")


def change_config(folder: Path, **fields) -> None:
    """Set `fields` of config.json; `vision_config={...}` is merged into it, None removes a field."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for name, value in fields.items():
        config[name] = config[name] | value if isinstance(value, dict) and name in config else value
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def make_batch(model, sides: list[int], seed: int = 0) -> dict[str, torch.Tensor]:
    """One square image per side (in px), in one batch with a short prompt and answer each."""
    random = torch.Generator().manual_seed(seed)
    tokens = tokenizer()
    config = model.model.visual.config
    images = [torch.randn(1, config.in_channels, side, side, generator=random) for side in sides]
    parts = [pixel_values(image, config) for image in images]
    pixels, grid = (torch.cat(part) for part in zip(*parts, strict=True))
    counts = [(side // config.patch_size // 2) ** 2 for side in sides]
    prompts = [chat.encode_prompt(tokens, f"tile {i}", count) for i, count in enumerate(counts)]
    batch = chat.pad_batch(prompts, [chat.encode_answer(tokens, "1.5")] * len(sides), tokens)
    names = ("input_ids", "attention_mask", "mm_token_type_ids", "labels")
    return {name: batch[name] for name in names} | {"pixel_values": pixels, "image_grid_thw": grid}
