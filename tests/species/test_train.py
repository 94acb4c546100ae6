"""The train stage: what its models answer, what they leave out, and that a broken training ends as a whole one."""

import json
import logging
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from src.core.data.embedding_store import EmbeddingWriter
from src.core.stage.errors import DataError, Interrupted, ParamsError
from src.species import train
from src.species.data import task as tasks
from src.species.evaluation import predictions
from src.species.models import networks, training
from tests.species import trainings
from tests.species.trainings import (
    SPECIES,
    WIDTHS,
    Crash,
    contents,
    crash,
    kill_once,
    small_params,
    terminate,
    write_study,
)

stop = trainings.stop


def run_train(study, folder, changes=None, dry_run=False) -> Path:
    out = Namespace(out=folder / "train", plots=folder / "plots")
    train.main(small_params(folder, changes), study, out, dry_run)
    return out.out


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def trained(study, tmp_path_factory):
    """Folder below which the stage ran without a break."""
    folder = tmp_path_factory.mktemp("trained")
    run_train(study, folder)
    return folder


@pytest.fixture(scope="module")
def task(study):
    return tasks.read(study.store, study.split)


def log_loss(task, answers, modalities):
    rows = training.learnable(task, modalities)[1]
    at = np.searchsorted(task.held_out, rows)
    return -answers[at, task.targets(rows)].mean()


def test_every_model_answers_where_it_can_and_nowhere_else(trained, task):
    found = predictions.read(trained / "train", task)
    assert list(found) == ["both", "language", "vision"] and len(task.classes) == SPECIES
    for name, answers in found.items():
        present = np.any([task.store.present(modality, task.held_out) for modality in train.INPUTS[name]], axis=0)
        assert 0 < (~present).sum() < len(present) and not present[0]
        np.testing.assert_array_equal(np.isnan(answers), np.repeat(~present[:, None], SPECIES, axis=1))
        np.testing.assert_allclose(np.exp(answers[present]).sum(1), 1, atol=1e-5)
    assert np.isfinite(found["both"]).all(1).sum() > np.isfinite(found["language"]).all(1).sum()


def test_models_learn_and_the_two_together_know_more(trained, task):
    found = predictions.read(trained / "train", task)
    rows = task.rows("test")
    rows = rows[task.store.present("language", rows) & task.store.present("vision_pooled", rows)]
    rows = rows[task.targets(rows) >= 0]
    at, targets = np.searchsorted(task.held_out, rows), task.targets(rows)
    top1 = {name: (answers[at].argmax(1) == targets).mean() for name, answers in found.items()}
    losses = {name: -answers[at, targets].mean() for name, answers in found.items()}
    majority = np.bincount(targets).max() / len(targets)
    assert min(top1.values()) > majority + 0.15
    assert losses["both"] < min(losses["language"], losses["vision"])


def test_the_summary_is_that_of_the_kept_epoch(trained, task):
    facts = json.loads((trained / "train" / "summary.json").read_text())
    found = predictions.read(trained / "train", task)
    for name, modalities in train.INPUTS.items():
        losses = pd.read_csv(trained / "plots" / name / "plots/metrics/validation/loss.tsv", sep="\t")["loss"]
        assert facts[name]["epochs"] == len(losses)
        assert facts[name]["best_epoch"] == losses.argmin() + 1
        assert facts[name]["validation"]["loss"] == losses.min()
        assert log_loss(task, found[name], modalities) == pytest.approx(losses.min(), abs=1e-5)
        train_rows, _ = training.learnable(task, modalities)
        assert facts[name]["rows"]["train"] == len(train_rows) < len(task.train)
    trunk = 12 * 16 + 16 + 16 * 16 + 16
    assert facts["language"]["parameters"] == {"language": trunk, "head": 17 * SPECIES}
    assert (trained / "plots" / "curves.png").stat().st_size > 5000


def test_a_saved_model_takes_raw_embeddings(trained, task):
    found = predictions.read(trained / "train", task)
    rows = np.array([2, 3])
    embeddings = {name: torch.from_numpy(task.store.read(name, rows)) for name in WIDTHS}
    for name, modalities in train.INPUTS.items():
        model = networks.load(trained / "train" / name)
        used = {modality: embeddings[modality] for modality in modalities}
        logits = model(present=torch.ones(2, len(used), dtype=torch.bool), **used)["logits"]
        expected = found[name][np.searchsorted(task.held_out, rows)]
        np.testing.assert_allclose(logits.log_softmax(1).detach().numpy(), expected, atol=1e-5)
        assert model.classes == list(task.classes)


def test_models_do_not_depend_on_each_other_and_repeat_themselves(trained, study, tmp_path):
    alone = run_train(study, tmp_path, {"train.models": ["both"]})
    assert {name: data for name, data in contents(trained / "train").items() if name.startswith("both/")} == {
        name: data for name, data in contents(alone).items() if name.startswith("both/")
    }
    assert sorted(load_file(alone / predictions.NAME)) == ["both", predictions.DIGEST]
    again = run_train(study, tmp_path / "again")
    assert contents(again) == contents(trained / "train")
    assert contents(tmp_path / "again" / "plots") == contents(trained / "plots")
    assert not any((tmp_path / "checkpoints").iterdir())


def test_labels_of_the_test_change_nothing(trained, study, tmp_path):
    """A planted fault: species of test rows swapped in the index. Only the number of classes may depend on them."""
    frame = pd.read_parquet(study.store / "index.parquet")
    is_test = (pd.read_parquet(study.split / "split.parquet")["role"] == "test").to_numpy()
    frame.loc[is_test, "species"] = frame.loc[is_test, "species"].to_numpy()[::-1]
    other = Namespace(store=tmp_path / "store", split=study.split)
    writer = EmbeddingWriter(other.store, {name: (len(frame), width) for name, width in WIDTHS.items()})
    original = tasks.read(study.store, study.split).store
    for name in WIDTHS:
        writer.array(name)[:] = original.read(name, np.arange(len(frame)))
    writer.finish(frame, {"simulated": True})
    changed = run_train(other, tmp_path, {"train.models": ["language"]})
    name = "language/model.safetensors"
    assert contents(changed)[name] == contents(trained / "train")[name]


def test_rare_species_weigh_as_much_as_common_ones(study, task, tmp_path):
    found = {}
    for imbalance in ("none", "balanced"):
        out = run_train(study, tmp_path / imbalance, {"train.models": ["language"], "train.imbalance": imbalance})
        answers = load_file(out / predictions.NAME)["language"]
        found[imbalance] = np.bincount(answers[~np.isnan(answers[:, 0])].argmax(1), minlength=SPECIES)
    common, rare = 0, SPECIES - 1
    assert found["balanced"][common] < found["none"][common] and found["balanced"][rare] > found["none"][rare]


def test_training_stops_early_and_keeps_the_best_epoch(study, task, tmp_path):
    changes = {"train.models": ["language"], "train.epochs": 60, "train.patience": 2, "train.lr": 0.1}
    out = run_train(study, tmp_path, changes)
    facts = json.loads((out / "summary.json").read_text())["language"]
    assert facts["best_epoch"] + 2 == facts["epochs"] < 60
    answers = load_file(out / predictions.NAME)["language"]
    assert log_loss(task, answers, ("language",)) == pytest.approx(facts["validation"]["loss"], abs=1e-5)


def test_what_trains_is_printed_and_held_to_it(study, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    run_train(study, tmp_path, {"train.epochs": 1}, dry_run=True)
    assert not any(tmp_path.iterdir())
    for group in ("language", "vision_pooled", "head"):
        assert re.search(rf"^  {group} +[\d,]+ parameters  lr 0.02", caplog.text, re.MULTILINE), group
    forward = networks.SpeciesClassifier.forward

    def severed(self, present, **rest):
        return forward(self, present=present & torch.tensor([True, False]), **rest)

    monkeypatch.setattr(networks.SpeciesClassifier, "forward", severed)
    with pytest.raises(Exception, match="group 'vision_pooled' is meant to train and gets no gradient"):
        run_train(study, tmp_path, {"train.models": ["both"]})
    assert not (tmp_path / "train").exists() and not (tmp_path / "plots").exists()


def test_a_modality_that_is_not_stored_is_named(tmp_path):
    study = write_study(tmp_path, modalities=("language",))
    with pytest.raises(ParamsError, match=r"train\.models: vision needs .*'vision_pooled'.*\['language'\].*data\.mod"):
        run_train(study, tmp_path)
    out = run_train(study, tmp_path, {"train.models": ["language"], "train.epochs": 1})
    assert (out / "language" / "config.json").is_file()


def test_nothing_to_validate_on_is_said(tmp_path):
    study = write_study(tmp_path)
    path = study.split / "split.parquet"
    frame = pd.read_parquet(path)
    frame.loc[frame["role"] == "validation", "role"] = "buffer"
    frame.to_parquet(path, index=False)
    with pytest.raises(DataError, match="found no validation row with language"):
        run_train(study, tmp_path)


# 2 full batches and a smaller one an epoch: in the first epoch of the first model, in its last, and in the others.
@pytest.mark.parametrize(("step", "action"), [(2, terminate), (10, crash), (15, crash), (26, terminate)])
def test_stopped_anywhere_it_ends_with_the_same_bytes(trained, study, tmp_path, stop, caplog, step, action):
    caplog.set_level(logging.INFO)
    expected = Interrupted if action is terminate else Crash
    stop(step, action, lambda: run_train(study, tmp_path), expected)
    assert not (tmp_path / "train").exists() and not (tmp_path / "plots").exists()
    run_train(study, tmp_path)
    assert "resuming from" in caplog.text
    assert contents(tmp_path / "train") == contents(trained / "train")
    assert contents(tmp_path / "plots") == contents(trained / "plots")
    assert not any((tmp_path / "checkpoints").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_a_random_moment(study, tmp_path, seed):
    changes = {"train.epochs": 20, "train.patience": 20}
    kill_once(study, tmp_path, "train", changes, seed)
    run_train(study, tmp_path / "whole", changes)
    assert contents(tmp_path / "train") == contents(tmp_path / "whole" / "train")
    assert contents(tmp_path / "plots") == contents(tmp_path / "whole" / "plots")
