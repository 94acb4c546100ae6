"""Several processes of one training, as `accelerate launch` starts them: who writes, who waits, what all agree on.

The launcher tells each process its rank and their number in the environment. Alone, a process is the main one
and nothing here does anything. Torch is imported only where another process is there: data stages do without.
"""

import os
from collections.abc import Callable
from functools import partialmethod
from typing import Any

import tqdm


def count() -> int:
    """Number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", 0))


def local_rank() -> int:
    """The number of this process on its machine: that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0))


def is_main() -> bool:
    """True in the one process that writes files and log lines."""
    return rank() == 0


def sharding() -> str:
    """Library that splits the weights over processes: "fsdp", "deepspeed", or "" if each process has all weights."""
    kinds = ("fsdp", "deepspeed")
    return next((kind for kind in kinds if os.environ.get(f"ACCELERATE_USE_{kind.upper()}") == "true"), "")


def wait() -> None:
    """Go on when all processes have come here."""
    if group := _group():
        group.barrier()


def from_main(make: Callable[[], Any]) -> Any:
    """Result of `make`, which only the main process calls, for all processes."""
    values = [make() if is_main() else None]
    if group := _group():
        group.broadcast_object_list(values)
    return values[0]


def gather(value: Any) -> list:
    """The values of all processes, in the order of their ranks."""
    group = _group()
    if not group:
        return [value]
    values = [None] * count()
    group.all_gather_object(values, value)
    return values


def quiet() -> None:
    """No progress bars, whoever draws them: P processes would draw P."""
    tqdm.std.tqdm.__init__ = partialmethod(tqdm.std.tqdm.__init__, disable=True)


def leave() -> None:
    """Close the connections, or torch complains of a leak at exit."""
    if group := _group():
        group.destroy_process_group()


def _group():
    """torch.distributed once the processes are connected (Trainer does that), else None."""
    if count() == 1:
        return None
    import torch.distributed

    return torch.distributed if torch.distributed.is_initialized() else None
