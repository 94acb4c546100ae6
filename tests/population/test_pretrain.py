"""Masked pretraining: what moves, what is written, and that it is the same twice."""

import json
import logging

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoTokenizer

from src.core.stage.errors import DataError
from src.population.data import stage_inputs
from src.population.models import prompts
from src.population.models.starting_model import starting_model
from tests.population.conftest import pretrain_rates, run_pretrain, small_params, weights_of


@pytest.fixture
def starting_weights(study, store, split_of):
    """`starting_weights(seed)` -> what pretraining starts from."""
    pca = stage_inputs.read_pca(study.pca)
    return lambda seed=0: starting_model(small_params({"seed": seed}), store, split_of, pca).vlm.state_dict()


def moved(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_blocks_and_patch_embedding_move_and_nothing_else(trained, starting_weights):
    changed = moved(starting_weights(), weights_of(trained.pretrain))
    assert changed and all(".visual." in name and "merger" not in name for name in changed)
    for part in ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.1.mlp.down_proj.weight"):
        assert any(name.endswith(part) for name in changed), part


def test_patch_embed_mode_moves_the_patch_embedding_alone(study, starting_weights, tmp_path):
    out = run_pretrain(study, tmp_path, {"pretrain.encoder": "patch_embed", "pretrain.epochs": 1})
    assert moved(starting_weights(), weights_of(out)) == {"model.visual.patch_embed.proj.weight"}


def test_no_epoch_is_the_starting_model(study, starting_weights, tmp_path):
    out = run_pretrain(study, tmp_path, {"pretrain.epochs": 0})
    assert not moved(starting_weights(), weights_of(out))
    assert moved(starting_weights(seed=1), weights_of(out))
    assert (tmp_path / "plots" / "pretrain").is_dir(), "dvc expects every output"
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.decode(tokenizer(prompts.PROMPTS["zh"])["input_ids"]) == prompts.PROMPTS["zh"]


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_other_families_pretrain_too(study, tmp_path, family):
    out = run_pretrain(study, tmp_path, {"model.family": family, "pretrain.epochs": 1})
    assert json.loads((out / "config.json").read_text())["model_type"] == family
    errors = json.loads((tmp_path / "plots" / "pretrain" / "masked_mse.json").read_text())
    assert np.isfinite(list(errors.values())).all()


def test_training_uses_training_tiles_or_all(study, split_of, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    changes = {"pretrain.samples_per_file": 2}
    run_pretrain(study, tmp_path, changes, dry_run=True)
    train = len(split_of.tile_rows("train"))
    assert (
        f"{2 * train} views of {train} tiles, validation on 7, 64 patches of 2 px a tile in 16 units of which 75 % "
        "masked" in caplog.text
    )
    run_pretrain(study, tmp_path, changes | {"pretrain.tiles": "all"}, dry_run=True)
    assert "98 views of 49 tiles" in caplog.text
    for group in ("patch_embed", "blocks", "decoder"):
        assert f"  {group} " in caplog.text
    assert not any(tmp_path.iterdir()), "a dry run writes nothing"


def test_no_other_tile_takes_part(study, store, split_of, tmp_path, monkeypatch):
    read, rows = type(store).read, set()

    def watched(self, asked):
        rows.update(asked)
        return read(self, asked)

    monkeypatch.setattr(type(store), "read", watched)
    run_pretrain(study, tmp_path, {"pretrain.epochs": 1})
    assert rows == {*split_of.tile_rows("train"), *split_of.tile_rows("validation")}


def test_errors_stand_beside_their_nulls(trained):
    folder = trained.plots / "pretrain"
    errors = json.loads((folder / "masked_mse.json").read_text())
    assert {"model", "mean_spectrum", "inverse_distance", "swapped_context"} < set(errors)
    assert np.isfinite(list(errors.values())).all() and min(errors.values()) > 0
    assert (folder / "reconstruction.png").read_bytes().startswith(b"\x89PNG")
    for kind in ("train", "validation"):
        curve = pd.read_csv(folder / "plots" / "metrics" / kind / "loss.tsv", sep="\t")
        assert len(curve) == 2 and np.isfinite(curve.loss).all()
    assert not list(folder.rglob("*runtime*")) + list(folder.rglob("*per_second*"))


def test_the_loss_falls(study, tmp_path):
    """Pixels of the small study are noise about the tile's mean, which is what can be learned."""
    run_pretrain(
        study, tmp_path, {"pretrain.epochs": 8, "pretrain.lr": pretrain_rates(0.005), "pretrain.norm_pix_loss": False}
    )
    folder = tmp_path / "plots" / "pretrain" / "plots" / "metrics"
    for kind in ("train", "validation"):
        losses = pd.read_csv(folder / kind / "loss.tsv", sep="\t").loss
        assert losses.iloc[-1] < 0.8 * losses.iloc[0], kind


def test_tiles_of_one_merge_unit_are_refused(study, tmp_path):
    tiny = small_params().model.tiny.model_dump() | {"patch_size": 8}
    with pytest.raises(DataError, match=r"16 x 16 px, expected at least 32.*model\.tiny\.patch_size"):
        run_pretrain(study, tmp_path, {"model.tiny": tiny})
    assert not any(tmp_path.iterdir())
