"""Optical images: colours of covers, sunlight and shadows, and no knowledge of the radar."""

from dataclasses import replace

import numpy as np
import pytest

from src.grounding.data.simulated_landscape import CELL_M, COVERS, draw
from src.grounding.data.simulated_optics import optical
from tests.grounding.grounds import SIDE, plain, with_block

BLUE, GREEN, RED, INFRARED = range(4)


def of(ground, seed: int = 0):
    return optical(ground, np.random.default_rng(seed))


def test_an_image_is_reflectance_of_four_bands():
    for number in range(4):
        image = of(draw(np.random.default_rng(number), 64), number)
        assert image.shape == (4, 64, 64) and image.dtype == np.float32
        assert image.min() > 0 and image.max() <= 1  # 0 is stored as no data


@pytest.mark.parametrize("cover", COVERS)
def test_colours_of_covers(cover):
    ground = plain(cover, leaf=np.full((SIDE, SIDE), 0.02 if cover == "bare soil" else 0.9, np.float32))
    blue, green, red, infrared = np.median([of(ground, seed).mean(axis=(1, 2)) for seed in range(15)], axis=0)
    vegetation_index = (infrared - red) / (infrared + red)
    if cover == "water":
        assert vegetation_index < 0 and infrared < 0.03
    elif cover in ("road", "paved", "building", "bare soil"):
        assert 0 < vegetation_index < 0.35 and blue < green < red
    elif cover == "cereals":  # green or ripe
        assert vegetation_index > 0.4
    else:
        assert vegetation_index > 0.6 and green > blue


def test_few_leaves_show_the_soil_and_moist_soil_is_dark():
    def red(leaf, moisture):
        fields = {"leaf": leaf, "moisture": moisture}
        ground = plain("maize", **{name: np.full((SIDE, SIDE), value, np.float32) for name, value in fields.items()})
        return of(ground)[RED].mean()

    assert red(0.05, 0.2) > 2 * red(0.95, 0.2)
    assert red(0.05, 0.9) < 0.75 * red(0.05, 0.1)
    assert red(0.98, 0.9) == pytest.approx(red(0.98, 0.1), rel=0.1)


def test_a_slope_to_the_sun_is_bright_and_one_away_is_dark():
    rise = CELL_M * 0.3 * np.arange(SIDE, dtype=np.float32)
    level, north, south = (
        of(plain(elevation=np.tile(height[:, None], (1, SIDE)))).mean() for height in (0 * rise, rise, rise[::-1])
    )  # higher in the south: it faces north
    assert north < 0.85 * level < level < 1.05 * level < south


def test_a_building_casts_its_shadow_to_the_north_west():
    flat, risen = of(with_block("paved", 0)), of(with_block("paved", 18))
    dark = risen[INFRARED] / flat[INFRARED]  # the same draws but for the height
    assert dark[13, 14:17].max() < 0.6 and dark[20, 14:18] == pytest.approx(1, abs=0.02)
    assert dark[2:8, 2:30] == pytest.approx(1, abs=0.02)
    assert dark[:, 18:] == pytest.approx(1, abs=0.02) and (dark[14:18, 13] < 0.9).any()


def test_no_shadow_comes_from_the_opposite_border():
    wood = plain(height=np.where(np.arange(SIDE)[:, None] < 4, 20, np.zeros((SIDE, SIDE))).astype(np.float32))
    dark = of(wood)[INFRARED] / of(replace(wood, height=0 * wood.height))[INFRARED]
    assert dark == pytest.approx(1, abs=0.02)


def test_brightness_within_a_cover_has_a_draw_of_its_own():
    ground = draw(np.random.default_rng(0), 64)
    one, same, other = of(ground, 1), of(ground, 1), of(ground, 2)
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).mean() > 0.005
