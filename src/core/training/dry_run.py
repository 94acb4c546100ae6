"""Memory and time of a training, as printed by `--dry-run`."""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from src.core.stage import distributed
from src.core.training import memory_estimate
from src.core.training.allocations import Batch
from src.core.training.global_batches import ready
from src.core.training.parameter_groups import ParameterGroups
from src.core.training.trainer_arguments import Plan, to


def memory_and_time(
    plan: Plan,
    model: nn.Module,
    groups: ParameterGroups,
    samples: Sequence,
    loss: Callable[[Batch], torch.Tensor] | None = None,
    collate: Callable[[Any], Batch] = ready,
) -> str:
    """Estimated memory by part, settings that fit common GPUs (with bfloat16), and the time of a step.

    `samples.__getitems__` gives a batch, or the input of `collate`, which makes one. `model` may be on the `meta`
    device: then no time is given.
    """
    loss = loss or (lambda batch: model(**batch)["loss"])
    micro = plan.micro_batch
    one, batch = (collate(samples.__getitems__(list(range(min(n, len(samples)))))) for n in (1, micro))
    estimated = memory_estimate.estimate(
        model,
        groups.parameters(),
        loss,
        one,
        dtype=torch.float32 if plan.precision == "float32" else torch.bfloat16,
        optimizer_8bit=plan.optimizer_8bit,
        four_bit=plan.four_bit,
    )
    text = memory_estimate.describe(estimated, plan.batch_size // distributed.count(), micro, plan.checkpointing)
    if (plan.optimizer_8bit or plan.four_bit) and not find_spec("bitsandbytes"):
        text += "\nbitsandbytes is not installed here: without it the stage itself exits with 69 (requirements-gpu.txt)"
    steps = plan.steps(len(samples))
    if any(p.is_meta for p in model.parameters()):
        return f"{text}\n{steps} steps; their time depends on the GPU: python -m bench.gpu measures it"
    return f"{text}\n{measure(model, groups, steps * plan.accumulate, loss, batch, plan.dtype)}"


def measure(
    model: nn.Module,
    groups: ParameterGroups,
    steps: int,
    loss: Callable[[Batch], torch.Tensor],
    batch: Batch,
    dtype: torch.dtype,
) -> str:
    """Time and memory of a training, measured on forward and backward of one batch with all groups; no update.

    Memory is that of the GPU, or of this process where there is none, plus AdamW's two states.
    """
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    model.to(device).train()
    seconds = []
    for _ in range(2):  # the first also pays for warming up
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            value = loss(to(batch, device))
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
