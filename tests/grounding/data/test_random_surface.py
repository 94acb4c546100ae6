"""Smooth surfaces have their variance and their length, in every size."""

import numpy as np
import pytest

from src.grounding.data.random_surface import smooth


@pytest.mark.parametrize("length", [2, 6])
def test_a_surface_has_its_variance_and_length(length):
    surfaces = np.stack([smooth(np.random.default_rng(seed), 64, length) for seed in range(40)])
    assert surfaces.dtype == np.float32 and surfaces.shape == (40, 64, 64)
    assert surfaces.mean() == pytest.approx(0, abs=0.1) and surfaces.std() == pytest.approx(1, abs=0.08)
    near = np.mean(surfaces[:, :, :-length] * surfaces[:, :, length:])
    assert near == pytest.approx(np.exp(-1 / 4), abs=0.1)


def test_opposite_borders_are_not_joined():
    surfaces = np.stack([smooth(np.random.default_rng(seed), 64, 6) for seed in range(40)])
    assert np.mean(surfaces[:, :, 0] * surfaces[:, :, -1]) == pytest.approx(0, abs=0.1)


def test_the_same_generator_gives_the_same_surface():
    one, same, other = (smooth(np.random.default_rng(seed), 32, 3) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert (one != other).all()
