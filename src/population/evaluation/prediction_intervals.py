"""Prediction intervals, counted on the rows that are scored.

Head and sampled answers are calibrated on the validation places. These also chose the epoch and the settings, so the
intervals are a little too narrow. Ridge is quickly fitted again: it has CV+ over folds of its training places.
"""

import numpy as np
import pandas as pd

from src.core.evaluation import conformal, interval_coverage, jackknife
from src.core.stage.errors import DataError, spelled
from src.population.data.prediction_tasks import FORECASTS
from src.population.evaluation.group_scores import units_of
from src.population.evaluation.predictors import INTERVALS

Ends = tuple[float | None, np.ndarray, np.ndarray]


def assess(
    table: pd.DataFrame, left_out: pd.DataFrame, by_fold: np.ndarray, level: float, facts: dict, seed: int
) -> tuple[dict, pd.DataFrame, dict[str, pd.DataFrame]]:
    """Intervals at `level` for every row of predictions.parquet (`table`) that is scored.

    Args:
        left_out: place, fold and residual of ridge on training rows it was not fitted on.
        by_fold: (folds, scored rows) its predictions without each fold.

    Returns:
        What the metrics hold, the columns of predictions.parquet, and tables of coverage at many levels by group.
        Where there are too few places for the level, `refused` says how many it takes, and there is no interval.
    """
    scored, calibration = table[table.split != "validation"], table[table.split == "validation"]
    crossed = (left_out.residual.to_numpy(), left_out.place.to_numpy(str), left_out.fold.to_numpy(), by_fold)
    y, place = scored.y.to_numpy(), units_of(scored, "place")

    def ends(group: str, level: float) -> Ends:
        if group == "ridge":
            return None, *conformal.cv_plus(*crossed, level, seed)
        return calibrated(group, calibration, scored, level, facts["label_mean"], seed)

    # Locked places are those of other provinces, however the rest was split.
    elsewhere = facts["method"] != "place" or bool((scored.split == "locked").any())
    promise = {"ridge": f"about {level:g}, proven only {max(2 * level - 1, 0):.3g},"}  # CV+
    result: dict = {"level": level, "groups": {}}
    columns, tables = {}, {}
    for group, title in INTERVALS.items():
        places = left_out.place.nunique() if group == "ridge" else len(np.unique(units_of(calibration, "place")))
        said = f"{promise.get(group, f'at least {level:g}')} for a new place like the calibration places"
        if facts["task"] in FORECASTS:
            said = "no guarantee: test years are later than calibration years"
        elif elsewhere:
            said = "no guarantee: calibration and test places come from different regions"
        part = result["groups"][group] = {"calibration_places": places, "guarantee": said}
        try:
            with spelled({"level": "evaluate.level"}):
                added, low, high = ends(group, level)
        except DataError as error:
            part["refused"] = f"params.yaml: {error}"
            continue
        part |= ({} if added is None else {"added": added}) | coverage(scored, low, high, facts["unit"])
        columns |= {f"{group}_low": low, f"{group}_high": high}
        tables[f"{title}: {said.split(':')[0]}"] = interval_coverage.reliability(
            y, place, lambda level, group=group: ends(group, level)[1:], places
        )
    return result, pd.DataFrame(columns, index=scored.index), tables


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


def calibrated(
    group: str, calibration: pd.DataFrame, scored: pd.DataFrame, level: float, train_mean: float, seed: int
) -> Ends:
    """Width (‰ per year) that `calibration` adds on both sides, and both ends of every scored row's interval, (N,).

    Around the value of `head`, or around the range of sampled answers of `text_samples`.
    """
    y, place = calibration.y.to_numpy(), units_of(calibration, "place")
    if group == "head":
        added = conformal.calibrate(np.abs(calibration["head"].to_numpy() - y), place, level, seed)
        return added, scored["head"].to_numpy() - added, scored["head"].to_numpy() + added
    known, asked = (np.stack(rows.text_samples.to_list()).astype(np.float64) for rows in (calibration, scored))
    scores = conformal.sample_scores(y, known, level, train_mean)
    added = conformal.calibrate(scores, place, level, seed)
    return added, *conformal.sample_bounds(asked, added, level, train_mean)
