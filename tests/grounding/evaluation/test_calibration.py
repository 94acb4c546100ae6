"""Spread against error, by hand and for a sampler that is right by construction."""

import numpy as np
import pytest

from src.core.stage.errors import DataError
from src.grounding.evaluation import calibration
from tests.grounding.scenes import scene

K, SIDE = 8, 96


def drawn(too_small: float = 1.0):
    """A scene and K samples, all drawn from one normal distribution a pixel, whose sd rises from left to right."""
    random = np.random.default_rng(0)
    sd = np.linspace(0.01, 0.05, SIDE)
    centre = np.full((4, SIDE, SIDE), 0.3)
    draws = centre + sd * random.normal(size=(K + 1, 4, SIDE, SIDE))
    samples = draws[1:].mean(0) + too_small * (draws[1:] - draws[1:].mean(0))
    return scene(side=SIDE, optical=draws[0].astype(np.float32)), samples


def test_spread_and_error_by_hand_over_valid_pixels():
    valid = np.zeros((24, 24), bool)
    valid[0, 0] = True
    one = scene(valid=valid)
    samples = np.full((4, 4, 24, 24), np.nan)
    samples[:, :, 0, 0] = one.optical[:, 0, 0] + np.array([[0.1], [0.3], [0.3], [0.3]])
    found = calibration.spread(samples, one)
    assert found.error.tolist() == pytest.approx([0.25] * 4, abs=1e-6)
    assert found.expected.tolist() == pytest.approx([0.1 * np.sqrt(1.25)] * 4)  # variance (0.15^2 + 3 x 0.05^2) / 3
    assert found.expected_even.tolist() == pytest.approx([0.2 / np.sqrt(2) * np.sqrt(1.25)] * 4)
    assert found.expected_odd.tolist() == pytest.approx([0] * 4)


def test_no_spread_covers_nothing_and_has_no_rank():
    one = scene()
    row = calibration.scene_row(np.stack([one.optical + 0.1] * 4), one)
    assert row["coverage_95"] == 0 and row["spearman_r"] is None and row["rmse"] == pytest.approx(0.1, rel=1e-5)


def test_a_right_sampler_covers_as_promised_and_one_with_half_the_spread_does_not():
    row = calibration.scene_row(drawn()[1], drawn()[0])
    assert [row[f"coverage_{level}"] for level in (50, 80, 95)] == pytest.approx([0.5, 0.8, 0.95], abs=0.01)
    assert row["expected_rmse"] == pytest.approx(row["rmse"], rel=0.02) and 0.2 < row["spearman_r"] < 0.6
    half = calibration.scene_row(drawn(0.5)[1], drawn()[0])
    assert half["coverage_95"] < 0.8 and half["expected_rmse"] == pytest.approx(row["rmse"] / 2, rel=0.02)


def test_reliability_of_a_right_sampler_is_on_the_diagonal_in_every_bin():
    one, samples = drawn()
    table = calibration.reliability([calibration.spread(samples, one)] * 2)
    assert sum(row["n"] for row in table) == 2 * 4 * SIDE * SIDE and len(table) == 10
    found = np.array([[row["expected_rmse"], row["rmse"]] for row in table])
    assert (np.diff(found[:, 0]) > 0).all()
    assert found[:, 1] == pytest.approx(found[:, 0], rel=0.05)


def test_reliability_by_hand():
    chooses, error = np.repeat([0.3, 0.1], 10), np.repeat([0.4, -0.2], 10)
    table = calibration.reliability([calibration.Spread(error, chooses, chooses, chooses + 1)])
    assert [row["n"] for row in table] == [2] * 10
    assert [row["rmse"] for row in table] == pytest.approx([0.2] * 5 + [0.4] * 5)
    assert [row["expected_rmse"] for row in table] == pytest.approx([1.1] * 5 + [1.3] * 5)


@pytest.mark.parametrize("shape", [(3, 4, 24, 24), (4, 4, 12, 24)])
def test_bad_samples_are_named(shape):
    with pytest.raises(DataError, match="one: found samples of shape"):
        calibration.scene_row(np.zeros(shape), scene())
    with pytest.raises(DataError, match="one: found samples that are not finite"):
        calibration.scene_row(np.full((4, 4, 24, 24), np.nan), scene())
