import numpy as np
import pandas as pd
import pytest

from src.core.evaluation.permutation import permutation_p_value, permute_roles, permute_trajectories


def panel(places=12, years=(2000, 2005, 2010)):
    place = np.repeat([f"p{number:02d}" for number in range(places)], len(years))
    year = np.tile(years, places)
    return np.random.default_rng(0).normal(size=len(place)), place, year


def test_a_balanced_panel_is_permuted_within_each_year_and_places_stay_whole():
    y, place, year = panel()
    drawn = permute_trajectories(y, place, year, np.random.default_rng(1))
    for one in np.unique(year):
        assert sorted(drawn[year == one]) == sorted(y[year == one])
    before, after = y.reshape(-1, 3), drawn.reshape(-1, 3)
    donors = [int(np.flatnonzero((before == trajectory).all(axis=1)).item()) for trajectory in after]
    assert sorted(donors) == list(range(12)) and all(donor != number for number, donor in enumerate(donors))


def test_a_year_that_the_donor_lacks_is_its_mean_deviation_plus_the_year_mean():
    # Two places: each is the other's donor. b lacks 2010; year means are 2, 5 and 9; b deviates by 1 and 2.
    y, place, year = np.array([1.0, 3, 9, 3, 7]), np.array(list("aaabb")), np.array([2000, 2005, 2010, 2000, 2005])
    drawn = permute_trajectories(y, place, year, np.random.default_rng(0))
    assert drawn.tolist() == [3, 7, 9 + 1.5, 1, 3]


def test_row_order_changes_nothing_and_the_only_place_keeps_its_labels():
    y, place, year = panel()
    order = np.random.default_rng(2).permutation(len(y))
    drawn = permute_trajectories(y, place, year, np.random.default_rng(1))
    again = permute_trajectories(y[order], place[order], year[order], np.random.default_rng(1))
    np.testing.assert_allclose(again, drawn[order], rtol=1e-12)
    assert permute_trajectories(y[:3], place[:3], year[:3], np.random.default_rng(1)).tolist() == y[:3].tolist()


def test_every_donor_is_equally_likely():
    place, year = np.array(list("abcd")), np.zeros(4, int)
    generator = np.random.default_rng(0)
    donors = [int(permute_trajectories(np.arange(4.0), place, year, generator)[0]) for _ in range(3000)]
    assert np.bincount(donors, minlength=4) == pytest.approx([0, 1000, 1000, 1000], abs=100)


def role_rows(role):
    y, place, year = panel()
    return pd.DataFrame({"role": role(place, year), "place": place, "time": year, "target": y})


def permuted(rows, **given):
    return permute_roles(*(rows[name].to_numpy() for name in ("target", "place", "time", "role")), **given)


def test_roles_with_different_places_are_permuted_apart_and_other_roles_stay():
    rows = role_rows(lambda place, _: np.select([place < "p06", place < "p09"], ["train", "validation"], "test"))
    drawn = permuted(rows, seed=0, draw=3)
    for role in ("train", "validation"):
        here = rows.role == role
        assert sorted(drawn[here]) == sorted(rows.target[here])
        assert not np.any(drawn[here] == rows.target[here])
    assert (drawn == rows.target)[rows.role == "test"].all()
    assert np.array_equal(drawn, permuted(rows, seed=0, draw=3))
    assert not np.array_equal(drawn, permuted(rows, seed=0, draw=4))
    assert not np.array_equal(drawn, permuted(rows, seed=1, draw=3))


def test_roles_that_share_places_share_the_permutation():
    rows = role_rows(lambda _, year: np.select([year < 2005, year < 2010], ["train", "validation"], "test"))
    drawn = permuted(rows, seed=0, draw=0)
    known = (rows.time < 2010).to_numpy()
    before, after = (values[known].reshape(-1, 2) for values in (rows.target.to_numpy(), drawn))
    assert {tuple(pair) for pair in before} == {tuple(pair) for pair in after}  # each donor gives both its years


def test_p_value_counts_the_observed_and_ties():
    assert permutation_p_value(0.5, np.array([0.1, 0.5, 0.6, 0.2])) == 3 / 5
    assert permutation_p_value(1.0, np.zeros(99)) == 1 / 100
    assert permutation_p_value(-1.0, np.zeros(99)) == 1


def test_p_values_under_the_null_are_uniform():
    generator = np.random.default_rng(0)
    found = [permutation_p_value(*np.split(draw, [1])) for draw in generator.normal(size=(2000, 20))]
    assert np.mean(np.array(found) <= 0.1) == pytest.approx(0.1, abs=0.02)
