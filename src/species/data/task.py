"""Store and split together: which rows train, validate and test, and which species can be predicted."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from src.core.data.embedding_store import EmbeddingStore
from src.core.stage import files
from src.core.stage.errors import DataError

KINDS = {  # of test and of validation
    "temporal": "known places, a new year",
    "spatial": "new places, known years",
    "both": "new places, a new year",
}
EMBEDDINGS = ("language", "vision_pooled")  # the modalities that models read: vectors


@dataclass(frozen=True)
class Task:
    """Store and split, as every stage after the split reads them.

    Attributes:
        store: the embeddings and their index.
        observations: the store's index with the columns of split.parquet (role, kind, square, cell, nearest_train_km),
            N rows in row order.
        classes: (C,) str, species with a training record, sorted.
        train, held_out: rows that train; rows of validation and test, ascending int64.
        statistics: "<modality>_mean" and "<modality>_sd" (D,) float32 of the training rows.
    """

    store: EmbeddingStore
    observations: pd.DataFrame
    classes: np.ndarray
    train: np.ndarray
    held_out: np.ndarray
    statistics: dict[str, np.ndarray]

    @cached_property
    def species(self) -> np.ndarray:
        """(N,) str, the species of every observation."""
        return self.observations["species"].to_numpy(dtype=str)

    def targets(self, rows: np.ndarray) -> np.ndarray:
        """(B,) int64 index into `classes` of each row's species, -1 where nothing of it trains."""
        return pd.Categorical(self.species[rows], categories=self.classes).codes.astype(np.int64)

    def balance(self, rows: np.ndarray) -> np.ndarray:
        """(B,) weights of mean 1 by which known places (temporal) and new ones (spatial, both) count half each.

        Validation rows are mostly of known places, and tests are scored apart: unweighted, what is chosen on
        validation would be chosen for known places.
        """
        known = self.observations["kind"].to_numpy()[rows] == "temporal"
        share = known.mean() if len(rows) else 0.5
        return np.ones(len(rows)) if share in (0, 1) else np.where(known, 0.5 / share, 0.5 / (1 - share))

    def rows(self, role: str, kind: str | None = None) -> np.ndarray:
        """Rows of a role, and of one of KINDS where given, ascending int64."""
        here = self.observations["role"] == role
        return np.flatnonzero(here if kind is None else here & (self.observations["kind"] == kind))


def read(store: Path, split: Path) -> Task:
    """Open what ingest and split wrote.

    Raises:
        StorageError: a file is missing.
        DataError: the split was drawn for another store.
    """
    opened = EmbeddingStore.open(store)
    path = Path(split) / "split.parquet"
    roles = files.read_table(path)
    if list(roles["id"]) != list(opened.index["id"]):
        raise DataError(
            f"{path}: id: found {len(roles)} observations, expected the {len(opened)} of {store}, in its order; run "
            "the split stage again"
        )
    observations = opened.index.join(roles.drop(columns="id"))
    train = np.flatnonzero(observations["role"] == "train")
    return Task(
        store=opened,
        observations=observations,
        classes=np.unique(observations["species"].to_numpy(dtype=str)[train]),
        train=train,
        held_out=np.flatnonzero(observations["role"].isin(["validation", "test"])),
        statistics=files.read_arrays(Path(split) / "statistics.safetensors"),
    )
