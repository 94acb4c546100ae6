"""PCA: right where float32 sums are not, deterministic, bounded in memory."""

import tracemalloc

import numpy as np
import pytest

from src.core.data.pca import fit_pca, project
from src.core.stage.errors import DataError


def correlated(count, bands=12, mean=3.0, seed=0):
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((bands, bands)) * np.exp(-np.arange(bands) / 2)[:, None]
    rows = generator.standard_normal((count, bands)) @ (mixing / np.linalg.norm(mixing, axis=0))
    return (rows + mean).astype(np.float32)


def components_of(weight):
    """(K, C) unit vectors, and the variance along each."""
    lengths = np.linalg.norm(weight.astype(np.float64), axis=1)
    return weight / lengths[:, None], 1 / lengths**2


@pytest.mark.parametrize("mean", [0.0, 3.0, 100.0])
def test_components_are_those_of_a_float64_decomposition(mean):
    rows = correlated(50_000, mean=mean)
    values, vectors = np.linalg.eigh(np.cov(rows.T.astype(np.float64), bias=True))
    weight, bias, ratio, count = fit_pca([rows[:30_001], rows[30_001:]])
    components, variance = components_of(weight)
    truth = vectors[:, :-4:-1]
    assert np.linalg.norm(components - components @ truth @ truth.T) < 1e-6
    np.testing.assert_allclose(variance, values[:-4:-1], rtol=1e-5)
    np.testing.assert_allclose(ratio, values[:-4:-1] / values.sum(), rtol=1e-5)
    expected = -weight.astype(np.float64) @ rows.mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(bias, expected, rtol=1e-5, atol=1e-5)
    assert count == 50_000


def test_a_drifting_stream_needs_no_representative_first_chunk():
    drift = [correlated(5_000, seed=step) + np.float32(50 * step) for step in range(4)]
    rows = np.concatenate(drift).astype(np.float64)
    covariance = np.cov(rows.T, bias=True)
    components, variance = components_of(fit_pca(drift)[0])
    np.testing.assert_allclose(components @ covariance @ components.T, np.diag(variance), atol=1e-2)
    np.testing.assert_allclose(variance, np.linalg.eigvalsh(covariance)[:-4:-1], rtol=1e-4)


def test_largest_loadings_are_positive():
    for rows in (correlated(2_000), -correlated(2_000)):
        components = fit_pca([rows])[0]
        assert (components[range(3), np.abs(components).argmax(axis=1)] > 0).all()


def test_projection_is_z_scored_and_masked_pixels_are_0():
    rows = correlated(64 * 64)
    weight, bias = fit_pca([rows])[:2]
    assert (weight.dtype, weight.shape, bias.shape) == (np.float32, (3, 12), (3,))
    assert weight.flags["C_CONTIGUOUS"]  # or safetensors writes it scrambled
    valid = np.ones((64, 64), bool)
    image = project(rows.T.reshape(12, 64, 64), valid, weight, bias)
    np.testing.assert_allclose(image.mean(axis=(1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(image.std(axis=(1, 2)), 1, atol=1e-4)
    assert np.abs(np.corrcoef(image.reshape(3, -1)) - np.eye(3)).max() < 1e-3
    valid[5, 6] = False
    assert (project(rows.T.reshape(12, 64, 64), valid, weight, bias)[:, 5, 6] == 0).all()


def test_memory_does_not_grow_with_rows():
    rows = correlated(100_000)
    tracemalloc.start()
    fit_pca([rows])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < rows.nbytes / 4


def test_too_few_directions_are_refused():
    plane = correlated(1_000)[:, :2] @ np.ones((2, 5), np.float32)
    with pytest.raises(DataError, match="vary in 1 directions, expected at least 3"):
        fit_pca([plane])
    with pytest.raises(DataError, match="no pixel"):
        fit_pca([])
