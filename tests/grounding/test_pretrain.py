"""Pretraining: from which scenes, what it leaves, that it ends the same after any break, and what it refuses."""

import json
import logging

import pytest
import torch

from src.core.stage.errors import BandwiseError, DataError, Interrupted, ParamsError
from src.grounding.data.scene_store import SceneStore
from src.grounding.models import denoiser, fitting
from src.grounding.models.denoiser import Denoiser
from src.grounding.models.training_windows import scaling
from tests.grounding import trainings
from tests.grounding.trainings import (
    Crash,
    Reads,
    contents,
    crash,
    largest_difference,
    losses_of,
    run_pretrain,
    terminate,
    weights_of,
    write_store,
)

stop = trainings.stop
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("study") / "store")


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    """Folder below which the stage ran without a break."""
    folder = tmp_path_factory.mktemp("trained")
    run_pretrain(store, folder)
    return folder


def test_the_folder_holds_a_generator_and_its_scaling_is_of_its_own_scenes(trained, store):
    network, facts = denoiser.load(trained / "pretrain")
    scenes = SceneStore.open(store)
    own = scaling([scenes.read(name) for name in scenes.names("pretrain")])
    assert {name: getattr(network.scaling, name) for name in own} == own and network.sees_sar
    assert facts["sar"]["coefficient"] == "gamma0" and facts["opt_v2"] == "synthetic" and facts["simulated"]
    assert facts["steps"] == trainings.SMALL["model.steps"]
    curves = {path.name for path in (trained / "plots").rglob("*") if path.is_file()}
    assert {"curves.png", "loss.tsv", "learning_rate.tsv"} <= curves
    assert not any((trained / "checkpoints").iterdir())


def test_it_learns_and_every_part_moves(store, tmp_path):
    changes = {"pretrain.epochs": 12, "pretrain.lr": 0.003}
    out = run_pretrain(store, tmp_path, changes)
    losses = losses_of(tmp_path / "plots")[12:]
    assert len(losses) == 12 and losses[-1] < 0.95 * losses[0]
    start = fitting.generator(SceneStore.open(store), trainings.small(changes=changes), sees_sar=True).model.denoiser
    learnt = denoiser.load(out)[0]
    for (name, one), other in zip(start.named_parameters(), learnt.parameters(), strict=True):
        assert not torch.equal(one, other), name


def test_no_scene_of_another_role_is_read(store, tmp_path, monkeypatch):
    reads = Reads(monkeypatch)
    run_pretrain(store, tmp_path, {"pretrain.epochs": 1})
    assert set(reads.names) == {"pretrain0", "pretrain1", "pretrain2", "validation0", "validation1"}


def test_a_dry_run_says_what_trains_and_writes_nothing(store, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    before = contents(store)
    run_pretrain(store, tmp_path, dry_run=True)
    assert not any(tmp_path.iterdir()) and contents(store) == before
    assert "generator: 3 scenes to learn from, 2 for validation (8 windows)" in caplog.text
    assert "weights train (100.0%)" in caplog.text and "steps of" in caplog.text


def test_the_seed_is_all_that_differs_between_two_trainings(trained, store, tmp_path):
    one = run_pretrain(store, tmp_path / "one", {"seed": 1})
    assert largest_difference(one, trained / "pretrain") > 1e-4
    again = run_pretrain(store, tmp_path / "again")
    assert contents(again) == contents(trained / "pretrain")


def test_micro_batches_take_the_step_of_the_whole_batch(trained, store, tmp_path):
    parts = run_pretrain(store, tmp_path, {"pretrain.accumulate": 4})
    assert losses_of(tmp_path / "plots") == pytest.approx(losses_of(trained / "plots"), abs=1e-6)
    # AdamW divides a gradient by its size, so where a gradient is small its rounding moves a weight: 1.3e-5 was seen.
    assert largest_difference(parts, trained / "pretrain") < 1e-4


def test_bfloat16_runs_and_leaves_float32(store, tmp_path):
    weights = weights_of(run_pretrain(store, tmp_path, {"pretrain.precision": "bfloat16"}))
    assert all(value.dtype == torch.float32 and torch.isfinite(value).all() for value in weights.values())


# 3 steps an epoch, checkpoints after steps 2 and 3; the loader reads a batch ahead.
@pytest.mark.parametrize(("step", "action"), [(2, terminate), pytest.param(4, crash, marks=SLOW), (6, crash)])
def test_stopped_anywhere_it_ends_with_the_same_bytes(trained, store, tmp_path, stop, caplog, step, action):
    caplog.set_level(logging.INFO)
    expected = Interrupted if action is terminate else Crash
    stop(step, action, lambda: run_pretrain(store, tmp_path), expected)
    assert not (tmp_path / "pretrain").exists() and not (tmp_path / "plots").exists()
    run_pretrain(store, tmp_path)
    assert "resuming from" in caplog.text
    found, expected = weights_of(tmp_path / "pretrain"), weights_of(trained / "pretrain")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert contents(tmp_path / "pretrain") == contents(trained / "pretrain")
    assert contents(tmp_path / "plots") == contents(trained / "plots")
    assert not any((tmp_path / "checkpoints").iterdir())


def test_other_params_start_afresh(store, tmp_path, stop, caplog):
    caplog.set_level(logging.INFO)
    stop(6, crash, lambda: run_pretrain(store, tmp_path), Crash)
    run_pretrain(store, tmp_path, {"pretrain.lr": 0.0005})
    assert "resuming from" not in caplog.text


def test_radar_that_reaches_nothing_stops_it(store, tmp_path, monkeypatch):
    condition = Denoiser.condition

    def severed(self, *images):
        known, tokens = condition(self, *images)
        return known, tokens.detach()

    monkeypatch.setattr(Denoiser, "condition", severed)
    with pytest.raises(BandwiseError, match="group 'sar_tokens' is meant to train and gets no gradient"):
        run_pretrain(store, tmp_path)
    assert not (tmp_path / "pretrain").exists() and not (tmp_path / "plots").exists()


@pytest.mark.parametrize("role", ["pretrain", "validation"])
def test_a_role_without_a_scene_is_named(tmp_path, role):
    store = write_store(tmp_path / "store", {"pretrain": 1, "ground": 1, "validation": 1} | {role: 0})
    with pytest.raises(DataError, match=f"store: role {role}: found no scene, expected one or more"):
        run_pretrain(store, tmp_path)


def test_scenes_smaller_than_a_window_are_named(tmp_path):
    store = write_store(tmp_path / "store", side=30)
    with pytest.raises(DataError, match=r"scene pretrain0: found 30 x 30 px, .* window of 32 x 32; lower `tile_px`"):
        run_pretrain(store, tmp_path, {"tiles.tile_px": 32})
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_batch_that_does_not_fit_its_parts_is_refused_by_params():
    with pytest.raises(
        ParamsError, match=r"pretrain\.batch_size: found 8, expected a multiple of pretrain\.accumulate 3"
    ):
        trainings.small(changes={"pretrain.accumulate": 3})


def test_a_store_of_another_format_is_refused(store, tmp_path):
    other = write_store(tmp_path / "store")
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"format": "scenes 0"}))
    with pytest.raises(DataError, match="scenes 0"):
        run_pretrain(other, tmp_path)
