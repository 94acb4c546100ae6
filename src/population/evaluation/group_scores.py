"""The scores of every group as metrics/population.json holds them."""

import numpy as np
import pandas as pd

from src.core.evaluation import autocorrelation, jackknife, regression_scores
from src.core.evaluation.permutation import permutation_p_value
from src.core.stage.errors import DataError
from src.population.data.prediction_tasks import place_names
from src.population.evaluation.predictors import BASELINES, CHOSEN, CONTROLS, PAIRS, Predictor

AUDIT = (
    "shared_places",
    "overlapping_footprints",
    "nearest_train_test_km",
    "duplicate_tiles",
    "near_identical_tiles",
    "future_labels",
    "future_tiles",
    "statistics_difference",
    "pca_difference",
)
Predictors = list[Predictor]


def check_finite(table: pd.DataFrame, groups: Predictors, where: str) -> None:
    """Raise DataError if a prediction is not finite; only numbers read from written answers may be missing."""
    for group in groups:
        wrong = ~np.isfinite(table[group.name].to_numpy(np.float64))
        if wrong.any() and not group.parsed:
            raise DataError(
                f"{where}: {group.name}: found {wrong.sum()} of {len(table)} predictions that are not finite "
                f"(first: {table.tile_id[wrong].iloc[0]}), expected numbers; the training diverged: lower its rate"
            )


def assess(table: pd.DataFrame, groups: Predictors, null: np.ndarray, choices: dict, facts: dict, seed: int) -> dict:
    """Scores, intervals, differences, null and controls from predictions.parquet, choices.json and split.json.

    `null`: (draws, scored rows) predictions of ridge on permuted labels.
    """
    unit, train_mean = facts["unit"], facts["label_mean"]
    held, validation = table[table.split != "validation"], table[table.split == "validation"]
    baselines = [group for group in groups if group in BASELINES]
    result = score_groups(held, groups, train_mean, unit, seed)
    for group in baselines:
        result[group.name]["setting"] = choices[group.name]["setting"]
    best = best_on_validation(validation, baselines)
    filled = held.fillna({group.name: train_mean for group in groups})
    pairs = PAIRS | {f"head_minus_{best}": ("head", best)}
    result["paired"] = {name: compare(filled, *pair, units_of(held, unit)) for name, pair in pairs.items()}
    result["best_baseline_on_validation"] = best
    result["validation"] = {
        group.name: score_briefly(validation, group.name, train_mean) for group in (*CHOSEN, *baselines)
    }
    result["null"] = {"ridge": score_null(held, null)}
    result["controls"] = score_controls(held, train_mean)
    head = result["head"]
    result["units"] = {"unit": unit} | {name: head[name] for name in ("n_units", "method", "label")}
    return result


def score_groups(table: pd.DataFrame, groups: Predictors, train_mean: float, unit: str, seed: int) -> dict[str, dict]:
    """Scores, intervals and the dependence of residuals of each of `groups` over the rows of `table`."""
    units, place, reference = units_of(table, unit), units_of(table, "place"), table["mean"].to_numpy()
    block = table.block.to_numpy(str) if (table.block != "").all() else None
    where = table[["lat", "lon"]].to_numpy(np.float64).T
    result = {}
    for group in groups:
        prediction, parsed = regression_scores.fill_missing(table[group.name].to_numpy(), train_mean)
        found = result[group.name] = score_rows(table, prediction, units, place, reference)
        found |= autocorrelation.describe(table.y.to_numpy(), prediction, place, block, *where, seed)
        if group.parsed:
            found["parse_rate"] = parsed
    return result


def score_rows(
    table: pd.DataFrame, prediction: np.ndarray, units: np.ndarray, place: np.ndarray, reference: np.ndarray
) -> dict:
    """Scores of the rows with their intervals; `reference` (N,): mean of the labels each row's model was trained on."""
    y, year = table.y.to_numpy(), table.year.to_numpy()
    scores = jackknife.score_panel(y, prediction, units, year, place, reference)
    return scores | {"n_units": len(np.unique(units))}


def best_on_validation(validation: pd.DataFrame, baselines: Predictors) -> str:
    """The baseline with the least squared error on the rows of `validation`."""
    return min((group.name for group in baselines), key=lambda name: np.mean((validation[name] - validation.y) ** 2))


def compare(table: pd.DataFrame, a: str, b: str, units: np.ndarray) -> dict:
    """`paired_interval` of a - b over `units`, and `sd`, the standard deviation of a - b."""
    one, other = table[a].to_numpy(), table[b].to_numpy()
    paired = jackknife.paired_interval(table.y.to_numpy(), one, other, units)
    return paired | {"sd": float(np.std(one - other))}


def score_briefly(table: pd.DataFrame, column: str, train_mean: float) -> dict:
    """r2, mae and n of the predictions in `column`."""
    prediction = regression_scores.fill_missing(table[column].to_numpy(), train_mean)[0]
    values = regression_scores.scores(table.y.to_numpy(), prediction)
    return {name: values[name] for name in ("r2", "mae", "n")}


def score_null(table: pd.DataFrame, null: np.ndarray) -> dict:
    """R² of ridge among `null` (draws, rows), ridge on permuted labels, and the share of them that reach it."""
    y = table.y.to_numpy()
    observed = regression_scores.scores(y, table.ridge.to_numpy())["r2"]
    drawn = [regression_scores.scores(y, prediction)["r2"] for prediction in null]
    if observed is None:
        return {"draws": len(drawn), "r2": None, "p_value": None}
    return {
        "draws": len(drawn),
        "r2": observed,
        "r2_null_mean": float(np.mean(drawn)),
        "r2_null_max": float(np.max(drawn)),
        "p_value": permutation_p_value(observed, np.array(drawn)),
    }


def score_controls(table: pd.DataFrame, train_mean: float) -> dict:
    """Scores of head and words on inputs without the tile's content; None where no row has such an input."""
    result = {}
    for control in CONTROLS:
        rows = table[table[f"head_{control}"].notna()]  # a year with one place has nothing to swap with
        result[control] = {
            part: score_briefly(rows, f"{part}_{control}", train_mean) if len(rows) else None
            for part in ("head", "text")
        }
    return result


def units_of(table: pd.DataFrame, unit: str) -> np.ndarray:
    """(N,) names of the units that are resampled: the blocks or provinces of `block`, or `place` as province/city."""
    return (place_names(table) if unit == "place" else table.block).to_numpy(str)
