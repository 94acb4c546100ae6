"""Mean and standard deviation of embeddings over given rows."""

import numpy as np
from sklearn.preprocessing import StandardScaler

from src.core.data.embedding_store import EmbeddingStore
from src.core.stage.errors import DataError

CHUNK_BYTES = 64 * 2**20  # of float64 at once


def fit_statistics(store: EmbeddingStore, modality: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(D,) float32 mean and standard deviation (1 where it is 0) of those of the observations `rows` that have it.

    The modality's embeddings are vectors of D numbers.

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
    scaler = StandardScaler()  # merges the chunks in float64
    step = max(1, CHUNK_BYTES // (8 * width))
    for start in range(0, len(rows), step):
        values = store.read(modality, rows[start : start + step])
        if not np.isfinite(values).all():
            raise DataError(
                f"{store.folder}/{modality}.npy: found numbers that are not finite; run the ingest stage again"
            )
        scaler.partial_fit(values.astype(np.float64))
    return scaler.mean_.astype(np.float32), scaler.scale_.astype(np.float32)
