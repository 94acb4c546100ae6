"""Precision of weights and of computation: bfloat16 saves memory, float32 keeps small steps."""

import torch
from torch import nn

from src.core.stage.model_params import TINY


def compute_dtype(precision: str) -> torch.dtype:
    """The dtype that `precision` names; `auto` is bfloat16 on a GPU that has it, and float32 elsewhere, because CPUs
    differ in how they compute bfloat16."""
    if precision == "auto":
        half = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if half else torch.float32
    return getattr(torch, precision)


def weights_dtype(backbone: str, precision: str) -> torch.dtype:
    """Precision of the weights of `backbone` that do not train; a tiny one is float32 whatever `precision` says."""
    return torch.float32 if backbone == TINY else compute_dtype(precision)


def hold_weights(model: nn.Module, trained: list[nn.Parameter], dtype: torch.dtype) -> None:
    """Keep `trained` in float32, since a small step would be lost to bfloat16's rounding, and the rest in `dtype`.

    Parameters that are no floats (weights in 4 bits) stay as they are.
    """
    kept = {id(p) for p in trained}
    for p in model.parameters():
        if p.is_floating_point():
            p.data = p.data.to(torch.float32 if id(p) in kept else dtype)


def autocast(model: nn.Module) -> torch.autocast:
    """Mixed precision for a model that holds some weights in bfloat16, and nothing for one that does not.

    Trainer's own covers `model.forward` alone, not generation or what a stage computes after training.
    """
    half = any(p.dtype == torch.bfloat16 for p in model.parameters())
    return torch.autocast(next(model.parameters()).device.type, torch.bfloat16, enabled=half)
