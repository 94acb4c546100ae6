"""What `--dry-run` of a training stage says of memory and time."""

from collections.abc import Callable

import torch
from torch import nn

from src.core import memory, processes
from src.core.allocations import Batch
from src.core.trainable import ParameterGroups
from src.core.training import rehearse, to


def report(
    model: nn.Module,
    groups: ParameterGroups,
    loss: Callable[[Batch], torch.Tensor],
    read: Callable[[int], Batch],
    *,
    steps: int,
    batch_size: int,
    accumulate: int,
    checkpointing: bool,
    precision: str,
    optimizer_8bit: bool,
    four_bit: bool,
) -> str:
    """Estimated memory by part with what suits the usual cards, and for a model with weights the time of a step.

    Args:
        model: with weights or on the `meta` device.
        loss: the loss of a batch by `model`.
        read: the first n samples as a batch on the CPU.
        steps: of the whole training.
        precision: as in params.yaml; the cards have bfloat16, whatever this machine has.
    """
    own = batch_size // processes.count()
    estimated = memory.estimate(
        model,
        groups.parameters(),
        loss,
        read(1),
        dtype=torch.float32 if precision == "float32" else torch.bfloat16,
        optimizer_8bit=optimizer_8bit,
        four_bit=four_bit,
    )
    text = memory.describe(estimated, own, max(own // accumulate, 1), checkpointing)
    if any(p.is_meta for p in model.parameters()):
        return f"{text}\n{steps} steps; their time depends on the GPU: python -m bench.gpu measures it"
    batch = read(batch_size)
    return f"{text}\n{rehearse(model, groups, steps, lambda device: loss(to(batch, device)))}"
