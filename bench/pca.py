"""PCA 64 -> 3 of a million rows: `fit_pca` beside scikit-learn and a float64 covariance.

    python -m bench.pca --json

Rows are float32 with correlated bands, each with mean 3 and standard deviation 1. IncrementalPCA gets batches of
10 000 rows (its default of 320 is several times slower).
"""

import itertools
import resource

import numpy as np
from sklearn.decomposition import PCA, IncrementalPCA

from bench.timing import Benchmark
from src.core.data.pca import fit_pca

ROWS, BANDS, COMPONENTS = 1_000_000, 64, 3
CHUNK = 10_000


def main() -> None:
    benchmark = Benchmark("pca")
    rows = make_rows()
    benchmark.record("extra MB, 4 million rows streamed", extra_megabytes(rows), at_most=64)
    covariance = float64_covariance(rows)
    truth = np.linalg.eigh(covariance)[1][:, -COMPONENTS:]
    weight = fit_pca([rows], COMPONENTS)[0].astype(np.float64)
    ours = weight / np.linalg.norm(weight, axis=1, keepdims=True)
    theirs = PCA(COMPONENTS, svd_solver="covariance_eigh").fit(rows).components_
    benchmark.record("subspace residual", residual(ours, truth), at_most=1e-6)
    benchmark.record("subspace residual of covariance_eigh", residual(theirs, truth))

    def fit() -> None:
        fit_pca([rows], COMPONENTS)

    def covariance_eigh() -> None:
        PCA(COMPONENTS, svd_solver="covariance_eigh").fit(rows)

    def incremental() -> None:
        IncrementalPCA(COMPONENTS, batch_size=CHUNK).fit(rows)

    benchmark.compare("ours/covariance_eigh", fit, covariance_eigh, at_most=1.1)
    benchmark.compare("ours/float64 covariance", fit, lambda: float64_covariance(rows))
    benchmark.compare("IncrementalPCA/ours", incremental, fit, at_least=8)
    benchmark.finish()


def make_rows() -> np.ndarray:
    """(ROWS, BANDS) float32, filled in place so that the process's peak memory is little more than them."""
    generator = np.random.default_rng(0)
    mixing = generator.standard_normal((BANDS, BANDS)) * np.exp(-np.arange(BANDS) / 8)[:, None]
    mixing = (mixing / np.linalg.norm(mixing, axis=0)).astype(np.float32)  # columns of sd 1
    rows = np.empty((ROWS, BANDS), np.float32)
    for start in range(0, ROWS, CHUNK):
        noise = generator.standard_normal((CHUNK, BANDS), dtype=np.float32)
        rows[start : start + CHUNK] = noise @ mixing + np.float32(3)
    return rows


def extra_megabytes(rows: np.ndarray) -> float:
    """Rise of the peak resident memory of this process while four times `rows` pass through."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fit_pca(itertools.repeat(rows, 4), COMPONENTS)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def float64_covariance(rows: np.ndarray) -> np.ndarray:
    """(C, C) reference: two passes in float64, chunk by chunk."""
    mean = rows.mean(axis=0, dtype=np.float64)
    products = np.zeros((BANDS, BANDS))
    for start in range(0, ROWS, CHUNK):
        centred = rows[start : start + CHUNK] - mean
        products += centred.T @ centred
    return products / ROWS


def residual(components: np.ndarray, truth: np.ndarray) -> float:
    """Frobenius norm of what of (K, C) `components` lies outside the span of (C, K) `truth`."""
    return float(np.linalg.norm(components - components @ truth @ truth.T))


if __name__ == "__main__":
    main()
