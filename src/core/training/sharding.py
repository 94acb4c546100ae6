"""Support for parameters that accelerate splits over processes (accelerate/fsdp2.yaml, zero*.yaml).

FSDP2's `fully_shard` puts new parameters (DTensors, of which a process holds its part) in the place of the old ones;
DeepSpeed keeps the objects and empties them.
"""

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from src.core.stage import distributed
from src.core.training.parameter_groups import ParameterGroups


class ShardingMixin:
    """For `Trainer`s that are handed an optimizer and `ParameterGroups`: both follow the parameters.

    Without FSDP2 or DeepSpeed nothing here does anything.
    """

    def __init__(self, *args, optimizers=(None, None), **kwargs):
        # Trainer refuses an optimizer with FSDP, whose first version could not exchange its parameters.
        super().__init__(*args, **kwargs)
        self.optimizer, self.lr_scheduler = self.given = optimizers
        if not hasattr(self.model, "_no_split_modules"):  # what TRANSFORMER_BASED_WRAP asks a model for
            inner = [module for module in self.model.modules() if isinstance(module, PreTrainedModel)]
            names = {name for module in inner for name in module._no_split_modules or ()}
            present = {type(module).__name__ for module in self.model.modules()}
            self.model._no_split_modules = sorted(names & present)

    # DeepSpeed's start lets go of both, and Trainer would make others, at its own rate.
    def create_optimizer(self, *args, **kwargs):
        self.optimizer = self.optimizer or self.given[0]
        return super().create_optimizer(*args, **kwargs)

    def create_scheduler(self, *args, **kwargs):
        self.lr_scheduler = self.lr_scheduler or self.given[1]
        return super().create_scheduler(*args, **kwargs)

    def _prepare_for_training(self, *args, **kwargs):
        names = {id(p): name for name, p in self.model.named_parameters()}
        prepared = super()._prepare_for_training(*args, **kwargs)
        if is_sharded(self.model):
            now = dict(self.model.named_parameters())
            for callback in self.callback_handler.callbacks:
                if isinstance(callback, ParameterGroups):
                    callback.groups = {
                        name: ([now[names[id(p)]] for p in parameters], rate, first)
                        for name, (parameters, rate, first) in callback.groups.items()
                    }
        return prepared

    def training_step(self, model, *args, **kwargs):
        if is_sharded(model):
            freeze_alike(model)
        return super().training_step(model, *args, **kwargs)

    def evaluation_loop(self, *args, **kwargs):
        if not is_sharded(self.model):
            return super().evaluation_loop(*args, **kwargs)
        # Generation calls a part of the model, which would not gather the weights that belong to the whole.
        self.model.unshard()
        try:
            return super().evaluation_loop(*args, **kwargs)
        finally:
            self.model.reshard()


def is_sharded(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule)


def freeze_alike(model: nn.Module) -> None:
    """Whole parameters, which are made once, require a gradient where their parts do now."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            for group in module._get_fsdp_state()._fsdp_param_groups:
                for parameter in group.fsdp_params:
                    if hasattr(parameter, "_unsharded_param"):
                        parameter._unsharded_param.requires_grad_(parameter.sharded_param.requires_grad)


@torch.no_grad()
def gather_weights(model: nn.Module) -> None:
    """Make a sharded model a plain one with whole parameters, on the CPU. All processes must call it; those that
    write nothing are left with empty ones."""
    whole: dict[int, nn.Parameter] = {}
    for module in list(model.modules()):
        for name, p in module._parameters.items():
            if isinstance(p, DTensor) or hasattr(p, "ds_id"):
                if id(p) not in whole:
                    whole[id(p)] = _whole(p)
                module._parameters[name] = whole[id(p)]
        if isinstance(module, FSDPModule):
            state = module._get_fsdp_state()
            state._pre_forward_hook_handle.remove()
            state._post_forward_hook_handle.remove()
            module.__class__ = type(module).__mro__[2]  # FSDPName(FSDPModule, Name)


def _whole(p: nn.Parameter) -> nn.Parameter:
    """All of a parameter that FSDP2 or ZeRO-3 (which marks it with `ds_id`) has cut into parts."""
    if isinstance(p, DTensor):
        values = p.full_tensor()
    else:
        import deepspeed

        with deepspeed.zero.GatheredParameters([p]):
            values = p.detach().clone()
    return nn.Parameter(values.cpu() if distributed.is_main() else values.new_empty(0, device="cpu"), p.requires_grad)
