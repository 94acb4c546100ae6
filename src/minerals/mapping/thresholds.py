"""Scores -> classes: the best mineral, or none where its score is below the mineral's threshold."""

from pathlib import Path

import numpy as np

from src.core.stage import files
from src.core.stage.errors import DataError
from src.minerals.mapping.minerals import BACKGROUND, NAMES

FEATURE_FIT = "feature fit"  # the map's own method in thresholds.json
NEVER = np.inf  # threshold of a mineral that a method does not name; null in thresholds.json
CANDIDATES = 60  # thresholds tried for each mineral


def write(path: Path, limits: dict[str, np.ndarray]) -> None:
    """thresholds.json: name of a method -> mineral -> threshold, of (M,) thresholds of each method."""
    files.write_json(path, {
        method: {name: None if limit == NEVER else limit for name, limit in zip(NAMES, values.tolist(), strict=True)}
        for method, values in limits.items()
    })  # fmt: skip


def read(path: Path) -> np.ndarray:
    """(M,) the feature fit's thresholds in thresholds.json, which the stage `map` wrote; they are numbers, never null.

    Raises:
        StorageError: there is no such file.
        DataError: it is not that file, or not of these minerals.
    """
    known = files.read_json(path)
    limits = known.get(FEATURE_FIT) if isinstance(known, dict) else None
    if not isinstance(limits, dict):
        raise DataError(f"{path}: {FEATURE_FIT}: found none, expected thresholds.json of the map; give that file")
    if set(limits) != set(NAMES):
        odd = min(set(limits) ^ set(NAMES))
        raise DataError(f"{path}: {FEATURE_FIT}: {odd} is not in both, expected {', '.join(NAMES)}; run the map again")
    for name, limit in limits.items():
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0:
            raise DataError(
                f"{path}: {FEATURE_FIT}: {name}: found {limit!r}, expected a number above 0; run the map again"
            )
    return np.array([limits[name] for name in NAMES], float)


def classify(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(N, M) scores -> (N,) uint8 classes: 1 + the best mineral, or 0 below its threshold ((M,) or one number)."""
    best = scores.argmax(1)
    reached = scores.max(1) >= np.broadcast_to(thresholds, len(NAMES))[best]
    return np.where(reached, 1 + best, BACKGROUND).astype(np.uint8)


def choose(scores: np.ndarray, truth: np.ndarray, fallback: np.ndarray | float) -> np.ndarray:
    """(M,) threshold of each mineral with the highest F1 on training pixels.

    Args:
        scores: (N, M) of training pixels.
        truth: (N,) their classes.
        fallback: threshold of a mineral that is nowhere in `truth`, or nowhere named right.
    """
    chosen = np.array(np.broadcast_to(fallback, len(NAMES)), float)
    best, top = scores.argmax(1), scores.max(1)
    for number in range(len(NAMES)):
        mine, here = best == number, truth == number + 1
        if not (mine & here).any():
            continue
        candidates = np.unique(np.quantile(top[mine], np.linspace(0, 0.98, CANDIDATES)))
        found = np.searchsorted(np.sort(top[mine & here]), candidates)  # how many of the right ones are lost
        named = np.searchsorted(np.sort(top[mine]), candidates)
        right = (mine & here).sum() - found
        chosen[number] = candidates[np.argmax(2 * right / (mine.sum() - named + here.sum()))]
    return chosen
