"""Helpers of the tests of grounding's trainings: a tiny store, a tiny network, and the stages that run on them."""

import os
import signal
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from src.grounding import controls, ground, pretrain
from src.grounding.data import scene_store
from src.grounding.data.scene_store import Scene, SceneStore
from src.grounding.models import denoiser
from src.grounding.models.denoiser import Denoiser, Scaling
from src.grounding.models.training_windows import RandomWindows
from src.grounding.params import Params
from tests.grounding.pair_files import images, params

SIDE, TILE = 40, 16
ROLES = {"pretrain": 3, "ground": 2, "validation": 2, "test": 1}
SMALL = {
    "threads": 1,
    "tiles.tile_px": TILE,
    "model.patch_px": 4,
    "model.depth": 2,
    "model.width": 32,
    "model.heads": 2,
    "model.train_steps": 50,
    "model.steps": 3,
    "pretrain.epochs": 2,
    "pretrain.windows": 20,  # the last batch of an epoch is a smaller one
    "pretrain.batch_size": 8,
    "pretrain.save_steps": 2,
    "ground.epochs": 2,
    "ground.windows": 20,
    "ground.batch_size": 8,
    "ground.save_steps": 2,
    "ground.lora.rank": 2,
    "ground.lora.alpha": 4,
}
SCALING = Scaling([0.1] * 4, [0.05] * 4, [-10.0, -16.0], [4.0, 4.0], [0.02] * 4)


def scene(name: str, role: str, seed: int, side: int = SIDE, **changes) -> Scene:
    """Fields in both sensors; the first guess is the truth with noise and a hole; some pixels are not valid."""
    sar, optical = images(seed, side)
    draw = np.random.default_rng(seed)
    missing, valid = np.zeros((side, side), bool), np.ones((side, side), bool)
    missing[4:9, 5:12], valid[:2, :3] = True, False
    guess = (optical + draw.normal(0, 0.02, optical.shape)).clip(0, 1).astype(np.float32)
    guess[:, missing] = guess.mean()
    arrays = {"sar": sar, "optical": optical, "first_guess": guess, "valid": valid, "missing": missing} | changes
    return Scene(name, role, **arrays, crs="EPSG:32630", transform=(10.0, 0.0, 5e5, 0.0, -10.0, 5e6))


def write_store(folder: Path, counts: dict[str, int] | None = None, side: int = SIDE, **changes) -> Path:
    """A store of so many scenes of each role, named by it."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for role, count in (counts or ROLES).items():
        for number in range(count):
            one = scene(f"{role}{number}", role, len(rows), side, **changes)
            scene_store.write_scene(folder, one)
            rows.append({name: getattr(one, name) for name in ("name", "role", "crs")} | {
                "block": f"{len(rows)}", "height": side, "width": side, "transform": list(one.transform),
                "sar_date": "", "optical_date": "", "shift_px": 0.0, "valid_share": 1.0, "flags": "",
            })  # fmt: skip
    scene_store.finish(folder, rows, {"opt_v2": "synthetic", "simulated": True}, {})
    return folder


def small(folder: Path | None = None, changes: dict | None = None) -> Params:
    """The committed params with a tiny network and short trainings; checkpoints below `folder`."""
    scratch = {"checkpoint_root": str(folder / "checkpoints")} if folder else {}
    return params(SMALL | scratch | (changes or {}))


def network(changes: dict | None = None, sees_sar: bool = True, seed: int = 0) -> Denoiser:
    """A tiny generator of random weights, without any that are 0, so that every input can be seen in the output."""
    torch.manual_seed(seed)
    model = denoiser.build(small(changes=changes).model, TILE, SCALING, sees_sar)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model.eval()


def batch(rows: int = 2, side: int = TILE, seed: int = 0) -> dict[str, torch.Tensor]:
    """first_guess, missing, sar and noise of some windows."""
    draw = torch.Generator().manual_seed(seed)
    return {
        "first_guess": 0.2 + 0.1 * torch.rand(rows, 4, side, side, generator=draw),
        "missing": torch.rand(rows, side, side, generator=draw) < 0.2,
        "sar": -12 + 4 * torch.randn(rows, 2, side, side, generator=draw),
        "noise": torch.randn(rows, 4, side, side, generator=draw),
    }


def run_pretrain(store: Path, folder: Path, changes: dict | None = None, dry_run: bool = False) -> Path:
    out = Namespace(out=folder / "pretrain", plots=folder / "plots")
    pretrain.main(small(folder, changes), Namespace(store=store), out, dry_run)
    return out.out


def run_ground(store: Path, base: Path, folder: Path, changes: dict | None = None, dry_run: bool = False) -> Path:
    out = Namespace(out=folder / "ground", plots=folder / "plots")
    ground.main(small(folder, changes), Namespace(store=store, base=base), out, dry_run)
    return out.out


def run_controls(store: Path, folder: Path, changes: dict | None = None, dry_run: bool = False) -> Path:
    out = Namespace(out=folder / "controls", plots=folder / "plots")
    controls.main(small(folder, changes), Namespace(store=store), out, dry_run)
    return out.out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """Every weight in the .safetensors files below `folder`, by file and name."""
    return {
        f"{path.relative_to(folder)}/{name}": value
        for path in sorted(folder.rglob("*.safetensors"))
        for name, value in safetensors.torch.load_file(path).items()
    }


def largest_difference(folder: Path, other: Path) -> float:
    """Of all weights but biases of attention's keys: softmax takes no notice of them, so that their gradient is
    rounding alone, which AdamW turns into steps of full size."""
    found, expected = weights_of(folder), weights_of(other)
    assert found.keys() == expected.keys() and found
    return max(float((found[name] - expected[name]).abs().max()) for name in expected if "to_k.bias" not in name)


def losses_of(plots: Path) -> list[float]:
    """Losses of training and validation, epoch by epoch."""
    lines = [line for part in ("train", "validation") for line in
             (plots / f"plots/metrics/{part}/loss.tsv").read_text().splitlines()[1:]]  # fmt: skip
    return [float(line.split("\t")[-1]) for line in lines]


class Reads:
    """Names of scenes that were read, through `SceneStore.read`."""

    def __init__(self, monkeypatch):
        self.names, original = [], SceneStore.read
        monkeypatch.setattr(SceneStore, "read", lambda store, name: self.names.append(name) or original(store, name))


class Crash(Exception):
    """Stands for SIGKILL: nothing is saved on the way out."""


def crash():
    raise Crash


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def stop():
    """`stop(step, action, run, expected)`: let `action` happen where the batch of that training step is read."""

    def stop(step, action, run, expected):
        original, read = RandomWindows.__getitems__, [0]

        def counted(self, indices):
            read[0] += 1
            if read[0] == step:
                action()
            return original(self, indices)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RandomWindows, "__getitems__", counted)
            with pytest.raises(expected):
                run()

    return stop
