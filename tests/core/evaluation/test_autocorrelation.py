import numpy as np
import pytest

from src.core.evaluation import autocorrelation
from tests.panels import clustered

KEYS = {"n_units_place", "n_units_block", "morans_i", "morans_i_p", "icc_place", "icc_block", "n_effective"}


def test_icc_by_hand():
    # means 2 and 6 of groups of 2 and 3: between 19.2, within (2 + 2) / 3, typical size 5 - 13/5 = 2.4
    values, groups = np.array([1.0, 3.0, 5.0, 6.0, 7.0]), np.array(["a", "a", "b", "b", "b"])
    assert autocorrelation.icc(values, groups) == pytest.approx((19.2 - 4 / 3) / (19.2 + 1.4 * 4 / 3))
    assert autocorrelation.icc(np.array([1.0, 1.0, 2.0, 2.0]), np.array([0, 0, 1, 1])) == 1.0
    # the groups are more alike than chance would make them
    assert autocorrelation.icc(np.array([0.0, 1.0, 0.0, 1.0]), np.array([0, 0, 1, 1])) == 0.0


def test_icc_is_none_where_it_is_not_defined():
    assert autocorrelation.icc(np.arange(4.0), np.arange(4)) is None
    assert autocorrelation.icc(np.arange(4.0), np.zeros(4)) is None
    assert autocorrelation.icc(np.ones(4), np.array([0, 0, 1, 1])) is None


@pytest.mark.parametrize("share", [0.0, 0.4, 0.8])
def test_icc_of_unequal_groups_recovers_the_simulated_share(share):
    drawn = clustered(np.random.default_rng(0), 4000, share)
    assert autocorrelation.icc(drawn.y - drawn.a, drawn.unit) == pytest.approx(share, abs=0.03)


def test_effective_size_by_hand():
    groups = np.repeat([0, 1, 2], [1, 2, 5])
    assert autocorrelation.effective_size(groups, 0.0) == 8
    assert autocorrelation.effective_size(groups, 0.5) == pytest.approx(8 / (1 + (30 / 8 - 1) * 0.5))
    # of equal groups whose rows are copies, as many as there are groups
    assert autocorrelation.effective_size(np.repeat(np.arange(6), 4), 1.0) == pytest.approx(6)


def test_effective_size_is_what_the_mean_varies_like():
    generator = np.random.default_rng(1)
    means, effective = [], []
    for _ in range(2000):
        drawn = clustered(generator, 30, 0.6)
        means.append(np.mean(drawn.y - drawn.a))
        effective.append(autocorrelation.effective_size(drawn.unit, 0.6))
    assert np.var(means) == pytest.approx(0.7 * np.mean(1 / np.array(effective)), rel=0.12)


def test_morans_i_by_hand():
    # two towns of 9 places each, far apart: the 8 nearest of each place are the rest of its town
    lat = np.concatenate([10 + np.arange(9) * 0.01, -40 + np.arange(9) * 0.01])
    lon = np.concatenate([np.full(9, 179.99), np.full(9, 20.0)])
    lon[:4] = -179.99  # one town lies across the date line
    found = autocorrelation.morans_i(np.repeat([1.0, -1.0], 9), lat, lon, seed=0)
    assert found == pytest.approx((1.0, 1 / 1000))
    # 5 and 4 of each kind in a town, so that the neighbours' sum is a town's sum without oneself: +-1 - value
    values = np.where(np.arange(18) % 2 == 0, 1.0, -1.0)
    centred = values - values.mean()
    town = np.repeat([values[:9].sum(), values[9:].sum()], 9)
    expected = np.sum(centred * ((town - values) / 8 - values.mean())) / np.sum(centred**2)
    assert autocorrelation.morans_i(values, lat, lon, seed=0)[0] == pytest.approx(expected)


def test_morans_i_tells_a_field_from_noise_and_its_p_value_is_uniform_without_one():
    generator = np.random.default_rng(0)
    lat, lon = generator.uniform(25, 45, 110), generator.uniform(-120, -80, 110)
    field = np.sin(lat / 4) + np.cos(lon / 5)
    found = autocorrelation.morans_i(field + generator.normal(0, 0.5, 110), lat, lon, seed=0)
    assert found[0] > 0.4 and found[1] == 1 / 1000
    p = [autocorrelation.morans_i(generator.normal(0, 1, 110), lat, lon, seed=draw)[1] for draw in range(200)]
    assert 0.01 <= np.mean(np.array(p) <= 0.05) <= 0.1 and 0.4 <= np.mean(p) <= 0.6


def test_morans_i_of_few_or_equal_places_is_none_and_of_one_point_is_defined():
    where = np.arange(12.0)
    assert autocorrelation.morans_i(np.arange(9.0), where[:9], where[:9], seed=0) is None
    assert autocorrelation.morans_i(np.ones(12), where, where, seed=0) is None
    assert np.isfinite(autocorrelation.morans_i(np.arange(12.0), np.zeros(12), np.zeros(12), seed=0)[0])


def test_describe_gives_every_key_and_none_where_nothing_is_known():
    drawn = clustered(np.random.default_rng(0), 20, 0.8)
    lat, lon = 30 + drawn.place * 0.1, 100 + drawn.place * 0.07
    found = autocorrelation.describe(drawn.y, drawn.a, drawn.place, drawn.unit, lat, lon, seed=0)
    assert set(found) == KEYS and None not in found.values()
    assert found["n_units_block"] == 20 and found["n_units_place"] == len(np.unique(drawn.place))
    assert found["n_effective"] < len(drawn.y) / 3 and found["morans_i_p"] <= 0.05
    order = np.random.default_rng(1).permutation(len(drawn.y))
    columns = (drawn.y, drawn.a, drawn.place, drawn.unit, lat, lon)
    again = autocorrelation.describe(*(column[order] for column in columns), seed=0)
    assert again == pytest.approx(found)
    nowhere = np.full(len(drawn.y), np.nan)
    bare = autocorrelation.describe(drawn.y, drawn.a, np.arange(len(drawn.y)), None, nowhere, nowhere, seed=0)
    assert bare["n_units_place"] == len(drawn.y) and {
        value for key, value in bare.items() if key != "n_units_place"
    } == {None}
    lat[0] = np.nan
    assert autocorrelation.describe(drawn.y, drawn.a, drawn.place, drawn.unit, lat, lon, seed=0)["morans_i"] is None
