"""Compare the metrics of every pipeline, as a run just wrote them, with the committed ones.

    .venv/bin/python .ci/compare.py

The audit must be equal. Predictors that a pipeline's list calls `closed form` may move by rounding. All others, trained
or fitted, differ between machines, so their score (R2; top-1 accuracy or another of each kind of test) must lie in the
committed 95 % interval and their words must parse; what is derived from them (differences, validation scores,
controls, prediction intervals) is not compared. A score of a predictor that is not in the list is a violation. The
committed lock must be of the committed code. Prints every violation and exits 1 if there is one. Bounds, and the
sections that are not compared, are in .ci/tolerances.json.
"""

import hashlib
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
LOCKS = {"metrics/population.json": "dvc.lock"} | {
    f"metrics/{path.parent.name}.json": path.relative_to(ROOT).as_posix()
    for path in sorted(ROOT.glob("pipelines/*/dvc.lock"))
}


def main() -> int:
    """Exit code: 0 if nothing is violated, 1 otherwise."""
    wrong = False
    for metrics, lock in LOCKS.items():
        produced = json.loads((ROOT / metrics).read_text(encoding="utf-8"))
        found = violations(produced, json.loads(committed(metrics)), tolerances_of(metrics))
        found += stale(lock, committed(lock), committed)
        print("\n".join(f"{metrics}: {line}" for line in found) or f"{metrics}: agrees with the committed one")
        wrong |= bool(found)
    return int(wrong)


def tolerances_of(metrics: str) -> dict:
    """The entry of .ci/tolerances.json, with the names of the pipeline's list: all in `listed`, closed forms added."""
    tolerances = json.loads((ROOT / ".ci/tolerances.json").read_text(encoding="utf-8"))[metrics]
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    listed = importlib.import_module(tolerances["predictors"]).PREDICTORS
    closed = {predictor.name for predictor in listed if predictor.kind == "closed form"}
    return tolerances | {
        "listed": {predictor.name for predictor in listed},
        "closed_form": closed | set(tolerances["closed_form"]),
    }


def committed(path: str) -> bytes:
    """The file's bytes in the last commit."""
    return subprocess.run(["git", "show", f"HEAD:{path}"], cwd=ROOT, check=True, capture_output=True).stdout


def stale(name: str, lock: bytes, read: Callable[[str], bytes]) -> list[str]:
    """One line for each stage whose source files are not those that `lock`, the file `name`, says it ran with."""
    found = []
    for stage, record in YAML(typ="safe").load(lock)["stages"].items():
        sources = [dep for dep in record["deps"] if dep["path"].startswith("src/")]
        changed = [dep["path"] for dep in sources if hashlib.md5(read(dep["path"])).hexdigest() != dep["md5"]]
        if changed:
            found.append(f"{name}: {stage}: {changed[0]} changed after it ran; run dvc repro and commit what it writes")
    return found


def violations(produced: dict, committed: dict, tolerances: dict) -> list[str]:
    """One line for each value of `produced` that is not what `committed` and `tolerances` ask for."""
    found = [f"{name}: in one of the two only" for name in sorted(produced.keys() ^ committed.keys())]
    main_scores = tolerances.get("scores", {})
    scored = {
        name for name in produced.keys() - set(tolerances["not_compared"]) if is_scored(produced[name], main_scores)
    }
    found += [f"{name}: scored, but not in the list of predictors" for name in scored - tolerances["listed"]]
    for name in (committed.keys() & produced.keys()) - set(tolerances["not_compared"]):
        pair = produced[name], committed[name]
        if name in tolerances["closed_form"]:
            found += unequal(name, *pair, tolerances["closed_form_tolerance"])
        elif name in tolerances["exact"] or not is_scored(committed[name], main_scores):
            found += unequal(name, *pair, 0)
        elif "r2" in committed[name]:
            found += trained(name, "r2", *pair) + unparsed(name, *pair, tolerances["parse_rate"])
        else:
            found += [f"{name}.{kind}: in one of the two only" for kind in sorted(pair[0].keys() ^ pair[1].keys())]
            for kind in pair[0].keys() & pair[1].keys():
                score, both = main_scores.get(kind, "top1"), (pair[0][kind], pair[1][kind])
                found += trained(f"{name}.{kind}", score, *both, tolerances["without_interval"])
    return sorted(found)


def is_scored(group: object, main_scores: dict[str, str]) -> bool:
    """Test for a score that a training may move: R2, or the main score of each kind of test, top-1 if not named."""
    if not isinstance(group, dict) or "r2" in group:
        return isinstance(group, dict)
    kinds = [isinstance(kind, dict) and main_scores.get(name, "top1") in kind for name, kind in group.items()]
    return bool(kinds) and all(kinds)


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


def trained(name: str, score: str, produced: dict, committed: dict, without: float | None = None) -> list[str]:
    """A score outside the committed interval (where none was given, farther than `without`), or of other rows."""
    found = unequal(f"{name}.n", produced.get("n"), committed.get("n"), 0)
    low, high = committed.get(f"{score}_low"), committed.get(f"{score}_high")
    value = produced.get(score)
    if low is None and without is not None:
        return found + unequal(f"{name}.{score}", value, committed[score], without)
    if not (is_number(low) and is_number(high) and is_number(value) and low <= value <= high):
        found.append(f"{name}.{score}: found {value}, expected {low} to {high}")
    return found


def unparsed(name: str, produced: dict, committed: dict, parse_rate: float) -> list[str]:
    """Words that do not parse."""
    rate = produced.get("parse_rate")
    if "parse_rate" in committed and not (is_number(rate) and rate >= parse_rate):
        return [f"{name}.parse_rate: found {rate}, expected at least {parse_rate}"]
    return []


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


if __name__ == "__main__":
    sys.exit(main())
