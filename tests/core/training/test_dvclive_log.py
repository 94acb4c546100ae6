"""Curves repeat: no run times, and a resumed training leaves the files of an undisturbed one."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from src.core.stage.errors import StorageError
from src.core.training import driver
from src.core.training.dvclive_log import LiveLog
from src.core.training.trainer_arguments import Plan

EPOCHS = [
    ({"loss": 3.0, "learning_rate": 0.1, "train_runtime": 12.0}, {"eval_loss": 2.5, "eval_runtime": 9.0}),
    ({"loss": 2.0, "learning_rate": 0.05, "total_flos": 1e9}, {"eval_loss": 2.0, "eval_samples_per_second": 7.1}),
    ({"loss": 1.0, "learning_rate": 0.01, "num_tokens": 99}, {"eval_loss": 1.5, "eval_r2": 0.25}),
]


def train(folder: Path, epochs: list, history: list | None = None, first: int = 1) -> list[dict]:
    """Make the calls that Trainer would make from epoch `first` on; returns its log history."""
    state = SimpleNamespace(log_history=list(history or []), epoch=0.0)
    live = LiveLog(folder)
    live.on_train_begin(None, state, None)
    for epoch, parts in enumerate(epochs, start=first):
        state.epoch = float(epoch)
        for logs in parts:
            state.log_history.append(logs | {"epoch": float(epoch), "step": 10 * epoch})
            live.on_log(None, state, None, logs=logs)
    live.on_train_end(None, state, None)
    return state.log_history


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def curve(text: str) -> list[list[str]]:
    """[step, value] of each row; dvclive's tsv may hold a time beside them."""
    header, *rows = [line.split("\t") for line in text.splitlines()]
    return [[row[header.index("step")], row[-1]] for row in rows]


@pytest.fixture(autouse=True)
def outside_a_repository(tmp_path, monkeypatch):
    """Every test here runs where there is no git, as in an unpacked source archive."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))


def test_curves_hold_one_step_an_epoch_and_no_run_times(tmp_path):
    train(tmp_path / "live", EPOCHS)
    files = contents(tmp_path / "live")
    assert set(files) == {
        "metrics.json",
        *(f"plots/metrics/train/{name}.tsv" for name in ("loss", "learning_rate")),
        *(f"plots/metrics/validation/{name}.tsv" for name in ("loss", "r2")),
    }
    assert curve(files["plots/metrics/train/loss.tsv"]) == [["1", "3.0"], ["2", "2.0"], ["3", "1.0"]]
    assert curve(files["plots/metrics/validation/r2.tsv"]) == [["3", "0.25"]]
    assert not any(word in text for text in files.values() for word in ("runtime", "per_second", "time", "flos"))


def test_two_runs_leave_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        train(tmp_path / name, EPOCHS)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize("done", [1, 2])
def test_a_resumed_training_leaves_the_files_of_an_undisturbed_one(tmp_path, done):
    train(tmp_path / "whole", EPOCHS)
    history = train(tmp_path / "killed", EPOCHS[:done])
    train(tmp_path / "resumed", EPOCHS[done:], history, first=done + 1)
    assert contents(tmp_path / "resumed") == contents(tmp_path / "whole")


@pytest.mark.parametrize(("rank", "logs"), [("0", True), ("1", False)])
def test_the_main_process_alone_writes(tmp_path, monkeypatch, rank, logs):
    monkeypatch.setenv("RANK", rank)
    found = driver.callbacks(Plan(seed=0, epochs=2, batch_size=4), tmp_path)
    assert any(isinstance(callback, LiveLog) for callback in found) is logs


def test_nothing_is_written_beside_the_folder(tmp_path):
    """Plain `Live()` rewrites dvc.yaml and makes an experiment."""
    train(tmp_path / "live", EPOCHS)
    assert [path.name for path in tmp_path.iterdir()] == ["live"]


def test_a_repository_without_commit_is_named(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    with pytest.raises(StorageError, match="make a first git commit"):
        train(tmp_path / "live", EPOCHS)
