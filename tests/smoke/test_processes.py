"""A stage trained by several processes takes the steps of one process, and ends where one of them dies.

The quick tests fork processes that have imported everything (tests/together.py); the slow ones start the real
launcher, as `dvc repro` does with `launch: accelerate launch --config_file accelerate/ddp.yaml`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from ruamel.yaml import YAML

from src.core.stage import distributed
from src.core.stage.errors import Interrupted, ParamsError
from src.core.training import checkpoints, sharding
from src.population.data import preference_pairs, samples
from src.population.models import pretraining
from tests.population.conftest import (
    run_dpo,
    run_pretrain,
    run_sft,
    small_values,
    weights_of,
)
from tests.together import together

ROOT = Path(__file__).parents[2]
STAGES = ["pretrain", "sft", "dpo"]
SLOW = pytest.mark.slow
# 32 rows in batches of 18: the last one has 14. Dropout is no function of the sample, so it is off.
CHANGES = {f"{stage}.batch_size": 18 for stage in STAGES} | {"sft.head_dropout": 0.0, "sft.head": "mlp"}
CHANGES |= {f"{stage}.save_steps": 1 for stage in STAGES}
# Shared by 2 processes in 3 micro-batches the 14 rows are 3, 3, 2, 2, 2, 2; and of the last 2 of batches of 6 four
# micro-batches get nothing.
SPLIT = {f"{stage}.accumulate": 3 for stage in STAGES}
BATCHES_OF_6 = {f"{stage}.batch_size": 6 for stage in STAGES}


def run_stage(ready, stage: str, folder: Path, changes: dict) -> None:
    if stage == "pretrain":
        run_pretrain(ready.study, folder, changes)
    elif stage == "sft":
        run_sft(ready.study, ready.trained.pretrain, folder, changes)
    else:
        run_dpo(ready.study, ready.trained.sft, ready.trained.prefs, folder, changes)


def run_until_signal(ready, stage: str, folder: Path, changes: dict, count: int) -> None:
    """SIGTERM reaches the last of `count` processes alone, when it reads a batch of the second epoch."""
    owner, method = {
        "pretrain": (pretraining.TileViews, "__getitems__"),
        "sft": (samples.GrowthSamples, "__getitems__"),
        "dpo": (preference_pairs.PairCollator, "__call__"),
    }[stage]
    original, size, seen = getattr(owner, method), 18 // count, [0]

    def counted(self, asked):
        seen[0] += len(asked) == size
        if seen[0] == 2 and distributed.rank() == count - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, asked)

    setattr(owner, method, counted)
    run_stage(ready, stage, folder, changes)


def run_resumed(ready, stage: str, folder: Path, changes: dict) -> None:
    """Fails unless the stage goes on from a checkpoint."""
    found, latest = [], checkpoints.latest
    checkpoints.latest = lambda path: found.append(latest(path)) or found[-1]
    run_stage(ready, stage, folder, changes)
    assert found[0] is not None if distributed.is_main() else not found


def losses(folder: Path, stage: str) -> dict[str, list[float]]:
    """Loss and rate of every epoch, as dvclive wrote them."""
    found = {}
    for name in ("train/loss", "train/learning_rate", "validation/loss"):
        lines = (folder / "plots" / stage / f"plots/metrics/{name}.tsv").read_text().splitlines()[1:]
        found[name] = [float(line.split("\t")[-1]) for line in lines]
    return found


def assert_same_training(folder: Path, other: Path, stage: str, validation: bool = True) -> None:
    found, expected = losses(folder, stage), losses(other, stage)
    for name in expected:
        if validation or not name.startswith("validation"):
            assert found[name] == pytest.approx(expected[name], abs=1e-5), name
            assert len(found[name]) == 2
    weights, wanted = weights_of(folder / stage), weights_of(other / stage)
    assert max(float((weights[name] - wanted[name]).abs().max()) for name in wanted) < 1e-5


@pytest.fixture(scope="module")
def alone(ready, tmp_path_factory):
    """Folder below which one process trained each stage, with batches of 18."""
    folder = tmp_path_factory.mktemp("alone")
    for stage in STAGES:
        assert together(1, run_stage, ready, stage, folder, CHANGES) == [0]
    return folder


def test_two_processes_train_as_one(ready, alone, tmp_path):
    assert together(2, run_stage, ready, "sft", tmp_path, CHANGES) == [0, 0]
    assert_same_training(tmp_path, alone, "sft")


@pytest.mark.parametrize("stage", STAGES)
def test_micro_batches_of_uneven_parts_train_as_whole_batches(ready, alone, tmp_path, stage):
    assert together(2, run_stage, ready, stage, tmp_path, CHANGES | SPLIT) == [0, 0]
    # Validation of sft takes micro-batches too, whose cross-entropies weigh their tokens differently.
    assert_same_training(tmp_path, alone, stage, validation=stage != "sft")
    assert not any((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize("stage", ["sft", pytest.param("pretrain", marks=SLOW), pytest.param("dpo", marks=SLOW)])
def test_a_process_without_a_sample_changes_nothing(ready, tmp_path, stage):
    few = CHANGES | BATCHES_OF_6
    assert together(1, run_stage, ready, stage, tmp_path / "one", few) == [0]
    assert together(2, run_stage, ready, stage, tmp_path / "two", few | SPLIT) == [0, 0]
    assert_same_training(tmp_path / "two", tmp_path / "one", stage, validation=False)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("before", "after"), [(2, 1), pytest.param(1, 2, marks=SLOW)])
def test_another_number_of_processes_resumes(ready, alone, tmp_path, stage, before, after):
    """And a signal that reached one process has stopped both at the same step."""
    codes = together(before, run_until_signal, ready, stage, tmp_path, CHANGES, before)
    assert codes == [Interrupted.exit_code] * before
    saved = list((tmp_path / "checkpoints").glob("*/checkpoint-*"))
    assert saved and not (tmp_path / stage).exists()
    assert together(after, run_resumed, ready, stage, tmp_path, CHANGES) == [0] * after
    assert_same_training(tmp_path, alone, stage)


def test_batches_that_cannot_be_shared_are_refused(ready, tmp_path):
    assert together(2, run_stage, ready, "sft", tmp_path, CHANGES | {"sft.batch_size": 7}) == [2, 2]
    assert not (tmp_path / "sft").exists()


def shard_on_cpu() -> None:
    """accelerate/fsdp2.yaml without a GPU: accelerate shards on everything but the CPU, though torch does there too."""
    config = YAML(typ="safe", pure=True).load((ROOT / "accelerate/fsdp2.yaml").read_text(encoding="utf-8"))
    values = {name.upper(): str(value) for name, value in config["fsdp_config"].items()}
    os.environ |= values | {"ACCELERATE_USE_FSDP": "true"}
    original = AcceleratorState.__init__

    def init(self, *args, fsdp_plugin=None, **kwargs):
        original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = init


def sharded(work, *args) -> None:
    """`work` with parameters cut in two; fails where they were not."""
    shard_on_cpu()
    seen, gather = [], sharding.is_sharded
    sharding.is_sharded = lambda model: seen.append(gather(model)) or seen[-1]
    work(*args)
    assert any(seen)


@pytest.mark.parametrize("stage", ["sft", pytest.param("pretrain", marks=SLOW)])
def test_sharded_parameters_train_as_whole_ones(ready, alone, tmp_path, stage):
    """With an encoder that thaws on the way, generation in validation, and a folder that plain transformers reads."""
    assert together(2, sharded, run_stage, ready, stage, tmp_path, CHANGES) == [0, 0]
    assert_same_training(tmp_path, alone, stage)
    config = json.loads((tmp_path / stage / "config.json").read_text())
    assert config["architectures"] == json.loads((alone / stage / "config.json").read_text())["architectures"]


@SLOW
def test_sharded_training_resumes(ready, alone, tmp_path):
    stopped = [Interrupted.exit_code] * 2
    assert together(2, sharded, run_until_signal, ready, "sft", tmp_path, CHANGES, 2) == stopped
    assert together(2, sharded, run_resumed, ready, "sft", tmp_path, CHANGES) == [0, 0]
    assert_same_training(tmp_path, alone, "sft")


def test_dpo_of_all_weights_is_refused_where_they_are_shared_out(ready, tmp_path):
    assert together(2, sharded, run_stage, ready, "dpo", tmp_path, CHANGES) == [ParamsError.exit_code] * 2


@pytest.fixture
def launch(ready, tmp_path):
    """`launch(stage, config, changes, *options)` -> accelerate's launcher, running below tmp_path."""
    started = []

    def launch(stage: str, config: str, changes: dict, *options: str) -> subprocess.Popen:
        path = tmp_path / "params.yaml"
        YAML().dump(small_values(CHANGES | {"checkpoint_root": str(tmp_path / "checkpoints")} | changes), path)
        inputs = vars(ready.study) | {"pretrain": ready.trained.pretrain}
        folders = inputs | {"params": path, "out": tmp_path / stage, "plots": tmp_path / "plots" / stage}
        command = [str(Path(sys.executable).with_name("accelerate")), "launch", "--num_processes", "2"]
        command += ["--config_file", str(ROOT / f"accelerate/{config}.yaml"), "--main_process_port", "0", *options]
        command += ["-m", f"src.population.{stage}"]
        command += [part for name, value in folders.items() for part in (f"--{name}", str(value))]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        log = (tmp_path / "log").open("a")
        started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log))
        return started[-1]

    yield launch
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def ranks(launcher: subprocess.Popen) -> list[int]:
    """Process ids of the launcher's children, in the order of their start."""
    return [int(pid) for pid in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()]


def wait_for_checkpoint(launcher: subprocess.Popen, folder: Path) -> None:
    deadline = time.monotonic() + 180
    while not list(folder.glob("checkpoints/*/checkpoint-*/manifest.json")):
        assert launcher.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
        time.sleep(0.05)


@SLOW
def test_the_launcher_trains_as_one_process_and_says_everything_once(alone, tmp_path, launch):
    assert launch("sft", "ddp", {}).wait(300) == 0, (tmp_path / "log").read_text()[-3000:]
    assert_same_training(tmp_path, alone, "sft")
    log = (tmp_path / "log").read_text()
    assert log.count("trainable groups:") == log.count("training and 6 validation labels") == 1
    assert log.count("'train_runtime'") == 1 and log.count("'eval_loss'") == 2
    assert json.loads((tmp_path / "logs" / "sft" / "run_status.json").read_text())["exit_code"] == 0


@SLOW
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_run_soon(tmp_path, launch, rank):
    launcher = launch("sft", "ddp", {"sft.epochs": 200})
    wait_for_checkpoint(launcher, tmp_path)
    pids = ranks(launcher)
    os.kill(pids[rank], signal.SIGKILL)
    assert launcher.wait(60) != 0
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert not (tmp_path / "sft").exists()


@SLOW
def test_a_terminated_launcher_leaves_a_checkpoint_and_75_in_the_status(tmp_path, launch):
    launcher = launch("sft", "ddp", {"sft.epochs": 200})
    wait_for_checkpoint(launcher, tmp_path)
    pids = ranks(launcher)
    launcher.terminate()
    assert launcher.wait(60) != 0
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    status = json.loads((tmp_path / "logs" / "sft" / "run_status.json").read_text())
    assert status["exit_code"] == Interrupted.exit_code and "goes on from there" in status["message"]
