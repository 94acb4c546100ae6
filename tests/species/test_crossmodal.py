"""The crossmodal stage: what it may learn from, what it finds beside its nulls, and that a resume is exact."""

import json
import logging
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from src.core.stage.errors import DataError, Interrupted
from src.species import crossmodal
from src.species.data import task as tasks
from src.species.data.task import EMBEDDINGS
from src.species.evaluation import predictions
from src.species.models import features, networks, reconstruction
from tests.species import trainings
from tests.species.trainings import Crash, contents, crash, kill_once, small_params, terminate, write_study

stop = trainings.stop
GROUPS = ["crossmodal", "crossmodal_knn", "crossmodal_logistic", "pca", "pca_knn", "pca_logistic"]
BATCH = trainings.SMALL["train.batch_size"]
SMALL = {
    "crossmodal.dim": 8,
    "crossmodal.epochs": 30,
    "crossmodal.patience": 30,
    "crossmodal.batch_size": BATCH,
    "crossmodal.lr": 0.02,
    "crossmodal.save_steps": 3,
    "baselines.neighbours": [1, 5],
    "baselines.inverse_penalties": [0.1, 1.0],
    "baselines.components": 6,
}


def run_stage(study, folder, changes=None, dry_run=False) -> Path:
    out = Namespace(out=folder / "crossmodal", plots=folder / "plots")
    crossmodal.main(small_params(folder, SMALL | (changes or {})), study, out, dry_run)
    return out.out


def read(folder, name):
    return json.loads((folder / "crossmodal" / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study"), count=400)


@pytest.fixture(scope="module")
def trained(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    run_stage(study, folder)
    return folder


@pytest.fixture(scope="module")
def task(study):
    return tasks.read(study.store, study.split)


def both(task, rows):
    return rows[task.store.present("language", rows) & task.store.present("vision_pooled", rows)]


def test_the_autoencoder_beats_the_mean_and_shuffled_pairs(trained, task):
    errors = read(trained, "reconstruction")
    assert list(errors) == ["language", "vision_pooled"]
    for modality, found in errors.items():
        assert found["linear_map_penalty"] in reconstruction.PENALTIES
        for kind in tasks.KINDS:
            rows = both(task, task.rows("test", kind))
            assert found[kind]["count"] == len(rows) > 10
            truth = reconstruction.standardised(task, modality, rows)
            assert found[kind]["training_mean"] == pytest.approx((truth**2).mean(), abs=1e-5)
            for name in ("model", "linear_map"):
                assert found[kind][name] < 0.85 * found[kind]["training_mean"], (modality, kind, name)
            assert found[kind]["shuffled_pairs"] > found[kind]["training_mean"]


def test_reconstruction_is_that_of_the_saved_model(trained, task):
    model = networks.load(trained / "crossmodal")
    rows = both(task, task.rows("test", "spatial"))
    values = {name: torch.from_numpy(task.store.read(name, rows)) for name in EMBEDDINGS}
    with torch.no_grad():
        predicted = model.predict("language", values["language"]).numpy()
    error = np.mean((predicted - reconstruction.standardised(task, "vision_pooled", rows)) ** 2)
    assert read(trained, "reconstruction")["vision_pooled"]["spatial"]["model"] == pytest.approx(error, abs=1e-5)


def test_retrieval_finds_more_than_chance_in_both_directions(trained):
    found = read(trained, "retrieval")
    assert sorted(found) == ["language_to_vision_pooled", "vision_pooled_to_language"]
    for direction in found.values():
        for kind in tasks.KINDS:
            for score in direction[kind].values():
                assert score["median_rank"] < 0.5 * score["chance"]["median_rank"]
                assert score["species_at_1"] > score["chance"]["species_at_1"] + 0.1
                assert score["shuffled"]["median_rank"] == pytest.approx(score["chance"]["median_rank"], rel=0.2)


def test_probes_answer_where_a_modality_is_and_learn(trained, task):
    found = predictions.read(trained / "crossmodal", task)
    assert sorted(found) == GROUPS
    held = task.held_out
    present = task.store.present("language", held) | task.store.present("vision_pooled", held)
    targets = task.targets(held)
    scored = present & (task.observations["role"].to_numpy()[held] == "test") & (targets >= 0)
    majority = np.bincount(targets[scored]).max() / scored.sum()
    for name, answers in found.items():
        np.testing.assert_array_equal(np.isfinite(answers).all(1), present)
        np.testing.assert_allclose(np.exp(answers[present]).sum(1), 1, atol=1e-4)
        assert (answers[scored].argmax(1) == targets[scored]).mean() > majority + 0.1, name


def test_the_summary_says_what_was_chosen(trained):
    facts = read(trained, "summary")
    assert sorted(facts) == ["autoencoder", *GROUPS]
    assert sorted(facts["autoencoder"]["validation"]) == [
        "balanced_loss",
        "contrastive",
        "language_error",
        "loss",
        "vision_pooled_error",
    ]
    assert facts["autoencoder"]["parameters"] == {
        "encoders": (12 + 8) * 8 + 2 * 8 + 2 * 2 * 8,
        "predictors": 8 * (12 + 8) + 12 + 8,
        "temperature": 1,
    }
    assert facts["autoencoder"]["temperature"] != 0.07, "it is learned"
    for space in ("crossmodal", "pca"):
        assert facts[f"{space}_knn"]["setting"]["neighbours"] in (1, 5)
        assert facts[f"{space}_logistic"]["setting"]["inverse_penalty"] in (0.1, 1.0)
    for name in ("autoencoder", "crossmodal", "pca"):
        assert (trained / "plots" / name / "plots/metrics/validation/loss.tsv").is_file()
    assert (trained / "plots" / "curves.png").stat().st_size > 5000


def test_shared_features_are_the_mean_of_what_is_there(trained, task):
    model = networks.load(trained / "crossmodal")
    has = {name: task.store.present(name) for name in EMBEDDINGS}
    rows = np.array([
        np.flatnonzero(has["language"] & has["vision_pooled"])[0],
        np.flatnonzero(has["language"] & ~has["vision_pooled"])[0],
        0,
    ])  # fmt: skip
    found = reconstruction.shared_features(model, task, rows)
    with torch.no_grad():
        vectors = {n: model.encode(n, torch.from_numpy(task.store.read(n, rows))).numpy() for n in EMBEDDINGS}
    np.testing.assert_allclose(found[0], (vectors["language"][0] + vectors["vision_pooled"][0]) / 2, atol=1e-6)
    np.testing.assert_allclose(found[1], vectors["language"][1], atol=1e-6)
    assert not found[2].any(), "row 0 has neither"


def test_components_are_fitted_on_training_rows_alone(task):
    train = both(task, task.train)
    rows = np.arange(len(task.store))
    found = features.components(task, EMBEDDINGS, train, rows, 4, 0)[1]
    with_test = features.components(task, EMBEDDINGS, task.held_out, rows, 4, 0)[1]
    assert found.shape == (len(task.store), 4) and not np.allclose(np.abs(found), np.abs(with_test), atol=0.01)
    variance = found[train].var(axis=0)
    assert (np.diff(variance) <= 0).all()
    covariance = np.cov(found[train].T)
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-3 * variance[0])
    wide = features.components(task, EMBEDDINGS, train[:5], train[:9], 40, 0)[1]
    assert wide.shape == (9, 4), "no more than rows allow"
    neither = ~(task.store.present("language") | task.store.present("vision_pooled"))
    assert neither.any() and np.isfinite(found).all() and np.ptp(found[neither], axis=0).max() == 0


def test_a_linear_map_recovers_a_linear_relation(task, monkeypatch):
    train, held = both(task, task.train), both(task, task.rows("test"))
    weight = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
    plain = reconstruction.standardised

    def planted(task, modality, rows):
        return plain(task, "language", rows) @ weight if modality == "vision_pooled" else plain(task, modality, rows)

    monkeypatch.setattr(reconstruction, "standardised", planted)
    validation = both(task, task.rows("validation"))
    mapped, penalty = reconstruction.map_linearly(task, ("language", "vision_pooled"), (train, validation), held, 12, 0)
    truth = planted(task, "vision_pooled", held)
    assert np.mean((mapped - truth) ** 2) < 1e-3 * np.mean(truth**2) and penalty == min(reconstruction.PENALTIES)


def test_it_learns_from_no_label(trained, study, tmp_path):
    """The species of training rows are permuted: the autoencoder must be the same, its probes must not."""
    other = Namespace(store=tmp_path / "store", split=study.split)
    other.store.mkdir()
    for path in study.store.iterdir():
        (other.store / path.name).write_bytes(path.read_bytes())
    frame = pd.read_parquet(other.store / "index.parquet")
    at = np.flatnonzero((pd.read_parquet(study.split / "split.parquet")["role"] == "train").to_numpy())
    frame.loc[at, "species"] = frame.loc[np.random.default_rng(0).permutation(at), "species"].to_numpy()
    frame.to_parquet(other.store / "index.parquet", index=False)
    found = contents(run_stage(other, tmp_path))
    expected = contents(trained / "crossmodal")
    assert found["model.safetensors"] == expected["model.safetensors"]
    assert found["reconstruction.json"] == expected["reconstruction.json"]
    assert found[predictions.NAME] != expected[predictions.NAME]


def test_without_the_contrastive_term_the_temperature_stays(study, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    out = run_stage(study, tmp_path, {"crossmodal.contrastive": 0, "crossmodal.epochs": 2, "train.epochs": 1})
    assert networks.load(out).log_scale.item() == pytest.approx(-np.log(0.07))
    assert not re.search(r"^  temperature", caplog.text, re.MULTILINE)


def test_a_dry_run_prints_what_trains_and_writes_nothing(study, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    run_stage(study, tmp_path, dry_run=True)
    for group in ("encoders", "predictors", "temperature"):
        assert re.search(rf"^  {group} +[\d,]+ parameters  lr 0.02", caplog.text, re.MULTILINE), group
    assert not any(tmp_path.iterdir())


def test_one_modality_alone_leaves_it_out_aloud(tmp_path, caplog):
    """Or nobody with photos alone could evaluate the other models."""
    study = write_study(tmp_path, modalities=("vision_pooled",))
    run_stage(study, tmp_path)
    assert "holds no language, and it takes both" in caplog.text
    assert "left out" in read(tmp_path, "summary")["left_out"]
    assert read(tmp_path, "reconstruction") == read(tmp_path, "retrieval") == {}
    assert predictions.read(tmp_path / "crossmodal", tasks.read(study.store, study.split)) == {}


def test_a_kind_without_test_rows_has_no_numbers(tmp_path):
    study = write_study(tmp_path)
    path = study.split / "split.parquet"
    frame = pd.read_parquet(path)
    frame.loc[(frame["role"] == "test") & (frame["kind"] == "both"), ["role", "kind"]] = ["buffer", ""]
    frame.to_parquet(path, index=False)
    run_stage(study, tmp_path, {"crossmodal.epochs": 1, "train.epochs": 1})
    assert read(tmp_path, "reconstruction")["language"]["both"] == {
        "count": 0, "model": None, "linear_map": None, "training_mean": None, "shuffled_pairs": None,
    }  # fmt: skip
    assert read(tmp_path, "retrieval")["language_to_vision_pooled"]["both"] == {"model": None, "linear_map": None}


def test_no_pair_to_learn_from_is_said(tmp_path):
    study = write_study(tmp_path)
    path = study.store / "index.parquet"
    frame = pd.read_parquet(path)
    odd = np.arange(len(frame)) % 2 == 1
    frame.loc[odd, "language_row"] = -1
    frame.loc[~odd, "vision_pooled_row"] = -1
    frame.to_parquet(path, index=False)
    with pytest.raises(DataError, match="no train row with language and vision_pooled"):
        run_stage(study, tmp_path)


# The autoencoder has 180 steps or so, then come the classifiers.
@pytest.mark.parametrize(("step", "action"), [(10, crash), (40, terminate), (170, crash)])
def test_stopped_anywhere_it_ends_with_the_same_bytes(trained, study, tmp_path, stop, caplog, step, action):
    caplog.set_level(logging.INFO)
    stop(step, action, lambda: run_stage(study, tmp_path), Interrupted if action is terminate else Crash)
    assert not (tmp_path / "crossmodal").exists() and not (tmp_path / "plots").exists()
    run_stage(study, tmp_path)
    assert "resuming from" in caplog.text
    assert contents(tmp_path / "crossmodal") == contents(trained / "crossmodal")
    assert contents(tmp_path / "plots") == contents(trained / "plots")
    assert not any((tmp_path / "checkpoints").iterdir())


@pytest.mark.slow
def test_killed_at_a_random_moment(trained, study, tmp_path):
    kill_once(study, tmp_path, "crossmodal", SMALL, 0)
    assert contents(tmp_path / "crossmodal") == contents(trained / "crossmodal")
    assert contents(tmp_path / "plots") == contents(trained / "plots")
