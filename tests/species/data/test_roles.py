"""Roles: years and squares by hand, what lies between them, and splits that cannot be made."""

import re

import numpy as np
import pandas as pd
import pytest

from src.core.geo.distances import nearest_km
from src.core.stage.errors import DataError, ParamsError
from src.species.data import roles
from tests.species.places import day, make_observations, make_params

WHERE = "store/index.parquet"


def draw(changes=None, observations=None):
    observations = make_observations() if observations is None else observations
    return observations, roles.draw(observations, make_params(changes).split, WHERE)


def test_periods_by_hand():
    split = make_params({"split.gap_days": 30}).split  # trains from 2010, validates 2019, tests from 2020
    by_hand = [
        ("2009-12-31", "2009-12-31", ""),
        ("2009-12-31", "2010-01-02", ""),
        ("2010-01-01", "2010-01-01", "train"),
        ("2018-12-01", "2018-12-01", "train"),  # 30 days before the year of validation: 2 to 31 December
        ("2018-12-01", "2018-12-02", ""),
        ("2018-12-31", "2018-12-31", ""),
        ("2018-12-31", "2019-01-01", ""),
        ("2018-06-01", "2019-06-01", ""),
        ("2019-01-01", "2019-12-01", "validation"),
        ("2019-01-01", "2019-12-02", ""),
        ("2019-01-01", "2019-12-31", ""),  # known by its year alone
        ("2019-12-31", "2020-01-01", ""),
        ("2020-01-01", "2020-12-31", "test"),
        ("2024-05-01", "2025-05-01", "test"),
    ]
    first, last = (np.array([day(row[i]) for row in by_hand]) for i in (0, 1))
    assert roles.periods(first, last, split).tolist() == [row[2] for row in by_hand]
    whole = make_params({"split.gap_days": 0}).split
    first, last = np.array([[day(f"{year}-01-01"), day(f"{year}-12-31")] for year in (2018, 2019, 2020)]).T
    assert roles.periods(first, last, whole).tolist() == ["train", "validation", "test"]


def test_every_pair_of_place_and_period_gets_its_role():
    observations, drawn = draw({"split.gap_days": 30})
    table, split = drawn.table, make_params().split
    period = roles.periods(observations["first_day"], observations["last_day"], split)
    expected = {
        ("test", "train"): "test/spatial",
        ("test", "test"): "test/both",
        ("validation", "train"): "validation/spatial",
        ("validation", "validation"): "validation/both",
        ("", "train"): "train/",
        ("", "validation"): "validation/temporal",
        ("", "test"): "test/temporal",
    }
    use = np.array([*drawn.squares["use"], ""], dtype=object)[table["square"]]
    uncertain = observations["uncertainty_m"] > 1000
    found = table["role"] + "/" + table["kind"]
    by_hand = np.array([expected.get(pair, "buffer/") for pair in zip(use, period, strict=True)], dtype=object)
    by_hand[uncertain] = "uncertain/"
    near = (by_hand != found) & (table["square"] < 0)
    assert (by_hand == found)[~near].all() and (found[near] == "buffer/").all() and near.sum() > 50
    assert set(found) == {*expected.values(), "buffer/", "uncertain/"}  # the seven, and both others, occur
    # what the buffer took is near a square, and what it left is not
    corner = nearest_km(observations["lat"], observations["lon"], drawn.squares["lat"], drawn.squares["lon"])
    assert corner[near].max() <= 5 + 5 * np.sqrt(2) + 1e-3
    assert corner[table["role"] == "train"].min() > 10
    assert sum(drawn.facts["buffer"].values()) == (table["role"] == "buffer").sum()
    assert drawn.facts["unknown_uncertainty"] == observations["uncertainty_m"].isna().sum() > 0


def test_test_squares_come_first_and_count_usable_records():
    observations, drawn = draw()
    squares, table = drawn.squares, drawn.table
    assert squares["use"].tolist() == ["test"] * 4 + ["validation"] * 3
    period = roles.periods(observations["first_day"], observations["last_day"], make_params().split)
    usable = observations[(period != "") & ~(observations["uncertainty_m"] > 1000)]
    records = usable.groupby(table["square"])["gbif_id"].nunique()  # 110 images of 100 records are 100 points
    assert [records[k] for k in range(7)] == squares["points"].tolist()
    assert squares["points"].min() >= 10


def test_images_of_a_record_stay_together():
    observations, drawn = draw()
    both = drawn.table.groupby(observations["gbif_id"])["role"].agg(["size", "nunique"])
    assert (both["size"] == 2).sum() == 300 and (both["nunique"] == 1).all()
    first = int(np.flatnonzero((drawn.table["role"] == "test") & (observations["image_index"] == 1))[0])
    train = drawn.table.index[drawn.table["role"] == "train"][0]
    columns = ["lat", "lon", "first_day", "last_day", "year", "uncertainty_m"]
    observations.loc[first, columns] = observations.loc[train, columns]
    with pytest.raises(DataError, match=rf"gbif_id: found 1 records, {observations.gbif_id[first]} for example"):
        draw(observations=observations)


def test_distances_and_cells():
    observations, drawn = draw()
    table = drawn.table
    held_out = table["role"].isin(["test", "validation"])
    assert (table["nearest_train_km"].notna() == held_out).all()
    train = observations[table["role"] == "train"]
    row = table.index[table["role"] == "test"][5]
    at = observations.loc[[row] * len(train)]
    km = nearest_km(at["lat"], at["lon"], train["lat"], train["lon"])[0]
    assert table.loc[row, "nearest_train_km"] == pytest.approx(km)
    assert table.loc[table["kind"].isin(["spatial", "both"]), "nearest_train_km"].min() > 5
    assert 30 < table["cell"].nunique() < len(table) / 5


def test_the_order_of_rows_changes_nothing():
    observations, drawn = draw()
    order = np.random.default_rng(0).permutation(len(observations))
    _, other = draw(observations=observations.iloc[order].reset_index(drop=True))
    pd.testing.assert_frame_equal(drawn.squares, other.squares)
    pd.testing.assert_frame_equal(drawn.table.iloc[order].reset_index(drop=True), other.table)


def test_too_many_squares_are_refused_with_the_number_that_fits():
    message = r"split.squares 400 \+ split.validation_squares 3: squares: found no way to more than \d+ of"
    with pytest.raises(DataError, match=message) as error:
        draw({"split.squares": 400})
    most = int(str(error.value).split("ask for at most ")[1].split(",")[0])
    assert str(error.value).startswith(WHERE) and "split.apart_km" in str(error.value)
    assert "split.squares and split.validation_squares together" in str(error.value)
    _, drawn = draw({"split.squares": most - 3, "split.buffer_km": 2})
    assert len(drawn.squares) == most


def test_a_minimum_that_no_square_may_hold_is_refused():
    message = r"split.minimum 200 is more than split.maximum_share 0.05 x (\d+) records = (\d+), .* raise the other"
    with pytest.raises(DataError, match=message) as error:
        draw({"split.minimum": 200, "split.maximum_share": 0.05})
    assert str(error.value).startswith(WHERE)
    records, most = map(int, re.search(message, str(error.value)).groups())
    assert 2000 < records <= 3000 and most == int(0.05 * records)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split.test_from": 2010}, "split.test_from: found 2010, expected at least two years after train_from 2010"),
        ({"split.buffer_km": 20.0}, "split.buffer_km: found 20, which reaches beyond apart_km 15"),
        ({"split.buffer_km": 1.5}, "split.buffer_km: found 1.5, expected at least 2, for two records may each be"),
    ],
)
def test_rules_between_keys_show_those_keys_alone(changes, message):
    with pytest.raises(ParamsError, match=rf"params\.yaml: {message}") as error:
        make_params(changes)
    assert "{" not in str(error.value) and "gap_days" not in str(error.value)


def test_a_missing_buffer_is_a_demonstration():
    assert draw({"split.buffer_km": 2})[1].facts["demonstration"] is False
    _, drawn = draw({"split.buffer_km": 0})
    assert drawn.facts["demonstration"] is True and drawn.facts["buffer"]["near a square"] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split.test_from": 2030}, "found records of 2008 to 2021, expected some of split.test_from 2030 or later"),
        ({"split.train_from": 2000, "split.test_from": 2008}, "expected some from 2007 to 2007 for validation"),
        ({"split.train_from": 2005, "split.test_from": 2009}, "expected some from 2005 to 2007 for train"),
    ],
)
def test_empty_years_are_refused_by_name(changes, message):
    with pytest.raises(DataError, match=message):
        draw(changes)


def test_years_alone_need_no_gap():
    observations = make_observations()
    for column, end in (("first_day", "01-01"), ("last_day", "12-31")):
        observations[column] = [day(f"{year}-{end}") for year in observations["year"]]
    message = r"from 2019 to 2019, (\d+) of them known by their year alone.*split.gap_days: 0"
    with pytest.raises(DataError, match=message) as error:
        draw(observations=observations)
    certain = ~(observations["uncertainty_m"] > 1000)
    assert f" {((observations['year'] == 2019) & certain).sum()} of them known" in str(error.value)
    _, drawn = draw({"split.gap_days": 0}, observations)
    assert 0 < drawn.facts["buffer"]["before training or in a gap of days"] <= (observations["year"] < 2010).sum()
    assert (observations.loc[drawn.table["kind"] == "temporal", "year"] >= 2019).all()


def test_places_that_are_all_too_uncertain_are_refused():
    with pytest.raises(DataError, match=r"uncertainty_m: found none of 3300 observations within"):
        draw(observations=make_observations().assign(uncertainty_m=5000.0))


def test_a_kind_without_observations_is_refused():
    observations = make_observations()
    _, drawn = draw(observations=observations)
    temporal = (drawn.table["role"] == "validation") & (drawn.table["kind"] == "temporal")
    # the same squares, because they hold what they held; but nothing else of that year
    with pytest.raises(DataError, match="found no observation for validation/temporal"):
        draw(observations=observations[~temporal].reset_index(drop=True))
