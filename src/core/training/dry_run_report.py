"""What `--dry-run` of a training stage says of memory and time."""

import math
import resource
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import nn

from src.core.stage import distributed
from src.core.training import memory_estimate
from src.core.training.allocations import Batch
from src.core.training.parameter_groups import ParameterGroups
from src.core.training.precision import compute_dtype
from src.core.training.trainer_arguments import micro_batch, to


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
    estimated = memory_estimate.estimate(
        model,
        groups.parameters(),
        loss,
        read(1),
        dtype=torch.float32 if settings.precision == "float32" else torch.bfloat16,
        optimizer_8bit=settings.optimizer_8bit,
        four_bit=settings.four_bit,
    )
    micro = micro_batch(stage.batch_size, stage.accumulate)
    text = memory_estimate.describe(estimated, stage.batch_size // distributed.count(), micro, checkpointing)
    if (settings.optimizer_8bit or settings.four_bit) and not find_spec("bitsandbytes"):
        text += "\nbitsandbytes is not installed here: without it the stage itself exits with 69 (requirements-gpu.txt)"
    if any(p.is_meta for p in model.parameters()):
        return f"{text}\n{steps} steps; their time depends on the GPU: python -m bench.gpu measures it"
    batch = read(micro)
    dtype = compute_dtype(settings.precision)
    each = rehearse(model, groups, steps * stage.accumulate, lambda device: loss(to(batch, device)), dtype)
    return f"{text}\n{each}"


def report_on(dataset, model: nn.Module, groups: ParameterGroups, **settings) -> str:
    """`report` for a model that computes its own loss from the batches of `dataset`."""
    return report(
        model,
        groups,
        lambda batch: model(**batch)["loss"],
        lambda count: dataset.__getitems__(list(range(min(count, len(dataset))))),
        samples=len(dataset),
        **settings,
    )


def rehearse(
    model: torch.nn.Module,
    groups: ParameterGroups,
    steps: int,
    loss: Callable[[torch.device], torch.Tensor],
    dtype: torch.dtype,
) -> str:
    """Time and memory of a training, measured on forward and backward of one batch; nothing is updated.

    `loss(device)` computes the loss of a batch with `model` on `device`, in `dtype`. All groups train in it, which
    is where the peak lies. Memory is this process's, or the GPU's where there is one, with AdamW's two states.
    """
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    model.to(device).train()
    seconds = []
    for _ in range(2):  # the first also pays for warming up
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            value = loss(device)
        value.backward()
        value.item()
        model.zero_grad()
        seconds.append(time.perf_counter() - start)
    trainable = sum(p.numel() for p in groups.parameters())
    peak = torch.cuda.max_memory_allocated() if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if not gpu and sys.platform != "darwin":
        peak *= 1024  # kilobytes on Linux
    return (
        f"{steps} steps of {seconds[-1]:.2f} s: about {steps * seconds[-1] / 60:.1f} min and "
        f"{(peak + 8 * trainable) / 1e9:.1f} GB, validation and checkpoints not counted"
    )
