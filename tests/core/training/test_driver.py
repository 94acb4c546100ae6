"""One training through the driver: the plan is followed, what was meant to train has moved, scratch goes at the end."""

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from src.core.stage.errors import BandwiseError, ParamsError
from src.core.training import driver
from src.core.training.global_batches import ReadyBatches
from src.core.training.parameter_groups import ParameterGroups
from src.core.training.trainer_arguments import Plan

PLAN = Plan(seed=0, epochs=6, batch_size=4, save_steps=2, warmup_ratio=0.1, best="eval_score", patience=2)


class Sums(ReadyBatches):
    def __init__(self, count: int, seed: int):
        self.x = torch.from_numpy(np.random.default_rng(seed).normal(size=(count, 3))).float()

    def __len__(self) -> int:
        return len(self.x)

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        return {"x": self.x[indices], "target": self.x[indices].sum(1)}


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.unused = nn.Linear(3, 1), nn.Linear(3, 1)

    def forward(self, x, target):
        predicted = self.layer(x)[:, 0]
        return {"loss": ((predicted - target) ** 2).mean(), "predicted": predicted}


def score(predicted) -> dict[str, float]:
    return {"score": -float(((predicted.predictions - predicted.label_ids) ** 2).mean())}


def fit(folder: Path, plan: Plan = PLAN, measure=score, rate: float = 0.05, part: str = "layer"):
    model = Linear()
    groups = ParameterGroups({part: (list(getattr(model, part).parameters()), rate, 0)})
    how = {"label": "target", "measure": measure, "scratch": folder / "scratch", "plots": folder / "plots"}
    history = driver.fit(plan, model, groups, groups.optimizer(0.0), Sums(18, 0), Sums(8, 1), **how)
    return model, history


def evaluated(history: list[dict], name: str = "score") -> list[float]:
    return [entry[f"eval_{name}"] for entry in history if f"eval_{name}" in entry]


def test_it_learns_and_logs_each_epoch(tmp_path):
    model, history = fit(tmp_path)
    scores = evaluated(history)
    assert len(scores) == PLAN.epochs and 0 > scores[-1] > 0.8 * scores[0]
    assert not model.training, "ready to be used"
    assert (tmp_path / "plots/plots/metrics/validation/score.tsv").read_text().count("\n") == PLAN.epochs + 1
    rates = [entry["learning_rate"] for entry in history if "learning_rate" in entry]
    assert 0.05 >= rates[0] > rates[-1] and rates[-1] < 0.001, "the schedule spans the whole training"


def test_patience_ends_it_and_the_best_epoch_is_kept(tmp_path):
    scores = iter([0.1, 0.3, 0.2, 0.2, 0.9])
    model, history = fit(tmp_path, measure=lambda predicted: {"score": next(scores)})
    assert evaluated(history) == [0.1, 0.3, 0.2, 0.2]
    batch = Sums(8, 1).__getitems__(list(range(8)))
    losses = evaluated(history, "loss")
    assert model(**batch)["loss"].item() == pytest.approx(losses[1], rel=1e-4) and losses[1] > losses[3]


@pytest.mark.parametrize(
    ("delta", "epochs"),
    [(0.0, 6), (0.004, 6), (0.05, 4)],
    ids=["any rise counts", "each rise is above delta", "rises below delta are none"],
)
def test_patience_counts_epochs_that_are_not_better_by_delta(tmp_path, delta, epochs):
    scores = iter([0.1, 0.3, 0.31, 0.32, 0.33, 0.34])
    plan = replace(PLAN, delta=delta)
    model, history = fit(tmp_path, plan, measure=lambda predicted: {"score": next(scores)})
    assert len(evaluated(history)) == epochs
    batch = Sums(8, 1).__getitems__(list(range(8)))
    kept = evaluated(history, "loss")[epochs - 1]
    assert model(**batch)["loss"].item() == pytest.approx(kept, rel=1e-4), "the best is kept, by however little"


def test_a_group_that_the_loss_does_not_reach_or_that_stays_stops_it(tmp_path):
    with pytest.raises(BandwiseError, match="group 'layer' was meant to train and did not move"):
        fit(tmp_path / "still", rate=0.0)
    with pytest.raises(BandwiseError, match="group 'unused' is meant to train and gets no gradient"):
        fit(tmp_path / "unused", part="unused")


def test_outputs_are_whole_or_absent_and_scratch_is_kept_until_they_are(tmp_path):
    out, scratch = Namespace(out=tmp_path / "out", plots=tmp_path / "plots"), tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(RuntimeError), driver.outputs(out, [scratch], "sft", []) as (folder, plots):
        (folder / "weights").write_text("half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["scratch"]
    with driver.outputs(out, [scratch], "sft", []) as (folder, plots):
        (folder / "weights").write_text("whole")
        (plots / "curve.json").write_text(json.dumps([1]))
    assert (out.out / "weights").read_text() == "whole" and (out.plots / "curve.json").exists()
    assert not scratch.exists()


def test_a_full_gpu_is_answered_with_what_the_stage_can_change(tmp_path):
    out = Namespace(out=tmp_path / "out", plots=tmp_path / "plots")
    with (
        pytest.raises(ParamsError, match=r"^sft: the GPU's memory is full \(2 GB\); .* done yet: raise a, lower b$"),
        driver.outputs(out, [], "sft", ["raise a", "lower b"]),
    ):
        raise torch.OutOfMemoryError("2 GB\nmore")
    assert not any(tmp_path.iterdir())
