"""Resume is exact, only what belongs is resumed, and an incomplete checkpoint is passed over aloud."""

import json
import logging
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from src.core.data.augment import generator
from src.core.stage import run
from src.core.stage.errors import Interrupted, StorageError
from src.core.training import checkpoints
from src.core.training.global_batches import GlobalBatchMixin
from src.core.training.trainer_arguments import Plan, arguments, cosine_schedule

EPOCHS, SAMPLES, BATCH = 3, 20, 4
PER_EPOCH = SAMPLES // BATCH
STEPS = EPOCHS * PER_EPOCH


class Views(torch.utils.data.Dataset):
    """Samples drawn anew in every epoch, as the project's data sets do."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        x = torch.from_numpy(generator(0, self.epoch, index, 1).standard_normal(4)).float()
        return {"x": x, "labels": x.sum(0, keepdim=True) + self.epoch}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.base, self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 8), nn.Linear(8, 1)
        self.dropout = nn.Dropout(0.5)
        self.base.requires_grad_(False)

    def forward(self, x, labels):
        hidden = self.dropout(torch.tanh(self.body(self.base(x))))
        return {"loss": ((self.head(hidden) - labels) ** 2).mean()}


class NetTrainer(GlobalBatchMixin, checkpoints.TrainedWeightsMixin, Trainer):
    pass


class Crash(Exception):
    """Stands for SIGKILL: nothing is saved on the way out."""


class At(TrainerCallback):
    """Does something at the end of one step, before that step's save."""

    def __init__(self, step: int, action):
        self.step, self.action = step, action

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.action()


def crash():
    raise Crash


def make_trainer(folder: Path, *callbacks: TrainerCallback, best: str | None = None) -> NetTrainer:
    set_seed(0)
    net = Net()
    plan = Plan(seed=0, epochs=EPOCHS, batch_size=BATCH, warmup_ratio=0.1, best=best)
    args = TrainingArguments(**arguments(plan, folder, use_cpu=True, disable_tqdm=True))
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=0.05)
    return NetTrainer(
        model=net,
        args=args,
        train_dataset=Views(),
        eval_dataset=Views(),
        optimizers=(optimizer, cosine_schedule(optimizer, plan, SAMPLES)),
        callbacks=list(callbacks),
    )


def fit(folder: Path, *callbacks: TrainerCallback, save_steps: int = 2) -> NetTrainer:
    trainer = make_trainer(folder, *callbacks)
    checkpoints.train(trainer, folder, save_steps)
    return trainer


def same(one: NetTrainer, two: NetTrainer) -> bool:
    pairs = zip(one.model.parameters(), two.model.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def curve(trainer: NetTrainer) -> list[tuple]:
    """The log without run times."""
    return [
        (row["epoch"], row.get("loss"), row.get("eval_loss"))
        for row in trainer.state.log_history
        if "eval_loss" in row or "loss" in row
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> NetTrainer:
    return fit(tmp_path_factory.mktemp("undisturbed") / "run")


def test_two_undisturbed_runs_are_equal_and_dropout_matters(undisturbed, tmp_path):
    assert same(undisturbed, fit(tmp_path / "again"))
    other = make_trainer(tmp_path / "other")
    other.model.dropout.p = 0.0
    checkpoints.train(other, tmp_path / "other", 2)
    assert not same(undisturbed, other), "else a lost random state could not be seen"


@pytest.mark.parametrize("step", [1, 2, 4, 7, 10, STEPS - 1])
def test_killed_at_any_step_it_ends_with_the_same_weights(undisturbed, tmp_path, step, caplog):
    with pytest.raises(Crash):
        fit(tmp_path / "run", At(step, crash), save_steps=3)
    saved = [at for at in range(1, step) if at % 3 == 0 or at % PER_EPOCH == 0]
    with caplog.at_level(logging.INFO):
        resumed = fit(tmp_path / "run", save_steps=3)
    assert same(undisturbed, resumed) and curve(undisturbed) == curve(resumed)
    assert ("resuming from" in caplog.text) == bool(saved)
    if saved:
        assert f"checkpoint-{saved[-1]}" in caplog.text


@pytest.mark.parametrize("step", [1, 8, 10], ids=["first", "mid-epoch", "last of an epoch"])
def test_a_signal_saves_stops_with_75_and_the_next_run_goes_on(undisturbed, tmp_path, step):
    folder = tmp_path / "run"
    term = At(step, lambda: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    code, message = run.outcome(lambda: fit(folder, term, save_steps=100), "population.sft")
    assert code == Interrupted.exit_code == 75 and "the same command goes on" in message
    assert signal.getsignal(signal.SIGTERM) is before
    assert checkpoints.latest(folder).name == f"checkpoint-{step}"
    steps = []

    class First(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            steps.append(state.global_step)

    resumed = fit(folder, First(), save_steps=100)
    assert steps[0] == step, "it did not start afresh"
    assert same(undisturbed, resumed) and curve(undisturbed) == curve(resumed)


class Worse(TrainerCallback):
    """Validation loss that is best in the first epoch."""

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        metrics["eval_loss"] = float(state.epoch)


def test_killed_after_an_early_stop_it_does_not_train_on(tmp_path, caplog):
    class CrashAtEnd(TrainerCallback):
        def on_train_end(self, *args, **kwargs):
            crash()

    def fit_until_worse(folder, *callbacks):
        trainer = make_trainer(folder, Worse(), EarlyStoppingCallback(1), *callbacks, best="eval_loss")
        checkpoints.train(trainer, folder, 100)
        return trainer

    whole = fit_until_worse(tmp_path / "whole")
    assert whole.state.global_step == 2 * PER_EPOCH < STEPS
    with pytest.raises(Crash):
        fit_until_worse(tmp_path / "run", CrashAtEnd())
    resumed = fit_until_worse(tmp_path / "run")
    assert resumed.state.global_step == 2 * PER_EPOCH and same(whole, resumed) and curve(whole) == curve(resumed)
    assert resumed.state.best_model_checkpoint.endswith(f"-{PER_EPOCH}")


def spoil(path: Path, how: str) -> None:
    if how == "no manifest":
        (path / "manifest.json").unlink()
    elif how == "truncated":
        (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-1])
    elif how == "flipped":
        content = bytearray((path / "optimizer.pt").read_bytes())
        content[len(content) // 2] ^= 1
        (path / "optimizer.pt").write_bytes(content)
    else:
        (path / "rng_state.pth").unlink()


@pytest.mark.parametrize("how", ["no manifest", "truncated", "flipped", "missing"])
def test_an_incomplete_newest_checkpoint_is_skipped_aloud(undisturbed, tmp_path, caplog, how):
    folder = tmp_path / "run"
    with pytest.raises(Crash):
        fit(folder, At(7, crash))
    spoil(folder / "checkpoint-6", how)
    with caplog.at_level(logging.WARNING):
        assert checkpoints.latest(folder) == folder / "checkpoint-5"
    assert "checkpoint-6 is incomplete" in caplog.text and "skipped" in caplog.text
    assert same(undisturbed, fit(folder))


def test_with_no_complete_checkpoint_it_starts_afresh(undisturbed, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(Crash):
        fit(folder, At(3, crash))
    spoil(folder / "checkpoint-2", "no manifest")
    assert checkpoints.latest(folder) is None
    assert same(undisturbed, fit(folder))
    assert checkpoints.latest(tmp_path / "never") is None


def test_killed_while_an_epoch_is_evaluated_it_evaluates_that_epoch_again(undisturbed, tmp_path):
    """With a checkpoint at the epoch's last step and before its evaluation, that evaluation would be lost."""

    class InEvaluation(TrainerCallback):
        def on_evaluate(self, args, state, control, **kwargs):
            if state.global_step == 2 * PER_EPOCH:
                raise Crash

    with pytest.raises(Crash):
        fit(tmp_path / "run", InEvaluation(), save_steps=PER_EPOCH)
    resumed = fit(tmp_path / "run", save_steps=PER_EPOCH)
    assert same(undisturbed, resumed) and curve(undisturbed) == curve(resumed)


def test_newest_is_by_number(tmp_path):
    for step in (9, 10, 100):
        path = tmp_path / f"checkpoint-{step}"
        path.mkdir()
        (path / "a").write_text("a")
        checkpoints._complete(path)
    assert checkpoints.latest(tmp_path).name == "checkpoint-100"


def test_a_checkpoint_holds_what_the_optimizer_owns(undisturbed):
    folder = checkpoints.latest(Path(undisturbed.args.output_dir))
    weights = load_file(folder / "model.safetensors")
    assert set(weights) == {"body.weight", "body.bias", "head.weight", "head.bias"}
    assert torch.equal(weights["head.weight"], undisturbed.model.head.weight)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest) == {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= set(manifest)


def test_a_full_disk_is_a_storage_error(tmp_path):
    def full():
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="cannot save a checkpoint: No space left on device"):
        fit(tmp_path / "run", At(1, full))
