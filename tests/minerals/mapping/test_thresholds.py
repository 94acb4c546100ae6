"""Thresholds chosen on training pixels."""

import numpy as np
from sklearn.metrics import f1_score

from src.minerals.mapping.minerals import NAMES
from src.minerals.mapping.thresholds import choose, classify


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
