"""Bytes counted on fake tensors equal those that the allocator gives when the same training step really runs."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from src.core.data.quantisation import Quantisation
from src.core.models import chat, lora, qwen_vl
from src.core.models.mae import MaskedAutoencoder
from src.core.models.patches import BandFrontEnd
from src.core.training.allocations import moments
from src.core.training.precision import hold_weights
from src.population.models.growth_model import GrowthModel, RegressionHead
from src.population.models.pretraining import Pretraining

FAMILIES = list(qwen_vl.FAMILIES)
BANDS, PATCH, SIDE, WIDTH = 5, 2, 24, 64


@pytest.fixture(scope="module")
def tokenizer():
    return chat.tiny_tokenizer(["预测值：1.23‰"])


def growth_model(family, tokenizer, bands=BANDS, side=SIDE, adapted=False):
    config = qwen_vl.tiny_config(
        family,
        channels=bands,
        patch_size=PATCH,
        side=side,
        vision=(3, WIDTH, 4),
        text=(3, WIDTH, 4),
        tokenizer=tokenizer,
    )
    vlm = qwen_vl.build(config, 0)
    if adapted:
        targets = r".*language_model.*\.(q_proj|v_proj|up_proj)"
        vlm = get_peft_model(vlm, LoraConfig(r=4, lora_dropout=0.1, target_modules=targets))
    front = BandFrontEnd(Quantisation("alphaearth"), torch.zeros(bands), torch.ones(bands), side)
    return GrowthModel(vlm, front, RegressionHead(WIDTH, 8, 0.1, None, 1.0), 0.0)


def labels_batch(tokenizer, size, bands=BANDS, side=SIDE):
    prompts = [chat.encode_prompt(tokenizer, "tile", (side // PATCH // 2) ** 2)] * size
    batch = chat.pad_batch(prompts, [chat.encode_answer(tokenizer, "1.5")] * size, tokenizer)
    batch["tiles"] = torch.zeros(size, bands, side, side, dtype=torch.int8)
    batch["valid"] = torch.ones(size, side, side, dtype=torch.bool)
    return batch | {"target": torch.zeros(size), "orientation": torch.full((size,), 5)}


def counted(model, trained, sample, dtype, checkpointing, size):
    found = moments(model, trained, lambda batch: model(**batch)["loss"], sample, dtype, checkpointing)
    return max(fixed + size * each for fixed, each in found)


def allocated(model, trained, batch, dtype, checkpointing):
    """Peak of the allocator over a step, beside weights and gradients; the first step only warms up."""
    hold_weights(model, trained, dtype)
    for p in model.parameters():
        p.requires_grad_(any(p is q for q in trained))
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    if checkpointing:
        vlm = lora.core(model.vlm)
        vlm.activation_checkpointing_enable()
        vlm.disable_input_require_grads()  # hooks that reentrant checkpointing needs: a frozen encoder would save all
    model.train()
    for _ in range(2):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                loss = model(**batch)["loss"]
            loss.backward()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak + sum(x.nbytes for x in batch.values())


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_allocator_when_all_trains(family, checkpointing, tokenizer):
    """Counted on one sample, compared on one and on four: the split into fixed and per sample is right too."""
    model = growth_model(family, tokenizer)
    trained = list(model.parameters())
    for size in (1, 4):
        count = counted(model, trained, labels_batch(tokenizer, 1), torch.float32, checkpointing, size)
        batch = labels_batch(tokenizer, size)
        assert count == pytest.approx(allocated(model, trained, batch, torch.float32, checkpointing), rel=0.03)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_equals_the_allocator_with_lora_and_mixed_precision(dtype, checkpointing, tokenizer):
    model = growth_model("qwen2_5_vl", tokenizer, adapted=True)  # no layer norms, whose precision is CUDA's
    visual = model.vlm.get_base_model().model.visual
    trained = [p for name, p in model.named_parameters() if "lora_" in name or name.startswith("head.")]
    for more in ([], list(visual.parameters())):
        count = counted(model, trained + more, labels_batch(tokenizer, 1), dtype, checkpointing, 3)
        measured = allocated(model, trained + more, labels_batch(tokenizer, 3), dtype, checkpointing)
        assert count == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_allocator_for_masked_autoencoding(family, tokenizer):
    growth = growth_model(family, tokenizer)
    mae = MaskedAutoencoder(growth.vlm.model.visual, SIDE, "full", (2, 32, 2), True)
    model = Pretraining(growth.front, mae, 0.75)
    trained = [p for name, p in model.named_parameters() if "merger" not in name]

    def views(size):
        noise = torch.rand(size, (SIDE // PATCH // 2) ** 2, generator=torch.Generator().manual_seed(0))
        tiles = torch.zeros(size, BANDS, SIDE, SIDE, dtype=torch.int8)
        more = {"boxes": torch.tensor([[1, 2, 20]] * size), "orientation": torch.tensor([3] * size)}
        return {"tiles": tiles, "valid": torch.ones(size, SIDE, SIDE, dtype=torch.bool), "noise": noise, **more}

    count = counted(model, trained, views(1), torch.float32, False, 4)
    assert count == pytest.approx(allocated(model, trained, views(4), torch.float32, False), rel=0.05)


def test_a_frozen_encoder_keeps_nothing_and_checkpointing_little(tokenizer):
    model = growth_model("qwen2_5_vl", tokenizer, adapted=True)
    small = [p for name, p in model.named_parameters() if "lora_" in name]
    all_of_it = list(model.parameters())
    sample = labels_batch(tokenizer, 1)
    frozen, trained, checkpointed = (
        counted(model, which, sample, torch.bfloat16, on, 8)
        for which, on in ((small, False), (all_of_it, False), (all_of_it, True))
    )
    assert frozen < 0.6 * trained
    assert checkpointed < 0.4 * trained


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails, tokenizer):
    model = growth_model("qwen3_vl", tokenizer, adapted=True).eval()
    inner = model.vlm.get_base_model()
    inner.activation_checkpointing_enable()

    def state():
        attributes = ("gradient_checkpointing", "_gradient_checkpointing_func", "forward")
        layers = [[part.__dict__.get(name) for name in attributes] for part in model.modules()]
        weights = [(name, id(p), p.requires_grad, p.grad) for name, p in model.named_parameters()]
        return weights, layers, model.training

    def loss(batch):
        if fails:
            raise KeyError("broken")
        return model(**batch)["loss"]

    before, expected = state(), model(**labels_batch(tokenizer, 2))["prediction"]
    try:
        moments(model, list(model.head.parameters()), loss, labels_batch(tokenizer, 1), torch.bfloat16, False)
    except KeyError:
        assert fails
    assert state() == before
    torch.testing.assert_close(model(**labels_batch(tokenizer, 2))["prediction"], expected, rtol=0, atol=0)


def test_works_on_meta_without_weights(tokenizer):
    real = growth_model("qwen3_vl", tokenizer)
    sample = labels_batch(tokenizer, 1)
    expected = counted(real, list(real.parameters()), sample, torch.bfloat16, True, 2)
    meta = growth_model("qwen3_vl", tokenizer).to("meta")
    assert counted(meta, list(meta.parameters()), sample, torch.bfloat16, True, 2) == expected


def test_grows_with_bands_and_pixels(tokenizer):
    def count(bands, side):
        model = growth_model("qwen2_5_vl", tokenizer, bands, side)
        sample = labels_batch(tokenizer, 1, bands, side)
        return counted(model, list(model.parameters()), sample, torch.bfloat16, True, 1)

    assert count(5, 24) < count(64, 24) < count(64, 32)
