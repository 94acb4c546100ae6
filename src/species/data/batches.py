"""Batches of observations as tensors, from the memory map of a store.

A loader writes into buffers that are used again, because fresh memory costs several times the copy in page faults. A
buffer is used again only when nobody holds a tensor in it any more. The usual way, one buffer that every call
overwrites, gives wrong batches in silence: accelerate draws the next batch before it hands out this one, the Trainer
collects several to accumulate gradients, and a worker's queue pickles a batch while the next one is read.
"""

import sys
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch

from src.core.data.embedding_store import DTYPE, EmbeddingStore
from src.core.stage.errors import DataError
from src.core.training.global_batches import ReadyBatches

SECONDS_A_DAY = 86_400
BUFFERS = 4  # kept of a modality: the batch in use, the one drawn ahead, the one being read, and one more


class Loader:
    """Reads batches of one store; one thread at a time.

    Species are numbered in the order of `classes`; None stands for all of the store, sorted.

    Raises:
        DataError: two observations of the store have one id.
    """

    def __init__(self, store: EmbeddingStore, classes: Sequence[str] | None = None):
        index = store.index
        if index["id"].duplicated().any():
            twice = index.loc[index["id"].duplicated(), "id"].iloc[0]
            raise DataError(f"{store.folder}/index.parquet: id: found {twice} twice, expected it once; ingest again")
        self.store = store
        self.classes = sorted(index["species"].unique()) if classes is None else list(classes)
        self._row_of = {observation: row for row, observation in enumerate(index["id"])}
        self._facts = {
            "species": pd.Categorical(index["species"], categories=self.classes).codes.astype(np.int64),
            "location": index[["lat", "lon"]].to_numpy(np.float64),
            "timestamp": index["first_day"].to_numpy(np.int64) * SECONDS_A_DAY,
        }
        self._buffers: dict[str, list[np.ndarray]] = {}

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_buffers": {}}  # a spawned process makes its own

    def get_batch(
        self, ids: Sequence[str], modalities: Sequence[str], device: torch.device | str = "cpu"
    ) -> dict[str, torch.Tensor]:
        """The observations `ids`, in this order, on `device`.

        Returns:
            species: (B,) int64 index into `classes`, -1 where it is not among them.
            location: (B, 2) float64 latitude and longitude, degrees.
            timestamp: (B,) int64 seconds from 1970-01-01 UTC to the start of the first day the date allows.
            <modality>: (B, *shape) float16, zeros where missing.
            <modality>_present: (B,) bool.

        Raises:
            DataError: the store has no observation of that id.
            ParamsError: it has no such modality; the message names those it has.
        """
        try:
            rows = [self._row_of[observation] for observation in ids]
        except KeyError as error:
            raise DataError(
                f"{self.store.folder}: id: found no observation {error.args[0]!r} among {len(self.store)}, expected an "
                "id of index.parquet; correct it"
            ) from error
        return {name: values.to(device) for name, values in self.read(rows, modalities).items()}

    def read(self, rows: Sequence[int], modalities: Sequence[str]) -> dict[str, torch.Tensor]:
        """The batch of `get_batch`, by row of the store and on the CPU."""
        rows = np.asarray(rows, np.int64)
        batch = {name: torch.from_numpy(values[rows]) for name, values in self._facts.items()}
        for name in modalities:
            batch[f"{name}_present"] = torch.from_numpy(self.store.present(name, rows))
            batch[name] = self._memory(name, len(rows))
            self.store.read(name, rows, out=batch[name].numpy())
        return batch

    def _memory(self, name: str, count: int) -> torch.Tensor:
        """(count, *shape) float16 that no tensor still in use shares; its values are left over from before."""
        buffers = self._buffers.setdefault(name, [])
        # A tensor holds a reference to the array under it; without one there are two, of the list and of the call.
        for k in range(len(buffers)):
            if len(buffers[k]) >= count and sys.getrefcount(buffers[k]) == 2:
                return torch.from_numpy(buffers[k][:count])
        buffer = np.empty((count, *self.store.modalities[name]), DTYPE)
        self._buffers[name] = [*buffers[1 - BUFFERS :], buffer]
        return torch.from_numpy(buffer[:])


class Observations(ReadyBatches):
    """Rows of a store as ready batches, for a Trainer or DataLoader with an identity collator and any number of
    workers; `read` makes a batch of rows, as `Loader.read` does."""

    def __init__(self, read: Callable[[np.ndarray], dict[str, torch.Tensor]], rows: Sequence[int]):
        self.read, self.rows = read, np.asarray(rows, np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        return self.read(self.rows[indices])
