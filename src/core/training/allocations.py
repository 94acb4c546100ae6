"""The memory that forward and backward of a model take, counted on fake tensors.

These have shapes, types and storages but no data: a 7B model takes seconds on a laptop, without its weights.
On a CPU the count is what the allocator gives (tests/core/training/test_allocations.py); kernels of a GPU save the
same for the backward pass.
"""

import weakref
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
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
    """Peak bytes of activations as pairs (fixed, per sample), for every moment that is the peak of some batch size.

    A moment is left out if another one needs at least as much of both.
    """
    with _fake(model, trained, dtype) as (mode, weights), _checkpointing(model, checkpointing), _cuda_norms(model):
        with mode:
            batch = {name: torch.empty(x.shape, dtype=x.dtype) if name in PIXELS else x for name, x in sample.items()}
        allocations = Allocations(weights, sum(x.nbytes for x in batch.values()))
        with allocations:
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
        read = _tensors((*args, *kwargs.values()))
        sources = {self.fixed.setdefault(x.untyped_storage(), False) for x in read}
        fixed = not any(sources) if func.overloadpacket in GRADIENTS else sources == {True}
        fake = next((x.fake_mode for x in read if isinstance(x, FakeTensor)), None)
        if fake is None:
            out = func(*args, **kwargs)
        else:
            with fake:
                out = func(*args, **kwargs)
        for x in _tensors(out if isinstance(out, tuple | list) else (out,)):
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


def _tensors(values: Iterable) -> list[torch.Tensor]:
    nested = [x if isinstance(x, tuple | list) else (x,) for x in values]
    return [x for part in nested for x in part if isinstance(x, torch.Tensor)]


@contextmanager
def _fake(model: nn.Module, trained: Iterable[nn.Parameter], dtype: torch.dtype):
    """Fake parameters and buffers in the place of real ones, with the gradients that an earlier step left.

    Yields the mode in which they were made, and the fake ones.
    """
    chosen = {id(p) for p in trained}
    stores = [store for module in model.modules() for store in (module._parameters, module._buffers)]
    real = [(store, name, x) for store in stores for name, x in store.items() if x is not None]
    fake: dict[int, torch.Tensor] = {}  # by the real one's id, because weights can be tied
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        for _, _, x in real:
            if not isinstance(x, nn.Parameter):
                fake[id(x)] = torch.empty(x.shape, dtype=x.dtype)
                continue
            trains = id(x) in chosen
            fake[id(x)] = nn.Parameter(torch.empty(x.shape, dtype=torch.float32 if trains else dtype), trains)
            fake[id(x)].grad = torch.empty(x.shape) if trains else None
    training = model.training
    try:
        for store, name, x in real:
            store[name] = fake[id(x)]
        model.train()
        yield mode, list(fake.values())
    finally:
        for store, name, x in real:
            store[name] = x
        model.train(training)


@contextmanager
def _checkpointing(model: nn.Module, on: bool):
    """Within it, gradient checkpointing is on or off in every layer that supports it."""
    layers = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]
    before = [layer.__dict__.copy() for layer in layers]
    try:
        for layer in layers:
            layer.gradient_checkpointing = on
            layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        yield
    finally:
        for layer, attributes in zip(layers, before, strict=True):
            layer.__dict__ = attributes


@contextmanager
def _cuda_norms(model: nn.Module):
    """Layer norms in float32, as autocast computes them on CUDA but not on the CPU, where the count runs."""

    def forward(norm: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
        if not torch.is_autocast_enabled("cpu"):
            return nn.LayerNorm.forward(norm, x)
        weight, bias = (None if p is None else p.float() for p in (norm.weight, norm.bias))
        return nn.functional.layer_norm(x.float(), norm.normalized_shape, weight, bias, norm.eps)

    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    for norm in norms:
        norm.forward = partial(forward, norm)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward
