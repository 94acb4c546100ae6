"""Resumable training: complete checkpoints, resuming, and saving on SIGTERM.

The name of a checkpoint folder is a hash of all that the weights depend on (`stage.scratch`), so no other training is
resumed. The manifest is written last, after sync; a checkpoint without a matching one is skipped with a warning.
"""

import logging
import signal
from pathlib import Path

import safetensors.torch
import torch
from transformers import Trainer, TrainerCallback

from src.core.stage import distributed, files
from src.core.stage.errors import DataError, Interrupted, StorageError

logger = logging.getLogger(__name__)
MANIFEST, SUMS = "manifest.json", "sums.json"


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
    resume = distributed.from_main(lambda: latest(checkpoints))
    guard = _Guard(trainer, save_steps, resume)
    trainer.add_callback(guard)
    if resume:
        logger.info("resuming from %s", resume)
        if epochs := _stopped_early(resume):
            trainer.args.num_train_epochs = epochs  # Trainer would forget the stop and train on
    if not distributed.is_main():
        torch.manual_seed(trainer.args.seed + distributed.rank())  # or all would drop the same units
    previous = signal.signal(signal.SIGTERM, guard.stop)
    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except OSError as error:
        raise StorageError(f"{checkpoints}: cannot save a checkpoint: {error.strerror or error}") from error
    finally:
        signal.signal(signal.SIGTERM, previous)
    if guard.stopped:
        raise Interrupted(f"stopped by a signal, saved in {checkpoints}; the same command goes on from there")


class TrainedWeightsMixin:
    """For `Trainer`s of plain modules: a checkpoint holds the parameters that the optimizer owns.

    A frozen base is reloaded from its own folder, and weights tied to one another are saved once.
    """

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if not self.args.should_save:
            return
        whole = state_dict or {}  # of sharded parameters
        weights = {name: whole.get(name, p.detach()).contiguous() for name, p in self._owned().items()}
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(weights, Path(output_dir) / "model.safetensors", metadata={"format": "pt"})

    def _prepare_for_training(self, *args, **kwargs):
        self._owned()  # while the optimizer still holds the model's parameters: DeepSpeed's holds parts of them
        return super()._prepare_for_training(*args, **kwargs)

    def _owned(self) -> dict[str, torch.nn.Parameter]:
        parameters = dict(self.accelerator.unwrap_model(self.model).named_parameters())
        if not hasattr(self, "_names"):
            ids = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
            self._names = [name for name, p in parameters.items() if id(p) in ids]
        return {name: parameters[name] for name in self._names}

    def _issue_warnings_after_load(self, load_result) -> None:
        # Frozen weights are absent by design; a trained one would go on from where it started.
        wrong = [*load_result.unexpected_keys, *sorted(self._owned().keys() & set(load_result.missing_keys))]
        if wrong:
            raise DataError(f"{self.args.output_dir}: does not hold what trains, e.g. {wrong[0]}; delete the folder")


class _Guard(TrainerCallback):
    """Saves a checkpoint every `save_steps` and after a signal, and completes it with a manifest.

    It also saves the loss summed since the last log, which Trainer does not, so that the curve of a training resumed
    in the middle of an epoch (by one process) is the same as without a break.
    """

    def __init__(self, trainer: Trainer, save_steps: int, resume: Path | None):
        self.trainer, self.save_steps, self.resume = trainer, save_steps, resume
        self.signalled = False
        self.stopped = False  # as all processes have agreed

    def stop(self, signum, frame) -> None:
        self.signalled = True

    def on_train_begin(self, args, state, control, **kwargs):
        if self.resume:
            sums = files.read_json(self.resume / SUMS)
            self.trainer._tr_loss += sums["loss"]
            self.trainer._globalstep_last_logged = sums["last_logged"]
            if hasattr(self.trainer, "_metrics"):  # trl's own
                self.trainer._metrics["train"].update(sums["metrics"])

    def on_epoch_begin(self, args, state, control, **kwargs):
        # Nobody else tells them, or not after a resume in the middle of an epoch.
        epoch = state.global_step * args.num_train_epochs // state.max_steps
        for drawn in (self.trainer.train_dataset, getattr(self.trainer, "batches", None)):
            if hasattr(drawn, "set_epoch"):
                drawn.set_epoch(epoch)

    def on_step_end(self, args, state, control, **kwargs):
        self.stopped = any(distributed.gather(self.signalled))  # the signal reaches one process a step before another
        if not _epoch_is_whole(args, state):
            # The end of an epoch saves too, after its evaluation; a checkpoint before that would miss it.
            control.should_save = self.stopped or state.global_step % self.save_steps == 0
        control.should_training_stop |= self.stopped
        return control

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.stopped and not _epoch_is_whole(args, state):
            # Trainer takes a stop for the end of the epoch and would evaluate and save over the checkpoint.
            control.should_log = control.should_evaluate = control.should_save = False
        return control

    def on_save(self, args, state, control, **kwargs):
        # Waits for all, each of which has written its random state.
        losses = distributed.gather(self.trainer._tr_loss.item())
        if state.is_world_process_zero:
            path = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            metrics = getattr(self.trainer, "_metrics", {"train": {}})["train"]
            sums = {"loss": sum(losses) / len(losses), "last_logged": self.trainer._globalstep_last_logged}
            files.write_json(path / SUMS, sums | {"metrics": metrics})
            _complete(path)
        distributed.wait()


def _stopped_early(checkpoint: Path) -> int | None:
    """The number of epochs after which early stopping ended the training that `checkpoint` was saved by."""
    state = files.read_json(checkpoint / "trainer_state.json")
    early = state["stateful_callbacks"].get("EarlyStoppingCallback")
    if early is None:
        return None
    patience = early["args"]["early_stopping_patience"]
    return round(state["epoch"]) if early["attributes"]["early_stopping_patience_counter"] >= patience else None


def _epoch_is_whole(args, state) -> bool:
    return state.global_step * args.num_train_epochs % state.max_steps == 0


def _complete(path: Path) -> None:
    saved = sorted(file for file in path.iterdir() if file.is_file() and file.name != MANIFEST)
    for file in saved:
        files.sync(file)
    files.write_json(path / MANIFEST, {file.name: files.sha256(file) for file in saved})


def _is_complete(path: Path) -> bool:
    if not (path / MANIFEST).is_file():
        return False
    manifest = files.read_json(path / MANIFEST)
    return all((path / name).is_file() and files.sha256(path / name) == digest for name, digest in manifest.items())
