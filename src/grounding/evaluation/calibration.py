"""Calibration of the spread of K samples of one image: is it as large as the error of their mean?

If the truth were one more draw like the samples, its distance from their mean would have the variance
sd^2 (1 + 1/K), and, in units of that root, Student's distribution with K - 1 degrees of freedom. So the expected error
is `sd * sqrt(1 + 1/K)`, and intervals have Student's quantile in place of the normal one: with 8 samples even a perfect
sampler would keep only 0.89 of its errors within 1.96 sd.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr, t

from src.core.stage.errors import DataError
from src.grounding.data.scene_store import Scene

LEVELS = (0.5, 0.8, 0.95)
COVERAGE = {level: f"coverage_{level * 100:g}" for level in LEVELS}
"""Level of an interval -> name of the share of errors within it."""
BINS = 10


class Spread(NamedTuple):
    """Of N valid pixels in 4 bands, (4 N,) float64 in reflectance: error of the mean of all K samples, and the error
    that is expected from the spread of all, of those with even and of those with odd numbers."""

    error: np.ndarray
    expected: np.ndarray
    expected_even: np.ndarray
    expected_odd: np.ndarray


def spread(samples: np.ndarray, scene: Scene) -> Spread:
    """Errors of (K, 4, H, W) samples, and those expected from their spread.

    Raises:
        DataError: fewer than four samples, another shape, or values that are not finite in valid pixels.
    """
    if len(samples) < 4 or samples.shape[1:] != scene.optical.shape:
        raise DataError(
            f"{scene.name}: found samples of shape {samples.shape}, expected four or more of {scene.optical.shape}; "
            "raise `samples`, or predict them again"
        )
    inside = samples[:, :, scene.valid].astype(np.float64).reshape(len(samples), -1)
    if not np.isfinite(inside).all():
        raise DataError(f"{scene.name}: found samples that are not finite in valid pixels; predict them again")
    error = inside.mean(0) - scene.optical[:, scene.valid].ravel()
    growth = np.sqrt(1 + 1 / len(samples))
    return Spread(error, *(growth * some.std(0, ddof=1) for some in (inside, inside[::2], inside[1::2])))


def scene_row(samples: np.ndarray, scene: Scene) -> dict[str, float | str | None]:
    """One row: scene, spearman_r of expected and absolute error (None where one is constant), expected_rmse, rmse, and
    COVERAGE: the share of errors within the interval of each of LEVELS, which it should equal."""
    found = spread(samples, scene)
    size, degrees = np.abs(found.error), len(samples) - 1
    return {
        "scene": scene.name,
        "spearman_r": _rank_correlation(found.expected, size),
        "expected_rmse": _rms(found.expected),
        "rmse": _rms(found.error),
    } | {
        name: float((size <= t.ppf((1 + level) / 2, degrees) * found.expected).mean())
        for level, name in COVERAGE.items()
    }


def reliability(spreads: Sequence[Spread]) -> list[dict[str, float]]:
    """BINS bins of all scenes' pixels with as many each, from small to large spread: n, expected_rmse, rmse.

    Where the spread is right the last two are equal in every bin. The even samples choose the bin, the odd ones give
    the expected error: were both from the same few samples, small spreads would be those that are small by chance.
    """
    error, _, chooses, expected = (np.concatenate(parts) for parts in zip(*spreads, strict=True))
    bins = np.array_split(np.argsort(chooses, kind="stable"), BINS)
    return [{"n": len(some), "expected_rmse": _rms(expected[some]), "rmse": _rms(error[some])} for some in bins]


def _rank_correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    constant = np.ptp(one) == 0 or np.ptp(other) == 0
    return None if constant else float(spearmanr(one, other).statistic)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
