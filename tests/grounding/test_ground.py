"""Grounding: adapters alone move, they are what the folder says, and agreement decides when it ends."""

import json
import logging

import pytest
import torch
from peft import PeftModel

from src.core.stage.errors import BandwiseError, DataError, DependencyError, Interrupted, ParamsError, StorageError
from src.grounding.models import denoiser, training
from src.grounding.models.denoiser import Denoiser
from tests.grounding import trainings
from tests.grounding.trainings import (
    Crash,
    Reads,
    contents,
    crash,
    largest_difference,
    losses_of,
    run_ground,
    run_pretrain,
    terminate,
    weights_of,
    write_store,
)

stop = trainings.stop
SLOW = pytest.mark.slow
MEASURE = training.measure


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("study") / "store")


@pytest.fixture(scope="module")
def base(store, tmp_path_factory):
    return run_pretrain(store, tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def grounded(store, base, tmp_path_factory):
    """Folder below which the stage ran without a break."""
    folder = tmp_path_factory.mktemp("grounded")
    run_ground(store, base, folder)
    return folder


def test_weights_of_the_cross_attention_move_and_nothing_else(grounded, base):
    found, before = weights_of(grounded / "ground"), weights_of(base)
    found = {name: value for name, value in found.items() if not name.startswith("adapter/")}
    assert found.keys() == before.keys()
    moved = {name for name in before if not torch.equal(found[name], before[name])}
    parts = ("to_q", "to_k", "to_v", "to_out.0")
    file = "transformer/diffusion_pytorch_model.safetensors/transformer_blocks"
    depth = trainings.SMALL["model.depth"]
    assert moved == {f"{file}.{block}.attn2.{part}.weight" for block in range(depth) for part in parts}
    one, other = (json.loads((folder / "grounding.json").read_text()) for folder in (grounded / "ground", base))
    assert one == other, "scaling stays that of pretraining, for which the weights are"


def test_the_adapter_on_the_base_is_the_merged_network(grounded, base):
    network, merged = denoiser.load(base)[0], denoiser.load(grounded / "ground")[0]
    adapted = PeftModel.from_pretrained(network.transformer, grounded / "ground/adapter").merge_and_unload()
    expected = merged.transformer.state_dict()
    found = adapted.state_dict()
    assert found.keys() == expected.keys()
    assert all((found[name] - expected[name]).abs().max() < 1e-5 for name in expected)
    inputs = trainings.batch()
    network.transformer = adapted
    assert network.sample(**inputs, steps=3) == pytest.approx(merged.sample(**inputs, steps=3), abs=1e-5)
    settings = json.loads((grounded / "ground/adapter/adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(base / "transformer")


def test_curves_hold_every_loss_and_agreement(grounded):
    names = {path.stem for path in (grounded / "plots/plots/metrics/validation").iterdir()}
    assert names == {"loss", "agreement", "seed_agreement", "denoising", "sar", "cycle", "identity", "spectral"}
    assert (grounded / "plots/curves.png").is_file() and not any((grounded / "checkpoints").iterdir())


def test_no_scene_of_another_role_is_read_and_max_samples_takes_fewer(store, base, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    reads = Reads(monkeypatch)
    out = run_ground(store, base, tmp_path, {"ground.epochs": 1})
    assert set(reads.names) == {"ground0", "ground1", "validation0", "validation1"}
    fewer = run_ground(store, base, tmp_path / "fewer", {"ground.epochs": 1, "ground.max_samples": 1})
    assert "grounding: 2 scenes to learn from" in caplog.text and "grounding: 1 scenes to learn from" in caplog.text
    assert largest_difference(out, fewer) > 0


def test_a_dry_run_says_what_trains_and_writes_nothing(store, base, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    before = contents(base)
    run_ground(store, base, tmp_path, dry_run=True)
    assert not any(tmp_path.iterdir()) and contents(base) == before
    assert "LPIPS is off" in caplog.text and "  lora " in caplog.text
    share = float(caplog.text.split(" weights train (")[1].split("%")[0])
    assert 0 < share < 10


def scripted(monkeypatch, *agreements: float):
    """Validation that finds these agreements, one an epoch."""
    left = iter(agreements)
    monkeypatch.setattr(training, "measure", lambda found: MEASURE(found) | {"agreement": next(left)})


def epochs_of(folder) -> list[float]:
    lines = (folder / "plots/plots/metrics/validation/agreement.tsv").read_text().splitlines()[1:]
    return [float(line.split("\t")[-1]) for line in lines]


STOP = {"ground.epochs": 8, "ground.stop.patience": 2, "ground.stop.delta": 0.01}


def test_training_ends_when_agreement_no_longer_rises_by_delta_and_the_best_epoch_is_kept(
    store, base, tmp_path, monkeypatch
):
    whole = [0.1, 0.3, 0.305, 0.2, 0.9, 0.9, 0.9, 0.9]
    scripted(monkeypatch, *whole)
    out = run_ground(store, base, tmp_path, STOP)
    assert epochs_of(tmp_path) == whole[:4], "0.305 is better than 0.3, but not by delta"
    # The same schedule, of 8 epochs, in which another epoch is the best or the last:
    scripted(monkeypatch, 0.1, 0.3, 0.5, 0.2, 0.1)
    same = run_ground(store, base, tmp_path / "same", STOP)
    scripted(monkeypatch, 0.1, 0.6, 0.5, 0.2)
    other = run_ground(store, base, tmp_path / "other", STOP)
    assert largest_difference(out, same) == 0 and largest_difference(out, other) > 0


def test_a_smaller_delta_goes_on(store, base, tmp_path, monkeypatch):
    scripted(monkeypatch, 0.1, 0.101, 0.102, 0.103)
    run_ground(store, base, tmp_path, STOP | {"ground.epochs": 4, "ground.stop.delta": 0.0001})
    assert len(epochs_of(tmp_path)) == 4


@SLOW
def test_the_documents_agreement_can_decide(store, base, tmp_path, monkeypatch):
    rising = iter(range(8))

    def scores(found):
        return MEASURE(found) | {"agreement": 0.1 * next(rising), "seed_agreement": 0.5}

    monkeypatch.setattr(training, "measure", scores)
    run_ground(store, base, tmp_path, STOP | {"ground.stop.measure": "seed_agreement"})
    assert len(epochs_of(tmp_path)) == 3


def test_micro_batches_take_the_step_of_the_whole_batch(grounded, store, base, tmp_path):
    parts = run_ground(store, base, tmp_path, {"ground.accumulate": 8})
    assert losses_of(tmp_path / "plots") == pytest.approx(losses_of(grounded / "plots"), abs=1e-6)
    assert largest_difference(parts, grounded / "ground") < 1e-6


def test_bfloat16_runs_and_leaves_float32(store, base, tmp_path):
    weights = weights_of(run_ground(store, base, tmp_path, {"ground.precision": "bfloat16"}))
    assert all(value.dtype == torch.float32 and torch.isfinite(value).all() for value in weights.values())


@pytest.mark.parametrize(
    ("step", "action"), [pytest.param(2, terminate, marks=SLOW), (4, crash), pytest.param(6, crash, marks=SLOW)]
)
def test_stopped_anywhere_it_ends_with_the_same_bytes(grounded, store, base, tmp_path, stop, caplog, step, action):
    caplog.set_level(logging.INFO)
    expected = Interrupted if action is terminate else Crash
    stop(step, action, lambda: run_ground(store, base, tmp_path), expected)
    assert not (tmp_path / "ground").exists() and not (tmp_path / "plots").exists()
    run_ground(store, base, tmp_path)
    assert "resuming from" in caplog.text
    found, expected = weights_of(tmp_path / "ground"), weights_of(grounded / "ground")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert contents(tmp_path / "ground") == contents(grounded / "ground")
    assert contents(tmp_path / "plots") == contents(grounded / "plots")


def test_adapters_that_get_no_gradient_stop_it(store, base, tmp_path, monkeypatch):
    forward = Denoiser.forward
    bias = torch.nn.Parameter(torch.zeros(()))
    monkeypatch.setattr(Denoiser, "forward", lambda self, *inputs: forward(self, *inputs).detach() + bias)
    with pytest.raises(BandwiseError, match="group 'lora' is meant to train and gets no gradient"):
        run_ground(store, base, tmp_path)
    assert not (tmp_path / "ground").exists() and not (tmp_path / "plots").exists()


def test_lpips_without_its_package_is_refused(store, base, tmp_path):
    with pytest.raises(DependencyError, match="`lpips_weights`: lpips is not installed") as caught:
        run_ground(store, base, tmp_path, {"ground.lpips_weights": "alexnet.safetensors"})
    assert caught.value.exit_code == 69 and not any(tmp_path.iterdir())


def test_a_generator_of_other_windows_or_none_is_refused(store, base, tmp_path):
    with pytest.raises(ParamsError, match=r"tiles\.tile_px: found 20, expected 16 as the generator was pretrained"):
        run_ground(store, base, tmp_path, {"tiles.tile_px": 20})
    with pytest.raises(ParamsError, match=r"model\.train_steps: found 60, expected 50"):
        run_ground(store, base, tmp_path, {"model.train_steps": 60})
    with pytest.raises(StorageError, match=r"grounding\.json: cannot read"):
        run_ground(store, tmp_path / "nothing", tmp_path)


def test_a_role_without_a_scene_is_named(base, tmp_path):
    store = write_store(tmp_path / "store", {"pretrain": 1, "ground": 0, "validation": 1})
    with pytest.raises(DataError, match="store: role ground: found no scene, expected one or more"):
        run_ground(store, base, tmp_path)
