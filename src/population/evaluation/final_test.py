"""The locked test is opened once: when, at which commit, and after how many looks at the other folds."""

import subprocess
import time
from argparse import Namespace
from pathlib import Path

from src.core.stage import files
from src.core.stage.errors import DataError, ParamsError

METRICS = "metrics/population.json"
FINAL = "metrics/final.json"


def opening(out: Namespace, facts: dict) -> dict:
    """Date, commit, attempts and lock for the final metrics, announced before a label is read.

    `attempts` is a lower bound, because removed experiments are unknown. `out` names the file of the metrics, FINAL,
    whose history says whether the lock was opened before, and the folders out and plots, which must not exist yet.

    Raises:
        ParamsError: nothing is locked, another file is given, or the workspace differs from the last commit.
        DataError: the locked test was opened before.
    """
    if not facts["locked"]["places"]:
        raise ParamsError("params.yaml: split.lock: blank, so nothing is locked; set it and run the pipeline again")
    metrics = out.metrics
    if metrics.resolve() != Path(FINAL).resolve():
        raise ParamsError(f"--metrics: found {metrics}, expected {FINAL} with --final, so that it opens only once")
    if metrics.exists():
        old = files.read_json(metrics).get("final")
        if old is None:
            raise ParamsError(f"{FINAL}: found metrics that are not final; move them elsewhere")
        raise DataError(
            f"{metrics}: the locked test was opened on {old['date']} at commit {old['commit'][:10]}; a second look "
            "would be a choice on it: report that one, or lock other provinces of new data"
        )
    for option in ("out", "plots"):
        if (folder := getattr(out, option)).exists():
            raise ParamsError(
                f"--{option}: found {folder}, expected a new folder with --final; reports/final, plots/final"
            )
    if earlier := _git("log", "--all", "--format=%h", "--", FINAL):
        raise DataError(
            f"{FINAL}: commit {earlier.splitlines()[-1]} holds it, so the locked test was opened before; "
            f"git log --all -- {FINAL} shows what it said"
        )
    if changed := _git("status", "--porcelain", "--untracked-files=no"):
        raise ParamsError(
            f"git status: found {len(changed.splitlines())} changed files (first: {changed.splitlines()[0].strip()}), "
            "expected none, so that the commit says what was scored; commit them"
        )
    attempts = count_attempts()
    print(f"--final opens {facts['locked']['places']} locked places, once, after {attempts} versions of {METRICS}")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": _git("rev-parse", "HEAD"),
        "attempts": attempts,
        "provinces": facts["locked"]["provinces"],
    }


def count_attempts() -> int:
    """Distinct versions of METRICS in all commits that git knows, experiments included."""
    objects = _git("rev-list", "--all", "--objects", "--", METRICS).splitlines()
    return sum(line.endswith(f" {METRICS}") for line in objects)


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or error
        raise ParamsError(f"git {arguments[0]}: {said}; --final needs the git repository of the experiment") from error
    return done.stdout.strip()
