"""All that is done to a model, on folders as the families are published: RGB or widened, trained whole or by LoRA."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from src.core.models import more_bands, qwen_vl
from tests import qwen_folders
from tests.qwen_folders import FAMILIES, make_batch

BANDS = 64
TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def load(folder, family, *, tied=False):
    """Qwen's small models have tied heads, its large ones do not."""
    return qwen_vl.load(qwen_folders.write(folder, family, tied=tied), channels=(3, BANDS)).eval()


def sides(model) -> list[int]:
    """One image whose windows are all whole in 2.5, and one with two cut at the edge."""
    unit = model.config.vision_config.patch_size * 2
    return [4 * unit, 3 * unit]


def step(model, batch):
    """One step of training on everything that asks for it; returns names with and without a gradient."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    model(**batch).loss.backward()
    torch.optim.SGD(trained.values(), lr=0.1).step()
    moved = {name for name, p in trained.items() if p.grad is not None and p.grad.any()}
    return moved, set(dict(model.named_parameters())) - moved


def answers(model, batch):
    prompt = {name: value for name, value in batch.items() if name != "labels"}
    return model.generate(**prompt, max_new_tokens=3, do_sample=False, repetition_penalty=1.0)


@pytest.mark.parametrize("bands", [3, BANDS])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@torch.random.fork_rng()
def test_trained_whole(family, tied, bands, tmp_path):
    model = load(tmp_path / "base", family, tied=tied)
    if bands != 3:
        model = more_bands.widen(model, bands, "copy", seed=0)
    batch = make_batch(model, sides(model))
    before = model(**batch)
    assert before.logits.isfinite().all()
    _, still = step(model, batch)
    assert not still
    after = model(**batch)
    assert after.loss < before.loss

    model.save_pretrained(tmp_path / "trained")
    again = qwen_vl.load(tmp_path / "trained", channels=bands).eval()
    assert torch.equal(again(**batch).logits, after.logits)
    assert torch.equal(answers(again, batch), answers(model, batch))
    assert again.generation_config.eos_token_id == model.generation_config.eos_token_id
    with torch.no_grad():
        again.get_input_embeddings().weight.zero_()
    assert (not again.lm_head.weight.any()) == tied


@pytest.mark.parametrize("bands", [3, BANDS])
@torch.random.fork_rng()
def test_trained_by_lora(family, bands, tmp_path):
    model = load(tmp_path / "base", family)
    if bands != 3:
        more_bands.widen(model, bands, "normal", seed=0)
        model.save_pretrained(tmp_path / "base")
    batch = make_batch(model, sides(model))
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    torch.manual_seed(0)
    tuned = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, task_type="CAUSAL_LM"))
    for name, p in tuned.named_parameters():
        if "lora_B" in name:  # zero, so that the matrices above it would get no gradient at first
            torch.nn.init.normal_(p, 0, 0.05)
    before = tuned(**batch).loss
    moved, still = step(tuned, batch)
    assert moved == {name for name in moved | still if "lora_" in name}
    assert len(moved) == 2 * 7 * qwen_folders.TEXT_DEPTH
    for name, p in tuned.get_base_model().named_parameters():
        if "lora_" not in name:
            assert torch.equal(p, start[name.replace(".base_layer", "")]), name
    after = tuned(**batch)
    assert after.loss < before

    tuned.save_pretrained(tmp_path / "adapter")
    base = qwen_vl.load(tmp_path / "base", channels=bands)
    again = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert torch.equal(again(**batch).logits, after.logits)

    words = answers(tuned, batch)
    merged = tuned.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    again = qwen_vl.load(tmp_path / "merged", channels=bands).eval()
    torch.testing.assert_close(again(**batch).logits, after.logits, rtol=0, atol=1e-6 * after.logits.abs().max().item())
    assert torch.equal(answers(again, batch), words)


def test_names_of_published_weights(family, tmp_path):
    """Qwen2-VL and 2.5 were published as `visual.…` and `model.…`, before transformers renamed both."""
    loaded = []
    for layout in ("published", "new"):
        qwen_folders.write(tmp_path / layout, family, layout=layout, shards=1 if layout == "new" else 3)
        loaded.append(qwen_vl.load(tmp_path / layout, channels=3).eval())
    batch = make_batch(loaded[0], sides(loaded[0]))
    assert torch.equal(loaded[0](**batch).logits, loaded[1](**batch).logits)


def test_what_transformers_saves_is_read_by_transformers_alone(family, tmp_path):
    """Nothing of ours is needed to use a widened model, as docs/backbones.md promises."""
    model = more_bands.widen(load(tmp_path / "base", family), BANDS, "zero", seed=0)
    model.save_pretrained(tmp_path / "wide")
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path / "wide", dtype=torch.float32).eval()
    batch = make_batch(model, sides(model))
    torch.testing.assert_close(plain(**batch).logits, model(**batch).logits, rtol=0, atol=1e-5)
    vision = qwen_vl.read_config(tmp_path / "wide", (BANDS,)).vision_config
    assert vision.in_channels == getattr(vision, "in_chans", BANDS) == BANDS


def test_published_fields_arrive(family, tmp_path):
    """They are flat in Qwen2-VL and 2.5, and the classes' defaults differ from all of these."""
    qwen_folders.write(tmp_path, family, tied=True)
    config = qwen_vl.read_config(tmp_path, (3,))
    text = config.get_text_config()
    assert config.tie_word_embeddings is True
    assert text.rms_norm_eps == 1e-6
    assert (text.hidden_size, text.num_hidden_layers, text.num_key_value_heads) == (32, 3, 1)
    rope = text.rope_parameters
    sections, theta = ([4, 2, 2], 5e6) if family == "qwen3_vl" else ([2, 3, 3], 1e6)
    assert (rope["rope_type"], rope["mrope_section"], rope["rope_theta"]) == ("default", sections, theta)
    vision = config.vision_config
    assert (vision.in_channels, vision.temporal_patch_size) == (3, 2)
    if family == "qwen2_5_vl":
        assert (vision.window_size, vision.fullatt_block_indexes, vision.tokens_per_second) == (56, [1, 3], 2)


def test_heads_are_absent_from_tied_folders(family, tmp_path):
    """Else the tests on tied heads would not see what is on the hub."""
    qwen_folders.write(tmp_path, family, tied=True, shards=1)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
