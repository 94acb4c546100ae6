"""One training from start to end: Trainer, exact resume, gradient check, outputs and checkpoints.

with driver.outputs(out, [scratch], "sft", remedies) as (folder, plots):
    driver.fit(plan, model, groups, optimizer, train, validation, ...)
    model.save(folder)
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import EarlyStoppingCallback, EvalPrediction, Trainer, TrainingArguments

from src.core.stage import distributed, files
from src.core.stage.errors import ParamsError
from src.core.training import checkpoints
from src.core.training.dvclive_log import LiveLog
from src.core.training.global_batches import GlobalBatchMixin, ready
from src.core.training.parameter_groups import ParameterGroups
from src.core.training.sharding import ShardingMixin, gather_weights
from src.core.training.trainer_arguments import Plan, arguments, cosine_schedule


class ResumableTrainer(GlobalBatchMixin, ShardingMixin, checkpoints.TrainedWeightsMixin, Trainer):
    """A Trainer of a model that computes its own loss: its order of samples is a function of (seed, epoch), and its
    checkpoints hold trained weights alone."""


def fit(
    plan: Plan,
    model: nn.Module,
    groups: ParameterGroups,
    optimizer: torch.optim.Optimizer,
    train: Dataset,
    validation: Dataset,
    *,
    label: str,
    scratch: Path,
    plots: Path,
    measure: Callable[[EvalPrediction], dict[str, float]] | None = None,
) -> list[dict]:
    """Train `groups` of `model` by `plan`, as `finish` does, with a cosine schedule; return Trainer's log history.

    Args:
        train, validation: give ready batches (`__getitems__`), the arguments of the model.
        label: the input that stands for the label, without which Trainer asks for no loss in validation.
        scratch, plots: folders of the checkpoints, and of dvclive's curves with what `measure` gives of validation.
    """
    more = {"label_names": [label], "prediction_loss_only": measure is None}
    trainer = ResumableTrainer(
        model=model,
        args=TrainingArguments(**arguments(plan, scratch, **more)),
        train_dataset=train,
        eval_dataset=validation,
        data_collator=ready,
        compute_metrics=measure,
        optimizers=(optimizer, cosine_schedule(optimizer, plan, len(train))),
        callbacks=[groups, *callbacks(plan, plots)],
    )
    finish(trainer, groups, plan)
    return trainer.state.log_history


def callbacks(plan: Plan, plots: Path) -> list:
    """Curves in `plots`, and the early stop that `plan` asks for."""
    log = [LiveLog(plots)] if distributed.is_main() else []
    return log + ([EarlyStoppingCallback(plan.patience, plan.delta)] if plan.patience else [])


def finish(trainer: Trainer, groups: ParameterGroups, plan: Plan) -> None:
    """Train from the newest complete checkpoint or from the start, and leave a whole model in `trainer`, to use.

    Raises:
        Interrupted: by SIGTERM; the checkpoint is saved.
        BandwiseError: a group that was meant to train did not move.
    """
    checkpoints.train(trainer, Path(trainer.args.output_dir), plan.save_steps)
    groups.assert_moved()
    gather_weights(trainer.model)
    trainer.model.eval()


@contextmanager
def outputs(out, scratch: Iterable[Path], stage: str, remedies: Iterable[str]) -> Iterator[tuple[Path, Path]]:
    """Folders that become `out.out` and `out.plots` when all is done; then `scratch` is removed.

    Raises ParamsError where the GPU's memory is full, with `remedies`: what `stage` can change, cheapest first.
    """
    try:
        with files.complete_folder(out.out) as folder, files.complete_folder(out.plots) as plots:
            yield folder, plots
    except torch.OutOfMemoryError as error:
        raise ParamsError(
            f"{stage}: the GPU's memory is full ({str(error).splitlines()[0]}); --dry-run of this stage says what "
            f"fits. Cheapest first, where not done yet: {', '.join(remedies)}"
        ) from error
    if distributed.is_main():
        for path in scratch:
            shutil.rmtree(path, ignore_errors=True)
