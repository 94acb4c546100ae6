"""A training that was stopped and is started again ends with the weights of one that was not.

The quick tests stop a stage where it reads a chosen batch; the slow ones kill a process at a random moment.
"""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from src.core.stage.errors import Interrupted
from src.population.data import preference_pairs, samples
from src.population.models import pretraining
from tests.population.conftest import (
    contents,
    pretrain_rates,
    run_dpo,
    run_pretrain,
    run_sft,
    sft_rates,
    small_values,
    weights_of,
)

ROOT = Path(__file__).parents[2]
STAGES = ["pretrain", "sft", "dpo"]
# 4 steps an epoch, a checkpoint every 3 and at every epoch; dropout, augmentation and an encoder that thaws on the
# way are what a resume could lose.
CHANGES = {f"{stage}.epochs": 3 for stage in STAGES} | {"sft.freeze_encoder_epochs": 1, "sft.head": "mlp"}
SLOW = pytest.mark.slow
LONG = CHANGES | {f"{stage}.epochs": 12 for stage in STAGES}


def run_stage(ready, stage, folder, changes=None):
    changes = changes or CHANGES
    if stage == "pretrain":
        return run_pretrain(ready.study, folder, changes)
    if stage == "sft":
        return run_sft(ready.study, ready.trained.pretrain, folder, changes)
    return run_dpo(ready.study, ready.trained.sft, ready.trained.prefs, folder, changes)


@pytest.fixture(scope="module")
def undisturbed(ready, tmp_path_factory):
    """Folder below which each stage ran without a break."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for stage in STAGES:
        run_stage(ready, stage, folder)
    return folder


def differences(folder, other, stage):
    """Names of output files that are not the same in both, but for what Trainer averages since its last start."""
    found, expected = ({f"{part}/{name}": data for part in (stage, f"plots/{stage}")
                        for name, data in contents(root / part).items()} for root in (folder, other))  # fmt: skip
    names = found.keys() | expected.keys()
    assert len(names) > 5
    return [name for name in sorted(names) if found.get(name) != expected.get(name)]


@pytest.fixture
def stop(ready, tmp_path, monkeypatch):
    """`stop(stage, step, action)`: run until the batch of `step` is read, and let `action` happen there."""

    def stop(stage, step, action, expected):
        owner, method = {
            "pretrain": (pretraining.TileViews, "__getitems__"),
            "sft": (samples.GrowthSamples, "__getitems__"),
            "dpo": (preference_pairs.PairCollator, "__call__"),
        }[stage]
        original, trained_on = getattr(owner, method), [0]

        def counted(self, asked):
            # Validation batches have 6 or 7 rows, training batches 8; dpo reads the training set once beforehand.
            trained_on[0] += len(asked) == 8
            if trained_on[0] == step + (4 if stage == "dpo" else 0) and len(asked) == 8:
                action()
            return original(self, asked)

        with monkeypatch.context() as patch:
            patch.setattr(owner, method, counted)
            with pytest.raises(expected) as caught:
                run_stage(ready, stage, tmp_path)
        assert not (tmp_path / stage).exists() and not (tmp_path / "plots" / stage).exists()
        return caught.value

    return stop


class Crash(Exception):
    pass


def crash():
    raise Crash


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def resumed_from(caplog):
    """Steps of the checkpoints that a run said it resumed from."""
    lines = [record.getMessage() for record in caplog.records]
    return [int(line.rsplit("-", 1)[1]) for line in lines if line.startswith("resuming from")]


@pytest.mark.parametrize(("stage", "step"), [("pretrain", 7), ("sft", 8), ("sft", 12), ("dpo", 11)])
def test_a_crash_changes_nothing_in_the_end(ready, undisturbed, tmp_path, stop, caplog, stage, step):
    caplog.set_level(logging.INFO)
    stop(stage, step, crash, Crash)
    run_stage(ready, stage, tmp_path)
    assert len(resumed_from(caplog)) == 1 and 3 <= resumed_from(caplog)[0] < step
    assert differences(tmp_path, undisturbed, stage) == []
    assert not any((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize(("stage", "step"), [("pretrain", 6), ("sft", 2), ("dpo", 6)])
def test_a_signal_saves_and_the_same_command_goes_on(ready, undisturbed, tmp_path, stop, caplog, stage, step):
    caplog.set_level(logging.INFO)
    before = signal.getsignal(signal.SIGTERM)
    error = stop(stage, step, terminate, Interrupted)
    assert error.exit_code == 75 and "the same command goes on from there" in str(error)
    assert signal.getsignal(signal.SIGTERM) == before
    run_stage(ready, stage, tmp_path)
    # The loader reads a batch ahead of the step it is trained in.
    assert resumed_from(caplog) in ([step - 1], [step])
    assert differences(tmp_path, undisturbed, stage) == []


@pytest.mark.parametrize("damage", ["manifest.json", "model.safetensors"])
def test_an_incomplete_newest_checkpoint_is_skipped_aloud(ready, undisturbed, tmp_path, stop, caplog, damage):
    caplog.set_level(logging.INFO)
    stop("sft", 11, crash, Crash)
    found = sorted((tmp_path / "checkpoints").glob("*/checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert len(found) == 2
    file = found[-1] / damage
    file.unlink() if damage == "manifest.json" else file.write_bytes(file.read_bytes()[:-1])
    run_stage(ready, "sft", tmp_path)
    assert f"{found[-1]} is incomplete (a save was cut short): skipped" in caplog.text
    assert resumed_from(caplog) == [int(found[0].name.split("-")[1])]
    assert differences(tmp_path, undisturbed, "sft") == []


@pytest.mark.parametrize("stage", [pytest.param("pretrain", marks=SLOW), "sft", pytest.param("dpo", marks=SLOW)])
def test_other_params_start_afresh(ready, tmp_path, stop, caplog, stage):
    caplog.set_level(logging.INFO)
    stop(stage, 7, crash, Crash)
    rates = {"pretrain": pretrain_rates(0.0003), "sft": sft_rates(0.0003), "dpo": 0.0003}
    other = CHANGES | {f"{stage}.lr": rates[stage]}
    run_stage(ready, stage, tmp_path, other)
    assert not resumed_from(caplog)
    run_stage(ready, stage, tmp_path / "alone", other)
    assert differences(tmp_path, tmp_path / "alone", stage) == []
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1, "what was interrupted can still be resumed"


@pytest.fixture
def start(ready, tmp_path):
    """`start(stage)` -> a process that runs the stage from the command line below tmp_path."""

    def start(stage):
        path = tmp_path / "params.yaml"
        YAML().dump(small_values(LONG | {"checkpoint_root": str(tmp_path / "checkpoints")}), path)
        inputs = vars(ready.study) | {
            "sft": {"pretrain": ready.trained.pretrain},
            "dpo": {"prefs": ready.trained.prefs, "model": ready.trained.sft},
        }.get(stage, {})
        if stage == "dpo":
            del inputs["pca"]
        options = inputs | {"params": path, "out": tmp_path / stage, "plots": tmp_path / "plots" / stage}
        command = [sys.executable, "-m", f"src.population.{stage}"]
        command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        log = (tmp_path / "log").open("a")
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)

    return start


def wait_for_step(process, folder, step):
    """Return when a checkpoint of at least `step` is being written."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        found = [int(path.name.split("-")[1]) for path in folder.glob("checkpoints/*/checkpoint-*")]
        if max(found, default=0) >= step:
            return
        time.sleep(0.002)
    raise AssertionError(f"step {step} was never reached: {(folder / 'log').read_text()[-2000:]}")


@SLOW
@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_a_random_moment(ready, tmp_path, start, stage):
    generator = random.Random(f"{stage} 0")
    process = start(stage)
    wait_for_step(process, tmp_path, generator.randrange(3, 36))
    time.sleep(generator.uniform(0, 0.1))
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it was over before it could be killed"
    assert not (tmp_path / stage).exists()
    process = start(stage)
    assert process.wait() == 0, (tmp_path / "log").read_text()[-2000:]
    assert "resuming from" in (tmp_path / "log").read_text()
    expected = weights_of(run_stage(ready, stage, tmp_path / "undisturbed", LONG))
    found = weights_of(tmp_path / stage)
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert differences(tmp_path, tmp_path / "undisturbed", stage) == []


@SLOW
def test_a_terminated_process_says_that_it_can_go_on(ready, tmp_path, start):
    process = start("sft")
    wait_for_step(process, tmp_path, 8)
    process.terminate()
    assert process.wait() == 75, (tmp_path / "log").read_text()[-2000:]
    status = json.loads((tmp_path / "logs" / "sft" / "run_status.json").read_text())
    assert status["exit_code"] == 75 and "goes on from there" in status["message"]
    assert start("sft").wait() == 0
    run_stage(ready, "sft", tmp_path / "undisturbed", LONG)
    assert differences(tmp_path, tmp_path / "undisturbed", "sft") == []
