"""Start and end of every stage: command line, params, threads, status, exit code."""

import argparse
import ctypes
import json
import logging
import os
import platform
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from pydantic import BaseModel
from threadpoolctl import threadpool_limits

from src.core.stage import distributed
from src.core.stage import params as params_file
from src.core.stage.errors import BandwiseError, Interrupted, StorageError, spelled

PR_SET_PDEATHSIG = 1
GRACE = 2  # seconds
REPOSITORY = Path(__file__).parents[3]


def stage(
    main: Callable[..., None],
    params: type[BaseModel],
    *,
    name: str,
    doc: str,
    inputs: dict[str, str],
    outputs: dict[str, str],
    sources: dict[str, str] | None = None,
    flags: dict[str, str] | None = None,
    argv: list[str] | None = None,
) -> None:
    """Run `main(params, inputs, out, dry_run)` from the command line and exit with its code.

    Options: `inputs` maps a name to the stage that writes what is read there; `sources`, which the user brings,
    `outputs` and `flags` to help texts. `main` receives all as one namespace, as inputs and as out: paths, and flags as
    bool. `logs/<name>/run_status.json` gets the exit code, because DVC turns every failure into 255. SIGTERM ends the
    stage with 75 and leaves no partial output.
    """
    sources, flags = sources or {}, flags or {}
    paths = {option: f"output of {writer}" for option, writer in inputs.items()} | sources | outputs
    given = _stage_parser(name, doc, paths, flags).parse_args(argv)
    _die_with_parent()
    logging.basicConfig(
        level=logging.INFO if distributed.is_main() else logging.ERROR, format="%(message)s", stream=sys.stderr
    )
    if not distributed.is_main():
        distributed.quiet()

    @spelled(params_file.spelling(params))
    def body() -> None:
        values = params_file.read(given.params, params)
        with _missing_inputs_named(name, {option: (getattr(given, option), inputs[option]) for option in inputs}):
            main(values, given, given, given.dry_run)

    started = time.time()
    code, message = 1, "stopped by an unexpected error; the traceback is in the log"
    # SystemExit is no Exception: libraries catch those. Training has its own handler, which saves first.
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(Interrupted.exit_code))
    try:
        code, message = outcome(body, name)
        if code == 0:  # else another process may be gone, and saying goodbye to it would hang
            distributed.leave()
    except SystemExit as stop:
        code, message = stop.code, "stopped by a signal; the same command starts again"
    finally:
        signal.signal(signal.SIGTERM, previous)
        if not given.dry_run and distributed.is_main():
            _write_status(name, code, message, started)
    sys.exit(code)


def _stage_parser(name: str, doc: str, paths: dict[str, str], flags: dict[str, str]) -> argparse.ArgumentParser:
    options = command_line(name, doc)
    default = _home(name) / "params.yaml"
    options.add_argument("--params", type=Path, default=default, help=f"default: {default}")
    options.add_argument(
        "--dry-run", action="store_true", help="check params and inputs, say what would be done, write nothing"
    )
    for option, help_text in flags.items():
        options.add_argument(f"--{option}", action="store_true", help=help_text)
    for option, help_text in paths.items():
        options.add_argument(f"--{option}", type=Path, required=True, help=help_text)
    return options


@contextmanager
def _missing_inputs_named(name: str, inputs: dict[str, tuple[Path, str]]) -> Iterator[None]:
    """Say which stage to run, where an error is about an input (path, stage that writes it) that is not there.

    Not all are looked for beforehand: a dry run may do without some.
    """
    try:
        yield
    except (BandwiseError, OSError) as error:
        about = str(getattr(error, "filename", None) or error)
        for option, (path, writer) in inputs.items():
            if not path.exists() and re.match(rf"{re.escape(str(path))}(/|:|$)", about):
                home = _home(name)
                command = f"dvc repro {home / 'dvc.yaml'}:{writer}" if home.parts else f"dvc repro {writer}"
                raise StorageError(
                    f"{path}: --{option}: found nothing there, expected the output of {writer}; run `{command}`"
                ) from error
        raise


def _home(name: str) -> Path:
    """Folder of the params.yaml of the stage's pipeline: pipelines/<pipeline>, or the root where there is none."""
    folder = Path("pipelines", name.partition(".")[0])
    return folder if (REPOSITORY / folder).is_dir() else Path()


def outcome(body: Callable[[], object], name: str) -> tuple[int, str]:
    """Run `body`; return the exit code and the message of a known error, which is printed to stderr."""
    try:
        body()
        return 0, ""
    except BandwiseError as error:
        code, message = error.exit_code, str(error)
    except OSError as error:
        code, message = StorageError.exit_code, f"{error.filename or name}: {error.strerror or error}"
    if not distributed.is_main():
        # The main process reports an error that stops all; the launcher then ends the others while they wait here.
        time.sleep(GRACE)
        name = f"{name}, process {distributed.rank()}"
    print(f"{name}: {message}", file=sys.stderr)
    return code, message


def finish(body: Callable[[], object], name: str) -> NoReturn:
    """Run `body` as `outcome` does and exit with its code."""
    sys.exit(outcome(body, name)[0])


def command_line(name: str, doc: str) -> argparse.ArgumentParser:
    """Parser of `python -m src.<name>`; its help shows `doc` line by line."""
    return argparse.ArgumentParser(
        prog=f"python -m src.{name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def set_threads(count: int) -> None:
    """Use `count` threads in BLAS, OpenMP and torch.

    The order of a sum depends on it, so it is a param and not the machine's core count.
    """
    threadpool_limits(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


def _write_status(name: str, code: int, message: str, started: float) -> None:
    status = {
        "exit_code": code,
        "message": message,
        "seconds": round(time.time() - started, 1),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": platform.node(),
        "argv": sys.argv,
    }
    folder = Path("logs", name if _home(name).parts else name.partition(".")[2])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run_status.json").write_text(json.dumps(status, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        print(f"{folder}: cannot write run_status.json: {error.strerror}", file=sys.stderr)


def _die_with_parent() -> None:
    """Ask Linux for SIGTERM when DVC dies, or its stages would go on as orphans."""
    if sys.platform == "linux" and os.getppid() != 1:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
