"""Predictions of the baselines, and the scores of every group as metrics/population.json holds them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from src.core import baselines, metrics
from src.core.errors import DataError

NETWORK = ("head", "head_after_dpo")
WORDS = (
    "text",
    "dpo",
    "text_sampled",
    "text_expectation",
    "dpo_sampled",
    "dpo_expectation",
)
COMPUTED = (*NETWORK, "text_expectation", "dpo_expectation")
ANSWERS = ("answer_text", "answer_dpo")
YEAR_COLUMN = "year_mean"
"""Where predictions hold the group `year`; the column `year` is the label's own."""

PARSED = ("text", "dpo", "text_sampled", "dpo_sampled")
"""Groups whose numbers are parsed from written answers; an expectation is computed, never parsed."""

PAIRS = {
    "head_minus_ridge": ("head", "ridge"),
    "head_after_dpo_minus_head": ("head_after_dpo", "head"),
    "text_minus_ridge": ("text", "ridge"),
    "dpo_minus_text": ("dpo", "text"),
}
VALIDATED = ("head", "text", "dpo", "ridge")
AUDIT = ("shared_places", "overlapping_footprints", "nearest_train_test_km", "duplicate_tiles")


@dataclass(frozen=True)
class Baselines:
    """`predictions`: one column per baseline, rows of the held-out samples; what was chosen; shuffled draws."""

    predictions: pd.DataFrame
    choices: dict[str, dict]
    shuffled: list[np.ndarray]


def predict_baselines(rows: pd.DataFrame, features: np.ndarray, seed: int) -> Baselines:
    """Fit every baseline on the training rows and predict the validation and test rows.

    Args:
        rows: all label rows with role, place, year, lat, lon, growth_rate.
        features: (len(rows), C) float64 band means.

    `year` is left out where there is one year, `latlon` where a place has no coordinates.
    """
    train, validation = (rows.role == "train").to_numpy(), (rows.role == "validation").to_numpy()
    held = rows.role.isin(["validation", "test"]).to_numpy()
    y = rows.growth_rate.to_numpy(np.float64)
    tuned = features[validation], y[validation]
    columns = {"mean": baselines.mean(y[train], int(held.sum()))}
    choices = {}
    if rows.year.nunique() > 1:
        year = rows.year.to_numpy()
        columns[YEAR_COLUMN] = baselines.year_means(y[train], year[train], year[held])
    if np.isfinite(rows[["lat", "lon"]].to_numpy(np.float64)).all():
        where = baselines.unit_vectors(rows.lat.to_numpy(), rows.lon.to_numpy())
        latlon = baselines.fit_latlon(where[train], y[train], (where[validation], y[validation]))
        columns["latlon"] = latlon.predict(where[held])
        choices["latlon"] = {"neighbours": latlon.n_neighbors}
    ridge = baselines.fit_ridge(features[train], y[train], baselines.ALPHAS, tuned)
    columns["ridge"] = ridge.predict(features[held])
    choices["ridge"] = {"alpha": ridge.alpha}
    columns["forest"] = baselines.fit_forest(features[train], y[train], seed).predict(features[held])

    generator = np.random.default_rng(seed)
    place = rows.place.to_numpy()
    shuffled = []
    for _ in range(baselines.PERMUTATIONS):
        # Validation labels too: a penalty chosen on true ones would keep the draws that fit by chance.
        labels, checks = (baselines.shuffle_by_place(y[part], place[part], generator) for part in (train, validation))
        null = baselines.fit_ridge(features[train], labels, baselines.ALPHAS, (features[validation], checks))
        shuffled.append(null.predict(features[held]))
    columns["shuffled"] = shuffled[0]
    return Baselines(pd.DataFrame(columns, index=rows.index[held]), choices, shuffled)


def check_finite(table: pd.DataFrame, where: str) -> None:
    """Only written answers may be missing.

    Raises:
        DataError: a number that the network computes is not finite.
    """
    for group in COMPUTED:
        wrong = ~np.isfinite(table[group].to_numpy(np.float64))
        if wrong.any():
            raise DataError(
                f"{where}: {group}: found {wrong.sum()} of {len(table)} predictions that are not finite "
                f"(first: {table.tile_id[wrong].iloc[0]}), expected numbers; the training diverged: lower its rate"
            )


def score_groups(
    table: pd.DataFrame,
    columns: list[str],
    train_mean: float,
    unit: str,
    resamples: int,
    seed: int,
) -> dict[str, dict]:
    """Scores and intervals of the group in each of `columns` over the rows of `table`, within years too if several."""
    y, units = table.y.to_numpy(), units_of(table, unit)
    year = table.year.to_numpy() if table.year.nunique() > 1 else None
    result = {}
    for column in columns:
        group = "year" if column == YEAR_COLUMN else column
        prediction, parsed = metrics.fill_missing(table[column].to_numpy(), train_mean)
        values = metrics.scores(y, prediction)
        if year is not None:
            values["r2_within_year"] = metrics.r2_within_year(y, prediction, year)
        bounds = metrics.intervals(y, prediction, units, resamples, seed, year)
        ordered = {}
        for name, value in values.items():
            ordered[name] = value
            ordered |= {f"{name}_{end}": bounds[f"{name}_{end}"] for end in ("low", "high") if name != "n"}
        if group in PARSED:
            ordered["parse_rate"] = parsed
        result[group] = ordered
    return result


def compare_groups(table: pd.DataFrame, train_mean: float, unit: str, resamples: int, seed: int) -> dict:
    """The paired differences of PAIRS, and `sd`, how far the two predictions of a pair lie apart."""
    result = {}
    for name, pair in PAIRS.items():
        a, b = (metrics.fill_missing(table[group].to_numpy(), train_mean)[0] for group in pair)
        paired = metrics.paired_interval(table.y.to_numpy(), a, b, units_of(table, unit), resamples, seed)
        result[name] = paired | {"sd": float(np.std(a - b))}
    return result


def score_validation(table: pd.DataFrame, train_mean: float) -> dict[str, dict]:
    """r2, mae and n on validation of what choices are made between."""
    result = {}
    for group in VALIDATED:
        values = metrics.scores(table.y.to_numpy(), metrics.fill_missing(table[group].to_numpy(), train_mean)[0])
        result[group] = {name: values[name] for name in ("r2", "mae", "n")}
    return result


def assess(
    table: pd.DataFrame,
    null: Baselines,
    facts: dict,
    audit: dict,
    transductive: bool,
    resamples: int,
    seed: int,
) -> dict:
    """metrics/population.json from the rows of predictions.parquet (`table`) and the split's facts and audit."""
    unit, train_mean = facts["unit"], facts["label_mean"]
    test = table[table.split == "test"]
    columns = [*NETWORK, *WORDS, *null.predictions.columns]
    result = score_groups(test, columns, train_mean, unit, resamples, seed)
    for group, choice in null.choices.items():
        result[group] |= choice
    y, tested = test.y.to_numpy(), (table.split == "test").to_numpy()
    draws = [metrics.scores(y, prediction[tested])["r2"] for prediction in null.shuffled]
    result["shuffled"][f"r2_mean_of_{len(draws)}"] = None if None in draws else float(np.mean(draws))
    result["paired"] = compare_groups(test, train_mean, unit, resamples, seed)
    result["validation"] = score_validation(table[table.split == "validation"], train_mean)
    result["audit"] = {name: audit[name] for name in AUDIT}
    result["units"] = describe_units(len(np.unique(units_of(test, unit))), unit, resamples)
    result["fold"] = facts["fold"]
    result["transductive"] = transductive
    result["missing_answer"] = "scores as the training mean"
    return metrics.rounded(result)


def units_of(table: pd.DataFrame, unit: str) -> np.ndarray:
    """(N,) names of the units that were split: `block`, or `place` as province/city."""
    return (table.block if unit == "block" else table.province + "/" + table.city).to_numpy(str)


def describe_units(count: int, unit: str, resamples: int) -> dict:
    """Which intervals were given, or why none."""
    given = f"95 % percentile, {resamples} draws of whole {unit}s"
    if count < metrics.MINIMUM_UNITS:
        given = f"none: {count} {unit}s, expected at least {metrics.MINIMUM_UNITS}"
    return {"unit": unit, "n_units": count, "intervals": given}
