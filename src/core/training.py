"""What every Trainer of the project shares: arguments that make runs repeat, schedule, device."""

import math
from pathlib import Path

import torch
from transformers import TrainingArguments, get_cosine_schedule_with_warmup


def arguments(
    checkpoints: Path,
    *,
    seed: int,
    epochs: int,
    batch_size: int,
    report_to: str,
    best: str | None = None,
    **more,
) -> dict:
    """Keyword arguments for `TrainingArguments` (or a subclass), one log and one evaluation an epoch.

    With `best`, the checkpoint with the best such metric is loaded at the end; "loss" is better when lower.
    bf16 is used where a GPU has it; on the CPU float32 keeps results comparable between machines.
    """
    half = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    chosen = {
        "output_dir": str(checkpoints),
        "seed": seed,
        "num_train_epochs": epochs,
        "per_device_train_batch_size": batch_size,
        "per_device_eval_batch_size": batch_size,
        "bf16": half,
        "logging_strategy": "epoch",
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "save_total_limit": 2,
        "restore_callback_states_from_checkpoint": True,
        "report_to": [] if report_to == "none" else [report_to],
        "remove_unused_columns": False,
        "dataloader_pin_memory": half,
        "max_grad_norm": 1.0,
    }
    if best:
        chosen |= {
            "load_best_model_at_end": True,
            "metric_for_best_model": best,
            "greater_is_better": not best.endswith("loss"),
        }
    return chosen | more


def cosine_schedule(
    optimizer: torch.optim.Optimizer, args: TrainingArguments, samples: int, warmup_ratio: float
) -> torch.optim.lr_scheduler.LambdaLR:
    """Cosine decay to zero over the whole training, after a linear warm-up over `warmup_ratio` of it."""
    per_step = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
    steps = math.ceil(samples / per_step) * int(args.num_train_epochs)
    return get_cosine_schedule_with_warmup(optimizer, round(warmup_ratio * steps), steps)
