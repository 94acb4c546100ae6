"""The networks to beat: one without radar as large as the generator and trained as long, and a regression network."""

import logging

import pytest
import torch

from src.grounding.data.scene_store import SceneStore
from src.grounding.models import denoiser, regression
from src.grounding.models.training_windows import scaling
from tests.grounding import trainings
from tests.grounding.trainings import (
    Crash,
    Reads,
    batch,
    contents,
    crash,
    run_controls,
    run_pretrain,
    weights_of,
    write_store,
)

stop = trainings.stop


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("study") / "store")


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    run_controls(store, folder)
    return folder


def test_the_network_without_radar_is_as_large_and_never_sees_it(trained, store, tmp_path):
    network = denoiser.load(trained / "controls/no_sar_network")[0]
    generator = denoiser.load(run_pretrain(store, tmp_path, {"pretrain.epochs": 1}))[0]
    assert not network.sees_sar
    shapes = [[p.shape for p in one.parameters()] for one in (network, generator)]
    assert shapes[0] == shapes[1]
    inputs = batch()
    drawn = network.sample(**inputs, steps=3)
    assert torch.equal(network.sample(**inputs | {"sar": inputs["sar"] + 3}, steps=3), drawn)


def test_losses_that_ask_for_radar_do_not_reach_the_network_without_it(trained, store, tmp_path):
    run_controls(store, tmp_path, {"ground.weights.sar": 9.0, "ground.weights.identity": 9.0})
    expected = weights_of(trained / "controls/no_sar_network")
    found = weights_of(tmp_path / "controls/no_sar_network")
    assert expected and all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_regression_network_learns_from_the_scenes_of_both_trainings(trained, store):
    network, scenes = regression.load(trained / "controls/regression_unet"), SceneStore.open(store)
    names = scenes.names("pretrain") + scenes.names("ground")
    own = scaling([scenes.read(name) for name in names])
    assert {name: getattr(network.scaling, name) for name in own} == own
    for part in ("no_sar_pretrain", "no_sar_ground", "regression_unet"):
        assert (trained / "plots" / part / "curves.png").is_file()
    assert not any((trained / "checkpoints").iterdir())


def test_no_scene_of_test_is_read_and_a_dry_run_writes_nothing(store, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    reads = Reads(monkeypatch)
    run_controls(store, tmp_path, dry_run=True)
    assert not any(tmp_path.iterdir())
    assert {name.rstrip("0123456789") for name in reads.names} == {"pretrain", "ground", "validation"}
    assert "generator: 3 scenes" in caplog.text and "regression: 5 scenes" in caplog.text


# 6 steps each: in the adaptation of the first network, and in the second network.
@pytest.mark.parametrize("step", [9, pytest.param(16, marks=pytest.mark.slow)])
def test_stopped_in_a_later_training_it_ends_with_the_same_bytes(trained, store, tmp_path, stop, caplog, step):
    stop(step, crash, lambda: run_controls(store, tmp_path), Crash)
    assert not (tmp_path / "controls").exists() and not (tmp_path / "plots").exists()
    caplog.set_level(logging.INFO)
    run_controls(store, tmp_path)
    assert "resuming from" in caplog.text
    assert contents(tmp_path / "controls") == contents(trained / "controls")
    assert contents(tmp_path / "plots") == contents(trained / "plots")
    assert not any((tmp_path / "checkpoints").iterdir())
