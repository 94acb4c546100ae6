"""Scores of several runs that differ in their seed alone, pooled over the same test scenes.

    python -m src.grounding.seeds --scenes 'runs/seed-*.parquet' --out metrics/grounding_seeds.json

--scenes names the reports/grounding/scenes.parquet of such runs, which experiments/grounding/seeds.sh collects. Prints
and writes means with intervals for every predictor and every comparison of the report, and the mean of each run. One
training is one draw; an interval leaves out a whole block of scenes, with all their runs, at a time.
"""

from glob import glob
from pathlib import Path

import pandas as pd

from src.core.evaluation.regression_scores import rounded
from src.core.stage import files, run
from src.core.stage.errors import DataError
from src.grounding.evaluation import image_scores
from src.grounding.evaluation.predictors import COMPARISONS, PREDICTORS, TITLES, require_listed

SCORES = ("psnr", "degraded_psnr", "missing_psnr", "ssim", "agreement")
KEYS = ["predictor", "scene", "block"]


def main(pattern: str, out: Path) -> dict:
    """Write and return the pooled scores: runs, predictor -> test, paired -> comparison with `psnr_by_run`."""
    rows = read(pattern)
    by_predictor = dict(list(rows.groupby("predictor")))
    result = {"runs": int(rows["seed"].nunique())}
    result |= {one.name: {"test": image_scores.pooled(by_predictor[one.name], "block", SCORES)} for one in PREDICTORS}
    result["paired"] = {}
    for one in COMPARISONS:
        pooled = image_scores.paired(rows, one.ours, one.theirs, "block", SCORES)
        means = [by_predictor[name].groupby("seed")["psnr"].mean() for name in (one.ours, one.theirs)]
        result["paired"][one.key] = pooled | {"psnr_by_run": (means[0] - means[1]).tolist()}
    result = rounded(result)
    files.write_json(out, result)
    say(result)
    return result


def read(pattern: str) -> pd.DataFrame:
    """Rows of all runs with their number as `seed`.

    Raises:
        DataError: fewer than two runs; other predictors, scenes or blocks than in the first; or the same scores twice.
    """
    runs = {path: files.read_table(Path(path)) for path in sorted(glob(pattern))}
    if len(runs) < 2:
        raise DataError(f"--scenes {pattern}: found {len(runs)} files, expected those of two runs or more")
    seen: dict[str, pd.DataFrame] = {}
    for path, rows in runs.items():
        if absent := sorted({*KEYS, *SCORES} - set(rows)):
            raise DataError(f"{path}: {absent[0]}: found no such column, expected it; run evaluate again")
        require_listed(rows["predictor"], path)
        runs[path] = rows = rows.sort_values(KEYS, ignore_index=True)
        first = next(iter(runs))
        if not rows[KEYS].equals(runs[first][KEYS]):
            raise DataError(
                f"{path}: found other scenes than in {first}, expected runs with the same params but `seed`"
            )
        if twin := next((other for other in seen if seen[other].equals(rows)), None):
            raise DataError(f"{path}: found the scores of {twin}, expected those of another seed; run it with one")
        seen[path] = rows
    return pd.concat([rows.assign(seed=number) for number, rows in enumerate(runs.values())], ignore_index=True)


def say(result: dict) -> None:
    """Print PSNR and agreement of each predictor, then each difference in PSNR with its interval and its runs."""
    for name, title in TITLES.items():
        test = result[name]["test"]
        print(f"{title:<55} PSNR {test['psnr']:6.2f} dB, agreement {test['agreement']:6.3f}")
    for one in COMPARISONS:
        pair = result["paired"][one.key]
        ends = "no interval" if pair["psnr_low"] is None else f"{pair['psnr_low']:+.2f} to {pair['psnr_high']:+.2f}"
        each = ", ".join(f"{value:+.2f}" for value in pair["psnr_by_run"])
        print(f"{one.claim}: {one.key} {pair['psnr']:+.2f} dB [{ends}]; by run {each}")


if __name__ == "__main__":
    parser = run.command_line("grounding.seeds", __doc__)
    parser.add_argument("--scenes", required=True, help="pattern of the tables of the runs")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    given = parser.parse_args()
    run.finish(lambda: main(given.scenes, given.out), "grounding.seeds")
