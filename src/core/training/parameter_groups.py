"""Groups of trained parameters: printed before training, checked for gradients and movement during it."""

import logging
import warnings
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel, TrainerCallback

from src.core.stage import distributed
from src.core.stage.errors import BandwiseError, require

logger = logging.getLogger(__name__)


def train_only(model: nn.Module, groups: dict[str, tuple[list[nn.Parameter], float, int]]) -> "ParameterGroups":
    """The groups with a rate above 0; every other parameter of `model` is frozen."""
    kept = {name: group for name, group in groups.items() if group[1] > 0}
    trained = {id(p) for parameters, _, _ in kept.values() for p in parameters}
    for p in model.parameters():
        # Weights in 4 bits are no floats and could not require a gradient.
        if p.is_floating_point():
            p.requires_grad_(id(p) in trained)
    return ParameterGroups(kept)


class ParameterGroups(TrainerCallback):
    """`groups` maps a name to (parameters, learning rate, first epoch in which they train).

    A group that no gradient reaches in its first step stops the run, and one whose gradients are all 0 in its
    third (before, a zero-initialised layer above may still hold everything back: the first step of a warm-up
    has rate 0). At the end each group must have moved.
    """

    def __init__(self, groups: dict[str, tuple[list[nn.Parameter], float, int]]):
        self.groups = {name: group for name, group in groups.items() if group[0]}
        self.start: dict[str, list[tuple[float, float]]] = {}
        self.steps = dict.fromkeys(self.groups, 0)
        self.moved: set[str] = set()
        self.heard: dict[str, bool] = {}  # with DeepSpeed: whether a group's gradient was ever not 0

    def describe(self) -> str:
        lines = ["trainable groups:"]
        for name, (parameters, rate, first) in self.groups.items():
            count = sum(p.numel() for p in parameters)
            later = f", from epoch {first + 1}" if first else ""
            lines.append(f"  {name:<16} {count:>12,} parameters  lr {rate:g}{later}")
        return "\n".join(lines)

    def parameters(self) -> list[nn.Parameter]:
        """All that trains, early or late."""
        return [p for parameters, _, _ in self.groups.values() for p in parameters]

    def optimizer(
        self,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eight_bit: bool = False,
        fused: bool | None = None,
    ) -> torch.optim.Optimizer:
        """AdamW with each group's rate; biases, norms and single vectors are not decayed.

        `fused` steps all at once: a tensor at a time takes as long as a small network itself. `eight_bit` raises
        DependencyError where bitsandbytes is not installed.
        """
        parts = [
            {"params": chosen, "lr": rate, "weight_decay": decay}
            for parameters, rate, _ in self.groups.values()
            for matrices, decay in ((True, weight_decay), (False, 0.0))
            if (chosen := [p for p in parameters if (p.ndim > 1) == matrices])
        ]
        return adamw8bit()(parts, betas=betas) if eight_bit else torch.optim.AdamW(parts, betas=betas, fused=fused)

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = {name: _fingerprints(group[0]) for name, group in self.groups.items()}
        if distributed.sharding() == "deepspeed":
            for name, (parameters, _, _) in self.groups.items():
                for p in parameters:
                    p.register_hook(partial(self._hear, name))

    def on_step_begin(self, args, state, control, **kwargs):
        # From the step count, not state.epoch: it holds after a resume in the middle of an epoch too.
        epoch = state.global_step * args.num_train_epochs // max(state.max_steps, 1)
        for parameters, _, first in self.groups.values():
            for p in parameters:
                p.requires_grad_(epoch >= first)

    def on_train_end(self, args, state, control, **kwargs):
        done = state.global_step * args.num_train_epochs // max(state.max_steps, 1)
        for name, (_, _, first) in self.groups.items():
            if first >= done:
                logger.warning("group %r did not train: it starts in epoch %d, training had %d", name, first + 1, done)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        for name, (parameters, _, _) in self.groups.items():
            if not parameters[0].requires_grad or self.steps[name] >= 3:
                continue
            self.steps[name] += 1
            if distributed.sharding() == "deepspeed":  # it has stepped and let go of the gradients by now
                reached, moving = name in self.heard, self.heard.get(name, False)
            else:
                gradients = [p.grad for p in parameters if p.grad is not None]
                reached, moving = bool(gradients), any(bool(grad.any()) for grad in gradients)
            if not reached or (self.steps[name] == 3 and not moving):
                raise BandwiseError(f"group {name!r} is meant to train and gets no gradient; check what the loss reads")

    def _hear(self, name: str, gradient: torch.Tensor) -> None:
        if self.steps[name] < 3 and not self.heard.get(name):
            self.heard[name] = bool(gradient.any())

    def on_epoch_end(self, args, state, control, **kwargs):
        for name, (parameters, _, _) in self.groups.items():
            if name not in self.moved and _fingerprints(parameters) != self.start[name]:
                self.moved.add(name)

    def assert_moved(self) -> None:
        """Raise unless every group that had its turn moved, whether or not that epoch's weights were kept."""
        still = [name for name in self.groups if self.steps[name] and name not in self.moved]
        if still:
            raise BandwiseError(f"group {still[0]!r} was meant to train and did not move; is its learning rate 0?")


def checkpoint_activations(vlm: PreTrainedModel) -> None:
    """Hold the inputs of each layer and block alone, and compute the rest again in the backward pass.

    transformers would also make the embeddings' output require a gradient, for a kind of checkpointing that is not
    used here, and with it send gradients through a frozen vision encoder.
    """
    # peft and trl ask for it by its old name.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
    vlm.enable_input_require_grads = lambda: None
    vlm.activation_checkpointing_enable()


def adamw8bit() -> type[torch.optim.Optimizer]:
    """The class of bitsandbytes; raises DependencyError where that is not installed."""
    require("bitsandbytes", "optimizer_8bit", "false")
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit


def _fingerprints(parameters: list[nn.Parameter]) -> list[tuple[float, float]]:
    """Sum and norm of each: enough to see movement without a second copy of a large model.

    With ZeRO-3 those of this process's part: the whole is elsewhere.
    """
    held = [getattr(p, "ds_tensor", p).detach().double() for p in parameters]
    return [(values.sum().item(), values.norm().item()) for values in held]
