"""Principal components of a stream of rows, in memory that does not grow with their number."""

from collections.abc import Iterable

import numpy as np

from src.core.stage.errors import DataError

BLOCK_ROWS = 4096  # multiplied at once in float32; larger blocks leave the processor's cache


def fit_pca(chunks: Iterable[np.ndarray], n_components: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Principal components of (n, C) float32 chunks in one pass over their rows, through the covariance.

    Each block of rows is centred before it is multiplied in float32; sums are added in float64 (Chan, Golub and
    LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances"). Without centring, as in
    scikit-learn's `covariance_eigh`, float32 is too coarse where means are large against standard deviations.

    Returns:
        weight (K, C), bias (K,): float32; the components z = weight @ x + bias have mean 0 and sd 1 over the rows seen
            and fall in variance, the largest loading of each is positive.
        ratio: (K,) float64, share of the total variance.
        count: rows seen.

    Raises:
        DataError: no row came, or rows vary in fewer directions than there are components.
    """
    count = 0
    for chunk in chunks:
        if count == 0:
            bands = chunk.shape[1]
            mean, products = np.zeros(bands), np.zeros((bands, bands))
            ones, scratch = np.ones(BLOCK_ROWS, np.float32), np.empty((BLOCK_ROWS, bands), np.float32)
        for start in range(0, len(chunk), BLOCK_ROWS):
            block = chunk[start : start + BLOCK_ROWS]
            n = len(block)
            shift = ones[:n] @ block / np.float32(n)
            centred = np.subtract(block, shift, out=scratch[:n])
            # what float32 left over of the block's mean
            rest = (ones[:n] @ centred).astype(np.float64) / n
            step = shift + rest - mean
            products += centred.T @ centred
            products += np.outer(step, step) * (count * n / (count + n)) - np.outer(rest, rest) * n
            mean += step * n / (count + n)
            count += n
    if count == 0:
        raise DataError("pca: found no pixel, expected at least one; look for training tiles of no data")

    values, vectors = np.linalg.eigh(products / count)
    # float32 products leave noise of this size where the true variance is 0
    rank = int((values > values[-1] * bands * np.finfo(np.float32).eps).sum())
    if rank < n_components:
        raise DataError(
            f"pca: {count} training pixels of {bands} bands vary in {rank} directions, expected at least "
            f"{n_components}; bring tiles with more bands or more variety"
        )
    variance = values[::-1][:n_components]
    components = vectors.T[::-1][:n_components]
    largest = np.abs(components).argmax(axis=1)
    components = components * np.sign(components[np.arange(n_components), largest])[:, None]
    weight = components / np.sqrt(variance)[:, None]
    # in C order, because safetensors writes memory as it lies: a Fortran array comes back scrambled
    scaled = weight.astype(np.float32, order="C"), (-weight @ mean).astype(np.float32)
    return *scaled, variance / values.sum(), count


def project(standardised: np.ndarray, valid: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(K, H, W) float32 components of a tile (C, H, W), unclipped, 0 where it is not `valid` (H, W) bool."""
    values = np.tensordot(weight, standardised, axes=1) + bias[:, None, None]
    return np.where(valid, values, np.float32(0))
