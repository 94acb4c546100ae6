"""Permutation test of the model: its R² beside that of models trained on permuted labels.

    python -m src.population.model_null --metrics metrics/population.json --permuted 'runs/permuted-*.json' \\
        --out metrics/model_null.json

--permuted names the metrics of runs with sft.permutation 1, 2, …, of the same split and params otherwise. With D draws
the smallest p-value is 1 / (1 + D): five tell a score from chance at p = 0.17, no better. Ridge has 100 draws in
every run (`null` in the metrics).
"""

from glob import glob
from pathlib import Path

import numpy as np

from src.core.evaluation import regression_scores
from src.core.evaluation.permutation import permutation_p_value
from src.core.stage import files, run
from src.core.stage.errors import DataError
from src.population.evaluation.predictors import MODEL

GROUPS = tuple(group.name for group in MODEL if group.kind in ("head", "answer", "expectation"))


def main(observed: Path, pattern: str, out: Path) -> dict:
    """Write and return, for each group, its R², those of the permuted runs and the p-value."""
    true = files.read_json(observed)
    if true.get("permutation") != 0 or true["head"]["r2"] is None:
        raise DataError(
            f"{observed}: permutation: found {true.get('permutation')}, expected 0, the run on true labels, with an R²"
        )
    drawn = {path: files.read_json(Path(path)) for path in sorted(glob(pattern))}
    if not drawn:
        raise DataError(
            f"--permuted {pattern}: found no file, expected the metrics of runs with sft.permutation above 0"
        )
    check(true, drawn)
    result = {"draws": sorted(scores["permutation"] for scores in drawn.values())}
    for group in GROUPS:
        null = [scores[group]["r2"] for scores in drawn.values()]
        result[group] = {"r2": true[group]["r2"], "r2_null": null}
        result[group]["p_value"] = permutation_p_value(true[group]["r2"], np.array(null))
    result = regression_scores.rounded(result)
    files.write_json(out, result)
    for group in GROUPS:
        found = result[group]
        null = ", ".join(f"{value:.3f}" for value in found["r2_null"])
        print(f"{group:<17} R² {found['r2']:6.3f}, on permuted labels {null}: p = {found['p_value']:.3f}")
    return result


def check(true: dict, drawn: dict[str, dict]) -> None:
    """Raise DataError unless permuted runs differ in their draws, and from the true run in nothing else."""
    seen: dict[int, str] = {}
    for path, scores in drawn.items():
        draw = scores["permutation"]
        if not draw or draw in seen:
            other = f"that of {seen[draw]}" if draw else "0, true labels"
            raise DataError(f"{path}: permutation: found {other}, expected a draw of its own")
        seen[draw] = path
        for name in ("params_sha256", "mean"):
            if scores.get(name) != true.get(name):
                raise DataError(
                    f"{path}: {name}: differs from that of the true run; run all on one split with the same params but "
                    "sft.permutation"
                )


if __name__ == "__main__":
    parser = run.command_line("population.model_null", __doc__)
    parser.add_argument("--metrics", type=Path, required=True, help="metrics of the run on true labels")
    parser.add_argument("--permuted", required=True, help="pattern of the metrics of runs on permuted labels")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    given = parser.parse_args()
    run.finish(lambda: main(given.metrics, given.permuted, given.out), "population.model_null")
