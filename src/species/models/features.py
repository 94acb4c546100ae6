"""Embeddings as features: standardised over the training rows, and their principal components."""

from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.utils import gen_batches
from sklearn.utils.extmath import randomized_svd

from src.species.data.task import Task

ROWS_AT_ONCE = 1024  # of embeddings beside the one matrix that their components take
POWER_ITERATIONS = 4  # of the randomised PCA (Halko et al. 2011, arXiv:0909.4061)


def components(task: Task, modalities: Sequence[str], rows: np.ndarray, others: np.ndarray, count: int, seed: int):
    """Principal components of standardised embeddings, fitted to `rows`: ((n, K), (Q, K)) float32 of rows and others.

    The modalities stand side by side, each scaled to one total variance. Components are scaled together, to a mean
    variance of 1, so that a penalty means the same whatever the width of an embedding. Memory: the matrix of
    `matrix_bytes` and little more, because `others` are read in parts. A row that lacks a modality is at its mean. K is
    `count`, or less where rows or columns are few.
    """

    def parts(of: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        for here in gen_batches(len(of), ROWS_AT_ONCE):
            yield here, np.hstack([standardised(task, name, of[here]) for name in modalities])

    widths = [task.store.modalities[name][0] for name in modalities]
    train = np.empty((len(rows), sum(widths)), np.float32)
    for here, values in parts(rows):
        train[here] = values
    mean = train.mean(axis=0, dtype=np.float64).astype(np.float32)
    train -= mean
    slices = gen_batches(len(train), ROWS_AT_ONCE)
    squares = sum(np.square(train[here], dtype=np.float64).sum(axis=0) for here in slices)
    totals = [block.sum() / len(rows) or 1.0 for block in np.split(squares, np.cumsum(widths)[:-1])]
    scale = np.sqrt(np.repeat(totals, widths)).astype(np.float32)
    train /= scale
    # not PCA of scikit-learn, which holds three such matrices to do the same
    most = min(count, len(rows) - 1, train.shape[1])
    axes = randomized_svd(train, most, n_iter=POWER_ITERATIONS, random_state=seed)[2].T  # (D, K)
    ours, theirs = train @ axes, np.empty((len(others), most), np.float32)
    for here, values in parts(others):
        theirs[here] = (values - mean) / scale @ axes
    spread = np.float32(np.sqrt(np.var(ours, axis=0, dtype=np.float64).mean() or 1.0))
    return ours / spread, theirs / spread


def standardised(task: Task, modality: str, rows: np.ndarray) -> np.ndarray:
    """(B, D) float32 with mean 0 and sd 1 over the training rows; zeros, their mean, where missing."""
    mean, sd = (task.statistics[f"{modality}_{name}"] for name in ("mean", "sd"))
    values = (task.store.read(modality, rows) - mean) / sd
    values[~task.store.present(modality, rows)] = 0
    return values


def matrix_bytes(task: Task, modalities: Sequence[str]) -> int:
    """Bytes of the float32 matrix that `components` of the training rows with all `modalities` holds."""
    rows = np.logical_and.reduce([task.store.present(name, task.train) for name in modalities]).sum()
    return 4 * int(rows) * sum(task.store.modalities[name][0] for name in modalities)
