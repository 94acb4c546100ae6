"""config.json of the published Qwen-VL models, as far as it decides shapes: for shapes at full size without the hub.

    from bench.published import config
    config("Qwen2.5-VL-7B")    # a transformers config, 3 channels, two frames a patch

The values are those of the -Instruct repositories; tests/core/test_full_size.py holds the parameter counts that
follow from them against the published totals.
"""

from copy import deepcopy

from src.core.models.qwen_vl import FAMILIES

IDS = {"vision_start_token_id": 151652, "vision_end_token_id": 151653, "image_token_id": 151655}
IDS |= {"video_token_id": 151656}
FLAT = {"hidden_act": "silu", "rms_norm_eps": 1e-06, "bos_token_id": 151643, "eos_token_id": 151645} | {
    "use_sliding_window": False,
    "rope_theta": 1000000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
}
QWEN2_VISION = {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "in_chans": 3, "patch_size": 14} | {
    "spatial_merge_size": 2,
    "spatial_patch_size": 14,
    "temporal_patch_size": 2,
}
QWEN25_VISION = {"depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16} | {
    "in_chans": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "spatial_patch_size": 14,
    "temporal_patch_size": 2,
    "tokens_per_second": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
QWEN3_VISION = {"hidden_act": "gelu_pytorch_tanh", "in_channels": 3, "num_heads": 16, "patch_size": 16} | {
    "num_position_embeddings": 2304,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
QWEN3_SMALL_VISION = QWEN3_VISION | {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "deepstack_visual_indexes": [5, 11, 17],
}
QWEN3_LARGE_VISION = QWEN3_VISION | {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "deepstack_visual_indexes": [8, 16, 24],
}


def _text(
    hidden: int, intermediate: int, layers: int, heads: int, groups: int, vocabulary: int, positions: int
) -> dict:
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
    }


def _qwen3_text(hidden: int, intermediate: int, layers: int, heads: int) -> dict:
    return _text(hidden, intermediate, layers, heads, 8, 151936, 262144) | {
        "head_dim": 128,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-06,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "rope_theta": 5000000,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
    }


CONFIGS = {
    "Qwen2-VL-2B": {"model_type": "qwen2_vl", "tie_word_embeddings": True, **FLAT}
    | _text(1536, 8960, 28, 12, 2, 151936, 32768)
    | {"vision_config": QWEN2_VISION | {"hidden_size": 1536}},
    "Qwen2-VL-7B": {"model_type": "qwen2_vl", "tie_word_embeddings": False, **FLAT}
    | _text(3584, 18944, 28, 28, 4, 152064, 32768)
    | {"vision_config": QWEN2_VISION | {"hidden_size": 3584}},
    "Qwen2.5-VL-3B": {"model_type": "qwen2_5_vl", "tie_word_embeddings": True, **FLAT}
    | _text(2048, 11008, 36, 16, 2, 151936, 128000)
    | {"vision_config": QWEN25_VISION | {"out_hidden_size": 2048}},
    "Qwen2.5-VL-7B": {"model_type": "qwen2_5_vl", "tie_word_embeddings": False, **FLAT}
    | _text(3584, 18944, 28, 28, 4, 152064, 128000)
    | {"vision_config": QWEN25_VISION | {"out_hidden_size": 3584}},
    "Qwen3-VL-2B": {
        "model_type": "qwen3_vl",
        "tie_word_embeddings": True,
        "text_config": _qwen3_text(2048, 6144, 28, 16),
        "vision_config": QWEN3_SMALL_VISION | {"out_hidden_size": 2048},
    },
    "Qwen3-VL-4B": {
        "model_type": "qwen3_vl",
        "tie_word_embeddings": True,
        "text_config": _qwen3_text(2560, 9728, 36, 32),
        "vision_config": QWEN3_SMALL_VISION | {"out_hidden_size": 2560},
    },
    "Qwen3-VL-8B": {
        "model_type": "qwen3_vl",
        "tie_word_embeddings": False,
        "text_config": _qwen3_text(4096, 12288, 36, 32),
        "vision_config": QWEN3_LARGE_VISION | {"out_hidden_size": 4096},
    },
}


def config(name: str):
    """The transformers config of a model in `CONFIGS`."""
    values = deepcopy(CONFIGS[name]) | IDS
    return FAMILIES[values["model_type"]].from_dict(values)
