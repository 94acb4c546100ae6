"""Prediction intervals, counted on the rows that are scored.

Head and sampled answers are calibrated on the validation places. These also chose the epoch and the settings, so the
intervals are a little too narrow. Ridge is quickly fitted again: it has CV+ over folds of its training places.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from src.core.evaluation import conformal, interval_coverage, jackknife
from src.core.stage.errors import DataError, spelled
from src.population.data.prediction_tasks import FORECASTS
from src.population.evaluation.group_scores import units_of
from src.population.evaluation.predictors import INTERVALS

CALIBRATED = ("head", "text_samples")
"""Groups whose validation rows say how wide an interval must be."""

Bounds = Callable[[float], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Intervals:
    """`facts` for the metrics, `columns` for predictions.parquet, `tables` of coverage at many levels by group."""

    facts: dict
    columns: pd.DataFrame
    tables: dict[str, pd.DataFrame]


def assess(
    table: pd.DataFrame, left_out: pd.DataFrame, by_fold: np.ndarray, level: float, facts: dict, seed: int
) -> Intervals:
    """Intervals at `level` for every row of predictions.parquet that is scored.

    Args:
        table: split (validation or what is scored), y, head, text_samples, province, city.
        left_out: place, fold and residual of ridge on training rows it was not fitted on.
        by_fold: (folds, scored rows) its predictions without each fold.
        facts: split.json.

    Where there are too few places for the level, `refused` says how many it takes, and there is no interval.
    """
    scored, calibration = table[table.split != "validation"], table[table.split == "validation"]
    y, place = scored.y.to_numpy(), units_of(scored, "place")
    functions = bounds_of(calibration, scored, facts["label_mean"], seed)
    functions["ridge"] = lambda level: conformal.cv_plus(
        left_out.residual.to_numpy(), left_out.place.to_numpy(str), left_out.fold.to_numpy(), by_fold, level, seed
    )
    # Locked places are those of other provinces, however the rest was split.
    elsewhere = facts["method"] != "place" or bool((scored.split == "locked").any())
    promise = {"ridge": f"about {level:g}, proven only {max(2 * level - 1, 0):.3g},"}  # CV+
    result: dict = {"level": level, "groups": {}}
    columns, tables = {}, {}
    for group, bounds in functions.items():
        places = left_out.place.nunique() if group == "ridge" else len(np.unique(units_of(calibration, "place")))
        said = f"{promise.get(group, f'at least {level:g}')} for a new place like the calibration places"
        if facts["task"] in FORECASTS:
            said = "no guarantee: test years are later than calibration years"
        elif elsewhere:
            said = "no guarantee: calibration and test places come from different regions"
        part = result["groups"][group] = {"calibration_places": places, "guarantee": said}
        try:
            with spelled({"level": "evaluate.level"}):
                low, high = bounds(level)
        except DataError as error:
            part["refused"] = f"params.yaml: {error}"
            continue
        if group in CALIBRATED:
            part["added"] = added(calibration, group, level, facts["label_mean"], seed)
        part |= coverage(scored, low, high, facts["unit"])
        columns |= {f"{group}_low": low, f"{group}_high": high}
        tables[f"{INTERVALS[group]}: {said.split(':')[0]}"] = interval_coverage.reliability(y, place, bounds, places)
    return Intervals(result, pd.DataFrame(columns, index=scored.index), tables)


def coverage(scored: pd.DataFrame, low: np.ndarray, high: np.ndarray, unit: str) -> dict:
    """`interval_coverage.coverage` of all rows and by province; the interval of all leaves out one `unit` at a time.

    Places of one block are alike. A province has too few blocks, so its places count as independent.
    """
    y, place = scored.y.to_numpy(), units_of(scored, "place")
    found = interval_coverage.coverage(y, low, high, place, scored.province.to_numpy(str))
    # A place counts once, in the share as in its interval.
    rows = pd.DataFrame({"inside": (low <= y) & (y <= high), "unit": units_of(scored, unit)})
    places = rows.groupby(place).agg({"inside": "mean", "unit": "first"})
    interval = jackknife.mean_interval(places.inside.to_numpy(), places.unit.to_numpy())
    for end in ("low", "high"):
        bound = interval[f"_{end}"]
        found[f"coverage_{end}"] = None if bound is None else float(np.clip(bound, 0, 1))
    return found


def bounds_of(calibration: pd.DataFrame, scored: pd.DataFrame, train_mean: float, seed: int) -> dict[str, Bounds]:
    """For each group of CALIBRATED a function from a level to the ends of every scored row's interval, (N,) each."""

    def head(level: float) -> tuple[np.ndarray, np.ndarray]:
        q = added(calibration, "head", level, train_mean, seed)
        return scored["head"].to_numpy() - q, scored["head"].to_numpy() + q

    def words(level: float) -> tuple[np.ndarray, np.ndarray]:
        q = added(calibration, "text_samples", level, train_mean, seed)
        return conformal.sample_bounds(_matrix(scored), q, level, train_mean)

    return {"head": head, "text_samples": words}


def added(rows: pd.DataFrame, group: str, level: float, train_mean: float, seed: int) -> float:
    """Width (‰ per year) added on both sides of the head's value, or of the range of the sampled answers."""
    if group == "head":
        scores = (rows["head"] - rows.y).abs().to_numpy()
    else:
        scores = conformal.sample_scores(rows.y.to_numpy(), _matrix(rows), level, train_mean)
    return conformal.calibrate(scores, units_of(rows, "place"), level, seed)


def _matrix(rows: pd.DataFrame) -> np.ndarray:
    return np.stack(rows.text_samples.to_list()).astype(np.float64)
