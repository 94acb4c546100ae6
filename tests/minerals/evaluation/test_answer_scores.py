"""Scores of answers, with answers that do not parse."""

import numpy as np
import pandas as pd
import pytest

from src.minerals.evaluation import answer_scores
from src.minerals.mapping.minerals import NAMES

TRUTH = np.arange(40) % 4 == 0  # 10 of 40, in 10 blocks
BLOCK = np.arange(40) // 4
RIGHT = pd.Series(TRUTH, dtype=object)


def test_an_answer_that_does_not_parse_counts_as_wrong():
    said = RIGHT.copy()
    said[[0, 1]] = None  # one altered tile of 10, one other of 30
    found = answer_scores.score_alteration(said, TRUTH, BLOCK)
    assert found["balanced_accuracy"] == pytest.approx((9 / 10 + 29 / 30) / 2) and found["parse_rate"] == 0.95
    assert found["accuracy"] == 38 / 40 and found["n_units"] == 10
    pair = answer_scores.paired_alteration(said, RIGHT, TRUTH, BLOCK)
    assert pair["balanced_accuracy"] == pytest.approx(found["balanced_accuracy"] - 1)


def test_with_more_than_one_in_ten_there_is_neither_score_nor_difference():
    said = RIGHT.copy()
    said[:5] = None
    found = answer_scores.score_alteration(said, TRUTH, BLOCK)
    assert found["balanced_accuracy"] is None and found["parse_rate"] == 0.875
    for pair in ((said, RIGHT), (RIGHT, said)):
        difference = answer_scores.paired_alteration(*pair, TRUTH, BLOCK)
        assert difference["balanced_accuracy"] is None and difference["low"] is None
        assert difference["method"].startswith("none: too few answers")


def test_lists_by_hand():
    truth = np.zeros((40, len(NAMES)), bool)
    truth[:, :2] = True
    said = pd.Series([frozenset({NAMES[0], NAMES[2]})] * 38 + [None] * 2, dtype=object)
    found = answer_scores.score_minerals(said, truth, BLOCK)
    assert found["hallucinated"] == 0.5  # the third mineral is nowhere
    assert found["micro_f1"] == pytest.approx(2 * 38 / (2 * 38 + 38 + 38 + 4))
    assert found["macro_f1"] == pytest.approx((2 * 38 / (38 + 40)) / 2)
