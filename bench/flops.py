"""FLOPs of a training step as the model needs them, for model FLOPs utilisation (MFU; Chowdhery et al. 2022).

    with counted() as flops:
        loss = model(**batch)["loss"]
    flops.forward + flops.backward    # of the loss and of its gradients

Matrix products alone, a multiplication and an addition being two. Attention counts both of its products in full,
causal or not. What gradient checkpointing and fused attention compute a second time counts once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import torch
from torch.nn import functional


@dataclass
class Flops:
    """Of all linear layers and attentions between two moments; `backward` is what their gradients will cost."""

    forward: int = 0
    backward: int = 0

    def add(self, forward: int, gradients: int) -> None:
        """One operation of `forward` FLOPs, each of whose `gradients` costs as many."""
        self.forward += forward
        if torch.is_grad_enabled():
            self.backward += forward * gradients


@contextmanager
def counted() -> Iterator[Flops]:
    """Count the forward pass inside: the backward of a checkpointed model would run it again.

    Torch's own FlopCounterMode sees no difference between a recomputed product and a first one. Checkpoints must
    not be reentrant, or the pass inside has no gradients. Matrices in 4 bits are not seen.
    """
    flops = Flops()
    linear, attention = functional.linear, functional.scaled_dot_product_attention

    def count_linear(x: torch.Tensor, weight: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        flops.add(2 * x.numel() * len(weight), int(x.requires_grad) + int(weight.requires_grad))
        return linear(x, weight, *args, **kwargs)

    def count_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        trained = query.requires_grad or key.requires_grad or value.requires_grad
        flops.add(4 * query.numel() * key.shape[-2], 2 if trained else 0)  # (..., heads, length, head_dim)
        return attention(query, key, value, *args, **kwargs)

    with (
        patch.object(functional, "linear", count_linear),
        patch.object(functional, "scaled_dot_product_attention", count_attention),
    ):
        yield flops
