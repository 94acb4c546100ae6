"""One exception for each exit code (sysexits.h where a number exists).

A message names the file, the field, what was found, what was expected and what to do. Core puts the names of its own
arguments and columns into backquotes; `spelled` turns them into what the pipeline's users call them.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec


class BandwiseError(Exception):
    """Anything a stage reports to its user; `exit_code` is what the process returns."""

    exit_code = 1


@contextmanager
def spelled(words: Mapping[str, str]) -> Iterator[None]:
    """Replace `name` in backquotes by `words["name"]` in every BandwiseError raised within the block."""
    try:
        yield
    except BandwiseError as error:
        error.args = (re.sub(r"`(\w+)`", lambda name: words.get(name[1], name[0]), str(error)),)
        raise


class ParamsError(BandwiseError):
    """params.yaml or the command line asks for something that does not exist."""

    exit_code = 2


class DataError(BandwiseError):
    """An input file is not what it should be."""

    exit_code = 65


class DependencyError(BandwiseError):
    """An optional package is asked for and absent; the message holds the install line."""

    exit_code = 69


class StorageError(BandwiseError):
    """A file cannot be read or written: disk full, no permission, a file where a folder should be."""

    exit_code = 74


class Interrupted(BandwiseError):
    """Stopped by a signal after saving; the same command continues where it stopped."""

    exit_code = 75


def require(install: str, key: str, instead: str) -> None:
    """Raise DependencyError where the optional package that `pip install <install>` brings is absent; `key` asks for
    it, and needs nothing with the value `instead`."""
    package = install.split()[0]
    if not find_spec(package.replace("-", "_")):
        raise DependencyError(
            f"`{key}`: {package} is not installed; run pip install {install} (see requirements-gpu.txt), "
            f"or set {instead}"
        )
