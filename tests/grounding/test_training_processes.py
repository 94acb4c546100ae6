"""Trainings by two processes take the steps of one, and one that is killed at any moment ends as a whole one."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.grounding.trainings import (
    contents,
    largest_difference,
    losses_of,
    run_controls,
    run_ground,
    run_pretrain,
    small,
    write_store,
)
from tests.together import together

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
STAGES = ["pretrain", "ground"]
LONG = {f"{stage}.{key}": value for stage in STAGES for key, value in (("epochs", 8), ("save_steps", 1))}
LONG |= {"ground.stop.patience": 20}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("study") / "store")


@pytest.fixture(scope="module")
def base(store, tmp_path_factory):
    return run_pretrain(store, tmp_path_factory.mktemp("base"))


def run_stage(stage: str, store: Path, base: Path, folder: Path, changes: dict | None = None) -> None:
    if stage == "pretrain":
        run_pretrain(store, folder, changes)
    else:
        run_ground(store, base, folder, changes)


# 20 windows in batches of 8: the last one has 4, which 2 processes in 4 parts share as 1, 1, 1, 1, 0, 0, 0, 0.
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("accumulate", [1, 4])
def test_two_processes_train_as_one(store, base, tmp_path, stage, accumulate):
    one, two = tmp_path / "one", tmp_path / "two"
    assert together(1, run_stage, stage, store, base, one) == [0]
    assert together(2, run_stage, stage, store, base, two, {f"{stage}.accumulate": accumulate}) == [0, 0]
    assert losses_of(two / "plots") == pytest.approx(losses_of(one / "plots"), abs=1e-5)
    # As in test_pretrain: AdamW makes steps of the rounding of small gradients.
    assert largest_difference(two / stage, one / stage) < 1e-4
    assert not any((two / "checkpoints").iterdir())


def test_two_processes_train_the_controls(store, tmp_path):
    changes = {"pretrain.epochs": 1, "ground.epochs": 1}
    one, two = tmp_path / "one", tmp_path / "two"
    assert together(1, run_controls, store, one, changes) == [0]
    assert together(2, run_controls, store, two, changes) == [0, 0]
    # Without radar many gradients of the cross-attention are rounding alone; a step is 1e-3.
    assert largest_difference(two / "controls", one / "controls") < 1e-4
    assert not any((two / "checkpoints").iterdir())


def start(stage: str, store: Path, base: Path, folder: Path) -> subprocess.Popen:
    """A process that runs the stage from the command line below `folder`."""
    path = folder / "params.yaml"
    YAML().dump(small(folder, LONG).model_dump(), path)
    command = [sys.executable, "-m", f"src.grounding.{stage}", "--params", path, "--store", store]
    command += ["--base", base] if stage == "ground" else []
    command += ["--out", folder / stage, "--plots", folder / "plots"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    log = (folder / "log").open("a")
    return subprocess.Popen([str(part) for part in command], cwd=folder, env=environment, stdout=log, stderr=log)


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_a_random_moment(store, base, tmp_path, stage):
    generator = random.Random(0)
    process, step = start(stage, store, base, tmp_path), generator.randrange(3, 20)
    deadline = time.monotonic() + 180
    while process.poll() is None and time.monotonic() < deadline:
        saved = [int(path.name.split("-")[1]) for path in tmp_path.glob("checkpoints/*/checkpoint-*")]
        if max(saved, default=0) >= step:
            break
        time.sleep(0.002)
    time.sleep(generator.uniform(0, 0.1))
    process.kill()
    assert process.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()[-2000:]
    assert not (tmp_path / stage).exists()
    assert start(stage, store, base, tmp_path).wait() == 0, (tmp_path / "log").read_text()[-2000:]
    assert "resuming from" in (tmp_path / "log").read_text()
    (tmp_path / "whole").mkdir()
    assert start(stage, store, base, tmp_path / "whole").wait() == 0
    assert contents(tmp_path / stage) == contents(tmp_path / "whole" / stage)
    assert contents(tmp_path / "plots") == contents(tmp_path / "whole/plots")
