"""Shifts between images of different sensors are measured, and said to be unknown where nothing shows them."""

import numpy as np
import pytest

from src.grounding.data.coregistration import shift_px
from tests.grounding import pair_files

SIDE = 96


@pytest.mark.parametrize("moved", [(0, 0), (2, -1), (-3, 3)])
def test_a_known_shift_is_found(moved):
    sar, optical = pair_files.images(1, SIDE + 8)
    cut = sar[:, 4 + moved[0] : 4 + moved[0] + SIDE, 4 + moved[1] : 4 + moved[1] + SIDE]
    found = shift_px(cut, optical[:, 4:-4, 4:-4], np.ones((SIDE, SIDE), bool))
    assert found == pytest.approx(np.hypot(*moved), abs=0.5)


def test_values_without_data_change_nothing():
    sar, optical = pair_files.images(1, SIDE)
    valid = np.ones((SIDE, SIDE), bool)
    valid[10:30, 40:60] = False
    spoiled, other = sar.copy(), optical.copy()
    spoiled[:, ~valid], other[:, ~valid] = 5, 0
    assert shift_px(sar, optical, valid) == pytest.approx(shift_px(spoiled, other, valid), abs=1e-6)


@pytest.mark.parametrize("kind", ["flat", "unrelated", "clouded"])
def test_an_unknown_shift_is_no_number(kind):
    draw = np.random.default_rng(0)
    sar, optical = pair_files.images(1, SIDE)
    valid = np.ones((SIDE, SIDE), bool)
    if kind == "flat":
        optical = np.full_like(optical, 0.1)
    elif kind == "unrelated":
        sar = draw.normal(-10, 1, sar.shape)
    else:
        valid[: SIDE // 2, : SIDE // 2] = False
    assert np.isnan(shift_px(sar, optical, valid))
