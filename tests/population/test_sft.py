"""Supervised fine-tuning: what moves, what does not, which weights are kept."""

import functools
import json
import logging
import re

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from src.core.stage.errors import BandwiseError, DataError, ParamsError
from src.core.training.driver import ResumableTrainer
from src.population.data import samples
from src.population.data.stage_inputs import read_split
from src.population.models import finetuning, model_folder, prompts
from src.population.models.growth_model import GrowthModel
from src.population.models.inference import Reader
from src.population.models.model_folder import load
from tests.population.conftest import (
    contents,
    group_of,
    moved_groups,
    run_pretrain,
    run_sft,
    sft_rates,
    small_params,
    weights_of,
)
from tests.population.covaried import GDP, with_gdp


def curve(plots, name):
    return pd.read_csv(plots / "sft" / "plots" / "metrics" / "validation" / f"{name}.tsv", sep="\t")[name].tolist()


@pytest.fixture
def watched(monkeypatch):
    """The trained weights at each evaluation of the next run, and the epochs its samples were told of."""
    seen = {"weights": [], "epochs": []}
    evaluate, set_epoch = ResumableTrainer.evaluate, samples.GrowthSamples.set_epoch

    def snapshot(self, *args, **kwargs):
        seen["weights"].append({name: p.detach().clone() for name, p in self.model.named_parameters()})
        return evaluate(self, *args, **kwargs)

    def told(self, epoch):
        if self.augment:
            seen["epochs"].append(epoch)
        set_epoch(self, epoch)

    monkeypatch.setattr(ResumableTrainer, "evaluate", snapshot)
    monkeypatch.setattr(samples.GrowthSamples, "set_epoch", told)
    return seen


@pytest.mark.parametrize("head", ["mlp", "anchored"])
def test_every_group_is_printed_and_moves(trained, study, split_of, tmp_path, caplog, head):
    caplog.set_level(logging.INFO)
    changes = {"sft.head": head, "sft.freeze_encoder_epochs": 0, "sft.epochs": 1}
    out = run_sft(study, trained.pretrain, tmp_path, changes)
    assert moved_groups(weights_of(trained.pretrain), weights_of(out)) == {"encoder", "merger", "language"}
    printed = caplog.text
    for group in ("patch_embed", "blocks", "merger", "language", "head"):
        assert re.search(rf"^  {group} +[\d,]+ parameters  lr ", printed, re.MULTILINE), group
    counts = f"{len(split_of.rows('train'))} training and {len(split_of.rows('validation'))} validation labels"
    assert f"{counts}, a tile is 64 patches of 2 px and 16 image tokens" in printed
    last = safetensors.torch.load_file(out / "head.safetensors")["net.4.weight"]
    assert last.any(), "a zero-initialised layer left zero"
    assert json.loads((out / "bandwise.json").read_text())["head"]["kind"] == head


def test_the_encoder_waits_for_its_epoch(trained, study, tmp_path, watched):
    run_sft(study, trained.pretrain, tmp_path, {"sft.epochs": 3, "sft.freeze_encoder_epochs": 2})
    start = {f"vlm.{name}": value for name, value in weights_of(trained.pretrain).items()}
    moved = [moved_groups(start, {name: seen[name] for name in start}) for seen in watched["weights"]]
    assert moved == [{"merger", "language"}, {"merger", "language"}, {"merger", "language", "encoder"}]


def test_augmentation_is_told_of_every_epoch(trained, study, tmp_path, watched):
    run_sft(study, trained.pretrain, tmp_path, {"sft.epochs": 3})
    assert sorted(set(watched["epochs"])) == [0, 1, 2]


def test_training_stops_early_and_keeps_the_best_weights(trained, study, tmp_path, watched, monkeypatch):
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.9, 0.9])
    true_metrics = finetuning.validation_metrics
    monkeypatch.setattr(
        finetuning,
        "validation_metrics",
        lambda *args, **named: true_metrics(*args, **named) | {"selection": next(scores)},
    )
    changes = {"sft.epochs": 6, "sft.patience": 2, "sft.freeze_encoder_epochs": 0}
    out = run_sft(study, trained.pretrain, tmp_path, changes)
    assert curve(tmp_path / "plots", "selection") == [0.1, 0.5, 0.4, 0.3]
    saved = {f"vlm.{name}": value for name, value in weights_of(out).items()}
    saved |= {f"head.{name}": value for name, value in safetensors.torch.load_file(out / "head.safetensors").items()}
    for name, value in watched["weights"][1].items():
        assert torch.equal(value, saved[name]), name
    assert not torch.equal(watched["weights"][3]["vlm.lm_head.weight"], saved["vlm.lm_head.weight"])


def test_logged_scores_are_those_of_the_folder(trained, study, store, split_of, tmp_path):
    changes = {"sft.head": "mlp", "sft.epochs": 3, "sft.freeze_encoder_epochs": 0}
    out = run_sft(study, trained.pretrain, tmp_path, changes)
    rows = split_of.rows("validation")
    truth = rows.growth_rate.to_numpy()
    head = Reader(*load(out), store, 3).head(rows)
    r2 = 1 - ((truth - head) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
    best = int(np.argmax(curve(tmp_path / "plots", "selection")))
    assert r2 == pytest.approx(curve(tmp_path / "plots", "r2")[best], abs=1e-4)
    assert np.abs(truth - head).mean() == pytest.approx(curve(tmp_path / "plots", "mae")[best], abs=1e-4)
    for name in ("text_r2", "text_mae", "parse_rate", "network_sd", "cross_entropy", "loss"):
        assert len(curve(tmp_path / "plots", name)) == 3, name
    losses = curve(tmp_path / "plots", "cross_entropy")
    assert losses[-1] < losses[0]


def test_twice_the_same_bytes(trained, study, tmp_path):
    again = run_sft(study, trained.pretrain, tmp_path)
    assert contents(again) == contents(trained.sft)
    assert contents(tmp_path / "plots" / "sft") == contents(trained.plots / "sft")
    assert not (tmp_path / "checkpoints").exists() or not any((tmp_path / "checkpoints").iterdir())


def test_seed_and_rates_change_the_weights(trained, study, tmp_path):
    usual = weights_of(trained.sft)["lm_head.weight"]
    for number, changes in enumerate(({"seed": 1}, {"sft.lr": sft_rates(0.0005)})):
        other = run_sft(study, trained.pretrain, tmp_path / str(number), changes)
        assert not torch.equal(weights_of(other)["lm_head.weight"], usual)


def test_a_dry_run_writes_nothing(trained, study, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    run_sft(study, trained.pretrain, tmp_path, dry_run=True)
    assert "trainable groups:" in caplog.text
    assert re.search(r"\d+ steps of [\d.]+ s: about [\d.]+ min and [\d.]+ GB", caplog.text)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("head", ["mlp", "anchored"])
def test_the_head_trains_alone_too(trained, study, tmp_path, head):
    changes = {"sft.head": head, "sft.ce_weight": 0.0, "sft.freeze_encoder_epochs": 0}
    out = run_sft(study, trained.pretrain, tmp_path, changes)
    assert moved_groups(weights_of(trained.pretrain), weights_of(out)) == {"encoder", "merger", "language"}


def test_the_words_train_alone_too(trained, study, tmp_path):
    out = run_sft(study, trained.pretrain, tmp_path, {"sft.mse_weight": 0.0, "sft.freeze_encoder_epochs": 0})
    assert moved_groups(weights_of(trained.pretrain), weights_of(out)) == {"encoder", "merger", "language"}


def test_a_group_without_gradient_stops_the_run_and_leaves_nothing(trained, study, tmp_path, monkeypatch):
    forward = GrowthModel.forward

    @functools.wraps(forward)
    def detached(self, *args, **kwargs):
        out = forward(self, *args, **kwargs)
        return out | {"loss": out["cross_entropy"].mean()} if "loss" in out else out

    monkeypatch.setattr(GrowthModel, "forward", detached)
    with pytest.raises(BandwiseError, match="group 'head' is meant to train and gets no gradient"):
        run_sft(study, trained.pretrain, tmp_path)
    assert not (tmp_path / "sft").exists() and not list((tmp_path / "plots").glob("*"))


def test_lora_moves_lora_vision_and_head_and_merges(trained, study, store, split_of, tmp_path, monkeypatch, caplog):
    """A folder as backbone is a pretrained model: the base of its language model stays as it was."""
    caplog.set_level(logging.INFO)
    base = {"model.backbone": str(trained.pretrain), "sft.freeze_encoder_epochs": 0, "sft.lr": sft_rates(0.01)}
    pretrained = run_pretrain(study, tmp_path, base | {"pretrain.epochs": 1})
    assert moved_groups(weights_of(trained.pretrain), weights_of(pretrained)) == {"encoder"}
    kept = {}
    save = model_folder.save

    def watch(folder, model, tokenizer, settings, *rest):
        kept["weights"] = {name: p.detach().clone() for name, p in model.vlm.named_parameters()}
        kept["head"] = Reader(model, tokenizer, settings, store, 8).head(split_of.rows("test"))
        save(folder, model, tokenizer, settings, *rest)

    monkeypatch.setattr(model_folder, "save", watch)
    out = run_sft(study, pretrained, tmp_path, base)
    assert "  lora " in caplog.text and "  language " not in caplog.text
    start = weights_of(pretrained)
    moved, adapted = set(), set()
    for name, value in kept["weights"].items():
        if "lora_B" in name and value.any():
            adapted.add(name.split(".lora_B")[0])
        elif "lora_" not in name:
            plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
            if not torch.equal(value, start[plain]):
                moved.add(group_of(plain))
    assert moved == {"encoder", "merger"}
    assert len(adapted) == 2 * 7 and all("language_model" in name for name in adapted)

    merged = weights_of(out)
    assert merged.keys() == start.keys()
    changed = {name for name in start if group_of(name) == "language" and not torch.equal(merged[name], start[name])}
    assert changed == {f"{name.removeprefix('base_model.model.')}.weight" for name in adapted}
    np.testing.assert_allclose(Reader(*load(out), store, 8).head(split_of.rows("test")), kept["head"], atol=1e-4)


def test_three_components_instead_of_bands(study, store, split_of, tmp_path):
    """Route B: the vision encoder reads 3 channels, and the anchored ridge still all band means."""
    changes = {"model.input": "pca3", "pretrain.epochs": 1, "sft.epochs": 1}
    out = run_sft(study, run_pretrain(study, tmp_path, changes), tmp_path, changes)
    model, tokenizer, settings = load(out)
    assert settings.input == "pca3" and len(settings.pca.weight) == 3 and len(settings.head.ridge.weight) == 8
    assert model.vlm.config.vision_config.in_channels == model.front.channels == 3
    projection = safetensors.torch.load_file(study.pca / "pca.safetensors")
    tile, valid = torch.from_numpy(store.read([5])), torch.from_numpy(store.valid([5]))
    standardised = (tile.float() * 0.02 - split_of.mean[:, None, None]) / split_of.sd[:, None, None]
    expected = torch.einsum("kc,bchw->bkhw", projection["weight"], standardised) + projection["bias"][:, None, None]
    assert not valid.all()
    torch.testing.assert_close(model.front(tile, valid), expected.masked_fill(~valid[:, None], 0.0))
    assert np.isfinite(Reader(model, tokenizer, settings, store, 4).head(split_of.rows("test"))).all()


def test_backbone_and_input_must_agree(trained, study, tmp_path):
    with pytest.raises(ParamsError, match=r"reads 8 channels and the tiles have 3"):
        run_sft(study, trained.pretrain, tmp_path, {"model.input": "pca3"})


@pytest.mark.parametrize("head", ["mlp", "anchored"])
def test_fields_and_covariates_reach_words_and_head(trained, study, store, tmp_path, head):
    gdp_study = with_gdp(study, tmp_path)
    changes = GDP | {"prompt.fields": ["year"], "sft.covariates": "both", "sft.epochs": 1, "sft.head": head}
    model, tokenizer, settings = load(run_sft(gdp_study, trained.pretrain, tmp_path, changes))
    assert settings.prompt.startswith("年份：{year}；gdp：{gdp}。") and settings.covariates.columns == ["gdp"]
    rows = read_split(gdp_study.split, store).rows("test")
    reader = Reader(model, tokenizer, settings, store, 4)
    for value, ids in zip(rows.gdp, reader.prompter.prompts(rows), strict=True):
        assert f"年份：2020；gdp：{prompts.fill('{gdp}', {'gdp': value})}。" in tokenizer.decode(ids)
    swapped = reader.head(rows.assign(gdp=rows.gdp + 1000)) != reader.head(rows)
    assert swapped.all()


def test_a_dry_run_with_covariates_of_the_head(trained, study, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    changes = GDP | {"sft.covariates": "head"}
    run_sft(with_gdp(study, tmp_path / "study"), trained.pretrain, tmp_path / "run", changes, dry_run=True)
    assert re.search(r"estimated memory .* [\d.]+ GB", caplog.text) and not (tmp_path / "run").exists()


def test_a_template_that_names_what_it_may_not_stops_the_stage(trained, study, tmp_path):
    for changes in ({"sft.template": "{year}"}, {"sft.template": "{gdp}"}):
        with pytest.raises(ParamsError, match=r"sft\.template: found"):
            run_sft(study, trained.pretrain, tmp_path, changes)
    assert not any(tmp_path.iterdir())


def test_a_covariate_that_the_store_lacks_is_named(trained, study, tmp_path):
    with pytest.raises(DataError, match="no column 'gdp'"):
        run_sft(study, trained.pretrain, tmp_path, GDP | {"sft.covariates": "head"})
    assert not any(tmp_path.iterdir())


def test_a_permutation_trains_and_is_chosen_on_permuted_labels(trained, study, split_of, tmp_path, monkeypatch):
    """Ridge of the anchored head, too, is fitted on them."""
    seen = {}
    score = finetuning.validation_metrics

    def watch(predicted, reader, rows):
        seen["validation"] = rows.growth_rate.tolist()
        return score(predicted, reader, rows)

    class Samples(samples.GrowthSamples):
        def __init__(self, store, rows, *args, **kwargs):
            super().__init__(store, rows, *args, **kwargs)
            seen.setdefault("train", rows.growth_rate.tolist())

    monkeypatch.setattr(finetuning, "validation_metrics", watch)
    monkeypatch.setattr(samples, "GrowthSamples", Samples)
    out = run_sft(study, trained.pretrain, tmp_path, {"sft.permutation": 2, "sft.epochs": 1})
    null = split_of.permuted(0, 2)
    for role in ("train", "validation"):
        assert seen[role] == null.rows(role).growth_rate.tolist() != split_of.rows(role).growth_rate.tolist()
    true, drawn = load(trained.sft)[2], load(out)[2]
    assert drawn.label.mean == true.label.mean and drawn.label.sd == true.label.sd
    assert drawn.head.ridge.weight != true.head.ridge.weight


def test_settings_of_the_stage_are_those_of_its_params(trained):
    settings = load(trained.sft)[2]
    params = small_params().sft
    assert (settings.head.kind, settings.head.width) == (params.head, params.head_width)
    assert settings.pretrained_on == "train"
