import numpy as np
import pandas as pd
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.preprocessing import StandardScaler

from src.core.baselines import regression
from src.core.data.quantisation import Quantisation, dequantise
from src.core.stage.errors import DataError
from tests.tiles import random_pixels, write_store


def linear_problem(seed=0, rows=120, columns=6, noise=0.5):
    generator = np.random.default_rng(seed)
    features = generator.normal(2.0, [0.1, 1, 10, 1, 1, 1][:columns], (rows, columns))
    y = features @ np.array([8.0, 1, 0.1, 0, 0, -1])[:columns] + 5 + generator.normal(0, noise, rows)
    return features, y


def test_ridge_equals_scikit_learn_at_the_alpha_best_on_validation():
    features, y = linear_problem()
    train, validation = slice(0, 80), slice(80, 120)
    ridge = regression.fit_ridge(features[train], y[train], (features[validation], y[validation]))
    scaler = StandardScaler().fit(features[train])
    errors = {}
    for alpha in regression.ALPHAS:
        reference = SklearnRidge(alpha=alpha).fit(scaler.transform(features[train]), y[train])
        predicted = reference.predict(scaler.transform(features[validation]))
        errors[alpha] = np.mean((predicted - y[validation]) ** 2)
        if alpha == ridge.alpha:
            np.testing.assert_allclose(ridge.predict(features[validation]), predicted, rtol=1e-9)
    assert ridge.alpha == min(errors, key=errors.get)


def test_ridge_penalty_is_chosen_on_validation_and_not_on_training():
    features, y = linear_problem()
    ridge = regression.fit_ridge(features[:80], y[:80], (features[80:], np.full(40, y[:80].mean())))
    assert ridge.alpha == max(regression.ALPHAS)  # validation says: the mean is best


def test_ridge_gives_a_constant_band_no_weight():
    features, y = linear_problem()
    features[:, 3] = 0.1  # its mean over 80 rows is not exactly 0.1
    ridge = regression.fit_ridge(features[:80], y[:80], (features[80:], y[80:]))
    assert abs(ridge.weight[3]) < 1e-12
    features[:, 3] = 0.2
    np.testing.assert_allclose(ridge.predict(features)[80:], y[80:], atol=3)


def test_a_tile_without_a_valid_pixel_in_the_crop_is_named(tmp_path):
    valid = np.ones((1, 8, 8), bool)
    valid[0, 2:6, 2:6] = False
    store = write_store(tmp_path / "store", random_pixels(0)[None], valid=valid)
    with pytest.raises(DataError, match="province0/city0/2020: valid pixels: found none"):
        regression.band_summaries(store, np.array([0]), side=4)


@pytest.mark.parametrize("stored", [np.int8, np.float16])
def test_a_summary_is_that_of_dequantised_valid_pixels(stored):
    pixels = random_pixels(3, bands=3, height=9).astype(stored)
    valid = np.random.default_rng(0).random((9, 9)) < 0.7
    quantisation = Quantisation("alphaearth") if stored == np.int8 else Quantisation("none")
    values = dequantise(pixels, quantisation)[:, valid].astype(np.float64)
    found = regression.tile_summary(pixels, valid, quantisation)
    expected = [values.mean(axis=1), values.std(axis=1)]
    expected += list(np.quantile(values, regression.QUANTILES, axis=1, method="inverted_cdf"))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_summaries_of_a_store_begin_with_means_of_the_centre_crop_and_skip_invalid_pixels(tmp_path):
    pixels = np.stack([random_pixels(seed, bands=4, height=8) for seed in range(2)])
    valid = np.ones((2, 8, 8), bool)
    valid[0, 2:4] = False
    store = write_store(tmp_path / "store", pixels, valid=valid)
    found = regression.band_summaries(store, np.array([1, 0, 1]), side=8)
    assert found.shape == (3, regression.PER_BAND, 4)
    expected = dequantise(pixels[0], Quantisation("alphaearth"))[:, valid[0]].mean(axis=1, dtype=np.float64)
    np.testing.assert_allclose(found[1, 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(found[0], found[2])
    centre = regression.band_summaries(store, np.array([0]), side=4)
    inside = dequantise(pixels[0], Quantisation("alphaearth"))[:, 2:6, 2:6][:, valid[0, 2:6, 2:6]]
    np.testing.assert_allclose(centre[0, 0], inside.mean(axis=1, dtype=np.float64), rtol=1e-6)


def test_settings_cover_their_ranges_for_any_budget():
    assert regression.spread(1, alpha=(1, 100.0)) == [pytest.approx({"alpha": 10})]
    found = regression.spread(6, alpha=(1e-3, 1e3), rate=(1, 16.0))
    alphas, rates = ([setting[name] for setting in found] for name in ("alpha", "rate"))
    np.testing.assert_allclose(np.diff(np.log10(alphas)), 1)
    assert alphas[0] > 1e-3 and alphas[-1] < 1e3
    np.testing.assert_allclose(rates[:4], [1, 4, 2, 8])


def test_between_integers_settings_are_whole_and_tried_once():
    found = regression.spread(4, leaf=(1, 3))
    assert found == [{"leaf": 1}, {"leaf": 2}, {"leaf": 3}] and all(type(setting["leaf"]) is int for setting in found)
    assert [setting["leaf"] for setting in regression.spread(4, leaf=(1, 3), share=(0.1, 1.0))] == [1, 2, 2, 3]


def test_tuning_looks_at_labelled_rows_alone_and_reports_every_setting():
    y = np.array([1.0, 3.0, np.nan])
    best, choice = regression.tune([{"a": 0}, {"a": 2}, {"a": 2.0}], lambda setting: np.full(3, setting["a"]), y)
    assert best.tolist() == [2, 2, 2] and choice["setting"] == {"a": 2}
    assert choice["validation_r2"] == 0
    assert [tried["validation_mse"] for tried in choice["tried"]] == [5, 1, 1]


def test_the_same_decomposition_serves_other_labels():
    features, y = linear_problem()
    path = regression.RidgePath(features)
    for labels in (y, y[::-1]):
        reference = SklearnRidge(3.0).fit(StandardScaler().fit_transform(features), labels)
        expected = reference.predict(StandardScaler().fit_transform(features))
        np.testing.assert_allclose(path.solve(labels, 3.0).predict(features), expected, rtol=1e-9)


def history():
    labels = {"a": {2000: 1.0, 2005: 2.0, 2010: 6.0, 2015: 999.0}, "b": {2010: 4.0}}
    rows = [(place, year, value) for place, years in labels.items() for year, value in years.items()]
    return pd.DataFrame(rows, columns=["place", "time", "target"]).sample(frac=1, random_state=0)


def test_the_past_of_a_place_by_hand():
    rows = pd.DataFrame({"place": ["a", "b", "c"], "time": [2015, 2015, 2015]}, index=[7, 8, 9])
    found = regression.past_forecasts(history(), rows, np.full(3, 2015))
    assert found.labels.tolist() == [3, 1, 0] and found.index.tolist() == [7, 8, 9]
    assert found["last"].tolist()[:2] == [6, 4]
    assert found["mean"].tolist()[:2] == [3, 4]
    # Through (2000, 1), (2005, 2), (2010, 6): slope 0.5 a year about (2005, 3); b has one label and no slope.
    assert found.trend.tolist()[:2] == [8, 4]
    assert found.loc[9, ["last", "mean", "trend"]].isna().all()


def test_the_past_ends_before_the_limit_of_each_row():
    rows = pd.DataFrame({"place": ["a", "a", "a"], "time": [2010, 2015, 2015]})
    found = regression.past_forecasts(history(), rows, np.array([2010, 2010, 2000]))
    assert found.labels.tolist() == [2, 2, 0]
    assert found.trend.tolist()[:2] == [3, 4]


def test_kriging_equals_scikit_learn_on_repeated_places():
    generator = np.random.default_rng(0)
    where = np.repeat(regression.unit_vectors(generator.uniform(30, 40, 15), generator.uniform(0, 10, 15)), 3, axis=0)
    y, held = generator.normal(5, 2, 45), where[::5] + 0.01
    found = regression.gaussian_process(where, y, held, length=0.1, noise=0.4)
    every = GaussianProcessRegressor(Matern(0.1, nu=1.5), alpha=0.4, optimizer=None, normalize_y=True).fit(where, y)
    np.testing.assert_allclose(found, every.predict(held), rtol=1e-8)


def test_kriging_crosses_the_date_line():
    where = regression.unit_vectors(np.zeros(4), np.array([179.5, 179.0, 0.0, 1.0]))
    query = regression.unit_vectors(np.zeros(2), np.array([-179.9, 0.4]))
    found = regression.gaussian_process(where, np.array([10.0, 10, -5, -5]), query, length=0.1, noise=0.01)
    np.testing.assert_allclose(found, [10, -5], atol=0.5)
