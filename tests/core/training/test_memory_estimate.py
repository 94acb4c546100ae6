"""Sizes of a training by part, and what is said to fit."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText

from bench import published
from src.core.data.quantisation import Quantisation
from src.core.models import lora, qwen_vl
from src.core.models.patches import BandFrontEnd, tokens_per_sample
from src.core.training.memory_estimate import CONTEXT, Memory, describe, estimate, suggest
from src.population.models.growth_model import GrowthModel, RegressionHead

BANDS, ANSWER = 64, 8
TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
GB = 10**9


def on_meta(name, side, rank, encoder=False, layers=None):
    """The model that a dry run builds: full-size shapes, LoRA on the language model, all in float32."""
    config = published.config(name)
    config.vision_config.in_channels, config.vision_config.temporal_patch_size = BANDS, 1
    if layers:
        config.text_config.num_hidden_layers = config.vision_config.depth = layers
        config.vision_config.deepstack_visual_indexes = [0]
    targets = f"({TARGETS})|({lora.ENCODER_TARGETS})" if encoder else TARGETS
    with torch.device("meta"):
        vlm = qwen_vl.quicken(AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa"))
        vlm = get_peft_model(vlm, LoraConfig(r=rank, lora_dropout=0.05, target_modules=targets))
        front = BandFrontEnd(Quantisation("alphaearth"), torch.zeros(BANDS), torch.ones(BANDS), side)
        head = RegressionHead(config.text_config.hidden_size, 64, 0.1, None, 1.0)
    return GrowthModel(vlm, front, head, 0.0)


def sample(model, side):
    config = lora.core(model.vlm).config
    _, image = tokens_per_sample(side, config.vision_config)
    prompt = [1] * 50 + [config.vision_start_token_id] + [config.image_token_id] * image + [1] * 10
    ids = torch.tensor([prompt + [2] * ANSWER])
    labels = torch.full_like(ids, -100)
    labels[:, -ANSWER:] = 2
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == config.image_token_id).long(),
        "prompt_mask": labels == -100,
        "labels": labels,
        "tiles": torch.zeros(1, BANDS, side, side, dtype=torch.int8),
        "valid": torch.ones(1, side, side, dtype=torch.bool),
        "target": torch.zeros(1),
    }


def estimated(model, side, **more):
    """The estimate, and how many parameters train: adapters, head, and of the encoder what has no adapter."""
    parts = [(name, p) for name, p in model.named_parameters() if "lora_" in name or name.startswith("head.")]
    encoder = list(lora.core(model.vlm).model.visual.named_parameters())
    adapted = any("lora_" in name for name, _ in encoder)
    parts += [(name, p) for name, p in encoder if "lora_" not in name and not (adapted and "blocks" in name)]
    trained = [p for _, p in parts]
    dtype = torch.bfloat16
    found = estimate(model, trained, lambda batch: model(**batch)["loss"], sample(model, side), dtype=dtype, **more)
    return found, sum(p.numel() for p in trained)


@pytest.mark.parametrize(
    ("name", "side", "expected"),
    [
        ("Qwen2-VL-7B", 980, (4900, 1225)),
        ("Qwen2.5-VL-7B", 1000, (4900, 1225)),
        ("Qwen3-VL-8B", 992, (3844, 961)),
    ],
)
def test_tokens_of_a_tile(name, side, expected):
    assert tokens_per_sample(side, published.config(name).vision_config) == expected


@pytest.mark.parametrize("name", ["Qwen2-VL-7B", "Qwen2.5-VL-7B", "Qwen3-VL-8B"])
def test_parts_are_the_bytes_of_what_is_held(name):
    """Two layers of each stack at full width: trained weights in float32 with AdamW, the others in bfloat16."""
    model = on_meta(name, 224, rank=16, layers=2)
    total = sum(p.numel() for p in model.parameters())
    found, trained = estimated(model, 224)
    assert (found.gradients, found.optimizer) == (4 * trained, 8 * trained)
    assert found.weights == 4 * trained + 2 * (total - trained)
    assert found.activations(4, False) > found.activations(4, True) > found.activations(1, True)


def test_less_is_held_in_four_and_eight_bits():
    model = on_meta("Qwen2.5-VL-7B", 224, rank=16, layers=2)
    plain, trained = estimated(model, 224)
    packed, _ = estimated(model, 224, four_bit=True, optimizer_8bit=True)
    layers = lora.core(model.vlm).model.language_model.layers
    matrices = sum(p.numel() for name, p in layers.named_parameters() if p.ndim == 2 and "lora_" not in name)
    assert plain.weights - packed.weights == pytest.approx((2 - 0.516) * matrices, rel=1e-3)
    assert packed.optimizer == pytest.approx(2.03 * trained, rel=0.01)


def test_suggestions_fill_a_card_and_the_batch():
    each = (0, 10 * GB)
    memory = Memory(10 * GB, 2 * GB, 4 * GB, 2 * GB, peaks={False: (each,), True: ((0, GB), (GB, GB // 2))})
    assert memory.total(1, True) == pytest.approx(CONTEXT + 1.05 * 18 * GB)  # the optimiser's step is the peak
    assert memory.total(8, True) == pytest.approx(CONTEXT + 1.05 * 24 * GB)
    assert suggest(memory, 20, 8) is None
    assert suggest(memory, 24, 8) == (4, 2, True)
    assert suggest(memory, 24, 7) == (1, 7, True)
    assert suggest(memory, 40, 8) == (2, 4, False)
    assert suggest(memory, 500, 8) == (8, 1, False)
    for card in (20, 24, 40, 80):
        found = suggest(memory, card, 12)
        assert found is None or memory.total(found[0], found[2]) <= card * GB


def test_description_adds_up_and_names_what_to_change():
    memory = Memory(30 * GB, GB, 2 * GB, GB, peaks={False: ((0, 20 * GB),), True: ((0, 3 * GB),)})
    lines = describe(memory, 8, 2, checkpointing=True).splitlines()
    total = float(lines[0].split()[-2])
    assert sum(float(line.split()[-2]) for line in lines[1:6]) == pytest.approx(total, abs=0.1)
    (small,) = (line for line in lines if line.startswith("    24 GB"))
    assert "does not fit" in small
    assert small.index("4-bit") < small.index("LoRA on the encoder")  # weights take most here
    (large,) = (line for line in lines if line.startswith("    80 GB"))
    assert "batch 2 x 4 accumulated, gradient checkpointing off: 78.2 GB" in large


@pytest.mark.slow
def test_7b_at_full_size():
    """64 bands of 980 px, LoRA on the language model with the whole encoder, then what is meant for 24 GB."""
    found, _ = estimated(on_meta("Qwen2.5-VL-7B", 980, rank=16), 980)
    assert 18.0 < found.weights / GB < 18.4
    assert 20 < found.activations(1, False) / GB < 35
    assert 2 < found.activations(1, True) / GB < 5
    assert suggest(found, 24, 8) is None
    packed = on_meta("Qwen2.5-VL-7B", 980, rank=64, encoder=True)
    found, _ = estimated(packed, 980, four_bit=True, optimizer_8bit=True)
    assert 10 < found.total(1, True) / GB < 22
