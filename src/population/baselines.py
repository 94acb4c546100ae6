"""Fit the baselines of a split, and ridge on permuted labels as a null; all models of the split are compared with them.

    python -m src.population.baselines --tiles data/population/tiles --split data/population/split \\
        --out data/population/baselines --plots plots/population/baselines

Writes predictions.parquet (validation, test and locked labels, a column per baseline), null.parquet (ridge on
permuted labels, a column per draw), ridge_left_out.parquet and ridge_by_fold.parquet (for CV+ intervals of ridge),
choices.json (per baseline the setting with the least squared error on validation, among all that were tried, or
why it was left out) and the networks' curves (networks.png, curves.json).

Every baseline is tuned with the same budget and fitted on training labels; a network's epoch is chosen on
validation beside its setting. Labels of test and locked rows are taken out as soon as they are read.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from src.core.data import band_statistics
from src.core.data.tile_store import Store
from src.core.report import figures
from src.core.stage import files, run
from src.core.stage.errors import DataError
from src.population.data import prediction_tasks
from src.population.evaluation import predictors
from src.population.evaluation.fitted_baselines import DECIMALS, cross_fit_ridge, ridge_null
from src.population.evaluation.regression_problem import Problem
from src.population.params import Params


def main(params, inputs, out, dry_run=False):
    """Store and split -> predictions of every baseline for the labels held out."""
    run.set_threads(params.threads)
    store = Store.open(inputs.tiles)
    facts = files.read_json(inputs.split / "split.json")
    statistics = band_statistics.read_statistics(inputs.split / "statistics.safetensors")
    rows = read_rows(inputs.split, store, params.data.covariate_columns)
    budget, networks = params.baselines.budget, params.baselines.networks
    print(f"baselines: labels {rows.role.value_counts().sort_index().to_dict()}, {budget} settings each")
    if dry_run:
        print(
            f"baselines: would train {budget * len(networks)} networks ({', '.join(networks)}) for at most "
            f"{params.baselines.epochs} epochs and fit ridge to {params.baselines.permutations} permutations"
        )
        return

    problem = Problem(rows, store, statistics, facts, params)
    predictions, choices = fit_all(problem)
    left_out, by_fold = cross_fit_ridge(problem, choices["ridge"]["setting"])
    identity = problem.rows.loc[problem.held, ["sample", "role"]].reset_index(drop=True)
    tables = {
        "predictions": identity.join(predictions.round(DECIMALS)),
        "null": identity[["sample"]].join(ridge_null(problem).round(DECIMALS)),
        "ridge_left_out": left_out,
        "ridge_by_fold": identity[["sample"]].join(by_fold.round(DECIMALS)),
    }
    with files.complete_folder(out.out) as folder, files.complete_folder(out.plots) as plots:
        for name, table in tables.items():
            table.to_parquet(folder / f"{name}.parquet", index=False)
        files.write_json(folder / "choices.json", {"split_hash": facts["hash"], "budget": problem.budget} | choices)
        write_curves(plots, problem.curves)
    for name, choice in choices.items():
        found = choice.get("left_out") or f"validation R2 {choice['validation_r2']}, {choice['setting']}"
        print(f"baselines: {name}: {found}")
    print(
        "baselines: these scores are of validation; those of test come with evaluate, and without a model from "
        "`python -m src.population.score` (docs/evaluation.md)"
    )


def fit_all(problem: Problem) -> tuple[pd.DataFrame, dict[str, dict]]:
    """A column of held-out predictions for each baseline of the list, and its choice, or why it was left out."""
    predictions, choices = {}, {}
    for baseline in predictors.BASELINES:
        if reason := predictors.left_out(baseline, problem):
            choices[baseline.name] = {"left_out": reason}
            continue
        prediction, choices[baseline.name] = baseline.fit(problem)
        if prediction is not None:
            predictions[baseline.name] = prediction
    return pd.DataFrame(predictions), choices


def read_rows(folder: Path, store: Store, covariates: list[str]) -> pd.DataFrame:
    """Every label row, with growth_rate NaN where it must not be known here: in test and locked ones.

    Raises DataError if labels of a single place train, or a covariate is missing.
    """
    path = folder / prediction_tasks.SAMPLES
    rows = prediction_tasks.read_samples(folder, store.tiles.tile_id)
    train = rows[rows.role == "train"]
    if train.place.nunique() < 2:
        raise DataError(
            f"{path}: place: found {train.place.nunique()} with {len(train)} training labels, expected at least 2; "
            "bring more places"
        )
    rows["growth_rate"] = rows.growth_rate.astype(np.float64).mask(rows.role.isin(["test", "locked"]))
    for name in covariates:
        if name not in rows:
            raise DataError(
                f"{path}: no column {name!r}, which data.covariates and "
                "data.covariate_lag ask for; run preprocess and split again"
            )
        missing = ~np.isfinite(rows[name].to_numpy(np.float64)) & (rows.role != "buffer").to_numpy()
        if missing.any():
            raise DataError(
                f"{path}: {name}: found {missing.sum()} rows without a number (first: "
                f"{rows.tile_id[missing].iloc[0]}), expected one in each; fill it in the labels file or take it out "
                "of data.covariates"
            )
    return rows


def write_curves(folder: Path, curves: dict[str, list[dict]]) -> None:
    """curves.json and networks.png: squared error of standardised labels by epoch, per network and setting."""
    numbers, panels = {}, {}
    for kind, trained in curves.items():
        numbers[kind] = [
            entry["setting"] | {name: values.round(DECIMALS).tolist() for name, (_, values) in entry["lines"].items()}
            for entry in trained
        ]
        titles = [", ".join(f"{name} {value:.2g}" for name, value in entry["setting"].items()) for entry in trained]
        lines = [entry["lines"] for entry in trained]
        panels[kind] = [figures.Curve(title, "MSE", line) for title, line in zip(titles, lines, strict=True)]
    files.write_json(folder / "curves.json", numbers)
    if panels:
        figures.curves(folder / "networks.png", panels)


if __name__ == "__main__":
    run.stage(
        main,
        Params,
        name="population.baselines",
        doc=__doc__,
        inputs={"tiles": "preprocess", "split": "split"},
        outputs={"out": "folder for predictions, null and choices", "plots": "folder for the networks' curves"},
    )
