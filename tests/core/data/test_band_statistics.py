"""Band statistics: dequantised, valid pixels only, the rows asked for only."""

import numpy as np
import pytest

from src.core.data import band_statistics
from src.core.data.quantisation import Quantisation, dequantise
from src.core.stage.errors import DataError
from tests import tiles

LINEAR = Quantisation("linear", 0.02)


def masked_store(folder, dtype=np.int8, quantisation=tiles.ALPHAEARTH):
    pixels = np.stack([tiles.random_pixels(seed) for seed in range(6)]).astype(dtype)
    valid = np.random.default_rng(9).random((6, 8, 8)) > 0.3
    valid[4] = False
    empty = -128 if dtype == np.int8 else 0
    return tiles.write_store(
        folder, np.where(valid[:, None], pixels, np.array(empty, dtype)), valid=valid, quantisation=quantisation
    )


@pytest.mark.parametrize(
    ("dtype", "quantisation"),
    [(np.int8, tiles.ALPHAEARTH), (np.int8, LINEAR), (np.float16, Quantisation("none"))],
)
def test_statistics_are_those_of_dequantised_valid_pixels_of_the_rows(tmp_path, dtype, quantisation):
    store = masked_store(tmp_path / "store", dtype, quantisation)
    rows = [0, 2, 4, 5]
    values = dequantise(store.read(rows), quantisation).astype(np.float64)
    valid = store.valid(rows)
    mean, sd = band_statistics.band_statistics(store, rows)
    for band in range(store.bands):
        expected = values[:, band][valid]
        assert mean[band] == pytest.approx(expected.mean(), rel=1e-9)
        assert sd[band] == pytest.approx(expected.std(), rel=1e-9)
    assert not np.allclose(mean, band_statistics.band_statistics(store, [1, 3])[0])


@pytest.mark.parametrize("dtype", [np.int8, np.float16])
def test_standardised_pixels_have_mean_0_and_sd_1_and_masked_ones_are_0(tmp_path, dtype):
    store = masked_store(tmp_path / "store", dtype, tiles.ALPHAEARTH if dtype == np.int8 else Quantisation("none"))
    mean, sd = (array.astype(np.float32) for array in band_statistics.band_statistics(store, range(6)))
    valid = store.valid(range(6))
    values = np.stack(
        [band_statistics.standardise(store.view(row), valid[row], store.quantisation, mean, sd) for row in range(6)]
    )
    assert values.dtype == np.float32
    inside = np.moveaxis(values, 1, -1)[valid]
    np.testing.assert_allclose(inside.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(inside.std(axis=0), 1, atol=1e-5)
    assert (np.moveaxis(values, 1, -1)[~valid] == 0).all()


def test_a_constant_band_is_named(tmp_path):
    pixels = np.stack([tiles.random_pixels(seed) for seed in range(3)])
    pixels[:, 2] = 7
    store = tiles.write_store(tmp_path / "store", pixels)
    with pytest.raises(DataError, match=r"band 2 \(counted from 0\).*1 bands are constant"):
        band_statistics.band_statistics(store, range(3))


def test_rows_without_a_valid_pixel_are_refused(tmp_path):
    store = masked_store(tmp_path / "store")
    with pytest.raises(DataError, match="none of 1 training tiles has a valid pixel"):
        band_statistics.band_statistics(store, [4])


def test_target_statistics_divide_by_the_number_of_labels():
    assert band_statistics.target_statistics(np.array([1.0, 3.0]), "x") == (2.0, 1.0)
    with pytest.raises(DataError, match=r"samples.parquet: growth_rate: found 2 training labels"):
        band_statistics.target_statistics(np.array([5.0, 5.0]), "samples.parquet: growth_rate")
