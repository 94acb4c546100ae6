"""Thresholds chosen on training pixels."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from src.core.stage import files
from src.core.stage.errors import DataError
from src.minerals.mapping import thresholds
from src.minerals.mapping.minerals import NAMES
from src.minerals.mapping.thresholds import FEATURE_FIT, NEVER, choose, classify


def drawn(seed: int, pixels: int = 4000):
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 9, pixels)
    scores = generator.gamma(1, 0.02, (pixels, 8))
    known = truth > 0
    scores[known, truth[known] - 1] += generator.uniform(0, 0.3, known.sum())
    return scores, truth


def test_none_of_these_is_an_answer():
    scores = np.array([[0.02] + [0.0] * 7, [0.0] * 7 + [0.5]])
    assert classify(scores, 0.03).tolist() == [0, 8]


def test_each_threshold_is_the_one_with_the_highest_f1_of_its_mineral():
    scores, truth = drawn(0)
    chosen = choose(scores, truth, 0.03)
    best, top = scores.argmax(1), scores.max(1)
    for number in range(8):
        f1 = [
            f1_score(truth == number + 1, (best == number) & (top >= limit))
            for limit in (chosen[number], chosen[number] * 0.7, chosen[number] * 1.4)
        ]
        assert f1[0] >= max(f1[1:]) - 0.005, NAMES[number]


def test_a_mineral_that_training_lacks_keeps_the_fallback():
    scores, truth = drawn(1)
    truth[truth == 3] = 0
    assert choose(scores, truth, 0.07)[2] == 0.07


def test_a_mineral_that_is_never_named_right_is_never_named():
    """Neither by scores above 0 nor by those below, such as angles."""
    scores, truth = drawn(2)
    scores[truth == 3, 2] = 0  # the best only where it is wrong
    limits = choose(scores, truth, NEVER)
    assert limits[2] == NEVER and np.isfinite(np.delete(limits, 2)).all()
    assert (scores.argmax(1) == 2).sum() > 100
    for moved in (scores, scores - 9):
        classes = classify(moved, np.where(limits == NEVER, NEVER, moved.min()))
        assert not (classes == 3).any() and (classes == 4).any()


def test_never_is_null_in_the_file_and_no_threshold_of_the_map(tmp_path):
    limits = np.linspace(0.01, 0.08, 8)
    path = tmp_path / "thresholds.json"
    thresholds.write(path, {FEATURE_FIT: limits, "other": np.where(limits < 0.03, NEVER, -limits)})
    stored = files.read_json(path)["other"]
    assert stored["alunite"] is None and stored["epidote"] == -0.08
    np.testing.assert_array_equal(thresholds.read(path), limits)
    thresholds.write(path, {FEATURE_FIT: np.where(limits < 0.02, NEVER, limits)})
    with pytest.raises(DataError, match="feature fit: alunite: found None, expected a number above 0"):
        thresholds.read(path)
