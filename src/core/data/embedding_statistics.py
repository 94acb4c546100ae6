"""Mean and standard deviation of embeddings over given rows."""

import numpy as np

from src.core.data.embedding_store import EmbeddingStore
from src.core.stage.errors import DataError

CHUNK_BYTES = 64 * 2**20  # of float64 at once


def fit_statistics(store: EmbeddingStore, modality: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (1 where it is 0) of the observations `rows` that have the modality.

    Chunks are merged in float64 (Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance").

    Args:
        modality: one whose embeddings are vectors of D numbers.
        rows: observations of the store, (B,) int.

    Returns:
        (D,) float32 each.

    Raises:
        DataError: none of `rows` has the modality, or a number is not finite.
    """
    (width,) = store.modalities[modality]
    rows = np.asarray(rows)[store.present(modality, rows)]
    if not len(rows):
        raise DataError(
            f"{store.folder}: {modality}: found no training observation that has it, expected at least one; bring "
            f"embeddings of them or leave {modality} out of `modalities`"
        )
    mean, squares = np.zeros(width), np.zeros(width)
    step = max(1, CHUNK_BYTES // (8 * width))
    for start in range(0, len(rows), step):
        values = store.read(modality, rows[start : start + step]).astype(np.float64)
        of_chunk, seen = values.mean(axis=0), start + len(values)
        delta = of_chunk - mean
        squares += np.square(values - of_chunk).sum(axis=0) + delta**2 * start * len(values) / seen
        mean += delta * len(values) / seen
    sd = np.sqrt(squares / len(rows)).astype(np.float32)
    if not np.isfinite(mean).all() or not np.isfinite(sd).all():
        raise DataError(f"{store.folder}/{modality}.npy: found numbers that are not finite; run the ingest stage again")
    return mean.astype(np.float32), np.where(sd == 0, np.float32(1), sd)


def standardise(values: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """(values - mean) / sd in float32, (B, D) from (B, D) float16 and (D,) float32 each."""
    out = values.astype(np.float32)
    out -= mean
    out /= sd
    return out
