"""Helpers of the tests of both trainings: a small store with its split, and ways to stop a training."""

import os
import random
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from safetensors.numpy import save_file

from src.core.data.embedding_store import EmbeddingWriter
from src.species.data import task as tasks
from src.species.data.batches import Observations
from src.species.params import Params
from tests.conftest import species_params
from tests.pipelines import ROOT, values_of

WIDTHS = {"language": 12, "vision_pooled": 8}
SPECIES = 5
SMALL = {
    "threads": 1,
    "train.hidden": 16,
    "train.epochs": 5,
    "train.batch_size": 32,
    "train.lr": 0.02,
    "train.save_steps": 3,
}


def small_params(folder: Path, changes: dict | None = None) -> Params:
    scratch = {"checkpoint_root": str(folder / "checkpoints")}
    return species_params(SMALL | scratch | (changes or {}))


def write_study(
    folder: Path, count: int = 240, modalities=("language", "vision_pooled"), noise: float = 1.0, seed: int = 0
) -> Namespace:
    """A store and a split: species differ in both embeddings, row 0 and 1 lack them all, others lack one of them.

    Rows of one species are held out altogether, so that it cannot be predicted.
    """
    generator = np.random.default_rng(seed)
    species = generator.choice(SPECIES, count, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    role = generator.choice(["train", "validation", "test", "buffer"], count, p=[0.5, 0.2, 0.25, 0.05])
    role[:4] = ["test", "train", "test", "validation"]
    species[2:4] = SPECIES  # held out alone
    kind = np.where(np.isin(role, ["validation", "test"]), generator.choice(list(tasks.KINDS), count), "")
    index = pd.DataFrame(
        {
            "id": [f"{number}_1" for number in range(count)],
            "lat": generator.uniform(27, 29, count),
            "lon": generator.uniform(-82, -80, count),
            "first_day": 18_000 + np.arange(count),
            "species": [f"species {number}" for number in species],
        }
    )
    shared = generator.normal(size=(count, 4))
    writer = EmbeddingWriter(folder / "store", {name: (count, WIDTHS[name]) for name in modalities})
    statistics = {}
    for name in modalities:
        width = WIDTHS[name]
        means = 2 * generator.normal(size=(SPECIES + 1, width))
        rows = (
            means[species] + shared @ generator.normal(size=(4, width)) + noise * generator.normal(size=(count, width))
        )
        rows = 3 * rows + 10  # far from standardised
        missing = generator.random(count) < 0.1
        missing[:2], missing[2:4] = True, False
        writer.array(name)[:] = np.where(missing[:, None], 0, rows)
        index[f"{name}_row"] = np.where(missing, -1, np.arange(count))
        used = rows[(role == "train") & ~missing].astype(np.float32)
        statistics |= {f"{name}_mean": used.mean(0), f"{name}_sd": used.std(0)}
    writer.finish(index, {"simulated": True})
    split = folder / "split"
    split.mkdir()
    table = pd.DataFrame({"id": index["id"], "role": role, "kind": kind, "square": -1, "cell": "a"})
    table.assign(nearest_train_km=1.0).to_parquet(split / "split.parquet", index=False)
    save_file(statistics, split / "statistics.safetensors")
    return Namespace(store=folder / "store", split=split)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Crash(Exception):
    """Stands for SIGKILL: nothing is saved on the way out."""


def crash():
    raise Crash


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def stop(monkeypatch):
    """`stop(step, action, run, expected)`: let `action` happen where the batch of that training step is read."""

    def stop(step, action, run, expected):
        original, read = Observations.__getitems__, [0]

        def counted(self, indices):
            read[0] += len(indices) == SMALL["train.batch_size"]
            if read[0] == step and len(indices) == SMALL["train.batch_size"]:
                action()
            return original(self, indices)

        with monkeypatch.context() as patch:
            patch.setattr(Observations, "__getitems__", counted)
            with pytest.raises(expected) as caught:
                run()
        return caught.value

    return stop


def start(study, folder, stage, changes):
    """A process that runs the stage from the command line below `folder`."""
    path = folder / "params.yaml"
    YAML().dump(values_of("species", SMALL | {"checkpoint_root": str(folder / "checkpoints")} | changes), path)
    command = [sys.executable, "-m", f"src.species.{stage}", "--params", path, "--store", study.store]
    command += ["--split", study.split, "--out", folder / stage, "--plots", folder / "plots"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    log = (folder / "log").open("a")
    return subprocess.Popen([str(part) for part in command], cwd=folder, env=environment, stdout=log, stderr=log)


def kill_once(study, folder, stage, changes, seed):
    """Run the stage, kill it at a random moment, and run it again."""
    generator = random.Random(seed)
    process, step = start(study, folder, stage, changes), generator.randrange(3, 40)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        saved = [int(path.name.split("-")[1]) for path in folder.glob("checkpoints/*/checkpoint-*")]
        if max(saved, default=0) >= step:
            break
        time.sleep(0.002)
    time.sleep(generator.uniform(0, 0.1))
    process.kill()
    assert process.wait() == -signal.SIGKILL, (folder / "log").read_text()[-2000:]
    assert not (folder / stage).exists()
    assert start(study, folder, stage, changes).wait() == 0, (folder / "log").read_text()[-2000:]
    assert "resuming from" in (folder / "log").read_text()
