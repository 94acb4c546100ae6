"""The scores of every group as metrics/population.json holds them."""

import numpy as np
import pandas as pd

from src.core.evaluation import autocorrelation, jackknife, regression_scores
from src.core.evaluation.permutation import permutation_p_value
from src.core.stage.errors import DataError

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
DRAWN = ("text_samples", "dpo_samples")
"""Columns with the numbers of all sampled answers of a row."""

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
VALIDATED = ("head", "text", "dpo")
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
CONTROLS = {
    "swapped": "tiles swapped between places within a year",
    "blank": "every pixel masked",
    "prompt_only": "no image at all",
}


def check_finite(table: pd.DataFrame, where: str, columns: list[str]) -> None:
    """Only written answers may be missing.

    Raises:
        DataError: a number that the network, or a baseline among `columns`, computes is not finite.
    """
    for group in (*COMPUTED, *columns):
        wrong = ~np.isfinite(table[group].to_numpy(np.float64))
        if wrong.any():
            raise DataError(
                f"{where}: {group}: found {wrong.sum()} of {len(table)} predictions that are not finite "
                f"(first: {table.tile_id[wrong].iloc[0]}), expected numbers; the training diverged: lower its rate"
            )


def assess(
    table: pd.DataFrame,
    columns: list[str],
    null: np.ndarray,
    choices: dict,
    facts: dict,
    seed: int,
) -> dict:
    """Scores, intervals, differences, null and controls.

    Args:
        table: rows of predictions.parquet, `split` is validation or the scored part, `test` or `locked`.
        columns: of the baselines in it.
        null: (draws, scored rows) predictions of ridge on permuted labels.
        choices: choices.json of the baselines stage.
        facts: split.json.
    """
    unit, train_mean = facts["unit"], facts["label_mean"]
    held, validation = table[table.split != "validation"], table[table.split == "validation"]
    result = score_groups(held, [*NETWORK, *WORDS, *columns], train_mean, unit, seed)
    for column in columns:
        result[group_name(column)]["setting"] = choices[column]["setting"]
    best = min(columns, key=lambda name: np.mean((validation[name] - validation.y) ** 2))
    pairs = PAIRS | ({} if best == "ridge" else {f"head_minus_{group_name(best)}": ("head", best)})
    result["paired"] = compare_groups(held, pairs, train_mean, unit)
    result["best_baseline_on_validation"] = group_name(best)
    result["validation"] = score_validation(validation, [*VALIDATED, *columns], train_mean)
    result["null"] = {"ridge": score_null(held, null)}
    result["controls"] = score_controls(held, train_mean)
    result["units"] = describe_units(result["head"], unit)
    return result


def score_groups(table: pd.DataFrame, columns: list[str], train_mean: float, unit: str, seed: int) -> dict[str, dict]:
    """Scores and intervals of the group in each of `columns` over the rows of `table`, and how residuals depend."""
    y, units, place = table.y.to_numpy(), units_of(table, unit), units_of(table, "place")
    year, reference = table.year.to_numpy(), table["mean"].to_numpy()
    block = table.block.to_numpy(str) if (table.block != "").all() else None
    located = table[["lat", "lon"]].notna().all(axis=None)
    where = (table.lat.to_numpy(), table.lon.to_numpy()) if located else (None, None)
    result = {}
    for column in columns:
        prediction, parsed = regression_scores.fill_missing(table[column].to_numpy(), train_mean)
        values = regression_scores.scores(y, prediction)
        values |= regression_scores.panel_scores(y, prediction, year, place, reference)
        bounds = jackknife.intervals(y, prediction, units, year=year, place=place, reference=reference)
        ordered = {}
        for name, value in values.items():
            ordered[name] = value
            ordered |= {f"{name}_{end}": bounds.pop(f"{name}_{end}") for end in ("low", "high") if name != "n"}
        ordered |= bounds  # the method, and what to know of it
        ordered["n_units"] = len(np.unique(units))
        ordered |= autocorrelation.describe(y, prediction, place, block, *where, seed)
        if column in PARSED:
            ordered["parse_rate"] = parsed
        result[group_name(column)] = ordered
    return result


def compare_groups(table: pd.DataFrame, pairs: dict[str, tuple[str, str]], train_mean: float, unit: str) -> dict:
    """Paired differences, and `sd`, how far the two predictions of a pair lie apart."""
    result = {}
    for name, pair in pairs.items():
        a, b = (regression_scores.fill_missing(table[group].to_numpy(), train_mean)[0] for group in pair)
        paired = jackknife.paired_interval(table.y.to_numpy(), a, b, units_of(table, unit))
        result[name] = paired | {"sd": float(np.std(a - b))}
    return result


def score_validation(table: pd.DataFrame, columns: list[str], train_mean: float) -> dict[str, dict]:
    """r2, mae and n on validation of what choices are made between."""
    result = {}
    for column in columns:
        values = regression_scores.scores(
            table.y.to_numpy(), regression_scores.fill_missing(table[column].to_numpy(), train_mean)[0]
        )
        result[group_name(column)] = {name: values[name] for name in ("r2", "mae", "n")}
    return result


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
    """r2, mae and n of head and words without what the tile says, on the rows where the control exists."""
    result = {}
    for control in CONTROLS:
        result[control] = {}
        for part in ("head", "text"):
            column = table[f"{part}_{control}"]
            there = table[f"head_{control}"].notna()  # a year with one place has nothing to swap with
            if not there.any():
                result[control][part] = None
                continue
            prediction = regression_scores.fill_missing(column[there].to_numpy(), train_mean)[0]
            values = regression_scores.scores(table.y[there].to_numpy(), prediction)
            result[control][part] = {name: values[name] for name in ("r2", "mae", "n")}
    return result


def group_name(column: str) -> str:
    """The group that a column of the predictions holds."""
    return "year" if column == YEAR_COLUMN else column


def units_of(table: pd.DataFrame, unit: str) -> np.ndarray:
    """(N,) names of the units that are resampled: the blocks or provinces of `block`, or `place` as province/city."""
    return (table.province + "/" + table.city if unit == "place" else table.block).to_numpy(str)


def describe_units(score: dict, unit: str) -> dict:
    """Which intervals were given, or why none."""
    return {"unit": unit} | {name: score[name] for name in ("n_units", "method", "label") if name in score}
