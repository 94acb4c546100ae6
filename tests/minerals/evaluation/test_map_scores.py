"""Scores of maps by hand, where truth is partly unknown."""

import numpy as np
import pytest

from src.core.stage.errors import DataError
from src.minerals.evaluation.map_scores import score_map
from src.minerals.mapping.minerals import NAMES

SIDE, UNKNOWN = 4, 255
ALUNITE, CALCITE = 1 + NAMES.index("alunite"), 1 + NAMES.index("calcite")


def test_only_pixels_with_known_mineral_and_data_count():
    known, mapped = np.zeros((4, 12), np.uint8), np.zeros((4, 12), np.uint8)
    known[:, :2], mapped[:, :2] = ALUNITE, ALUNITE
    known[:, 2:4], mapped[:, 2:4] = UNKNOWN, CALCITE  # the map may be right there
    known[:, 4:8], mapped[:, 4:8] = UNKNOWN, ALUNITE  # a tile of which nothing is known
    mapped[0, 8:] = 255
    known[0, 8:] = ALUNITE
    found = score_map({0: known}, {0: mapped}, None, SIDE, 0.1)
    assert found["overall_accuracy"] == found["f1_alunite"] == found["alteration_f1"] == 1
    assert found["abundance_error"] is None and found["n"] == 8 + 12 and found["n_tiles"] == 2
    assert found["f1_calcite"] is None and found["macro_f1"] == 1


def test_errors_of_shares_and_of_classes():
    known, mapped = np.full((2, 4, 4), ALUNITE, np.uint8)
    mapped[0] = CALCITE
    area = np.zeros((4, 4, len(NAMES)), np.float32)
    area[..., ALUNITE - 1] = 1
    found = score_map({0: known}, {0: mapped}, {0: area}, SIDE, 0.1)
    assert found["overall_accuracy"] == 12 / 16 and found["f1_alunite"] == pytest.approx(24 / 28)
    assert found["abundance_error"] == pytest.approx(2 * 0.25 / len(NAMES))


@pytest.mark.parametrize(("known", "side"), [(np.zeros((3, 3), np.uint8), 4), (np.full((4, 4), UNKNOWN, np.uint8), 4)])
def test_no_tile_that_counts_is_named(known, side):
    with pytest.raises(DataError, match=r"found no tile of 4 px with a known mineral"):
        score_map({0: known}, {0: np.zeros_like(known)}, None, side, 0.1)
