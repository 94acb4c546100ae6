"""Compare metrics/population.json, as a run just wrote it, with the committed one.

    .venv/bin/python .ci/compare.py

The audit must be equal. Closed-form baselines may move by rounding. Trained groups differ between
machines, so their R2 must lie in the committed 95 % interval and their words must parse; what is derived
from them (differences, validation scores, controls, prediction intervals) is not compared. The committed dvc.lock must
be of the committed code. Prints every violation and exits 1 if there is one. The bounds are in
.ci/tolerances.json.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
METRICS = "metrics/population.json"


def main() -> int:
    """Exit code: 0 if nothing is violated, 1 otherwise."""
    tolerances = json.loads((ROOT / ".ci/tolerances.json").read_text(encoding="utf-8"))
    produced = json.loads((ROOT / METRICS).read_text(encoding="utf-8"))
    found = violations(produced, json.loads(committed(METRICS)), tolerances) + stale(committed("dvc.lock"), committed)
    print("\n".join(found) or f"{METRICS}: agrees with the committed one")
    return 1 if found else 0


def committed(path: str) -> bytes:
    """The file's bytes in the last commit."""
    return subprocess.run(["git", "show", f"HEAD:{path}"], cwd=ROOT, check=True, capture_output=True).stdout


def stale(lock: bytes, read: Callable[[str], bytes]) -> list[str]:
    """One line for each stage whose source files are not those that `lock` says it ran with."""
    found = []
    for stage, record in YAML(typ="safe").load(lock)["stages"].items():
        sources = [dep for dep in record["deps"] if dep["path"].startswith("src/")]
        changed = [dep["path"] for dep in sources if hashlib.md5(read(dep["path"])).hexdigest() != dep["md5"]]
        if changed:
            found.append(
                f"dvc.lock: {stage}: {changed[0]} changed after it ran; run dvc repro and commit what it writes"
            )
    return found


def violations(produced: dict, committed: dict, tolerances: dict) -> list[str]:
    """One line for each value of `produced` that is not what `committed` and `tolerances` ask for."""
    found = [f"{name}: in one of the two only" for name in sorted(produced.keys() ^ committed.keys())]
    for name in (committed.keys() & produced.keys()) - set(tolerances["not_compared"]):
        pair = produced[name], committed[name]
        if name in tolerances["closed_form"]:
            found += unequal(name, *pair, tolerances["closed_form_tolerance"])
        elif name in tolerances["exact"] or not (isinstance(committed[name], dict) and "r2" in committed[name]):
            found += unequal(name, *pair, 0)
        else:
            found += trained(name, *pair, tolerances["parse_rate"])
    return sorted(found)


def unequal(name: str, produced: object, committed: object, tolerance: float) -> list[str]:
    """Values below `name` that differ by more than `tolerance`; what is no number must be equal."""
    if isinstance(produced, dict) and isinstance(committed, dict):
        keys = sorted(produced.keys() | committed.keys())
        return [
            line for key in keys for line in unequal(f"{name}.{key}", produced.get(key), committed.get(key), tolerance)
        ]
    close = produced == committed
    if is_number(produced) and is_number(committed):
        close = abs(produced - committed) <= tolerance
    return [] if close else [f"{name}: found {produced}, expected {committed} within {tolerance}"]


def trained(name: str, produced: dict, committed: dict, parse_rate: float) -> list[str]:
    """R2 outside the committed interval, another number of tiles, words that do not parse."""
    found = unequal(f"{name}.n", produced.get("n"), committed.get("n"), 0)
    low, high, r2 = committed["r2_low"], committed["r2_high"], produced.get("r2")
    if not (is_number(low) and is_number(high) and is_number(r2) and low <= r2 <= high):
        found.append(f"{name}.r2: found {r2}, expected {low} to {high}")
    if "parse_rate" in committed:
        rate = produced.get("parse_rate")
        if not (is_number(rate) and rate >= parse_rate):
            found.append(f"{name}.parse_rate: found {rate}, expected at least {parse_rate}")
    return found


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


if __name__ == "__main__":
    sys.exit(main())
