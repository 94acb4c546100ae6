"""Spread of the scores of words over runs that differ in their seed alone.

    python -m src.minerals.seeds --metrics 'runs/seed-*.json' --out metrics/minerals_seeds.json

--metrics names the metrics of such runs, as experiments/minerals/seeds.sh makes them. Prints and writes, for everything
that answers in words, mean, standard deviation, least and greatest of the balanced accuracy of "altered?" and of the
micro-F1 of the list of minerals. One training is one draw: the intervals of a single run, over blocks, leave this out.
"""

from glob import glob
from pathlib import Path

import numpy as np

from src.core.evaluation import regression_scores, repeated_splits
from src.core.stage import files, run
from src.core.stage.errors import DataError
from src.minerals.evaluation.predictors import TITLES, WORDS, key_end

SCORES = {"alteration": "balanced_accuracy", "minerals": "micro_f1"}
SAME = ("scored_against", "tiles", "blocks", "audit")


def main(pattern: str, out: Path) -> dict:
    """Write and return the spread of each score: predictor -> score -> mean, sd, low, high, J."""
    runs = {path: files.read_json(Path(path)) for path in sorted(glob(pattern))}
    check(runs, pattern)
    first = next(iter(runs.values()))
    result = {"runs": len(runs), "scored_against": first["scored_against"]}
    for name in WORDS:
        for task, score in SCORES.items():
            found = scores_of(runs, name, task + key_end(first["scored_against"]), score)
            if len(found):
                result.setdefault(name, {})[f"{task}.{score}"] = repeated_splits.spread(found)
    result = regression_scores.rounded(result)
    files.write_json(out, result)
    for name in WORDS:
        for score, about in result.get(name, {}).items():
            spread = f"{about['mean']:.3f} ± {about['sd']:.3f} [{about['low']:.3f}, {about['high']:.3f}]"
            print(f"{TITLES[name]:<58} {score:<29} {spread}")
    return result


def scores_of(runs: dict[str, dict], name: str, key: str, score: str) -> np.ndarray:
    """One score of a predictor in every run, (J,); empty where none has it: controls are asked one task only.

    Raises DataError where some have it and others do not.
    """
    found = {path: scores.get(name, {}).get(key, {}).get(score) for path, scores in runs.items()}
    absent = [path for path, value in found.items() if value is None]
    if absent and len(absent) < len(found):
        raise DataError(
            f"{absent[0]}: {name}.{key}.{score}: found none, other runs have it: no answer parsed, or other params"
        )
    return np.array([] if absent else list(found.values()))


def check(runs: dict[str, dict], pattern: str) -> None:
    """Raise DataError unless there are two runs or more, on the same test tiles, no two of the same scores."""
    if len(runs) < 2:
        raise DataError(f"--metrics {pattern}: found {len(runs)} files, expected the metrics of two runs or more")
    seen: list[str] = []
    for path, scores in runs.items():
        for key in SAME:
            if scores.get(key) != runs[min(runs)].get(key):
                raise DataError(
                    f"{path}: {key}: found {scores.get(key)}, in {min(runs)} {runs[min(runs)].get(key)}; expected runs "
                    "with one split and the same params but `seed`"
                )
        if twin := next((other for other in seen if runs[other] == scores), None):
            raise DataError(
                f"{path}: found the scores of {twin}, expected others: another `seed`, and answers that parse"
            )
        seen.append(path)


if __name__ == "__main__":
    parser = run.command_line("minerals.seeds", __doc__)
    parser.add_argument("--metrics", required=True, help="pattern of the metrics of the runs")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    given = parser.parse_args()
    run.finish(lambda: main(given.metrics, given.out), "minerals.seeds")
