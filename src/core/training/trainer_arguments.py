"""What every Trainer of the project shares: arguments that make runs repeat, schedule, device."""

import importlib.util
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import TrainingArguments, get_cosine_schedule_with_warmup

from src.core.stage import distributed
from src.core.stage.errors import DependencyError, ParamsError


def arguments(
    checkpoints: Path,
    *,
    seed: int,
    epochs: int,
    batch_size: int,
    report_to: str,
    accumulate: int = 1,
    dtype: torch.dtype = torch.float32,
    eval_batch: int | None = None,
    best: str | None = None,
    **more,
) -> dict:
    """Keyword arguments for `TrainingArguments` (or a subclass), one log and one evaluation an epoch.

    `batch_size` is that of a step: all processes share it, and each takes its part in `accumulate` micro-batches
    (`batches.GlobalBatchMixin` keeps the loss that of the whole batch).
    `dtype` is that of computation. With `best`, the checkpoint with the best such metric is loaded at the end;
    "loss" is better when lower.
    """
    if report_to != "none" and importlib.util.find_spec(report_to) is None:
        raise DependencyError(f"report_to: {report_to} is not installed; run pip install {report_to}, or set none")
    gpu, half = torch.cuda.is_available(), dtype == torch.bfloat16
    # Trainer's own default lies in `checkpoints`, which the finished stage removes.
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", f"runs/{checkpoints.name}")
    chosen = {
        "output_dir": str(checkpoints),
        "seed": seed,
        "num_train_epochs": epochs,
        "per_device_train_batch_size": micro_batch(batch_size, accumulate),
        "gradient_accumulation_steps": accumulate,
        # As with one process, whose scores these are: each evaluates everything.
        "per_device_eval_batch_size": eval_batch or batch_size // accumulate,
        "bf16": half,
        "logging_strategy": "epoch",
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "save_total_limit": 2,
        "restore_callback_states_from_checkpoint": True,
        "report_to": [] if report_to == "none" else [report_to],
        "remove_unused_columns": False,
        "dataloader_pin_memory": gpu,
        "max_grad_norm": 1.0,
        "ddp_timeout": 24 * 3600,  # the others wait while the main process evaluates and saves
    }
    if best:
        chosen |= {
            "load_best_model_at_end": True,
            "metric_for_best_model": best,
            "greater_is_better": not best.endswith("loss"),
        }
    if not gpu and (half or distributed.count() > 1):
        chosen["use_cpu"] = True  # or Trainer would refuse bfloat16, and accelerate not connect the processes
    return chosen | more


def micro_batch(batch_size: int, accumulate: int) -> int:
    """Samples that one process trains on at once, where `batch_size` is that of a step.

    Raises:
        ParamsError: processes and micro-batches do not share it evenly.
    """
    parts = distributed.count() * accumulate
    if batch_size % parts:
        raise ParamsError(
            f"batch_size: found {batch_size}, expected a multiple of {parts} ({distributed.count()} processes x "
            f"accumulate {accumulate}); change one of them"
        )
    return batch_size // parts


def cosine_schedule(
    optimizer: torch.optim.Optimizer, args: TrainingArguments, samples: int, warmup_ratio: float
) -> torch.optim.lr_scheduler.LambdaLR:
    """Cosine decay to zero over the whole training, after a linear warm-up over `warmup_ratio` of it."""
    per_step = args.per_device_train_batch_size * args.world_size * args.gradient_accumulation_steps
    steps = math.ceil(samples / per_step) * int(args.num_train_epochs)
    return get_cosine_schedule_with_warmup(optimizer, min(round(warmup_ratio * steps), steps // 2), steps)


@contextmanager
def memory_advice(section: str, *more: str) -> Iterator[None]:
    """Turn a full GPU into a ParamsError that says what to change, cheapest first; `more`: what this stage has too."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        remedies = [
            f"raise {section}.accumulate",
            "memory.gradient_checkpointing: always",
            "memory.optimizer_8bit: true",
        ]
        remedies += [*more, "fewer pixels (data.tile_px)", "a smaller model.backbone"]
        raise ParamsError(
            f"{section}: the GPU's memory is full ({str(error).splitlines()[0]}); --dry-run of this stage says what "
            f"fits. Cheapest first, where not done yet: {', '.join(remedies)}"
        ) from error


def to(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """The batch on `device`."""
    return {name: value.to(device) for name, value in batch.items()}
