"""Scores of every group on the same test rows: per kind of test, by frequency, by distance, and differences."""

from collections.abc import Sequence

import numpy as np

from src.core.evaluation import classification_scores
from src.core.stage.errors import DataError
from src.species.data.task import EMBEDDINGS, KINDS, Task

PAIRS = (
    ("language", "location"),
    ("vision", "location"),
    ("both", "location"),
    ("both", "language"),
    ("both", "vision"),
    ("both", "logistic"),
    ("crossmodal", "pca"),
    ("crossmodal", "both"),
)
"""Differences that are given: what a modality adds to the place, one to the other, a network to a linear model, and
the shared space to principal components."""


class Held:
    """What the held-out rows are: where, when, of which species, and which of them every group can answer.

    Attributes, (H,) each, in the order of `Task.held_out`:
        role, kind, square, cell, date: of split.parquet and the store; a date is what is known of it.
        species: names; truth: index into the classes, -1 where never trained.
        frequency: training records of its species.
        distance_km: to the nearest training record.
        complete: it has every embedding that is stored, so that all groups are scored on the same rows.
    """

    def __init__(self, task: Task):
        rows = task.held_out
        here = task.observations.iloc[rows]
        self.role, self.kind = here["role"].to_numpy(), here["kind"].to_numpy()
        self.square, self.cell = here["square"].to_numpy(), here["cell"].to_numpy(dtype=str)
        first, last = here["first_day"].to_numpy(), here["last_day"].to_numpy()
        self.date = np.char.add(np.char.add(first.astype(str), " "), last.astype(str))
        self.dated = bool(np.mean(first == last) >= 0.5)
        self.species, self.truth = here["species"].to_numpy(dtype=str), task.targets(rows)
        trained = task.observations["species"].iloc[task.train].value_counts()
        self.frequency = here["species"].map(trained).fillna(0).to_numpy(np.int64)
        self.distance_km = here["nearest_train_km"].to_numpy()
        self.complete = np.ones(len(rows), dtype=bool)
        for name in EMBEDDINGS:
            if name in task.store.modalities:
                self.complete &= task.store.present(name, rows)

    def test(self, kind: str) -> np.ndarray:
        """(H,) bool: complete test rows of one of KINDS, or "all"."""
        return (self.role == "test") & self.complete & ((self.kind == kind) | (kind == "all"))

    def units(self, rows: np.ndarray, kind: str) -> dict[str, np.ndarray]:
        """What rows of a kind have in common, whose resampling intervals stand for: regions, and dates at known places.

        Regions are held-out squares, elsewhere grid cells as large as one. Dates count where most records have a day: a
        visit to known places brings many records, and in a square the square holds them together anyway.
        """
        square = self.square[rows]
        regions = np.where(square >= 0, np.char.add("square ", square.astype(str)), self.cell[rows])
        if kind in ("spatial", "both") or not self.dated:
            return {"regions": regions}
        return {"regions": regions, "dates": self.date[rows]}


def require_answers(held: Held, groups: dict[str, np.ndarray], where: str) -> None:
    """Raise DataError if a group has no answer for a complete record, on which all are to be compared."""
    for name, values in groups.items():
        missing = int((held.complete & ~np.isfinite(values).all(axis=1)).sum())
        if missing:
            raise DataError(
                f"{where}: {name}: found no finite probabilities for {missing} of {held.complete.sum()} records that "
                "have every embedding, expected all; run the stage that wrote it again"
            )


def score_groups(held: Held, groups: dict[str, np.ndarray], bins: int) -> dict[str, dict[str, dict]]:
    """name -> kind -> `classification.score_intervals`; a kind without rows is absent.

    Args:
        groups: name -> (H, C) log-probabilities.
        bins: of the calibration error.
    """
    scored = {}
    for name, values in groups.items():
        scored[name] = {}
        for kind in (*KINDS, "all"):
            rows = held.test(kind)
            if rows.any():
                scored[name][kind] = classification_scores.score_intervals(
                    values[rows], held.truth[rows], held.units(rows, kind), held.species[rows], bins
                )
    return scored


def score_validation(held: Held, groups: dict[str, np.ndarray]) -> dict[str, dict]:
    """name -> top1 and log_loss of complete validation rows, by which settings and sweeps are chosen."""
    rows = (held.role == "validation") & held.complete
    found = {name: classification_scores.scores(values[rows], held.truth[rows]) for name, values in groups.items()}
    return {name: {key: score[key] for key in ("top1", "log_loss", "n")} for name, score in found.items()}


def score_incomplete(held: Held, groups: dict[str, np.ndarray]) -> dict[str, dict]:
    """name -> top1 and n of the test rows that lack a modality, of the groups that answer them all."""
    rows = (held.role == "test") & ~held.complete
    answers = {name: values[rows] for name, values in groups.items() if rows.any() and np.isfinite(values[rows]).all()}
    found = {name: classification_scores.scores(values, held.truth[rows]) for name, values in answers.items()}
    return {name: {"top1": score["top1"], "n": score["n"]} for name, score in found.items()}


def score_pairs(held: Held, groups: dict[str, np.ndarray]) -> dict[str, dict[str, dict]]:
    """ "a-b" -> kind -> `classification.paired_difference` for PAIRS whose groups are there."""
    scored = {}
    for one, other in PAIRS:
        if one in groups and other in groups:
            scored[f"{one}-{other}"] = {
                kind: classification_scores.paired_difference(
                    groups[one][rows], groups[other][rows], held.truth[rows], held.units(rows, kind), held.species[rows]
                )
                for kind in (*KINDS, "all")
                if (rows := held.test(kind)).any()
            }
    return scored


def score_bins(
    held: Held, groups: dict[str, np.ndarray], values: np.ndarray, edges: Sequence[float], bins: int
) -> dict[str, dict[str, list[dict]]]:
    """kind -> group -> `classification.scores_by_bin` of `values` (H,), each bin with its label.

    bins: of the calibration error.
    """
    found = {}
    for kind in KINDS:
        rows = held.test(kind)
        if not rows.any():
            continue
        found[kind] = {
            name: [
                bin_ | {"label": label(bin_["from"], bin_["to"])}
                for bin_ in classification_scores.scores_by_bin(
                    predictions[rows],
                    held.truth[rows],
                    held.units(rows, kind),
                    values[rows],
                    edges,
                    held.species[rows],
                    bins,
                )
            ]
            for name, predictions in groups.items()
        }
    return found


def label(low: float | None, high: float | None) -> str:
    """ "< 5", "5–20" or "≥ 20"."""
    if low is None:
        return f"< {high:g}"
    return f"≥ {low:g}" if high is None else f"{low:g}–{high:g}"
