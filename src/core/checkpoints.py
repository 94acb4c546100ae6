"""Resumable training: what may be resumed, when a checkpoint is complete, what a signal does.

A checkpoint folder is named by a hash of everything the weights depend on, so nothing else is ever
resumed. Its manifest is written last, after sync; a checkpoint without a matching one is skipped aloud.
"""

import hashlib
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import safetensors.torch
from transformers import Trainer, TrainerCallback

from src.core import files
from src.core.errors import Interrupted, StorageError

logger = logging.getLogger(__name__)
MANIFEST = "manifest.json"


def folder(root: str, stage: str, params: dict, inputs: Iterable[Path]) -> Path:
    """`<root>/<stage>-<hash>` over params, input contents and the project's imported source files."""
    sources = sorted(
        Path(module.__file__)
        for name, module in sys.modules.items()
        if (name == "src" or name.startswith("src.")) and getattr(module, "__file__", None)
    )
    main = getattr(sys.modules["__main__"], "__file__", None)
    if main and "src" in Path(main).parts:
        sources.append(Path(main))
    digest = hashlib.sha256(json.dumps(params, sort_keys=True, ensure_ascii=False).encode())
    digest.update(files.tree_sha256(inputs).encode())
    digest.update(files.tree_sha256(sorted(set(sources))).encode())
    return Path(root) / f"{stage}-{digest.hexdigest()[:16]}"


def latest(checkpoints: Path) -> Path | None:
    """The newest complete checkpoint, or None. Incomplete ones are named in the log and passed over."""
    found = sorted(checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
    for path in found:
        if _is_complete(path):
            return path
        logger.warning("%s is incomplete (a save was cut short): skipped", path)
    return None


def train(trainer: Trainer, checkpoints: Path, save_steps: int) -> None:
    """Train from the newest complete checkpoint or from the start; SIGTERM saves and raises `Interrupted`."""
    guard = _Guard(save_steps)
    trainer.add_callback(guard)
    resume = latest(checkpoints)
    if resume:
        logger.info("resuming from %s", resume)
    previous = signal.signal(signal.SIGTERM, guard.stop)
    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except OSError as error:
        raise StorageError(f"{checkpoints}: cannot save a checkpoint: {error.strerror or error}") from error
    finally:
        signal.signal(signal.SIGTERM, previous)
    if guard.stopped:
        raise Interrupted(f"stopped by a signal, saved in {checkpoints}; the same command goes on from there")


def remove(checkpoints: Path) -> None:
    """Delete what a finished stage no longer needs."""
    shutil.rmtree(checkpoints, ignore_errors=True)


class TrainedWeightsMixin:
    """For `Trainer`s of plain modules: a checkpoint holds the parameters that the optimizer owns.

    A frozen base is reloaded from its own folder, and weights tied to one another are saved once.
    """

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if not self.args.should_save:
            return
        owned = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        model = self.accelerator.unwrap_model(self.model)
        weights = {name: p.detach().contiguous() for name, p in model.named_parameters() if id(p) in owned}
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(weights, Path(output_dir) / "model.safetensors", metadata={"format": "pt"})


class _Guard(TrainerCallback):
    """Completes checkpoints with a manifest, asks for one every `save_steps`, and turns a signal into one."""

    def __init__(self, save_steps: int):
        self.save_steps = save_steps
        self.stopped = False

    def stop(self, signum, frame) -> None:
        self.stopped = True

    def on_step_end(self, args, state, control, **kwargs):
        if self.stopped or state.global_step % self.save_steps == 0:
            control.should_save = True
        if self.stopped:
            control.should_training_stop = True
        return control

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            _complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def _complete(path: Path) -> None:
    saved = sorted(file for file in path.iterdir() if file.is_file() and file.name != MANIFEST)
    for file in saved:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    files.write_json(path / MANIFEST, {file.name: files.sha256(file) for file in saved})


def _is_complete(path: Path) -> bool:
    if not (path / MANIFEST).is_file():
        return False
    manifest = files.read_json(path / MANIFEST)
    return all((path / name).is_file() and files.sha256(path / name) == digest for name, digest in manifest.items())
