"""Memory of a training on one GPU, estimated before it starts and without a GPU.

Weights, gradients and optimiser states are arithmetic; activations are counted (`allocations`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from src.core.training.allocations import Batch, Moments, moments

CARDS = (24, 40, 80, 141)  # GB
CONTEXT, FRAGMENTATION = 1.5e9, 0.05  # CUDA's own bytes; share of all else that the allocator cannot fill
FOUR_BIT = 0.5 + 1 / 64 + 4 / (64 * 256)  # bytes a weight: 4 bits, one byte a block of 64, four a block of blocks
EIGHT_BIT = 2 * (1 + 4 / 256)  # bytes a trained weight: AdamW's two states, four bytes a block of 256


@dataclass(frozen=True)
class Memory:
    """Bytes of a training by part, once gradients and optimiser states exist.

    `peaks` are what forward and backward add to them, without (False) and with gradient checkpointing: (fixed, per
    sample) at each moment that is the peak of some batch. `update` is what the optimiser's step adds instead. Data
    parallelism adds its buckets, up to `gradients` again.
    """

    weights: int
    gradients: int
    optimizer: int
    update: int
    peaks: dict[bool, Moments]

    def activations(self, batch: int, checkpointing: bool) -> int:
        """Bytes that a micro-batch of `batch` samples adds at its peak."""
        return max(fixed + batch * each for fixed, each in self.peaks[checkpointing])

    def total(self, batch: int, checkpointing: bool) -> int:
        """Bytes of GPU memory, CUDA's context and fragmentation included."""
        held = self.weights + self.gradients + self.optimizer
        used = held + max(self.activations(batch, checkpointing), self.update)
        return round(CONTEXT + (1 + FRAGMENTATION) * used)


def suggest(memory: Memory, gigabytes: float, batch_size: int) -> tuple[int, int, bool] | None:
    """The largest micro-batch that fits, its accumulation up to `batch_size`, and whether to checkpoint.

    Without checkpointing where a single sample fits so, because it computes a third more. None if nothing fits.
    """
    for checkpointing in (False, True):
        for micro in sorted((n for n in range(1, batch_size + 1) if batch_size % n == 0), reverse=True):
            if memory.total(micro, checkpointing) <= gigabytes * 1e9:
                return micro, batch_size // micro, checkpointing
    return None


def describe(memory: Memory, batch_size: int, micro_batch: int, checkpointing: bool) -> str:
    """Lines for the log: each part for `micro_batch` samples at once, and settings that fit common GPUs.

    `batch_size` is the samples of one step on this GPU, in micro-batches one after the other.
    """
    parts = {"weights": memory.weights, "gradients": memory.gradients, "optimiser": memory.optimizer}
    how = "with" if checkpointing else "without"
    parts[f"activations {how} gradient checkpointing"] = memory.activations(micro_batch, checkpointing)
    total = memory.total(micro_batch, checkpointing)
    parts["context, update and fragmentation"] = total - sum(parts.values())
    lines = [f"estimated memory of one GPU, all groups training, {micro_batch} at once: {total / 1e9:.1f} GB"]
    lines += [f"  {name:<42} {size / 1e9:>7.2f} GB" for name, size in parts.items()]
    changes = {
        "LoRA on the encoder or an 8-bit optimiser": memory.gradients + memory.optimizer,
        "4-bit weights (if not yet) or a smaller model": memory.weights,
        "fewer pixels": memory.activations(1, checkpointing=True),
    }
    largest_first = ", ".join(sorted(changes, key=changes.get, reverse=True))
    lines.append(f"suggested for {batch_size} a step:")
    for card in CARDS:
        found = suggest(memory, card, batch_size)
        if found is None:
            least = memory.total(1, checkpointing=True) / 1e9
            text = f"does not fit: 1 at once with checkpointing takes {least:.1f} GB; use {largest_first}"
        else:
            micro, times, on = found
            text = f"batch {micro} x {times} accumulated, gradient checkpointing {'on' if on else 'off'}"
            text += f": {memory.total(micro, on) / 1e9:.1f} GB"
        lines.append(f"  {card:>4} GB  {text}")
    return "\n".join(lines)


def estimate(
    model: nn.Module,
    trained: list[nn.Parameter],
    loss: Callable[[Batch], torch.Tensor],
    sample: Batch,
    *,
    dtype: torch.dtype,
    optimizer_8bit: bool = False,
    four_bit: bool = False,
) -> Memory:
    """Memory of a training in which all of `trained` train at once, which is where the peak lies.

    Args:
        model: on any device, `meta` included; not quantised, with SDPA attention. It is left as it was.
        trained: those of its parameters that ever train, held in float32. The others are held in `dtype`.
        sample: a batch of one sample, on the CPU.
        dtype: of computation; bfloat16 is mixed precision.
        four_bit: frozen matrices in the layers of the language model are held in 4 bits.
    """
    chosen = {id(p) for p in trained}
    count = sum(p.numel() for p in trained)
    frozen = {name: p for name, p in model.named_parameters() if id(p) not in chosen}
    packed = [p.numel() for name, p in frozen.items() if four_bit and "language_model.layers" in name and p.ndim == 2]
    whole = sum(p.numel() for p in frozen.values()) - sum(packed)
    found = {on: moments(model, trained, loss, sample, dtype, on) for on in (False, True)}
    unpacked = max(packed, default=0) * dtype.itemsize  # one matrix at a time, to be multiplied with
    return Memory(
        weights=round(4 * count + dtype.itemsize * whole + FOUR_BIT * sum(packed)),
        gradients=4 * count,
        optimizer=round(count * (EIGHT_BIT if optimizer_8bit else 8)),
        update=0 if optimizer_8bit else 4 * count,  # torch takes the roots of all second moments at once
        peaks={on: tuple((fixed + unpacked, each) for fixed, each in pairs) for on, pairs in found.items()},
    )
