"""The memory that forward and backward of a model take, counted on fake tensors.

These have shapes, types and storages but no data: a 7B model takes seconds on a laptop, without its weights.
On a CPU the count is what the allocator gives (tests/core/training/test_allocations.py); kernels of a GPU save the
same for the backward pass.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from torch.utils.weak import WeakIdKeyDictionary
from transformers.modeling_layers import GradientCheckpointingLayer

PIXELS = ("tiles", "valid", "pixel_values")  # what of a batch is large and steers nothing
OPS = torch.ops.aten
INDEXING = {OPS.index, OPS.index_put, OPS.index_put_, OPS._index_put_impl_}
GRADIENTS = {OPS.mm, OPS.embedding_dense_backward}

Batch = dict[str, torch.Tensor]
Moments = tuple[tuple[int, int], ...]


def moments(
    model: nn.Module,
    trained: Iterable[nn.Parameter],
    loss: Callable[[Batch], torch.Tensor],
    sample: Batch,
    dtype: torch.dtype,
    checkpointing: bool,
) -> Moments:
    """Peak bytes of activations as pairs (fixed, per sample), for every moment that is the peak of some batch size."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with _restored(model):
        weights = _replace_by_fake(model, trained, dtype, mode)
        for module in model.train().modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.gradient_checkpointing = checkpointing
                module._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
            elif isinstance(module, nn.LayerNorm):
                module.forward = partial(_cuda_norm, module)
        with mode:
            batch = {name: torch.empty(x.shape, dtype=x.dtype) if name in PIXELS else x for name, x in sample.items()}
        with Allocations(weights, sum(x.nbytes for x in batch.values())) as allocations:
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                value = loss(batch)
            value.backward()
    return tuple(allocations.front)


class Allocations(TorchDispatchMode):
    """Follows every storage that an operation on fake tensors makes, until it is freed.

    A storage is fixed if it was made of weights alone (a copy in lower precision) or is the gradient of one, a
    product of two tensors that both grow with the batch. All others grow with the batch.
    """

    def __init__(self, weights: list[torch.Tensor], inputs: int):
        super().__init__()
        self.alive = {True: 0, False: inputs}
        self.front: list[tuple[int, int]] = []
        self.fixed = WeakIdKeyDictionary()  # storage -> whether it is fixed
        for x in weights:
            self.fixed[x.untyped_storage()] = True

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:  # asked for twice by every operation
            return func(*args)
        if func.overloadpacket in INDEXING:
            args = (args[0], _positions(args[1]), *args[2:])
        read = _tensors((args, kwargs))
        sources = {self.fixed.setdefault(x.untyped_storage(), False) for x in read}
        fixed = not any(sources) if func.overloadpacket in GRADIENTS else sources == {True}
        with next((x.fake_mode for x in read if isinstance(x, FakeTensor)), nullcontext()):
            out = func(*args, **kwargs)
        for x in _tensors(out):
            storage = x.untyped_storage()
            if storage not in self.fixed:
                self.fixed[storage] = fixed
                self._count(fixed, storage.nbytes())
                weakref.finalize(storage, self._count, fixed, -storage.nbytes())
        return out

    def _count(self, fixed: bool, size: int) -> None:
        self.alive[fixed] += size
        if size > 0:
            now = (self.alive[True], self.alive[False])
            if not any(now[0] <= f and now[1] <= s for f, s in self.front):
                self.front = [(f, s) for f, s in self.front if f > now[0] or s > now[1]] + [now]


def _positions(indices: Iterable) -> list:
    """Indices with masks replaced by positions: a fake tensor cannot tell how many values are true."""
    found = []
    for index in indices:
        mask = isinstance(index, torch.Tensor) and index.dtype == torch.bool
        found += index.nonzero(as_tuple=True) if mask else [index]
    return found


def _tensors(values: Any) -> list[torch.Tensor]:
    return [x for x in tree_leaves(values) if isinstance(x, torch.Tensor)]


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Give every module its attributes, parameters and buffers back at the end."""
    before = {
        module: module.__dict__ | {"_parameters": module._parameters.copy(), "_buffers": module._buffers.copy()}
        for module in model.modules()
    }
    try:
        yield
    finally:
        for module, attributes in before.items():
            module.__dict__ = attributes


def _replace_by_fake(
    model: nn.Module, trained: Iterable[nn.Parameter], dtype: torch.dtype, mode: FakeTensorMode
) -> list[torch.Tensor]:
    """Put fake buffers and parameters, these with the gradients of an earlier step, in place of real ones."""
    chosen = {id(p) for p in trained}
    with mode:
        fake = {id(x): torch.empty(x.shape, dtype=x.dtype) for x in model.buffers()}
        for p in model.parameters():
            trains = id(p) in chosen
            empty = torch.empty(p.shape, dtype=torch.float32 if trains else dtype)
            fake[id(p)] = nn.Parameter(empty, trains)
            fake[id(p)].grad = torch.empty(p.shape) if trains else None
    for module in model.modules():
        for store in (module._parameters, module._buffers):
            store |= {name: fake[id(x)] for name, x in store.items() if x is not None}
    return list(fake.values())


def _cuda_norm(norm: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    """Layer norm in float32, as autocast computes it on CUDA but not on the CPU, where the count runs."""
    if not torch.is_autocast_enabled("cpu"):
        return nn.LayerNorm.forward(norm, x)
    weight, bias = (None if p is None else p.float() for p in (norm.weight, norm.bias))
    return nn.functional.layer_norm(x.float(), norm.normalized_shape, weight, bias, norm.eps)
