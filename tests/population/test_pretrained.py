"""A published RGB backbone in every stage: widened, adapted, saved, and read back by plain transformers and peft."""

import json
import logging
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText

from src.core.data.tile_store import Store
from src.core.models import qwen_vl
from src.core.models.patches import pixel_values
from src.population.data import stage_inputs as stage_inputs
from src.population.models import model_folder
from src.population.models.inference import Reader
from src.population.models.model_folder import load
from tests import qwen_folders
from tests.population.conftest import (
    BANDS,
    moved_groups,
    pretrain_rates,
    run_dpo,
    run_pretrain,
    run_sft,
    sft_rates,
    small_params,
    weights_of,
    write_pairs,
)

FAMILY = "qwen2_5_vl"
RATES = {"pretrain.lr": pretrain_rates(0.001), "sft.lr": sft_rates(0.01, 0.001), "dpo.lr": 0.01}
SHORT = RATES | {"pretrain.epochs": 1, "sft.epochs": 1, "sft.freeze_encoder_epochs": 0, "dpo.epochs": 1}


@pytest.fixture(scope="module")
def pretrained(wide, hub, tmp_path_factory):
    """Model folder of a short pretraining from the published 2.5."""
    changes = SHORT | {"model.backbone": str(hub(FAMILY))}
    return run_pretrain(wide, tmp_path_factory.mktemp("pretrained"), changes)


def seen(folder: Path, wide: Namespace, changes: dict) -> torch.Tensor:
    """Vision inputs of the language model for the first three tiles, by the model in `folder`."""
    store = Store.open(wide.tiles)
    split, pca = stage_inputs.read_split(wide.split, store), stage_inputs.read_pca(wide.pca)
    params = small_params(changes)
    channels = 3 if params.model.input == "pca3" else BANDS
    vlm = qwen_vl.load(folder, channels=channels).eval()
    config = vlm.config.vision_config
    front = stage_inputs.front_end(store, stage_inputs.read_mean(folder), split, pca, params.model, config)
    images = front(torch.from_numpy(store.read([0, 5, 7])), torch.from_numpy(store.valid([0, 5, 7])))
    pixels, grid = pixel_values(images, config)
    with torch.no_grad():
        return vlm.model.visual(pixels, grid_thw=grid).pooler_output


@pytest.mark.parametrize("family", qwen_folders.FAMILIES)
def test_pca_starts_at_what_route_b_sees(wide, hub, tmp_path, family):
    """Tiles 0 and 5 hold no-data pixels."""
    start = {"model.backbone": str(hub(family)), "pretrain.epochs": 0}
    routes = {"a": start | {"model.init": "pca"}, "b": start | {"model.input": "pca3"}}
    a, b = (seen(run_pretrain(wide, tmp_path / name, changes), wide, changes) for name, changes in routes.items())
    assert b.std() > 0.01
    torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


@pytest.mark.parametrize("init", ["copy", "normal", "zero"])
def test_other_starts_are_others(wide, hub, tmp_path, init):
    start = {"model.backbone": str(hub(FAMILY)), "pretrain.epochs": 0}
    outs = [run_pretrain(wide, tmp_path / name, start | {"model.init": name}) for name in (init, "pca")]
    first, second = (weights_of(out)["model.visual.patch_embed.proj.weight"] for out in outs)
    assert first.shape == second.shape == (32, BANDS, 1, 14, 14) and not torch.equal(first, second)
    mean = stage_inputs.read_mean(outs[0])
    store = Store.open(wide.tiles)
    assert torch.equal(mean, stage_inputs.read_split(wide.split, store).mean)


@pytest.mark.parametrize("family", qwen_folders.FAMILIES)
def test_every_stage_from_a_published_folder(wide, hub, pretrained, tmp_path, family, caplog):
    caplog.set_level(logging.INFO)
    changes = SHORT | {"model.backbone": str(hub(family))}
    start = pretrained if family == FAMILY else run_pretrain(wide, tmp_path, changes)
    assert json.loads((start / "config.json").read_text())["vision_config"]["in_channels"] == BANDS
    tuned = run_sft(wide, start, tmp_path, changes)
    for group in ("lora", "merger", "head", "blocks", "patch_embed"):
        assert re.search(rf"^  {group} +[\d,]+ parameters  lr ", caplog.text, re.MULTILINE), group
    assert moved_groups(weights_of(start), weights_of(tuned)) == {"encoder", "merger", "language"}
    store = Store.open(wide.tiles)
    rows = stage_inputs.read_split(wide.split, store)
    prefs = write_pairs(tmp_path / "prefs", {role: rows.rows(role) for role in ("train", "validation")})
    after = run_dpo(wide, tuned, prefs, tmp_path, changes)
    assert moved_groups(weights_of(tuned), weights_of(after)) == {"language"}
    reader = Reader(*load(after), store, 8)
    assert np.isfinite(reader.head(rows.rows("test"))).all() and len(reader.greedy(rows.rows("test"))) > 0
    for base, folder in ((start, tuned), (tuned, after)):
        assert_adapter_is_the_merged_model(base, folder)


def assert_adapter_is_the_merged_model(base: Path, folder: Path) -> None:
    """As docs/backbones.md shows it: nothing of this repository, two lines of transformers and peft."""
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    merged = AutoModelForImageTextToText.from_pretrained(folder).eval()
    adapted = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), folder / "adapter").eval()
    batch = qwen_folders.make_batch(qwen_vl.quicken(merged), [56 if merged.config.model_type != "qwen3_vl" else 64])
    with torch.no_grad():
        torch.testing.assert_close(adapted(**batch).logits, merged(**batch).logits, rtol=1e-4, atol=1e-4)
        untouched = AutoModelForImageTextToText.from_pretrained(base).eval()
        assert (untouched(**batch).logits - merged(**batch).logits).abs().max() > 1e-2


def test_lora_and_projector_train_and_the_encoder_does_not(wide, hub, pretrained, tmp_path):
    """The setting of seed 004, whose official script freezes the projector as soon as LoRA is on."""
    changes = SHORT | {"model.backbone": str(hub(FAMILY)), "sft.lr": sft_rates(0.01, 0.0)}
    out = run_sft(wide, pretrained, tmp_path, changes)
    assert moved_groups(weights_of(pretrained), weights_of(out)) == {"merger", "language"}
    merger = {name for name in weights_of(out) if "merger" in name}
    saved = json.loads((out / "adapter" / "adapter_config.json").read_text())["modules_to_save"]
    assert {f"{name}.{kind}" for name in saved for kind in ("weight", "bias")} >= merger


def test_lora_on_the_encoder_leaves_its_biases_and_norms(wide, hub, pretrained, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    lora = small_params().sft.lora.model_dump() | {"encoder": True, "rank": 2}
    changes = SHORT | {"model.backbone": str(hub(FAMILY)), "sft.lora": lora}
    before, after = weights_of(pretrained), weights_of(run_sft(wide, pretrained, tmp_path, changes))
    assert "  blocks_lora " in caplog.text
    moved = {name for name in before if ".blocks." in name and not torch.equal(before[name], after[name])}
    assert len(moved) == 4 * 5 and all(name.endswith("weight") and "norm" not in name for name in moved)


def test_all_weights_with_rank_zero(wide, hub, pretrained, tmp_path):
    lora = small_params().sft.lora.model_dump() | {"rank": 0}
    changes = SHORT | {"model.backbone": str(hub(FAMILY)), "sft.lora": lora}
    before, after = weights_of(pretrained), weights_of(run_sft(wide, pretrained, tmp_path, changes))
    assert moved_groups(before, after) == {"encoder", "merger", "language"}
    assert not torch.equal(before["lm_head.weight"], after["lm_head.weight"])
    assert not (tmp_path / "sft" / "adapter").exists()


@pytest.mark.parametrize("rank", [16, 0])
def test_bfloat16_holds_what_is_frozen_and_float32_what_trains(wide, hub, tmp_path, monkeypatch, rank):
    """A step of a usual size would be lost to the rounding of a bfloat16 weight."""
    kept = {}
    save = model_folder.save

    def watch(folder, model, *rest):
        kept[folder.parent.name] = {name: (p.requires_grad, p.dtype) for name, p in model.vlm.named_parameters()}
        save(folder, model, *rest)

    monkeypatch.setattr(model_folder, "save", watch)
    memory = small_params().memory.model_dump() | {"precision": "bfloat16"}
    lora = small_params().sft.lora.model_dump() | {"rank": rank}
    changes = SHORT | {"model.backbone": str(hub(FAMILY)), "memory": memory, "sft.lora": lora}
    start = run_pretrain(wide, tmp_path, changes)
    tuned = run_sft(wide, start, tmp_path, changes)
    rows = stage_inputs.read_split(wide.split, Store.open(wide.tiles))
    prefs = write_pairs(tmp_path / "prefs", {role: rows.rows(role) for role in ("train", "validation")})
    after = run_dpo(wide, tuned, prefs, tmp_path, changes)
    for held in kept.values():
        assert {dtype for trains, dtype in held.values() if trains} == {torch.float32}
        assert {dtype for trains, dtype in held.values() if not trains} == ({torch.bfloat16} if rank else set())
    for folder in (start, tuned, after):
        assert {value.dtype for value in AutoModelForImageTextToText.from_pretrained(folder).state_dict().values()} == {
            torch.bfloat16
        }, folder
    reader = Reader(*load(after), Store.open(wide.tiles), 8)
    assert np.isfinite(reader.head(rows.rows("test"))).all()


def test_gradient_checkpointing_changes_no_weight(wide, hub, pretrained, tmp_path):
    results = []
    for how in ("always", "never"):
        memory = small_params().memory.model_dump() | {"gradient_checkpointing": how}
        changes = SHORT | {"model.backbone": str(hub(FAMILY)), "memory": memory}
        results.append(weights_of(run_sft(wide, pretrained, tmp_path / how, changes)))
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], rtol=0, atol=1e-5)


def test_four_bits_train_and_save_what_was_validated(wide, tmp_path, monkeypatch):
    pytest.importorskip("bitsandbytes")
    published = qwen_folders.published_config

    def wider(family, **options):
        """On a CPU bitsandbytes wants multiples of 64 on both sides."""
        config = published(family, **options)
        return config | {
            "hidden_size": 64,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "vision_config": config["vision_config"] | {"out_hidden_size": 64},
        }

    # Once packed for this instruction set in an evaluation, weights cannot be trained on.
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)
    monkeypatch.setattr(qwen_folders, "published_config", wider)
    kept = {}
    save = model_folder.save
    store = Store.open(wide.tiles)
    split = stage_inputs.read_split(wide.split, store)

    def watch(folder, model, tokenizer, settings, *rest):
        kept["head"] = Reader(model, tokenizer, settings, store, 8).head(split.rows("test"))
        kept["trained"] = {p.dtype for p in model.vlm.parameters() if p.requires_grad}
        save(folder, model, tokenizer, settings, *rest)

    monkeypatch.setattr(model_folder, "save", watch)
    memory = small_params().memory.model_dump() | {"four_bit": True, "optimizer_8bit": True}
    changes = SHORT | {"model.backbone": str(qwen_folders.write(tmp_path / "hub", FAMILY)), "memory": memory}
    start = run_pretrain(wide, tmp_path, changes)
    tuned = run_sft(wide, start, tmp_path, changes | {"sft.epochs": 2})
    assert moved_groups(weights_of(start), weights_of(tuned)) == {"encoder", "merger", "language"}
    prefs = write_pairs(tmp_path / "prefs", {role: split.rows(role) for role in ("train", "validation")})
    for folder in (tuned, None):
        folder = folder or run_dpo(wide, tuned, prefs, tmp_path, changes)
        found = Reader(*load(folder), store, 8).head(split.rows("test"))
        np.testing.assert_allclose(found, kept["head"], rtol=0, atol=0.05)
        assert kept["trained"] == {torch.float32}
