"""The radar's physics: speckle, layover, shadow, walls, and which covers are dark."""

import numpy as np
import pytest

from src.grounding.data.simulated_landscape import CELL_M, CODE
from src.grounding.data.simulated_radar import INCIDENCE, NOISE_DB, backscatter, project, sar, speckle
from tests.grounding.grounds import SIDE, plain, with_block

NOISE = 10 ** (NOISE_DB / 10)


def of(ground, seed: int = 0):
    """VV and VH power without speckle."""
    return backscatter(ground, np.random.default_rng(seed))


def decibel(power):
    return 10 * np.log10(np.mean(power))


@pytest.mark.parametrize("looks", [1, 4])
def test_speckle_has_mean_one_and_variance_one_by_looks(looks):
    noise = speckle(np.ones((2, 400, 400)), looks, np.random.default_rng(0))
    assert noise.mean() == pytest.approx(1, abs=0.01)
    assert noise.mean() ** 2 / noise.var() == pytest.approx(looks, rel=0.03)  # equivalent number of looks
    assert np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1] == pytest.approx(0, abs=0.01)
    assert np.corrcoef(noise[0, :, 1:].ravel(), noise[0, :, :-1].ravel())[0, 1] == pytest.approx(0, abs=0.01)
    if looks == 1:  # exponential: a single look's standard deviation is its mean, and 37 % are above the mean
        assert np.mean(noise > 1) == pytest.approx(np.exp(-1), abs=0.005)


def test_the_image_is_decibel_of_power_under_speckle():
    ground = plain()
    image = sar(ground, 4, np.random.default_rng(1))
    assert image.shape == (2, SIDE // 2, SIDE // 2) and image.dtype == np.float32
    assert decibel(10 ** (image[0] / 10)) == pytest.approx(decibel(of(ground, 1)[0]), abs=0.5)
    assert image[0].std() == pytest.approx(2.3, abs=0.4)  # dB of 4 looks


def test_level_ground_keeps_its_power_and_place():
    power = np.random.default_rng(0).uniform(0.05, 0.2, (1, SIDE, SIDE))
    blocks = power.reshape(1, SIDE // 2, 2, SIDE // 2, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(project(plain(), power), blocks, rtol=1e-5)


def test_covers_have_their_published_levels():
    level = {
        cover: [np.median([decibel(of(plain(cover), seed)[band]) for seed in range(30)]) for band in (0, 1)]
        for cover in ("water", "cereals", "grassland", "maize", "bare soil", "broadleaf", "conifer", "road")
    }
    assert level["water"][0] == pytest.approx(-20.5, abs=1) and level["broadleaf"] == pytest.approx([-8, -13.7], abs=1)
    assert all(-14.5 < level[crop][0] < -7 for crop in ("cereals", "grassland", "maize", "bare soil"))
    assert level["water"][0] < level["road"][0] < level["grassland"][0] < level["conifer"][0]
    assert all(vv - vh > 3 for vv, vh in level.values())  # cross-polarised is weaker everywhere


def test_moist_soil_is_brighter_and_leaves_hide_it():
    def gain(leaf):
        dry, wet = (plain("cereals", moisture=np.full((SIDE, SIDE), value, np.float32),
                          leaf=np.full((SIDE, SIDE), leaf, np.float32)) for value in (0.1, 0.8))  # fmt: skip
        return decibel(of(wet)[0]) - decibel(of(dry)[0])

    assert gain(0.05) > 4 and 0 < gain(0.95) < 0.6 * gain(0.05)


def test_a_building_leans_to_the_radar_and_darkens_what_is_behind():
    """The radar is in the west: its roof, 24 m high, is shown 30 m west of where it stands."""
    height = 24
    block = with_block("building", height)
    roof = np.where(block.cover == CODE["building"], 1.0, 0.1)[None]
    image = project(block, roof)[0, 16]  # a line of pixels through the middle; the block has pixels 14 to 17
    shift = height / np.tan(INCIDENCE) / (2 * CELL_M)
    assert 2.5 < shift < 3.5
    np.testing.assert_allclose(image[11:14], 1.1, rtol=0.1)  # roof and the ground before it in the same range
    np.testing.assert_allclose(image[:10], 0.1, rtol=1e-5)
    shadow = height * np.tan(INCIDENCE) / (2 * CELL_M)  # 1.9 px behind the block
    assert image[15] < 0.05 and image[16:19].max() < 0.01  # nothing is left where it stands, and behind it
    np.testing.assert_allclose(image[18 + int(np.ceil(shadow)) + 1 :], 0.1, rtol=0.1)


def test_power_is_moved_and_not_made():
    block = with_block("building", 24)
    roof = (block.cover == CODE["building"]).astype(float)[None]
    assert project(block, roof).sum() == pytest.approx(project(plain(), roof).sum(), rel=0.01)


def test_a_shadow_is_as_dark_as_the_sensors_noise():
    image = of(with_block("building", 30))[0]
    assert image[15:17, 18].max() < 2 * NOISE < 0.2 * np.median(image)


def test_a_wall_that_faces_the_radar_is_bright_and_an_oblique_one_is_not():
    def brightest(degrees):
        block = with_block("building", 6, np.radians(degrees))
        return decibel([of(block, seed)[0].max() for seed in range(20)])

    assert brightest(0) == pytest.approx(brightest(90), abs=0.1) and brightest(0) > 3
    assert brightest(0) - brightest(45) > 4


def test_trees_lean_less_than_buildings_but_shade():
    wood, house = (of(with_block(cover, 24))[0, 16] for cover in ("conifer", "building"))
    before = np.s_[9:13]
    assert house[before].max() > 3 * np.median(house) and wood[before].max() < 2 * np.median(wood)
    assert wood[18] < 0.5 * np.median(wood)


def test_a_slope_steeper_than_the_incidence_is_laid_over_and_its_back_is_in_shadow():
    """A ridge along the scene, 55° steep on both sides: the ground before it mixes with its face, its back is dark."""
    ridge = np.clip(60 - CELL_M * np.tan(np.radians(55)) * np.abs(np.arange(SIDE) - 40), 0, None)
    ground = plain(elevation=np.tile(ridge, (SIDE, 1)).astype(np.float32))
    image = project(ground, np.where(ground.elevation > 0, 1, 0.1)[None])[0, 16]
    top = 20
    assert image[top + 1 : top + 4].max() == 0
    np.testing.assert_allclose(image[:10], 0.1, rtol=1e-5)
    np.testing.assert_allclose(image[-4:], 0.1, rtol=0.1)
    assert image[13:15].min() > 0.2  # level ground, 60 m before the ridge begins


def test_gentle_slopes_are_corrected():
    hill = 3 * np.sin(np.arange(SIDE) / 6)
    ground = plain(elevation=np.tile(hill, (SIDE, 1)).astype(np.float32))
    image = project(ground, np.full((1, SIDE, SIDE), 0.1))
    np.testing.assert_allclose(image, 0.1, rtol=0.02)


def test_the_borders_of_a_scene_are_like_its_inside():
    wood = plain("conifer", height=np.full((SIDE, SIDE), 25, np.float32))
    image = project(wood, np.full((1, SIDE, SIDE), 0.1))
    np.testing.assert_allclose(image, 0.1, rtol=1e-4)
