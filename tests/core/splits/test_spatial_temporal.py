"""Splits: whole units, a buffer, past and future apart, and nothing but split.seed and the tiles decides."""

import numpy as np
import pandas as pd
import pytest
from pyproj import Geod

from src.core.geo.distances import assign_blocks, nearest_km
from src.core.splits import spatial_temporal
from src.core.stage.errors import DataError, ParamsError
from tests.hash_seeds import printed

DRAW = {"degrees": 5, "buffer_km": 100, "folds": 5, "fold": 0, "seed": 0}
REGIONS = {"buffer_km": 100, "folds": 4, "fold": 1, "seed": 0}


def make_tiles(count: int = 300, years: int = 1) -> pd.DataFrame:
    """Random places in a box of 25 x 40 degrees, each with `years` tiles."""
    generator = np.random.default_rng(7)
    lat, lon = generator.uniform(25, 50, count), generator.uniform(-110, -70, count)
    places = pd.DataFrame({"place": [f"p{i % 9}/c{i:03d}" for i in range(count)], "lat": lat, "lon": lon})
    tiles = places.loc[places.index.repeat(years)].reset_index(drop=True)
    tiles["tile_id"] = tiles["place"] + [f"/{2018 + i % years}" for i in range(len(tiles))]
    return tiles.assign(half_diagonal_km=40.0)


def make_regions(tiles: pd.DataFrame) -> pd.Series:
    """Eight regions of unequal width, from west to east; each place is in one."""
    return pd.cut(tiles["lon"], [-111, -104, -101, -95, -90, -83, -80, -74, -69], labels=list("abcdefgh")).astype(str)


def split_blocks(tiles: pd.DataFrame, *, degrees: float, **draw) -> pd.DataFrame:
    """Block and role of each tile."""
    block = spatial_temporal.blocks_of_places(tiles, degrees)
    return split_units(tiles, block, f"blocks of {degrees:g} degrees", **draw)


def split_units(tiles: pd.DataFrame, unit: pd.Series, what: str = "regions", **draw) -> pd.DataFrame:
    draw = {"keep_from": tiles[:0]} | draw
    return pd.DataFrame({"block": unit, "role": spatial_temporal.split_with_buffer(tiles, unit, what, "", **draw)})


def distances_km(a: pd.DataFrame, b: pd.DataFrame) -> np.ndarray:
    i, j = np.meshgrid(np.arange(len(a)), np.arange(len(b)), indexing="ij")
    one, other = a.iloc[i.ravel()], b.iloc[j.ravel()]
    return Geod(ellps="WGS84").inv(one.lon, one.lat, other.lon, other.lat)[2] / 1000


def test_the_folds_partition_the_tiles():
    tiles = make_tiles()
    tests = [split_blocks(tiles, **DRAW | {"fold": fold})["role"] == "test" for fold in range(5)]
    assert (np.sum(tests, axis=0) == 1).all()
    assert np.ptp([test.sum() for test in tests]) <= 4


def test_whole_blocks_go_to_one_side():
    drawn = split_blocks(make_tiles(), **DRAW)
    roles = drawn[drawn["role"] != "buffer"].groupby("block")["role"].nunique()
    assert (roles == 1).all()
    share = (drawn["role"] == "test").mean()
    assert 0.15 < share < 0.25


def test_the_buffer_separates_every_pair_of_roles_and_test_keeps_all():
    tiles = make_tiles()
    drawn = split_blocks(tiles, **DRAW)
    role = drawn["role"]
    for one, other in (("train", "test"), ("validation", "test"), ("train", "validation")):
        assert distances_km(tiles[role == one], tiles[role == other]).min() >= 100
    test_blocks = drawn.loc[role == "test", "block"]
    assert (role[drawn["block"].isin(test_blocks)] == "test").all()
    # nothing is set aside without a reason
    buffer, held_out = tiles[role == "buffer"], tiles[role.isin(["test", "validation"])]
    assert len(buffer) > 0
    assert (nearest_km(buffer.lat, buffer.lon, held_out.lat, held_out.lon) < 100).all()


def test_all_years_of_a_place_share_block_and_role():
    tiles = make_tiles(years=3)
    # one year of every place is centred 0.4 degrees away: across block borders and buffer edges
    tiles.loc[2::3, "lon"] += 0.4
    drawn = split_blocks(tiles, **DRAW)
    assert (drawn.groupby(tiles["place"])[["block", "role"]].nunique() == 1).all(axis=None)
    first = tiles.sort_values("tile_id").drop_duplicates("place")
    expected = assign_blocks(first["lat"], first["lon"], 5)
    assert drawn.loc[first.index, "block"].tolist() == expected.tolist()


def test_regions_go_whole_to_one_side_with_a_buffer_between():
    tiles = make_tiles(years=2)
    drawn = split_units(tiles, make_regions(tiles), **REGIONS)
    assert (drawn["block"] == make_regions(tiles)).all()
    used = drawn[drawn["role"] != "buffer"]
    assert (used.groupby("block")["role"].nunique() == 1).all()
    role = drawn["role"]
    for one, other in (("train", "test"), ("validation", "test"), ("train", "validation")):
        assert distances_km(tiles[role == one], tiles[role == other]).min() >= 100
    assert (role[drawn["block"].isin(drawn.loc[role == "test", "block"])] == "test").all()


def test_regions_are_each_tested_once():
    tiles = make_tiles()
    region = make_regions(tiles)
    tests = [split_units(tiles, region, **REGIONS | {"fold": f})["role"] == "test" for f in range(4)]
    assert (np.sum(tests, axis=0) == 1).all()


def test_training_keeps_from_locked_tiles_and_test_does_not():
    tiles = make_tiles()
    free = split_blocks(tiles, **DRAW)["role"]
    test = tiles[free == "test"].iloc[0]
    near_train = tiles[free == "train"].iloc[0]
    locked = pd.DataFrame([test, near_train])[["lat", "lon"]] + 0.01
    for drawn in (
        split_blocks(tiles, **DRAW, keep_from=locked),
        split_units(tiles, make_regions(tiles), **REGIONS, keep_from=locked),
    ):
        role = drawn["role"]
        assert role[near_train.name] in ("buffer", "test")
        learned = tiles[role.isin(["train", "validation"])]
        assert nearest_km(learned.lat, learned.lon, locked.lat, locked.lon).min() > 100
    kept = split_blocks(tiles, **DRAW, keep_from=locked)["role"]
    assert (kept[free == "test"] == "test").all() and kept[near_train.name] == "buffer"
    changed = tiles[(kept != free).to_numpy()]
    assert (nearest_km(changed.lat, changed.lon, locked.lat, locked.lon) <= 100).all()


def test_row_order_changes_nothing():
    tiles = make_tiles(years=2)
    shuffled = tiles.sample(frac=1, random_state=5)
    regions = make_regions(tiles)
    for draw in (
        lambda rows: split_blocks(rows, **DRAW),
        lambda rows: split_units(rows, regions[rows.index], **REGIONS),
    ):
        pd.testing.assert_frame_equal(draw(shuffled).sort_index(), draw(tiles))


def test_hash_seed_changes_nothing():
    code = (
        "import hashlib\n"
        "from tests.core.splits.test_spatial_temporal import *\n"
        "tiles = make_tiles()\n"
        "blocks = split_blocks(tiles, **DRAW)\n"
        "drawn = [blocks, split_units(tiles, make_regions(tiles), **REGIONS)]\n"
        "print(hashlib.sha256(pd.concat(drawn).to_csv().encode()).hexdigest())"
    )
    assert len(printed(code)) == 1


def test_a_buffer_below_the_diagonal_is_refused_with_both_numbers():
    with pytest.raises(ParamsError, match=r"`buffer_km`: found 79.5, expected at least 80"):
        split_blocks(make_tiles(), **DRAW | {"buffer_km": 79.5})
    with pytest.raises(ParamsError, match=r"`buffer_km`: found 0, expected at least 80"):
        split_units(make_tiles(), make_regions(make_tiles()), **REGIONS | {"buffer_km": 0})
    split_blocks(make_tiles(), **DRAW | {"buffer_km": 80})


def test_tiles_without_coordinates_have_no_block_and_refuse_spatial_splits():
    tiles = make_tiles()
    spatial_temporal.require_coordinates(tiles)
    tiles.loc[3, ["lat", "lon"]] = np.nan
    with pytest.raises(DataError, match=r"1 tiles without coordinates .*c003.*refuse spatial splits"):
        spatial_temporal.require_coordinates(tiles)
    blocks = spatial_temporal.blocks_of_places(tiles, 5)
    assert blocks.index[blocks == ""].tolist() == [3]


def test_too_few_blocks_are_counted():
    with pytest.raises(DataError, match="found 4 blocks of 45 degrees, expected at least 5"):
        split_blocks(make_tiles(), **DRAW | {"degrees": 45})


def test_a_buffer_around_all_places_is_refused():
    with pytest.raises(DataError, match=r"all \d+ places outside the test fold lie within `buffer_km` = 900 km"):
        split_blocks(make_tiles(), **DRAW | {"buffer_km": 900, "folds": 2})
    tiles = make_tiles()
    with pytest.raises(DataError, match=r"within `buffer_km` = 100 km of the test fold or locked tiles"):
        split_blocks(tiles, **DRAW, keep_from=tiles[["lat", "lon"]])


def test_a_buffer_that_empties_one_role_names_it():
    """Three towns, two of them 50 km apart: whenever these train and validate, nothing is left to train on."""
    tiles = make_tiles(3).assign(lat=0.1, lon=[0.1, 0.55, 30.0])
    found = []
    for fold in range(3):
        with pytest.raises(DataError) as error:
            split_blocks(tiles, degrees=0.4, buffer_km=100, folds=3, fold=fold, seed=0)
        found.append(str(error.value))
    assert sum("found nothing for train, expected at least one of each" in message for message in found) == 1


def test_regions_that_cannot_be_divided_are_named():
    place = make_tiles()["place"]
    with pytest.raises(DataError, match="the region Hebei holds all 300 places"):
        spatial_temporal.require_regions(place, pd.Series("Hebei", index=place.index))
    three = pd.Series(np.resize(["Hebei", "Henan", "Hubei"], 300), index=place.index)
    spatial_temporal.require_regions(place, three)
    for missing in (three.iloc[1:].reindex(place.index), three.where(place.index > 0, "")):
        with pytest.raises(DataError, match=r"1 places without a region \(p0/c000\)"):
            spatial_temporal.require_regions(place, missing)
    twice = make_tiles(years=2)["place"]
    with pytest.raises(DataError, match=r"300 places in two regions \(p0/c000: Hebei, Henan\)"):
        spatial_temporal.require_regions(twice, pd.Series(np.resize(["Hebei", "Henan"], 600)))


def test_a_forecast_and_its_validation_know_equally_little():
    """By hand, years 2010 to 2020: at horizon 2 and origin 2019, 2018 is the last known year and 2020 the target.

    Validation's target is 2018; with the same horizon its last known year is 2016, and training ends there.
    """
    years = np.arange(2010, 2021)
    role = spatial_temporal.split_years(years, origin=2019, horizon=2, step=1)
    assert role.tolist() == ["train"] * 5 + ["train", "train", "buffer", "validation", "buffer", "test"]
    role = spatial_temporal.split_years(years, origin=2019, horizon=1, step=1)
    assert role.tolist() == ["train"] * 8 + ["validation", "test", "buffer"]
    role = spatial_temporal.split_years(np.array([1990, 2020, 2000, 2010, 2000]), origin=2010, horizon=1, step=10)
    assert role.tolist() == ["train", "buffer", "validation", "test", "validation"]


@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_every_feasible_origin_can_be_drawn_and_no_other(horizon):
    years = np.array([1990, 1995, 2000, 2005, 2010, 2015, 2020, 2020])
    feasible = spatial_temporal.feasible_origins(years, horizon, spatial_temporal.panel_step(years))
    drawn = []
    for origin in range(1980, 2040):
        try:
            role = spatial_temporal.split_years(years, origin=origin, horizon=horizon, step=5)
            drawn.append(origin)
        except DataError:
            continue
        assert years[role == "train"].max() + horizon * 5 <= years[role == "validation"].min() < origin
    assert feasible == drawn == list(range(1990 + 5 * (horizon + 1), 2021 - 5 * (horizon - 1), 5))


def test_a_gap_in_the_panel_leaves_the_origins_it_allows():
    # without 2013 there is no test in 2013, and no validation for the test of 2014
    years = np.array([2010, 2011, 2012, 2014, 2015])
    assert spatial_temporal.feasible_origins(years, 1, 1) == [2012, 2015]


def test_a_horizon_beyond_the_panel_names_years_and_steps():
    with pytest.raises(DataError, match=r"`horizon` 3 is beyond .*\[2010, 2015, 2020\].*at least 6 steps of 5 years"):
        spatial_temporal.feasible_origins(np.array([2020, 2010, 2015]), 3, 5)
    with pytest.raises(DataError, match=r"`origin` 2010, `horizon` 1: found nothing for train and validation"):
        spatial_temporal.split_years(np.array([2010, 2015]), origin=2010, horizon=1, step=5)


def test_the_step_of_a_panel_and_its_absence():
    assert spatial_temporal.panel_step(np.array([2020, 2000, 2010, 2000, 2015])) == 5
    with pytest.raises(DataError, match=r"task without years: found \[2020\], expected at least two"):
        spatial_temporal.panel_step(np.array([2020, 2020]))


def test_place_and_year_must_both_be_unseen():
    roles = ["train", "validation", "test"]
    place = pd.Series([role for role in [*roles, "buffer", "locked"] for _ in range(4)], index=range(3, 23))
    year = pd.Series([*roles, "buffer"] * 5, index=range(3, 23))
    expected = ["train"] + ["buffer"] * 4 + ["validation"] + ["buffer"] * 4 + ["test"] + ["buffer"] * 7
    assert spatial_temporal.combine(place, year).tolist() == [*expected, "locked", "buffer"]
    assert spatial_temporal.combine(place, year).index.tolist() == list(range(3, 23))
    without = ~((place == "test") & (year == "test"))
    with pytest.raises(DataError, match=r"19 rows whose place and year .* found nothing for test, "):
        spatial_temporal.combine(place[without], year[without])
