"""What `--dry-run` of a training stage says of memory and time."""

import math
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import nn

from src.core import memory, processes
from src.core.allocations import Batch
from src.core.precision import compute_dtype
from src.core.trainable import ParameterGroups
from src.core.training import micro_batch, rehearse, to


def report(
    model: nn.Module,
    groups: ParameterGroups,
    loss: Callable[[Batch], torch.Tensor],
    read: Callable[[int], Batch],
    *,
    samples: int,
    stage,
    settings,
    checkpointing: bool,
) -> str:
    """Estimated memory by part with what suits the usual cards, and for a model with weights the time of a step.

    Args:
        model: with weights or on the `meta` device.
        loss: the loss of a batch by `model`.
        read: the first n samples as a batch on the CPU.
        samples: of an epoch.
        stage: params of the stage, with batch_size, accumulate and epochs.
        settings: params of the section memory. The usual cards have bfloat16, whatever this machine has.
    """
    steps = math.ceil(samples / stage.batch_size) * stage.epochs
    estimated = memory.estimate(
        model,
        groups.parameters(),
        loss,
        read(1),
        dtype=torch.float32 if settings.precision == "float32" else torch.bfloat16,
        optimizer_8bit=settings.optimizer_8bit,
        four_bit=settings.four_bit,
    )
    micro = micro_batch(stage.batch_size, stage.accumulate)
    text = memory.describe(estimated, stage.batch_size // processes.count(), micro, checkpointing)
    if (settings.optimizer_8bit or settings.four_bit) and not find_spec("bitsandbytes"):
        text += "\nbitsandbytes is not installed here: without it the stage itself exits with 69 (requirements-gpu.txt)"
    if any(p.is_meta for p in model.parameters()):
        return f"{text}\n{steps} steps; their time depends on the GPU: python -m bench.gpu measures it"
    batch = read(micro)
    dtype = compute_dtype(settings.precision)
    each = rehearse(model, groups, steps * stage.accumulate, lambda device: loss(to(batch, device)), dtype)
    return f"{text}\n{each}"
