"""Several processes of one training without a launcher: what `accelerate launch` tells each is set by hand.

The processes are forked from a server that has imported torch and transformers once, not from pytest.
"""

import gc
import multiprocessing
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable

from src.core.stage.errors import BandwiseError

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.population.conftest"])
PATIENCE = 120  # seconds


def together(count: int, work: Callable[..., None], *args) -> list[int]:
    """Run `work(*args)` in `count` processes that know of each other; the exit code of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [SERVER.Process(target=_one, args=(rank, count, port, work, args)) for rank in range(count)]
    for process in started:
        process.start()
    deadline = time.monotonic() + PATIENCE
    for process in started:
        process.join(max(0.0, deadline - time.monotonic()))
    hung = [rank for rank, process in enumerate(started) if process.is_alive()]
    for process in started:
        process.kill()
        process.join()
    assert not hung, f"processes {hung} hung"
    return [process.exitcode for process in started]


def _one(rank: int, count: int, port: int, work: Callable[..., None], args: tuple) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    if count > 1:
        os.environ |= {name: str(value) for name, value in names.items()}
    gc.freeze()  # what was imported stays; a full collection would look at all of it
    try:
        work(*args)
    except BandwiseError as error:
        print(error, file=sys.stderr)
        os._exit(error.exit_code)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
