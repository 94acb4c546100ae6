"""Splits: balanced folds, whole blocks and places, a buffer, and nothing but split.seed and the tiles decides."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from pyproj import Geod

from src.core import splits
from src.core.errors import DataError, ParamsError

DRAW = {"degrees": 5, "buffer_km": 100, "folds": 5, "fold": 0, "seed": 0}


def make_tiles(count: int = 300, years: int = 1) -> pd.DataFrame:
    """Random places in a box of 25 x 40 degrees, each with `years` tiles."""
    generator = np.random.default_rng(7)
    lat, lon = generator.uniform(25, 50, count), generator.uniform(-110, -70, count)
    places = pd.DataFrame({"place": [f"p{i % 9}/c{i:03d}" for i in range(count)], "lat": lat, "lon": lon})
    tiles = places.loc[places.index.repeat(years)].reset_index(drop=True)
    tiles["tile_id"] = tiles["place"] + [f"/{2018 + i % years}" for i in range(len(tiles))]
    return tiles.assign(half_diagonal_km=40.0)


def distances_km(a: pd.DataFrame, b: pd.DataFrame) -> np.ndarray:
    i, j = np.meshgrid(np.arange(len(a)), np.arange(len(b)), indexing="ij")
    one, other = a.iloc[i.ravel()], b.iloc[j.ravel()]
    return Geod(ellps="WGS84").inv(one.lon, one.lat, other.lon, other.lat)[2] / 1000


def test_blocks_are_named_by_their_south_west_corner():
    lat, lon = np.array([37.2, -0.1, 0.0, 35.0, 10.0]), np.array([-91.0, -0.1, 0.0, 180.0, 179.9])
    assert splits.assign_blocks(lat, lon, 5).tolist() == ["35,-95", "-5,-5", "0,0", "35,-180", "10,175"]
    assert splits.assign_blocks([1.3], [2.6], 0.5).tolist() == ["1,2.5"]


def test_folds_are_balanced_and_follow_the_seed_and_not_the_order():
    generator = np.random.default_rng(1)
    units = np.array([f"u{i}" for i in range(45)])
    sizes = generator.integers(1, 60, 45)
    folds = splits.draw_folds(units, sizes, 5, seed=3)
    totals = np.bincount(folds, weights=sizes)
    assert np.ptp(totals) <= 0.05 * totals.mean()
    shuffled = generator.permutation(45)
    again = splits.draw_folds(units[shuffled], sizes[shuffled], 5, seed=3)
    assert (again == folds[shuffled]).all()
    assert (splits.draw_folds(units, sizes, 5, seed=4) != folds).any()


def test_validation_share_is_filled_and_never_empty():
    units, sizes = np.array([f"u{i}" for i in range(40)]), np.full(40, 5)
    assert sizes[splits.draw_validation(units, sizes, 0.25, [0, 1])].sum() == 50
    alone = splits.draw_validation(np.array(["a", "b", "c"]), np.array([9, 4, 8]), 0.1, [0, 1])
    assert alone.tolist() == [False, True, False]


def test_the_folds_partition_the_tiles():
    tiles = make_tiles()
    tests = [splits.split_blocks(tiles, **DRAW | {"fold": fold})["role"] == "test" for fold in range(5)]
    assert (np.sum(tests, axis=0) == 1).all()
    assert np.ptp([test.sum() for test in tests]) <= 4


def test_whole_blocks_go_to_one_side():
    drawn = splits.split_blocks(make_tiles(), **DRAW)
    roles = drawn[drawn["role"] != "buffer"].groupby("block")["role"].nunique()
    assert (roles == 1).all()
    share = (drawn["role"] == "test").mean()
    assert 0.15 < share < 0.25


def test_the_buffer_separates_every_pair_of_roles_and_test_keeps_all():
    tiles = make_tiles()
    drawn = splits.split_blocks(tiles, **DRAW)
    role = drawn["role"]
    for one, other in (("train", "test"), ("validation", "test"), ("train", "validation")):
        assert distances_km(tiles[role == one], tiles[role == other]).min() >= 100
    test_blocks = drawn.loc[role == "test", "block"]
    assert (role[drawn["block"].isin(test_blocks)] == "test").all()
    # nothing is set aside without a reason
    buffer, held_out = tiles[role == "buffer"], tiles[role.isin(["test", "validation"])]
    assert len(buffer) > 0
    assert (splits.nearest_km(buffer.lat, buffer.lon, held_out.lat, held_out.lon) < 100).all()


def test_all_years_of_a_place_share_block_and_role():
    tiles = make_tiles(years=3)
    # one year of every place is centred 0.4 degrees away: across block borders and buffer edges
    tiles.loc[2::3, "lon"] += 0.4
    for drawn in (
        splits.split_blocks(tiles, **DRAW),
        splits.split_places(tiles, degrees=5, folds=5, fold=1, seed=0),
    ):
        assert (drawn.groupby(tiles["place"])[["block", "role"]].nunique() == 1).all(axis=None)
    first = tiles.sort_values("tile_id").drop_duplicates("place")
    expected = splits.assign_blocks(first["lat"], first["lon"], 5)
    assert drawn.loc[first.index, "block"].tolist() == expected.tolist()


def test_row_order_changes_nothing():
    tiles = make_tiles(years=2)
    shuffled = tiles.sample(frac=1, random_state=5)
    pd.testing.assert_frame_equal(
        splits.split_blocks(shuffled, **DRAW).sort_index(), splits.split_blocks(tiles, **DRAW)
    )


def test_hash_seed_changes_nothing():
    code = (
        "from tests.core.test_splits import *\n"
        "print(hashlib.sha256(splits.split_blocks(make_tiles(), **DRAW).to_csv().encode()).hexdigest())"
    )
    code = "import hashlib\n" + code
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_nearest_is_exact_on_the_ellipsoid_and_across_the_date_line():
    generator = np.random.default_rng(2)
    lat, lon = generator.uniform(-80, 80, 60), generator.uniform(-180, 180, 60)
    a, b = pd.DataFrame({"lat": lat, "lon": lon})[:20], pd.DataFrame({"lat": lat, "lon": lon})[20:]
    expected = distances_km(a, b).reshape(20, 40).min(axis=1)
    np.testing.assert_allclose(splits.nearest_km(a.lat, a.lon, b.lat, b.lon), expected, rtol=1e-12)
    assert splits.nearest_km([0], [179.9], [0], [-179.9])[0] == pytest.approx(22.264, abs=1e-3)
    assert splits.nearest_km([0], [0], [], []).tolist() == [np.inf]


def test_a_buffer_below_the_diagonal_is_refused_with_both_numbers():
    with pytest.raises(ParamsError, match=r"buffer_km: found 79.5, expected at least 80"):
        splits.split_blocks(make_tiles(), **DRAW | {"buffer_km": 79.5})
    splits.split_blocks(make_tiles(), **DRAW | {"buffer_km": 80})


def test_tiles_without_coordinates_refuse_blocks_and_allow_places():
    tiles = make_tiles()
    tiles.loc[3, ["lat", "lon"]] = np.nan
    with pytest.raises(DataError, match=r"1 tiles without coordinates .*c003.*refuse spatial splits"):
        splits.split_blocks(tiles, **DRAW)
    drawn = splits.split_places(tiles, degrees=5, folds=5, fold=0, seed=0)
    assert drawn.loc[3, "block"] == ""
    assert drawn["role"].value_counts().to_dict() == {"train": 195, "test": 60, "validation": 45}


def test_too_few_blocks_are_counted():
    with pytest.raises(DataError, match="found 4 blocks of 45 degrees, expected at least 5"):
        splits.split_blocks(make_tiles(), **DRAW | {"degrees": 45})


def test_a_fold_that_takes_all_but_one_place_is_refused():
    tiles = make_tiles(3)
    sides = []
    for fold in range(2):
        try:
            splits.split_places(tiles, degrees=5, folds=2, fold=fold, seed=0)
            sides.append("drawn")
        except DataError as error:
            assert "of 3 places" in str(error) and "leaves 1" in str(error)
            sides.append("refused")
    assert sorted(sides) == ["drawn", "refused"]


def test_a_buffer_that_empties_training_is_refused():
    with pytest.raises(DataError, match=r"\d+ blocks of 5 degrees leave no train(ing)? tile outside the buffer of 900"):
        splits.split_blocks(make_tiles(), **DRAW | {"buffer_km": 900, "folds": 2})
