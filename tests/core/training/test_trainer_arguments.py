"""The schedule spans the whole training, and the arguments follow what a stage asks."""

import math

import pytest
import torch
from transformers import TrainingArguments

from src.core.stage import errors
from src.core.stage.errors import DependencyError, ParamsError
from src.core.training.trainer_arguments import Plan, arguments, cosine_schedule


def plan(**changes) -> Plan:
    return Plan(**{"seed": 3, "epochs": 4, "batch_size": 5} | changes)


def settings(tmp_path, **changes) -> dict:
    return arguments(plan(**changes), tmp_path)


def test_cosine_after_a_linear_warm_up():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
    schedule = cosine_schedule(optimizer, plan(warmup_ratio=0.25), samples=23)
    rates = []
    for _ in range(20):  # 23 samples in batches of 5 are 5 steps, 4 epochs of them
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    expected = [0.2 * step / 5 if step < 5 else 0.1 * (1 + math.cos(math.pi * (step - 5) / 15)) for step in range(20)]
    assert rates == pytest.approx(expected)
    assert schedule.get_last_lr()[0] == pytest.approx(0)


def test_the_best_checkpoint_is_the_lowest_loss_or_the_highest_score(tmp_path):
    loss = TrainingArguments(**settings(tmp_path, best="eval_loss") | {"use_cpu": True})
    score = TrainingArguments(**settings(tmp_path, best="eval_r2") | {"use_cpu": True})
    plain = TrainingArguments(**settings(tmp_path) | {"use_cpu": True})
    assert (loss.load_best_model_at_end, loss.greater_is_better) == (True, False)
    assert (score.load_best_model_at_end, score.greater_is_better) == (True, True)
    assert not plain.load_best_model_at_end


def test_a_batch_is_shared_by_processes_and_micro_batches(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    chosen = settings(tmp_path, batch_size=24, accumulate=3)
    assert (chosen["per_device_train_batch_size"], chosen["gradient_accumulation_steps"]) == (2, 3)
    assert chosen["per_device_eval_batch_size"] == 8, "as with one process: each evaluates everything"
    with pytest.raises(ParamsError, match=r"batch_size: found 10, .* multiple of 12 \(4 processes x accumulate 3\)"):
        settings(tmp_path, batch_size=10, accumulate=3)


def test_an_absent_logger_is_named_with_its_install_line(tmp_path, monkeypatch):
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="`report_to`: wandb is not installed; run pip install wandb"):
        settings(tmp_path, report_to="wandb")


def test_what_a_stage_adds_goes_before_the_common_choice(tmp_path, monkeypatch):
    monkeypatch.setattr(errors, "find_spec", lambda name: name)
    chosen = arguments(plan(report_to="tensorboard"), tmp_path, save_strategy="no", label_names=["target"])
    assert (chosen["report_to"], chosen["save_strategy"], chosen["label_names"]) == ("tensorboard", "no", ["target"])
    assert TrainingArguments(**settings(tmp_path)).report_to == [], "none must not mean every logger that is installed"
    assert chosen["seed"] == 3 and chosen["num_train_epochs"] == 4 and chosen["per_device_eval_batch_size"] == 5
