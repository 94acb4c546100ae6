"""Scores of every group on the same test rows: per kind of test, by frequency, by distance, and in pairs."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from src.core.evaluation.classification_scores import Answers, paired_difference, score_intervals
from src.core.stage.errors import DataError
from src.species.data.task import EMBEDDINGS, KINDS, Task
from src.species.evaluation.predictors import PAIRS

Groups = dict[str, np.ndarray]  # name -> (H, C) log-probabilities


class Held:
    """The held-out rows: place, date and species of each, and marks of those that every group can answer.

    Attributes beside the task and the `bins` of the calibration error, (H,) each, in the order of `Task.held_out`:
        role, kind, square, cell, date: of split.parquet and the store; date is the first and the last possible day.
        species: names; truth: index into the classes, -1 where never trained.
        frequency: training records of its species.
        distance_km: to the nearest training record.
        complete: it has every embedding that is stored, so that all groups are scored on the same rows.
        tests: kind of test, or "all" -> bool, its complete test rows; kinds without rows are absent.
    """

    def __init__(self, task: Task, bins: int):
        self.task, self.bins, rows = task, bins, task.held_out
        here = task.observations.iloc[rows]
        self.role, self.kind = here["role"].to_numpy(), here["kind"].to_numpy()
        self.square, self.cell = here["square"].to_numpy(), here["cell"].to_numpy(dtype=str)
        first, last = here["first_day"].to_numpy(), here["last_day"].to_numpy()
        self.date = np.char.add(np.char.add(first.astype(str), " "), last.astype(str))
        self.dated = bool(np.mean(first == last) >= 0.5)
        self.species, self.truth = task.species[rows], task.targets(rows)
        trained = task.observations["species"].iloc[task.train].value_counts()
        self.frequency = here["species"].map(trained).fillna(0).to_numpy(np.int64)
        self.distance_km = here["nearest_train_km"].to_numpy()
        stored = [task.store.present(name, rows) for name in EMBEDDINGS if name in task.store.modalities]
        self.complete = np.all([np.ones(len(rows), bool), *stored], axis=0)
        tests = {kind: self.rows("test") & ((self.kind == kind) | (kind == "all")) for kind in (*KINDS, "all")}
        self.tests = {kind: rows for kind, rows in tests.items() if rows.any()}

    def rows(self, role: str, complete: bool = True) -> np.ndarray:
        """(H,) bool: rows of a role that have every stored embedding, or that lack one."""
        return (self.role == role) & (self.complete == complete)

    def answers(self, values: np.ndarray, rows: np.ndarray) -> Answers:
        """A group's answers `values` (H, C) to `rows`."""
        return Answers(values[rows], self.truth[rows], self.species[rows], self.bins)

    def units(self, rows: np.ndarray, kind: str) -> dict[str, np.ndarray]:
        """Names of the regions, and of the dates, that rows share; intervals leave out one of these units at a time.

        Regions are held-out squares, elsewhere grid cells as large as one. Dates count at known places alone, and only
        if most records have a day: one visit brings many records there, while in a square the square unites them.
        """
        square = self.square[rows]
        regions = np.where(square >= 0, np.char.add("square ", square.astype(str)), self.cell[rows])
        if kind in ("spatial", "both") or not self.dated:
            return {"regions": regions}
        return {"regions": regions, "dates": self.date[rows]}


def require_answers(held: Held, groups: Groups, where: str) -> None:
    """Raise DataError if a group has no answer for a complete record, on which all are to be compared."""
    for name, values in groups.items():
        missing = int((held.complete & ~np.isfinite(values).all(axis=1)).sum())
        if missing:
            raise DataError(
                f"{where}: {name}: found no finite probabilities for {missing} of {held.complete.sum()} records that "
                "have every embedding, expected all; run the stage that wrote it again"
            )


def score_groups(held: Held, groups: Groups) -> dict[str, dict[str, dict]]:
    """name -> kind -> `score_intervals`."""
    return {
        name: {
            kind: score_intervals(held.answers(values, rows), held.units(rows, kind))
            for kind, rows in held.tests.items()
        }
        for name, values in groups.items()
    }


def score_points(held: Held, groups: Groups, rows: np.ndarray, scores: Sequence[str]) -> dict[str, dict]:
    """name -> those `scores` on `rows`, (H,) bool, without intervals; a group that cannot answer all is absent."""
    able = {name: values for name, values in groups.items() if rows.any() and np.isfinite(values[rows]).all()}
    found = {name: held.answers(values, rows).scores() for name, values in able.items()}
    return {name: {score: values[score] for score in scores} for name, values in found.items()}


def score_pairs(held: Held, groups: Groups) -> dict[str, dict[str, dict]]:
    """ "a-b" -> kind -> `paired_difference` for PAIRS whose groups are there."""
    return {
        f"{one}-{other}": {
            kind: paired_difference(
                held.answers(groups[one], rows), held.answers(groups[other], rows), held.units(rows, kind)
            )
            for kind, rows in held.tests.items()
        }
        for one, other in PAIRS
        if one in groups and other in groups
    }


def score_bins(
    held: Held, groups: Groups, values: np.ndarray, edges: Sequence[float]
) -> dict[str, dict[str, list[dict]]]:
    """kind -> group -> `score_intervals` of the rows in each bin of `values`, with its ends "from" and "to", and label.

    The (H,) values are training records of the species, or km to the nearest one. Ascending edges bound one bin more
    than there are edges, the outer ones open. An empty bin has n 0 and no scores; a row on an edge is in the upper bin.
    """
    ends, bin_of = [None, *map(float, edges), None], np.digitize(values, edges)
    result = {}
    for kind, rows in held.tests.items():
        if kind == "all":
            continue
        result[kind] = {name: [] for name in groups}
        for number, (low, high) in enumerate(pairwise(ends)):
            here = rows & (bin_of == number)
            for name, answers in groups.items():
                found = score_intervals(held.answers(answers, here), held.units(here, kind))
                result[kind][name].append({"from": low, "to": high} | found | {"label": label(low, high)})
    return result


def label(low: float | None, high: float | None) -> str:
    """ "< 5", "5–20" or "≥ 20"."""
    if low is None:
        return f"< {high:g}"
    return f"≥ {low:g}" if high is None else f"{low:g}–{high:g}"
