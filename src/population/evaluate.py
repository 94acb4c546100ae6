"""Score the models on the test fold beside baselines, nulls and controls; draw the figures, write the report.

    python -m src.population.evaluate --tiles data/population/tiles --split data/population/split \\
        --pca data/population/pca --baselines data/population/baselines --sft models/population/sft \\
        --dpo models/population/dpo --curves plots/population --metrics metrics/population.json \\
        --out reports/population --plots plots/population/evaluate

Writes metrics/population.json (scores, intervals, audit), reports/population/predictions.parquet
(validation and test rows, a column per group), index.html and model_card.md, and the PNGs in plots/population/evaluate.
This is the only stage that looks at test labels. With --final it scores the locked provinces instead, once: give
other names behind --metrics, --out and --plots (metrics/final.json, reports/final, plots/final).
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd

from src.core.data.tile_store import Store
from src.core.evaluation import regression_scores
from src.core.splits.tile_audit import audit_pca
from src.core.stage import files, run
from src.core.stage.errors import DataError
from src.population.data import prediction_tasks
from src.population.evaluation import final_test, group_scores, prediction_intervals, predictors
from src.population.params import Params
from src.population.report import model_card, page, page_results


def main(params, inputs, out, dry_run=False):
    """Store, split, baselines and two models -> predictions, scores, figures, page."""
    store = Store.open(inputs.tiles)
    facts, audit = (files.read_json(inputs.split / name) for name in ("split.json", "audit.json"))
    opened = final_test.opening(out, facts) if inputs.final else None
    scored = "locked" if inputs.final else "test"
    rows = prediction_tasks.read_samples(inputs.split, store.tiles.tile_id)
    rows = rows[rows.role.isin(["train", "validation", scored])].reset_index(drop=True)
    advice = "the model may have seen these test tiles: train it again on this split"
    settings, _ = (read_of_split(folder / "bandwise.json", facts, advice) for folder in (inputs.sft, inputs.dpo))
    counts = rows.role.value_counts()
    print(f"labels: {', '.join(f'{counts.get(role, 0)} {role}' for role in ('train', 'validation', scored))}")
    if dry_run:
        passes = 2 * (2 + params.evaluate.text_samples + params.evaluate.grid_points)
        held = counts["validation"] + counts[scored]
        print(f"{held} held-out labels, about {passes} forward passes each")
        return

    # Imported here: they import torch, which --help and --dry-run do without.
    from src.population.evaluation.controls import control_predictions
    from src.population.models.inference import group_predictions

    run.set_threads(params.threads)
    audit["pca_difference"] = check_pca(store, inputs)
    held = rows[rows.role != "train"]
    answers = group_predictions(inputs.sft, inputs.dpo, store, held, params.evaluate, params.prefs, params.seed)
    controls = control_predictions(inputs.sft, store, held[held.role == scored], params.evaluate, params.seed)
    fitted, null, left_out, by_fold, choices = read_baselines(inputs.baselines, held, facts)
    table = predictions_table(held, answers, controls, fitted, facts, params.seed)
    groups = predictors.in_table(table, f"{inputs.sft}, {inputs.dpo}, {inputs.baselines}")
    group_scores.check_finite(table, groups, str(inputs.sft))

    scores = group_scores.assess(table, groups, null, choices, facts, params.seed)
    known, bounds, coverage = prediction_intervals.assess(
        table, left_out, by_fold, params.evaluate.level, facts, params.seed
    )
    table = table.join(bounds.round(6))
    scores["prediction_intervals"] = known | {"model_sha256": files.tree_sha256([inputs.sft])}
    scores["dpo"] |= files.read_json(inputs.curves / "dpo" / "pairs.json")
    scores |= run_facts(params, facts, audit, opened, settings)
    masked = inputs.curves / "pretrain" / "masked_mse.json"
    scores["pretrain"] = {"masked_mse": files.read_json(masked) if masked.exists() else None}
    scores["params_sha256"] = params_hash(used := used_params(params, facts))
    scores = regression_scores.rounded(scores)
    with files.complete_folder(out.plots) as plots, files.complete_folder(out.out) as report:
        table.to_parquet(report / "predictions.parquet", index=False)
        files.write_json(report / "prediction_intervals.json", scores["prediction_intervals"])
        page.draw(plots, table, rows, scores, page.read_curves(inputs.curves), facts, coverage)
        shown = used | {"evaluate": params.evaluate.model_dump(), "bandwise": settings}
        page.write(report / "index.html", inputs, plots, facts, audit, scores, shown)
        model_card.write(report, params.card, used, store, rows, settings, facts, audit, scores)
    files.write_json(out.metrics, scores)
    names = {"head", "text", "dpo", scores["best_baseline_on_validation"], "ridge", "mean"}
    printed = {group.name: scores[group.name] for group in predictors.listed(names, "metrics")}
    print(page_results.score_lines(printed, {"parse_rate": "answers parsed"}))
    print(f"{scores['kind']}; report: {out.out}/index.html")


def run_facts(params: Params, facts: dict, audit: dict, opened: dict | None, settings: dict) -> dict:
    """The entries of the metrics that describe the run: its audit, its task, and what its scores may claim."""
    return {
        "audit": {name: audit[name] for name in group_scores.AUDIT},
        "kind": "final" if opened else "exploratory",
        "final": opened,
        "task": facts["task"],
        "fold": facts["fold"],
        "locked": facts["locked"],
        "prompt_fields": params.prompt.fields,
        "permutation": params.sft.permutation,
        "transductive": settings["pretrained_on"] == "all",
        "retrospective": bool(audit["future_tiles"]),
        "missing_answer": "scores as the training mean",
    }


def used_params(params: Params, facts: dict) -> dict:
    """The params that may change a score, with split.json as `split`."""
    names = {"seed", "threads", "data", "memory", "model", "pretrain", "baselines", "prompt", "sft", "prefs", "dpo"}
    return params.model_dump(include=names) | {"split": facts}


def params_hash(used: dict) -> str:
    """sha256 of the params of a run without sft.permutation. Runs with one hash differ at most in that."""
    same = used | {"sft": used["sft"] | {"permutation": 0}}
    return hashlib.sha256(json.dumps(same, sort_keys=True, default=str).encode()).hexdigest()


def check_pca(store: Store, inputs) -> float:
    """Difference between the stored projection and a fit on the training tiles alone; DataError unless it is 0."""
    tiles = files.read_table(inputs.split / "split.parquet")
    train = tiles.loc[tiles.role == "train", "tile"].to_numpy()
    difference = audit_pca(store, train, files.read_arrays(inputs.pca / "pca.safetensors"))
    if difference:
        raise DataError(
            f"{inputs.pca}/pca.safetensors: leakage audit: differs by {difference:.3g} from a fit on the training "
            "tiles, expected 0; run the pca stage again on this split"
        )
    return difference


def read_of_split(path: Path, facts: dict, advice: str) -> dict:
    """The JSON file of an earlier stage; DataError if that ran on another split, so it may have seen test labels."""
    found = files.read_json(path)
    if found.get("split_hash") != facts["hash"]:
        raise DataError(
            f"{path}: split_hash: found {found.get('split_hash')}, expected {facts['hash']} of split.json; {advice}"
        )
    return found


def read_baselines(folder: Path, held: pd.DataFrame, facts: dict) -> tuple:
    """Output of the baselines stage; DataError if it is of another split, or a baseline is missing without a reason.

    Returns:
        Predictions in the order of `held`, (draws, scored rows) of ridge on permuted labels, left_out as written,
        (folds, scored rows) of ridge without each fold, and choices.json.
    """
    names = ("predictions", "null", "ridge_left_out", "ridge_by_fold")
    predictions, null, left_out, by_fold = (files.read_table(folder / f"{name}.parquet") for name in names)
    choices = read_of_split(folder / "choices.json", facts, "run the baselines stage again")
    for name in (baseline.name for baseline in predictors.BASELINES):
        if name not in predictions and "left_out" not in choices.get(name, {}):
            raise DataError(
                f"{folder}/predictions.parquet: found no column {name!r} and no reason for it in choices.json, "
                "expected one of the two; run the baselines stage again"
            )
    predictions = predictions.set_index("sample").loc[held["sample"]].drop(columns="role")
    scored = held["sample"][held.role != "validation"]
    drawn, crossed = (table.set_index("sample").loc[scored].to_numpy().T for table in (null, by_fold))
    return predictions.reset_index(drop=True), drawn, left_out, crossed, choices


def predictions_table(
    held: pd.DataFrame, answers: pd.DataFrame, controls: pd.DataFrame, fitted: pd.DataFrame, facts: dict, seed: int
) -> pd.DataFrame:
    """predictions.parquet: one row per held-out label, one column per group in ‰ per year (NaN: not parsed)."""
    table = held[["tile_id", "province", "city", "year", "lat", "lon", "block"]].assign(
        task=facts["task"],
        split_seed=facts["seed"],
        fold=facts["fold"],
        seed=seed,
        unit=facts["unit"],
        n_train=facts["units"]["train"],
        n_test=facts["units"]["test"],
        split=held.role,
        y=held.growth_rate,
    )
    # Positions, not labels, join them: `answers` has one row for each of `held`, whatever its index.
    model = [group.name for group in predictors.MODEL]
    table[model] = answers[model].to_numpy(np.float64)
    table.loc[held.role != "validation", [*controls]] = controls.to_numpy(np.float64)
    table = table.reset_index(drop=True).join(fitted)
    # Scores are those of the rounded numbers, so that this file alone gives them again.
    numbers = [*model, *controls, *fitted]
    table[numbers] = table[numbers].round(6) + 0.0
    written = [*predictors.WRITTEN, *answers.columns.difference([*model, *predictors.WRITTEN])]
    return table.join(answers[written].reset_index(drop=True))


if __name__ == "__main__":
    run.stage(
        main,
        Params,
        name="population.evaluate",
        doc=__doc__,
        inputs={
            "tiles": "preprocess",
            "split": "split",
            "pca": "pca",
            "baselines": "baselines",
            "sft": "sft",
            "dpo": "dpo",
        },
        sources={"curves": "folder with the dvclive output of pretrain, sft and dpo"},
        outputs={
            "metrics": "JSON of all scores",
            "out": "folder for predictions.parquet, index.html and model_card.md",
            "plots": "folder for the figures",
        },
        flags={"final": "score the locked provinces instead of the test fold; once"},
    )
