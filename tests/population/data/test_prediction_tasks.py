"""Tasks: who may know what, told from the roles that labels and tiles get."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from src.core.splits import locked_test
from src.core.stage.errors import DataError
from src.population.data import prediction_tasks

YEARS = range(2014, 2021)


def panel(places: int = 60, years=YEARS, lag: int = 0) -> SimpleNamespace:
    """A store's tables: places on a grid 3 degrees apart in 6 provinces, a tile each year, labels `lag` years later."""
    keys = [(place, year) for place in range(places) for year in years]
    tiles = pd.DataFrame(
        {
            "tile": range(len(keys)),
            "province": [f"P{place % 6}" for place, _ in keys],
            "city": [f"c{place:02d}" for place, _ in keys],
            "year": [year for _, year in keys],
            "lat": [20.0 + 3 * (place // 10) for place, _ in keys],
            "lon": [80.0 + 3 * (place % 10) for place, _ in keys],
            "half_diagonal_km": 20.0,
        }
    )
    tiles.insert(1, "tile_id", tiles.province + "/" + tiles.city + "/" + tiles.year.astype(str))
    samples = tiles.drop(columns="half_diagonal_km").assign(
        year=tiles.year + lag, growth_rate=np.random.default_rng(0).normal(0, 5, len(tiles))
    )
    samples.insert(0, "sample", range(len(samples)))
    return SimpleNamespace(tiles=tiles, samples=samples, folder="store")


def drawn(store, make_params, **changes) -> prediction_tasks.Roles:
    changes = {f"split.{key}": value for key, value in ({"buffer_km": 50} | changes).items()}
    return prediction_tasks.draw(store, make_params({"data.tile_lag": 3} | changes).split)


def years_of(samples: pd.DataFrame, role: str) -> set[int]:
    return set(samples.year[samples.role == role])


def places_of(samples: pd.DataFrame, *roles: str) -> set[str]:
    return set(samples.place[samples.role.isin(roles)])


def test_new_place_keeps_all_years_of_a_place_together(make_params):
    roles = drawn(panel(), make_params)
    assert (roles.samples.groupby("place").role.nunique() == 1).all()
    assert (roles.tiles.role.to_numpy() == roles.samples.role.to_numpy()).all()
    assert roles.facts["origin"] is None and roles.facts["step_years"] == 1


def test_next_year_shares_places_and_knows_nothing_from_the_origin_on(make_params):
    roles = drawn(panel(lag=1), make_params, task="next_year", horizon=1)
    samples = roles.samples
    assert roles.facts["origin"] == 2021  # labels run from 2015 to 2021
    assert years_of(samples, "test") == {2021} and years_of(samples, "validation") == {2020}
    assert years_of(samples, "train") == {2015, 2016, 2017, 2018, 2019}
    assert places_of(samples, "test") == places_of(samples, "train")
    used = samples[samples.role != "buffer"]
    assert (used.tile_year < 2021).all()
    assert set(roles.tiles.year[roles.tiles.role == "train"]) == {2014, 2015, 2016, 2017, 2018}


def test_origins_roll_and_horizons_leave_a_gap(make_params):
    store = panel(lag=2)  # labels 2016 to 2022
    roles = drawn(store, make_params, task="next_year", horizon=2, origin=2020)
    assert years_of(roles.samples, "test") == {2021}
    assert years_of(roles.samples, "validation") == {2019}  # the last known year, itself two steps from its origin
    assert years_of(roles.samples, "train") == {2016, 2017}
    assert (roles.samples.tile_year[roles.samples.role != "buffer"] < 2020).all()
    assert roles.facts["origins"] == [2019, 2020, 2021] and roles.facts["fold"] == 1
    assert drawn(store, make_params, task="next_year", horizon=2, fold=2).facts["origin"] == 2019
    with pytest.raises(DataError, match=r"split\.fold: found 3, expected less than 3"):
        drawn(store, make_params, task="next_year", horizon=2, fold=3)
    assert roles.facts["folds"] == 3
    with pytest.raises(DataError, match=r"split.origin: found 2022, expected one of \[2019, 2020, 2021\]"):
        drawn(store, make_params, task="next_year", horizon=2, origin=2022)


def test_new_place_and_year_shares_neither(make_params):
    samples = drawn(panel(lag=1), make_params, task="new_place_and_year").samples
    assert not places_of(samples, "train") & places_of(samples, "test", "validation")
    assert not places_of(samples, "validation") & places_of(samples, "test")
    assert years_of(samples, "test") == {2021} and years_of(samples, "validation") == {2020}
    assert max(years_of(samples, "train")) == 2019


def test_change_predicts_deviations_and_leaves_single_years_out(make_params):
    store = panel()
    store.samples = store.samples[(store.samples.city != "c03") | (store.samples.year == 2016)]
    samples = drawn(store, make_params, task="change").samples
    assert "P3/c03" not in set(samples.place)
    assert samples.groupby("place").growth_rate.mean().abs().max() < 1e-9
    before = store.samples.set_index("sample").growth_rate
    differences = samples.growth_rate - before[samples["sample"]].to_numpy()
    assert differences.groupby(samples.place).std().max() < 1e-9
    with pytest.raises(DataError, match="found one label for each place"):
        drawn(panel(years=[2014]), make_params, task="change")


def test_locked_provinces_are_in_no_other_role(make_params):
    store = panel()
    places = store.tiles.assign(place=store.tiles.province + "/" + store.tiles.city, region=store.tiles.province)
    places = places.drop_duplicates("place")[["place", "region"]]
    regions = locked_test.draw_locked(places)
    digest = locked_test.lock_hash(places, regions)
    samples = drawn(store, make_params, lock=digest).samples
    locked = samples[samples.province.isin(regions)]
    assert set(locked.role) == {"locked"} and "locked" not in set(samples.role[~samples.province.isin(regions)])
    assert locked.place.nunique() >= 0.2 * len(places)
    # In a forecast only the years to predict are locked; their past is the place's own and trains nobody.
    samples = drawn(panel(lag=1), make_params, lock=digest, task="next_year").samples
    locked = samples[samples.province.isin(regions)]
    assert set(locked.role) == {"locked", "buffer"} and years_of(locked, "locked") == {2021}
    tiles = drawn(panel(lag=1), make_params, lock=digest, task="next_year").tiles
    assert set(tiles.role[tiles.province.isin(regions)]) == {"locked"}, "pretraining sees none of them"
    with pytest.raises(DataError, match=r"params.yaml: `lock`: expected"):
        drawn(panel(places=59), make_params, lock=digest)


def test_whole_provinces_are_held_out(make_params):
    store = panel()
    store.tiles["province"] = [f"P{int(lon)}" for lon in store.tiles.lon]  # columns of the grid
    store.samples["province"] = store.tiles.province
    samples = drawn(store, make_params, method="provinces").samples
    assert (samples[samples.role != "buffer"].groupby("province").role.nunique() == 1).all()
    assert (samples.block == samples.province).all()
    samples = drawn(store, make_params, method="provinces", task="next_year").samples
    assert (samples.block == samples.province).all()  # the largest correlated unit, in a forecast too
    for provinces, message in (
        (["P0"], "the region P0 holds all 60 places"),
        ([f"P{place % 6}" for place in range(60)], r"found 6 regions \(P0, P1, P2, P3, P4, …\), expected at least 7"),
    ):
        store.tiles["province"] = store.samples["province"] = np.repeat(np.resize(provinces, 60), len(YEARS))
        with pytest.raises(DataError, match=message):
            drawn(store, make_params, method="provinces", folds=7)


def test_places_without_coordinates_are_split_by_place_alone(make_params):
    store = panel()
    store.tiles.loc[store.tiles.city == "c03", ["lat", "lon"]] = np.nan
    with pytest.raises(DataError, match="7 tiles without coordinates"):
        drawn(store, make_params)
    roles = drawn(store, make_params, method="place")
    assert (roles.tiles.groupby("place")[["block", "role"]].nunique() == 1).all(axis=None)
    assert set(roles.tiles.block[roles.tiles.city == "c03"]) == {""}
    assert set(roles.tiles.role) == {"train", "validation", "test"}
    with pytest.raises(DataError, match=r"found 2 blocks of 20 degrees, expected at least 4 .*lower `block_degrees`"):
        drawn(panel(), make_params, block_degrees=20)


def test_refusals_of_time(make_params):
    with pytest.raises(DataError, match="year"):
        drawn(panel(years=[2014]), make_params, task="next_year")
    with pytest.raises(DataError, match="horizon"):
        drawn(panel(years=[2014, 2015, 2016], lag=3), make_params, task="next_year", horizon=3)
