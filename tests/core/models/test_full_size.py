"""The published models at full size, as shapes on the `meta` device: nothing is computed and no memory is taken.

The totals are those the hub gives for the -Instruct repositories' safetensors, tied heads counted once.
"""

from typing import NamedTuple

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText

from bench import published
from src.core.models import qwen_vl
from src.core.models.more_bands import widen
from src.core.models.patches import pixel_values, usable_side

BANDS, RANK = 64, 16
TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


class Size(NamedTuple):
    """Numbers of parameters, and the merger's first and second layer as (in, out)."""

    total: int
    blocks: int  # with patch embedding and, in Qwen3, the position table
    merger: int  # in Qwen3 with the three of deepstack
    language: int  # with the head
    lora: int  # rank 16 on all linear layers of the language model
    patch_embed: tuple[int, ...]
    merges: tuple[tuple[int, int], tuple[int, int]]


CONV2, SMALL3, LARGE3 = (1280, 3, 2, 14, 14), (1024, 3, 2, 16, 16), (1152, 3, 2, 16, 16)
FIRST2, FIRST3, FIRST3_LARGE = (5120, 5120), (4096, 4096), (4608, 4608)
SIZES = {
    "Qwen2-VL-2B": Size(
        2_208_985_600, 631_183_360, 34_087_936, 1_543_714_304, 18_464_768, CONV2, (FIRST2, (5120, 1536))
    ),
    "Qwen2-VL-7B": Size(
        8_291_375_616, 631_183_360, 44_575_744, 7_615_616_512, 40_370_176, CONV2, (FIRST2, (5120, 3584))
    ),
    "Qwen2.5-VL-3B": Size(
        3_754_622_976, 631_975_680, 36_708_608, 3_085_938_688, 29_933_568, CONV2, (FIRST2, (5120, 2048))
    ),
    "Qwen2.5-VL-7B": Size(
        8_292_166_656, 631_975_680, 44_574_464, 7_615_616_512, 40_370_176, CONV2, (FIRST2, (5120, 3584))
    ),
    "Qwen3-VL-2B": Size(
        2_127_532_032, 306_242_560, 100_714_496, 1_720_574_976, 17_432_576, SMALL3, (FIRST3, (4096, 2048))
    ),
    "Qwen3-VL-4B": Size(
        4_437_815_808, 306_242_560, 109_105_152, 4_022_468_096, 33_030_144, SMALL3, (FIRST3, (4096, 2560))
    ),
    "Qwen3-VL-8B": Size(
        8_767_123_696, 415_891_440, 160_496_896, 8_190_735_360, 43_646_976, LARGE3, (FIRST3_LARGE, (4608, 4096))
    ),
}


@pytest.fixture(params=list(SIZES))
def name(request):
    return request.param


def on_meta(name):
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(published.config(name), dtype=torch.bfloat16)
    return qwen_vl.quicken(model)


def count(model, has=lambda name: True):
    return sum(p.numel() for name, p in model.named_parameters() if has(name))


def test_every_published_config_is_checked():
    assert set(published.CONFIGS) == set(SIZES)


def test_parameters_of_each_part(name):
    model, size = on_meta(name), SIZES[name]
    assert count(model) == size.total == size.blocks + size.merger + size.language
    assert count(model, lambda name: "merger" in name) == size.merger
    assert count(model, lambda name: ".visual." not in name) == size.language
    proj = model.model.visual.patch_embed.proj
    assert isinstance(proj, torch.nn.Conv3d) and proj.weight.shape == size.patch_embed
    assert (proj.bias is not None) == name.startswith("Qwen3")


def test_mergers_join_four_patches_and_meet_the_language_model(name):
    model = on_meta(name)
    visual = model.model.visual
    mergers = [visual.merger, *getattr(visual, "deepstack_merger_list", [])]
    assert len(mergers) == (4 if name.startswith("Qwen3") else 1)
    for merger in mergers:
        linear = [m for m in merger.modules() if isinstance(m, torch.nn.Linear)]
        assert tuple((m.in_features, m.out_features) for m in linear) == SIZES[name].merges
        assert linear[0].in_features == 4 * SIZES[name].patch_embed[0]
        assert linear[-1].out_features == model.config.get_text_config().hidden_size


@pytest.mark.parametrize("init", ["normal", "zero", "copy", "pca"])
def test_widened_to_64_bands(name, init):
    size = SIZES[name]
    model = widen(on_meta(name), BANDS, init, seed=0, projection=torch.zeros(3, BANDS))
    visual = model.model.visual
    width, *_, patch = size.patch_embed
    weight = visual.patch_embed.proj.weight
    assert weight.shape == (width, BANDS, 1, patch, patch)
    assert (weight.device.type, weight.dtype) == ("meta", torch.bfloat16)
    assert count(model) == size.total + width * (BANDS - 3 * 2) * patch**2
    side = usable_side(1000, patch)
    pixels, _ = pixel_values(torch.zeros(1, BANDS, side, side, device="meta"), visual.config)
    tokens = {14: (4900, 1225), 16: (3844, 961)}[patch]
    assert pixels.shape == (tokens[0], BANDS * patch**2)
    assert visual.patch_embed(pixels).shape == (tokens[0], width)
    merged = visual.merger(torch.zeros(tokens[0], width, device="meta", dtype=torch.bfloat16))
    assert merged.shape == (tokens[1], model.config.get_text_config().hidden_size)


def test_lora_on_the_language_model(name):
    model = on_meta(name)
    text = model.config.get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    queries, keys = text.num_attention_heads * head, text.num_key_value_heads * head
    hidden, inner, layers = text.hidden_size, text.intermediate_size, text.num_hidden_layers
    with torch.device("meta"):
        tuned = get_peft_model(model, LoraConfig(r=RANK, target_modules=TARGETS))
    shapes = {name: tuple(p.shape) for name, p in tuned.named_parameters() if p.requires_grad}
    assert all(".language_model." in name and "lora_" in name for name in shapes)
    assert len(shapes) == 2 * 7 * layers
    last = f"base_model.model.model.language_model.layers.{layers - 1}"
    for linear, ins, outs in [
        ("self_attn.q_proj", hidden, queries),
        ("self_attn.k_proj", hidden, keys),
        ("self_attn.v_proj", hidden, keys),
        ("self_attn.o_proj", queries, hidden),
        ("mlp.gate_proj", hidden, inner),
        ("mlp.up_proj", hidden, inner),
        ("mlp.down_proj", inner, hidden),
    ]:
        assert shapes[f"{last}.{linear}.lora_A.default.weight"] == (RANK, ins)
        assert shapes[f"{last}.{linear}.lora_B.default.weight"] == (outs, RANK)
    assert count(tuned, lambda name: "lora_" in name) == SIZES[name].lora
