"""Fit what the models have to beat, and ridge on permuted labels, once for all models of a split.

    python -m src.population.baselines --tiles data/population/tiles --split data/population/split \\
        --out data/population/baselines --plots plots/population/baselines

Writes predictions.parquet (validation, test and locked labels, a column per baseline), null.parquet (ridge on
permuted labels, a column per draw), ridge_left_out.parquet and ridge_by_fold.parquet (for CV+ intervals of ridge),
choices.json (per baseline the setting with the least squared error on validation, among all that were tried) and
the networks' curves (networks.png, curves.json).

Every baseline is tuned with the same budget and fitted on training labels; a network's epoch is chosen on
validation beside its setting. Labels of test and locked rows are taken out as soon as they are read.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from src.core.baselines import regression
from src.core.baselines.regression import spread
from src.core.data import band_statistics
from src.core.data.tile_store import Store
from src.core.report import figures
from src.core.stage import files, run
from src.core.stage.errors import DataError
from src.population.data import prediction_tasks
from src.population.evaluation import fitted_baselines as fit
from src.population.evaluation.fitted_baselines import DECIMALS, Fits
from src.population.params import Params, covariate_columns


def main(params, inputs, out, dry_run=False):
    """Store and split -> predictions of every baseline for the labels held out."""
    run.set_threads(params.threads)
    store = Store.open(inputs.tiles)
    facts = files.read_json(inputs.split / "split.json")
    statistics = band_statistics.read_statistics(inputs.split / "statistics.safetensors")
    covariates = covariate_columns(params.data.covariates, params.data.covariate_lag)
    rows = read_rows(inputs.split, store, covariates)
    require_places(rows, str(inputs.split / prediction_tasks.SAMPLES))
    budget, networks = params.baselines.budget, params.baselines.networks
    print(f"baselines: labels {rows.role.value_counts().sort_index().to_dict()}, {budget} settings each")
    if dry_run:
        print(
            f"baselines: would train {budget * len(networks)} networks ({', '.join(networks)}) for at most "
            f"{params.baselines.epochs} epochs and fit ridge to {params.baselines.permutations} permutations"
        )
        return

    used = rows[rows.role != "buffer"].reset_index(drop=True)
    fits = Fits(used, budget, params.seed)
    fit.fit_places(fits)
    if facts["task"] == "next_year":
        fit.fit_pasts(fits, rows, facts)
    beside = used[["year"] * (used.year.nunique() > 1) + covariates].to_numpy(np.float64)
    summaries = regression.band_summaries(store, used.tile.to_numpy(), min(store.height, store.width))
    features = {
        "means": np.hstack([summaries[:, 0], beside]),
        "all": np.hstack([summaries.reshape(len(used), -1), beside]),
    }
    null = fit.fit_ridges(fits, features, params.baselines.permutations)
    left_out, by_fold = fit.cross_fit_ridge(fits, features)
    fit.fit_regressors(fits, features["all"])
    if covariates:
        fit.fit_covariates(fits, used[covariates].to_numpy(np.float64))
    curves = fit_networks(fits, store, features["all"], beside, statistics, params) if networks else {}

    identity = used.loc[fits.held, ["sample", "role"]].reset_index(drop=True)
    predictions = identity.join(pd.DataFrame(fits.predictions).round(DECIMALS))
    null = identity[["sample"]].join(pd.DataFrame(null).round(DECIMALS))
    with files.complete_folder(out.out) as folder, files.complete_folder(out.plots) as plots:
        predictions.to_parquet(folder / "predictions.parquet", index=False)
        null.to_parquet(folder / "null.parquet", index=False)
        left_out.to_parquet(folder / "ridge_left_out.parquet", index=False)
        by_fold.to_parquet(folder / "ridge_by_fold.parquet", index=False)
        files.write_json(folder / "choices.json", {"split_hash": facts["hash"], "budget": budget} | fits.choices)
        write_curves(plots, curves)
    for name, choice in fits.choices.items():
        print(f"baselines: {name}: validation R2 {choice.get('validation_r2')}, {choice.get('setting')}")


def require_places(rows: pd.DataFrame, where: str) -> None:
    """Raise DataError unless labels of two places train."""
    train = rows[rows.role == "train"]
    if train.place.nunique() < 2:
        raise DataError(
            f"{where}: place: found {train.place.nunique()} with {len(train)} training labels, expected at least 2; "
            "bring more places"
        )


def read_rows(folder: Path, store: Store, covariates: list[str]) -> pd.DataFrame:
    """Every label row of the split; growth_rate is NaN where it must not be known here: test and locked.

    Raises:
        DataError: a covariate is missing, altogether or for a row.
    """
    rows = prediction_tasks.read_samples(folder, store.tiles.tile_id)
    rows["growth_rate"] = rows.growth_rate.astype(np.float64).mask(rows.role.isin(["test", "locked"]))
    for name in covariates:
        if name not in rows:
            raise DataError(
                f"{folder / prediction_tasks.SAMPLES}: no column {name!r}, which data.covariates and "
                "data.covariate_lag ask for; run preprocess and split again"
            )
        missing = ~np.isfinite(rows[name].to_numpy(np.float64)) & (rows.role != "buffer").to_numpy()
        if missing.any():
            raise DataError(
                f"{folder / prediction_tasks.SAMPLES}: {name}: found {missing.sum()} rows without a number (first: "
                f"{rows.tile_id[missing].iloc[0]}), expected one in each; fill it in the labels file or take it out "
                "of data.covariates"
            )
    return rows


def fit_networks(
    fits: Fits, store: Store, features: np.ndarray, beside: np.ndarray, statistics: tuple, params: Params
) -> dict[str, list[dict]]:
    """The networks: `mlp` on `features`, the others on tiles and `beside` -> their settings with curves."""
    # Imported here: it imports torch, which --help and --dry-run do without.
    from src.core.baselines.tile_networks import TileRows, tile_images, train_network

    run.set_threads(params.threads)
    parts = {"train": fits.train, "validation": (fits.rows.role == "validation").to_numpy(), "held": fits.held}
    mean, sd = fits.y.mean(), fits.y.std()
    sample, target = fits.rows["sample"].to_numpy(), (fits.labels - mean) / sd
    tiles, of_row = np.unique(fits.rows.tile, return_inverse=True)
    images = tile_images(store, tiles, *statistics) if set(params.baselines.networks) - {"mlp"} else None
    curves = {}
    for kind in params.baselines.networks:
        columns = standardised(features if kind == "mlp" else beside, fits.train)
        sets = {
            name: TileRows(
                sample[part],
                columns[part],
                target[part],
                images=None if kind == "mlp" else (images, of_row[part]),
                seed=fits.seed if name == "train" else None,
            )
            for name, part in parts.items()
        }
        curves[kind] = []

        def predict(setting: dict, kind=kind, sets=sets) -> np.ndarray:
            prediction, lines = train_network(kind, setting, **sets, seed=fits.seed, epochs=params.baselines.epochs)
            curves[kind].append({"setting": setting, "lines": lines})
            return prediction * sd + mean

        settings = spread(fits.budget, lr=(1e-4, 1e-2), weight_decay=(1e-3, 1))
        fits.tuned(kind, tqdm(settings, desc=kind, unit="training", leave=False), predict)
    return curves


def write_curves(folder: Path, curves: dict[str, list[dict]]) -> None:
    """curves.json and networks.png: squared error of standardised labels by epoch, per network and setting."""
    numbers, panels = {}, {}
    for kind, trained in curves.items():
        numbers[kind] = [
            entry["setting"] | {name: values.round(DECIMALS).tolist() for name, (_, values) in entry["lines"].items()}
            for entry in trained
        ]
        panels[kind] = [
            figures.Curve(
                ", ".join(f"{name} {value:.2g}" for name, value in entry["setting"].items()), "MSE", entry["lines"]
            )
            for entry in trained
        ]
    files.write_json(folder / "curves.json", numbers)
    if panels:
        figures.curves(folder / "networks.png", panels)


def standardised(columns: np.ndarray, train: np.ndarray) -> np.ndarray:
    """(N, F) with mean 0 and standard deviation 1 over training rows; 0 where those are constant."""
    mean, sd = columns[train].mean(axis=0), columns[train].std(axis=0)
    return (columns - mean) / np.where(sd > 1e-12 * np.abs(mean), sd, np.inf)


if __name__ == "__main__":
    run.stage(
        main,
        Params,
        name="population.baselines",
        doc=__doc__,
        inputs={"tiles": "store that preprocess wrote", "split": "folder that the split stage wrote"},
        outputs={"out": "folder for predictions, null and choices", "plots": "folder for the networks' curves"},
    )
