"""The baselines stage: what it knows, what it leaves out, and that it says so."""

import json
import shutil
from argparse import Namespace

import numpy as np
import pandas as pd
import pytest

from src.core.evaluation.classification_scores import Answers
from src.core.stage.errors import DataError
from src.species import baselines
from src.species.data import task
from src.species.evaluation import predictions
from tests.species.places import make_params
from tests.species.study import write_study

PARAMS = {
    "baselines.neighbours": [1, 5],
    "baselines.inverse_penalties": [0.1, 1.0],
    "baselines.leaves": [5],
    "baselines.components": 8,
}
GROUPS = [
    "majority", "location", "location_season", "knn_language", "logistic_language", "knn_vision", "logistic_vision",
    "knn", "logistic",
]  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """120 records of 4 species, the last 25 without language."""
    return write_study(tmp_path_factory.mktemp("study"), missing=25)


def run_stage(folders, out, dry_run=False, **changes):
    store, split = folders
    baselines.main(make_params(PARAMS | changes), Namespace(store=store, split=split), Namespace(out=out), dry_run)
    return out


def change(folders, tmp_path, edit=None, index=None):
    """A copy of the study with its split.parquet and index.parquet edited."""
    store, split = (shutil.copytree(folder, tmp_path / folder.name) for folder in folders)
    for path, function in ((split / "split.parquet", edit), (store / "index.parquet", index)):
        if function is not None:
            table = pd.read_parquet(path)
            function(table)
            table.to_parquet(path, index=False)
    return store, split


@pytest.fixture(scope="module")
def written(folders, tmp_path_factory):
    return run_stage(folders, tmp_path_factory.mktemp("out") / "baselines")


def test_every_group_answers_the_rows_it_can(folders, written):
    study = task.read(*folders)
    groups = predictions.read(written, study)
    assert set(groups) == set(GROUPS)
    language = study.store.present("language", study.held_out)
    assert not language.all()
    for name, values in groups.items():
        needs = language if name in ("knn_language", "logistic_language", "knn", "logistic") else True
        assert (np.isfinite(values).all(axis=1) == needs).all() and (np.isnan(values).any(axis=1) != needs).all(), name
        assert np.exp(values[np.isfinite(values).all(axis=1)]).sum(axis=1) == pytest.approx(1, abs=1e-5), name


def test_embeddings_tell_the_species_and_places_do_not(folders, written):
    study = task.read(*folders)
    test = np.isin(study.held_out, study.rows("test"))
    truth = study.targets(study.held_out)
    for name, values in predictions.read(written, study).items():
        rows = test & np.isfinite(values).all(axis=1)
        top1 = Answers(values[rows], truth[rows], truth[rows]).scores()["top1"]
        assert top1 > 0.9 if "knn" in name or "logistic" in name else top1 < 0.6, name


def test_choices_are_the_least_balanced_log_loss_on_validation(written):
    choices = json.loads((written / "choices.json").read_text())
    assert list(choices) == GROUPS
    assert choices["majority"]["tried"] == [
        {key: value for key, value in choices["majority"].items() if key.startswith("validation_")}
    ]
    assert [entry["inverse_penalty"] for entry in choices["logistic"]["tried"]] == [0.1, 1.0]
    assert {tuple(entry)[:1] for entry in choices["location"]["tried"]} == {("neighbours",), ("leaf",)}
    for name, choice in choices.items():
        losses = [entry["validation_balanced_log_loss"] for entry in choice["tried"]]
        assert choice["validation_balanced_log_loss"] == min(losses), name
        best = choice["tried"][losses.index(min(losses))]
        assert {key: best[key] for key in choice["setting"]} == choice["setting"], name


def test_labels_of_test_rows_change_nothing(folders, written, tmp_path):
    """Species of test rows are exchanged: every answer stays what it was."""
    roles = pd.read_parquet(folders[1] / "split.parquet")["role"]

    def shuffle(index):
        here = roles == "test"
        index.loc[here, "species"] = np.roll(index.loc[here, "species"], 1)

    out = run_stage(change(folders, tmp_path, index=shuffle), tmp_path / "out")
    for name in ("predictions.safetensors", "choices.json"):
        assert (out / name).read_bytes() == (written / name).read_bytes()


def test_same_input_same_bytes(folders, written, tmp_path):
    again = run_stage(folders, tmp_path / "again")
    assert {path.name for path in again.iterdir()} == {"predictions.safetensors", "choices.json"}
    for path in again.iterdir():
        assert path.read_bytes() == (written / path.name).read_bytes(), path.name


def test_years_alone_leave_the_season_out_aloud(folders, tmp_path, capsys):
    def coarse(index):
        index["last_day"] = index["first_day"] + 364

    out = run_stage(change(folders, tmp_path, index=coarse), tmp_path / "out")
    assert "location_season: left out: 0 of 72 training rows have a date known to 31 days" in capsys.readouterr().out
    assert "location_season" not in predictions.read(out, task.read(tmp_path / "store", tmp_path / "split"))
    assert "left_out" in json.loads((out / "choices.json").read_text())["location_season"]


def test_a_record_without_a_season_is_answered_by_its_place(folders, tmp_path):
    """A tenth of the records has a year alone."""

    def some(index):
        index.loc[index.index % 10 == 3, "last_day"] += 364

    store, split = change(folders, tmp_path, index=some)
    study = task.read(store, split)
    groups = predictions.read(run_stage((store, split), tmp_path / "out"), study)
    coarse = study.held_out % 10 == 3
    place, both = groups["location"], groups["location_season"]
    assert np.isfinite(both).all()
    np.testing.assert_array_equal(both[coarse], place[coarse])
    assert (both[~coarse] != place[~coarse]).any()
    choice = json.loads((tmp_path / "out/choices.json").read_text())["location_season"]
    assert choice["rows_without_season"] == coarse.sum() > 5
    assert choice["rows"] == len(study.train) - (study.train % 10 == 3).sum()


def test_a_species_that_trains_without_its_embedding_has_a_column(folders, tmp_path):
    def absent(index):
        index.loc[index["species"] == "Planta d", "language_row"] = -1

    store, split = change(folders, tmp_path, index=absent)
    study = task.read(store, split)
    assert "Planta d" in study.classes
    values = predictions.read(run_stage((store, split), tmp_path / "out"), study)["logistic_language"]
    answered = np.isfinite(values).all(axis=1)
    assert answered.any() and values[answered].shape[1] == 4 and (values[answered, 3] < np.log(0.05)).all()


def test_a_store_without_embeddings_has_places_alone(folders, tmp_path):
    def edit(manifest):
        manifest["modalities"], manifest["files"] = {}, {"index.parquet": manifest["files"]["index.parquet"]}

    store, split = change(folders, tmp_path)
    manifest = json.loads((store / "manifest.json").read_text())
    edit(manifest)
    (store / "manifest.json").write_text(json.dumps(manifest))
    out = run_stage((store, split), tmp_path / "out")
    assert set(predictions.read(out, task.read(store, split))) == {"majority", "location", "location_season"}


def test_one_species_is_refused_and_nothing_left(folders, tmp_path):
    def one(index):
        index["species"] = "Planta a"

    with pytest.raises(DataError, match="of 1 species, expected two species at least"):
        run_stage(change(folders, tmp_path, index=one), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_dry_run_counts_and_writes_nothing(folders, tmp_path, capsys):
    run_stage(folders, tmp_path / "out", dry_run=True)
    told = capsys.readouterr().out
    assert "72 training rows of 4 species, 48 held out" in told and "6 groups on embeddings" in told
    assert f"takes {57 * (7168 + 1408) * 4 / 1e9:.2g} GB" in told
    assert not (tmp_path / "out").exists()
