"""Baselines of the words: the commonest answer, the map's own answer, and logistic regression on a tile's mean."""

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from src.minerals.mapping.minerals import NAMES

INVERSE_PENALTIES = (0.001, 0.01, 0.1, 1.0)


def targets(table: pd.DataFrame, source: str, present: float) -> tuple[np.ndarray, np.ndarray]:
    """(N,) bool altered and (N, M) bool present, by `source`: map or truth."""
    shares = table[[f"{source}_{name}" for name in NAMES]].to_numpy()
    return table[f"{source}_altered"].to_numpy(bool), shares >= present


def majority(table: pd.DataFrame, present: float, count: int) -> tuple[np.ndarray, list[frozenset]]:
    """The answer that most training tiles have, `count` times: altered, and minerals that most of them hold."""
    altered, minerals = targets(table[table["role"] == "train"], "map", present)
    names = frozenset(name for name, share in zip(NAMES, minerals.mean(0), strict=True) if share > 0.5)
    return np.full(count, altered.mean() > 0.5), [names] * count


def logistic(features: np.ndarray, table: pd.DataFrame, present: float) -> tuple[np.ndarray, list[frozenset]]:
    """Answers for the test tiles from logistic regressions on training tiles, whose labels come from the map.

    The penalty is the one with the highest accuracy over validation tiles, for each question apart.

    Args:
        features: (N, F) of the tiles of `table`.
    """
    role = table["role"].to_numpy()
    altered, minerals = targets(table, "map", present)
    said = [_fit(features, label, role) for label in (altered, *minerals.T)]
    names = [frozenset(name for name, there in zip(NAMES, row, strict=True) if there) for row in np.stack(said[1:], 1)]
    return said[0], names


def _fit(features: np.ndarray, label: np.ndarray, role: np.ndarray) -> np.ndarray:
    """(T,) bool, predictions for the test tiles."""
    train, validation, test = (role == name for name in ("train", "validation", "test"))
    if len(np.unique(label[train])) < 2:
        return np.full(test.sum(), label[train][0])
    fitted = [
        make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=2000)).fit(features[train], label[train])
        for penalty in INVERSE_PENALTIES
    ]
    best = max(fitted, key=lambda model: model.score(features[validation], label[validation]))
    return best.predict(features[test])
