"""Settings shared by all trainings: plan, arguments for repeatable runs, schedule, device."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import get_cosine_schedule_with_warmup

from src.core.stage import distributed
from src.core.stage.errors import ParamsError, require
from src.core.training.precision import compute_dtype


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Settings of one training.

    Attributes:
        batch_size: samples of a step: all processes share it, and each takes its part in `accumulate` micro-batches
            (`global_batches.GlobalBatchMixin` keeps the loss that of the whole batch).
        eval_batch: samples at once in validation; None: as many as one process would train on at once.
        save_steps: steps between resumable checkpoints; every epoch ends with one too.
        best: metric by which the best epoch is kept, the lower the better for "loss"; None: the last one is.
        patience: epochs without a better `best` after which training ends; None: never.
        delta: by how much `best` has to be better to count for `patience`.
        warmup_ratio: share of all steps in which the rate rises.
        precision: auto | float32 | bfloat16, of computation.
        checkpointing: whether activations are computed twice to hold fewer of them.
        optimizer_8bit, four_bit: AdamW's states, and frozen matrices of a language model, in so few bits.
        report_to: none | tensorboard | wandb, besides dvclive.
    """

    seed: int
    epochs: int
    batch_size: int
    accumulate: int = 1
    eval_batch: int | None = None
    save_steps: int = 0
    best: str | None = None
    patience: int | None = None
    delta: float = 0.0
    warmup_ratio: float = 0.0
    precision: str = "float32"
    checkpointing: bool = False
    optimizer_8bit: bool = False
    four_bit: bool = False
    report_to: str = "none"

    @property
    def dtype(self) -> torch.dtype:
        """`precision` on this machine."""
        return compute_dtype(self.precision)

    @property
    def micro_batch(self) -> int:
        """Samples that one process trains on at once; ParamsError where all do not share `batch_size` evenly."""
        parts = distributed.count() * self.accumulate
        if self.batch_size % parts:
            raise ParamsError(
                f"batch_size: found {self.batch_size}, expected a multiple of {parts} ({distributed.count()} processes "
                f"x accumulate {self.accumulate}); change one of them"
            )
        return self.batch_size // parts

    def steps(self, samples: int) -> int:
        return math.ceil(samples / self.batch_size) * self.epochs


def arguments(plan: Plan, checkpoints: Path, **more) -> dict:
    """Keyword arguments for `TrainingArguments` (or a subclass), one log and one evaluation an epoch."""
    if plan.report_to != "none":
        require(plan.report_to, "report_to", "none")
    gpu, half = torch.cuda.is_available(), plan.dtype == torch.bfloat16
    # Trainer's own default lies in `checkpoints`, which the finished stage removes.
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", f"runs/{checkpoints.name}")
    return {
        "output_dir": str(checkpoints),
        "seed": plan.seed,
        "num_train_epochs": plan.epochs,
        "per_device_train_batch_size": plan.micro_batch,
        "gradient_accumulation_steps": plan.accumulate,
        # As with one process, whose scores these are: each evaluates everything.
        "per_device_eval_batch_size": plan.eval_batch or plan.batch_size // plan.accumulate,
        "bf16": half,
        # Or Trainer would refuse bfloat16, and accelerate not connect the processes.
        "use_cpu": not gpu and (half or distributed.count() > 1),
        "logging_strategy": "epoch",
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "save_total_limit": 2,
        "load_best_model_at_end": plan.best is not None,
        "metric_for_best_model": plan.best,
        "restore_callback_states_from_checkpoint": True,
        "report_to": plan.report_to,
        "remove_unused_columns": False,
        "dataloader_pin_memory": gpu,
        "ddp_timeout": 24 * 3600,  # the others wait while the main process evaluates and saves
    } | more


def cosine_schedule(optimizer: torch.optim.Optimizer, plan: Plan, samples: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Cosine decay to zero over the whole training, after a linear warm-up over `plan.warmup_ratio` of it."""
    steps = plan.steps(samples)
    return get_cosine_schedule_with_warmup(optimizer, min(round(plan.warmup_ratio * steps), steps // 2), steps)


def to(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    return {name: value.to(device) for name, value in batch.items()}
