import numpy as np
import pytest
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.preprocessing import StandardScaler

from src.core import baselines
from src.core.errors import DataError
from src.core.sensors import Quantisation, dequantise
from tests.tiles import random_pixels, write_store


def linear_problem(seed=0, rows=120, columns=6, noise=0.5):
    generator = np.random.default_rng(seed)
    features = generator.normal(2.0, [0.1, 1, 10, 1, 1, 1][:columns], (rows, columns))
    y = features @ np.array([8.0, 1, 0.1, 0, 0, -1])[:columns] + 5 + generator.normal(0, noise, rows)
    return features, y


def test_ridge_equals_scikit_learn_at_the_alpha_best_on_validation():
    features, y = linear_problem()
    train, validation = slice(0, 80), slice(80, 120)
    ridge = baselines.fit_ridge(features[train], y[train], (0.1, 10.0, 1e5), (features[validation], y[validation]))
    scaler = StandardScaler().fit(features[train])
    errors = {}
    for alpha in (0.1, 10.0, 1e5):
        reference = SklearnRidge(alpha=alpha).fit(scaler.transform(features[train]), y[train])
        predicted = reference.predict(scaler.transform(features[validation]))
        errors[alpha] = np.mean((predicted - y[validation]) ** 2)
        if alpha == ridge.alpha:
            np.testing.assert_allclose(ridge.predict(features[validation]), predicted, rtol=1e-9)
    assert ridge.alpha == min(errors, key=errors.get)


def test_ridge_penalty_is_chosen_on_validation_and_not_on_training():
    features, y = linear_problem()
    ridge = baselines.fit_ridge(features[:80], y[:80], baselines.ALPHAS, (features[80:], np.full(40, y[:80].mean())))
    assert ridge.alpha == max(baselines.ALPHAS)  # validation says: the mean is best


def test_ridge_gives_a_constant_band_no_weight():
    features, y = linear_problem()
    features[:, 3] = 0.1  # its mean over 80 rows is not exactly 0.1
    ridge = baselines.fit_ridge(features[:80], y[:80], (1.0,), (features[80:], y[80:]))
    assert abs(ridge.weight[3]) < 1e-12
    features[:, 3] = 0.2
    np.testing.assert_allclose(ridge.predict(features)[80:], y[80:], atol=3)


def test_band_means_are_dequantised_before_the_mean_and_skip_invalid_pixels(tmp_path):
    pixels = random_pixels(0, bands=4, height=8)
    pixels = np.stack([pixels, random_pixels(1, bands=4, height=8)])
    valid = np.ones((2, 8, 8), bool)
    valid[0, 2:4] = False
    store = write_store(tmp_path / "store", pixels, valid=valid)
    found = baselines.band_means(store, np.array([1, 0, 1]), side=8)
    expected = dequantise(pixels[0], Quantisation("alphaearth"))[:, valid[0]].mean(axis=1, dtype=np.float64)
    np.testing.assert_allclose(found[1], expected, rtol=1e-6)
    np.testing.assert_array_equal(found[0], found[2])
    centre = baselines.band_means(store, np.array([0]), side=4)
    inside = dequantise(pixels[0], Quantisation("alphaearth"))[:, 2:6, 2:6][:, valid[0, 2:6, 2:6]]
    np.testing.assert_allclose(centre[0], inside.mean(axis=1, dtype=np.float64), rtol=1e-6)


def test_a_tile_without_a_valid_pixel_in_the_crop_is_named(tmp_path):
    valid = np.ones((1, 8, 8), bool)
    valid[0, 2:6, 2:6] = False
    store = write_store(tmp_path / "store", random_pixels(0)[None], valid=valid)
    with pytest.raises(DataError, match="province0/city0/2020: valid pixels: found none"):
        baselines.band_means(store, np.array([0]), side=4)


def test_latlon_crosses_the_date_line_and_chooses_k_on_validation():
    lat, lon = np.zeros(4), np.array([179.5, 179.0, 0.0, 1.0])
    y = np.array([10.0, 10.0, -5.0, -5.0])
    query = baselines.unit_vectors(np.zeros(2), np.array([-179.9, 0.4]))
    model = baselines.fit_latlon(baselines.unit_vectors(lat, lon), y, (query, np.array([10.0, -5.0])))
    assert model.n_neighbors <= 2
    assert model.predict(query).tolist() == [10.0, -5.0]
    flat = baselines.fit_latlon(baselines.unit_vectors(lat, lon), y, (query, np.array([5.0, 5.0])))
    assert flat.n_neighbors == 3  # 3 neighbours err least where the truth is 5: (5, 0), not (10, -5)


def test_forest_repeats_itself():
    features, y = linear_problem(rows=40)
    first = baselines.fit_forest(features, y, seed=1).predict(features)
    assert np.array_equal(first, baselines.fit_forest(features, y, seed=1).predict(features))
    assert not np.array_equal(first, baselines.fit_forest(features, y, seed=2).predict(features))


def test_shuffling_moves_whole_places():
    place = np.repeat([f"p{number}" for number in range(30)], 3)
    y = np.repeat(np.arange(30.0), 3)
    shuffled = baselines.shuffle_by_place(y, place, np.random.default_rng(0))
    assert (shuffled.reshape(30, 3) == shuffled.reshape(30, 3)[:, :1]).all()  # a place keeps one donor
    assert sorted(shuffled) == sorted(y) and np.mean(shuffled == y) < 0.2
    uneven = baselines.shuffle_by_place(np.array([1.0, 2, 3]), np.array(["a", "a", "b"]), np.random.default_rng(1))
    assert uneven.tolist() in ([1, 2, 3], [3, 3, 1])


def test_year_means_fall_back_to_the_mean_for_a_year_without_training_label():
    found = baselines.year_means(np.array([1.0, 3.0, 8.0]), np.array([2018, 2018, 2019]), np.array([2019, 2018, 2020]))
    assert found.tolist() == [8.0, 2.0, 4.0]
