"""Outputs of a program under two seeds of Python's string hashes: sets and dicts must not decide anything."""

import os
import subprocess
import sys


def printed(code: str) -> set[str]:
    """The distinct outputs of `code` under two values of PYTHONHASHSEED; one, if hashes do not matter."""
    return {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
