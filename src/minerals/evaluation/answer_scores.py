"""Scores of answers about tiles: yes or no, and lists of minerals, with intervals over spatial blocks."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score, f1_score

from src.core.evaluation.jackknife import bounds_of, interval_method, widest_intervals
from src.minerals.mapping.minerals import NAMES

LEAST_PARSED = 0.9
"""Where more than one answer in ten has not the asked form, there is no score."""
TOO_FEW = "none: too few answers have the asked form"
SHARES = frozenset({"balanced_accuracy", "accuracy", "f1", "micro_f1", "macro_f1", "hallucinated"})


def score_alteration(said: pd.Series, truth: np.ndarray, block: np.ndarray) -> dict:
    """Balanced accuracy, accuracy and F1 of yes or no, with bounds, parse rate, n and method.

    Args:
        said: (N,) True, False, or None where an answer does not parse: it counts as wrong.
        truth: (N,) bool.
        block: (N,) names of spatial blocks.
    """
    parsed = said.notna().to_numpy()
    guess = np.where(parsed, said.fillna(False).to_numpy(bool), ~truth)

    def score(rows: np.ndarray) -> dict[str, float | None]:
        both = len(np.unique(truth[rows])) == 2
        return {
            "balanced_accuracy": float(balanced_accuracy_score(truth[rows], guess[rows])) if both else None,
            "accuracy": float((truth[rows] == guess[rows]).mean()),
            "f1": float(f1_score(truth[rows], guess[rows], zero_division=0)),
        }

    return _scored(score, parsed, block)


def score_minerals(said: pd.Series, truth: np.ndarray, block: np.ndarray) -> dict:
    """Micro and macro F1 of lists, and the share of named minerals that are not there, with bounds.

    Args:
        said: (N,) sets of names, or None where an answer does not parse: it then names nothing.
        truth: (N, M) bool.
    """
    parsed = said.notna().to_numpy()
    guess = np.array([[name in (names or ()) for name in NAMES] for names in said.where(parsed, None)])

    def score(rows: np.ndarray) -> dict[str, float | None]:
        occurs = truth[rows].any(0)
        named = guess[rows].sum()
        return {
            "micro_f1": float(f1_score(truth[rows].ravel(), guess[rows].ravel(), zero_division=0)),
            "macro_f1": float(
                f1_score(truth[rows][:, occurs], guess[rows][:, occurs], average="macro", zero_division=0)
            ),
            "hallucinated": float((guess[rows] & ~truth[rows]).sum() / named) if named else None,
        }

    return _scored(score, parsed, block)


def _scored(score: Callable[[np.ndarray], dict], parsed: np.ndarray, block: np.ndarray) -> dict:
    facts = {"parse_rate": float(parsed.mean()), "n": len(parsed), "n_units": len(np.unique(block))}
    points = score(np.ones(len(parsed), bool))
    if parsed.mean() < LEAST_PARSED:
        return dict.fromkeys(points) | {"method": TOO_FEW} | facts
    return points | widest_intervals(score, {"blocks": block}, SHARES) | facts


def paired_alteration(ours: pd.Series, theirs: pd.Series, truth: np.ndarray, block: np.ndarray) -> dict:
    """Difference in balanced accuracy, ours - theirs on the same tiles, with its interval over blocks.

    There is none where one of the two has too few answers of the asked form for a score.
    """
    if min(said.notna().mean() for said in (ours, theirs)) < LEAST_PARSED:
        return {"balanced_accuracy": None, "low": None, "high": None, "method": TOO_FEW}
    guesses = [np.where(said.notna(), said.fillna(False).to_numpy(bool), ~truth) for said in (ours, theirs)]

    def difference(rows: np.ndarray) -> dict[str, float | None]:
        if len(np.unique(truth[rows])) < 2:
            return {"balanced_accuracy": None}
        first, second = (balanced_accuracy_score(truth[rows], guess[rows]) for guess in guesses)
        return {"balanced_accuracy": float(first - second)}

    point = difference(np.ones(len(truth), bool))["balanced_accuracy"]
    method, sentence = interval_method(block)
    bounds = bounds_of(difference, block)["balanced_accuracy"] if method else None
    low, high = bounds or (None, None)
    return {"balanced_accuracy": point, "low": low, "high": high, "method": sentence}
