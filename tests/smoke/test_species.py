"""The whole species pipeline, from simulated records to metrics and report, small."""

import json
from argparse import Namespace

import pandas as pd
import pytest

from src.species import baselines, controls, crossmodal, evaluate, ingest, simulate, split, train
from tests import read_params
from tests.conftest import species_params
from tests.population.conftest import contents

CHANGES = {
    "simulate.observations": 900,
    "simulate.species": 30,
    "simulate.sites": 80,
    "simulate.full_vision": 1,
    "split.squares": 4,
    "split.validation_squares": 3,
    "split.minimum": 5,
    "split.maximum_share": 0.1,
    "baselines.components": 32,
    "baselines.neighbours": [3, 30],
    "baselines.inverse_penalties": [0.01],
    "baselines.leaves": [5],
    "train.epochs": 3,
    "crossmodal.epochs": 2,
    "crossmodal.dim": 32,
    "controls.draws": 2,
    "threads": 1,
}
STAGES = (simulate, ingest, split, baselines, controls, train, crossmodal, evaluate)


def run_chain(folder):
    params = species_params(CHANGES | {"checkpoint_root": str(folder / "checkpoints")})
    raw, store, roles = folder / "simulated", folder / "store", folder / "split"
    plots = folder / "plots"
    simulate.main(params, Namespace(), Namespace(out=raw))
    ingest.main(params, Namespace(root=raw), Namespace(out=store))
    split.main(params, Namespace(store=store), Namespace(out=roles))
    study = {"store": store, "split": roles}
    for stage in (baselines, controls):
        stage.main(params, Namespace(**study), Namespace(out=folder / stage.__name__.split(".")[-1]))
    for stage in (train, crossmodal):
        name = stage.__name__.split(".")[-1]
        stage.main(params, Namespace(**study), Namespace(out=folder / name, plots=plots / name))
    folders = {name: folder / name for name in ("baselines", "controls", "train", "crossmodal")}
    out = Namespace(metrics=folder / "species.json", out=folder / "report", plots=plots / "evaluate")
    evaluate.main(params, Namespace(**study, **folders, curves=plots), out)
    return folder


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The folder of the whole chain, and the keys of params.yaml that each of its stages read."""
    with read_params.recording(*STAGES) as read:
        return run_chain(tmp_path_factory.mktemp("species")), read


@pytest.fixture(scope="module")
def finished(recorded):
    return recorded[0]


def test_metrics_hold_every_group_and_kind(finished):
    scores = json.loads((finished / "species.json").read_text(encoding="utf-8"))
    assert scores["simulated"]
    for group in ("language", "vision", "both", "crossmodal", "majority", "location", "knn"):
        for kind in ("temporal", "spatial"):
            score = scores[group][kind]
            assert score["n"] == scores["majority"][kind]["n"] > 10
            assert 0 <= score["top1"] <= score["top5"] <= 1 and score["log_loss"] > 0
            assert score["top1_low"] is None or score["top1_low"] <= score["top1"] <= score["top1_high"]
    assert scores["logistic"]["temporal"]["top1"] > scores["majority"]["temporal"]["top1"] + 0.2


def test_the_report_says_that_it_is_simulated_and_shows_every_figure(finished):
    page = (finished / "report" / "index.html").read_text(encoding="utf-8")
    assert "simulated: they show that the pipeline works" in page
    assert page.count("data:image/png;base64,") == 11
    named = pd.read_parquet(finished / "report" / "predictions.parquet")
    roles = pd.read_parquet(finished / "split" / "split.parquet")
    assert set(named["id"]) == set(roles.loc[roles["role"].isin(["validation", "test"]), "id"])
    assert named["language"].isna().any() and not named["both"].isna().all()


def test_dvc_yaml_declares_the_params_that_each_stage_reads(recorded):
    seen = recorded[1]
    elsewhere = {
        "simulate": {"simulate.language", "simulate.vision"},  # strengths of parts, which are taken all at once
        # No forest, no list of models and no dropout of vision alone stands on learned features.
        "crossmodal": {"baselines.leaves", "train.models", "train.dropout.vision"},
        "evaluate": seen["evaluate"].dumped,  # its report shows them
    }
    read_params.assert_declared("species", seen, elsewhere)


@pytest.mark.slow
def test_a_second_run_gives_the_same_bytes(finished, tmp_path):
    again = run_chain(tmp_path)
    for name in ("simulated", "store", "split", "baselines", "controls", "train", "crossmodal", "report", "plots"):
        assert contents(again / name) == contents(finished / name), name
    assert (again / "species.json").read_bytes() == (finished / "species.json").read_bytes()
