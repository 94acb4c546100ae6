"""Drawn landscapes: complete, varied, and with what belongs together."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, label

from src.grounding.data.simulated_landscape import CELL_M, CODE, COVERS, draw

SCENES = 16


@pytest.fixture(scope="module")
def grounds():
    return [draw(np.random.default_rng([0, number, 0]), 96) for number in range(SCENES)]


def test_every_cell_has_a_cover_and_a_parcel_of_that_cover(grounds):
    for ground in grounds:
        assert ground.cover.shape == ground.parcel.shape == (192, 192)
        assert ground.cover.max() < len(COVERS) and ground.parcel.max() < len(ground.angle)
        assert ground.parcel.min() > 0  # 0 is what nothing was painted on
        pairs = np.unique(np.stack([ground.parcel.ravel(), ground.cover.ravel()]), axis=1)
        assert len(pairs[0]) == len(np.unique(ground.parcel))


def test_values_are_in_their_ranges(grounds):
    for ground in grounds:
        for share in (ground.leaf, ground.moisture):
            assert share.dtype == np.float32 and share.min() >= 0 and share.max() <= 1
        assert ground.elevation.dtype == ground.height.dtype == np.float32
        assert (ground.height >= 0).all() and ground.height.max() < 60 and ground.elevation.min() > -30
        low = np.isin(ground.cover, [CODE[name] for name in ("water", "cereals", "grassland", "road", "garden")])
        assert not ground.height[low].any()
        assert (ground.height[ground.cover == CODE["conifer"]] > 10).all()
        assert not ground.leaf[np.isin(ground.cover, [CODE[name] for name in ("water", "road", "building")])].any()


def test_scenes_differ_and_every_cover_occurs(grounds):
    shares = np.array([np.bincount(ground.cover.ravel(), minlength=len(COVERS)) / 192**2 for ground in grounds])
    assert (shares.max(axis=0) > 0.005).all()
    assert shares[:, CODE["water"]].min() == 0 and shares[:, CODE["water"]].max() > 0.03
    slopes = np.array([np.gradient(ground.elevation, CELL_M)[1].std() for ground in grounds])
    assert slopes.min() < 0.03 and slopes.max() > 0.25


def test_a_lake_or_river_is_level(grounds):
    checked = 0
    for ground in grounds:
        water = ground.cover == CODE["water"]
        if water.mean() > 0.01:
            assert np.ptp(ground.elevation[water]) < 0.1 + 0.001 * np.ptp(ground.elevation)
            checked += 1
    assert checked >= 3


def test_houses_stand_in_villages(grounds):
    beside = np.zeros(len(COVERS))
    for ground in grounds:
        buildings = ground.cover == CODE["building"]
        ring = binary_dilation(buildings, iterations=2) & ~buildings
        beside += np.bincount(ground.cover[ring], minlength=len(COVERS))
    village = [CODE[name] for name in ("garden", "paved", "road")]
    assert beside[village].sum() > 0.8 * beside.sum()


def test_fields_have_hectares_and_not_square_metres(grounds):
    fields = [
        np.count_nonzero(ground.parcel == parcel) * CELL_M**2 / 1e4
        for ground in grounds[:4]
        for parcel in np.unique(ground.parcel[np.isin(ground.cover, [CODE["cereals"], CODE["maize"]])])
    ]
    assert 0.5 < np.median(fields) < 8


def test_a_wood_is_one_parcel_and_two_woods_are_two(grounds):
    ground = max(grounds, key=lambda ground: np.mean(ground.cover == CODE["conifer"]))
    numbers, count = label(ground.cover == CODE["conifer"])
    largest = 1 + np.argsort(np.bincount(numbers.ravel())[1:])[-1]
    assert count and len(np.unique(ground.parcel[numbers == largest])) == 1


def test_the_same_seed_draws_the_same_ground():
    one, same, other = (draw(np.random.default_rng(seed), 64) for seed in (3, 3, 4))
    for name in vars(one):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert (one.cover != other.cover).any()
