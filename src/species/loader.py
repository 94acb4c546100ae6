"""Batches of observations as tensors, from the memory map of a store.

`Loader.get_batch` looks observations up by id and fills buffers that it keeps; `Observations` is a dataset of rows for
a Trainer or DataLoader. Both give what the store holds, in the order asked for, whatever the number of workers.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from src.core.embeddings import EmbeddingStore
from src.core.errors import DataError

SECONDS_A_DAY = 86_400


class Loader:
    """Reads batches of one store.

    Args:
        store: as ingest wrote it.
        classes: names of the species in the order of their numbers; None: the store's, sorted.

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
        self._species = pd.Categorical(index["species"], categories=self.classes).codes.astype(np.int64)
        self._location = index[["lat", "lon"]].to_numpy(np.float64)
        self._timestamp = index["first_day"].to_numpy(np.int64) * SECONDS_A_DAY
        self._buffers: dict[tuple[str, bool], torch.Tensor] = {}
        self._copied: torch.cuda.Event | None = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_buffers": {}, "_copied": None}  # a spawned process makes its own

    def get_batch(
        self, ids: Sequence[str], modalities: Sequence[str], device: torch.device | str = "cpu"
    ) -> dict[str, torch.Tensor]:
        """The observations `ids`, in this order, on `device`.

        On the CPU the embeddings are views into the loader's buffers: THE NEXT CALL OVERWRITES THEM, so clone what is
        to outlive it. On a GPU they are copies that stay; the buffers are then pinned, the copies run beside what the
        GPU computes, and the next call waits for them before it writes.

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
        device = torch.device(device)
        pinned = device.type == "cuda"
        if self._copied is not None:
            self._copied.synchronize()
            self._copied = None
        batch = self._read(self._find(ids), modalities, lambda name, count: self._buffer(name, count, pinned))
        if device.type == "cpu":
            return batch
        batch = {name: values.to(device, non_blocking=pinned) for name, values in batch.items()}
        if pinned:
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(device))
        return batch

    def read(self, rows: Sequence[int], modalities: Sequence[str]) -> dict[str, torch.Tensor]:
        """As `get_batch`, by row of the store, on the CPU, in memory of its own that no later call touches."""
        return self._read(
            np.asarray(rows, np.int64),
            modalities,
            lambda name, count: torch.empty((count, *self.store.modalities[name]), dtype=torch.float16),
        )

    def _find(self, ids: Sequence[str]) -> np.ndarray:
        try:
            return np.array([self._row_of[observation] for observation in ids], np.int64)
        except KeyError as error:
            raise DataError(
                f"{self.store.folder}: id: found no observation {error.args[0]!r} among {len(self.store)}, expected an "
                "id of index.parquet; correct it"
            ) from error

    def _read(self, rows: np.ndarray, modalities: Sequence[str], memory) -> dict[str, torch.Tensor]:
        """`memory` (name, count) -> float16 tensor of that many embeddings, to be filled."""
        batch = {
            "species": torch.from_numpy(self._species[rows]),
            "location": torch.from_numpy(self._location[rows]),
            "timestamp": torch.from_numpy(self._timestamp[rows]),
        }
        for name in modalities:
            batch[f"{name}_present"] = torch.from_numpy(self.store.present(name, rows))
            batch[name] = memory(name, len(rows))
            self.store.read(name, rows, out=batch[name].numpy())
        return batch

    def _buffer(self, name: str, count: int, pinned: bool) -> torch.Tensor:
        buffer = self._buffers.get((name, pinned))
        if buffer is None or len(buffer) < count:
            shape = (count, *self.store.modalities[name])
            buffer = self._buffers[name, pinned] = torch.empty(shape, dtype=torch.float16, pin_memory=pinned)
        return buffer[:count]


class Observations(Dataset):
    """Rows of a store as ready batches (`__getitems__`), for a Trainer or DataLoader with an identity collator.

    A batch has memory of its own, not the loader's buffers: accelerate draws the next batch before it hands out this
    one, the Trainer collects several to accumulate gradients, and a worker's queue pickles in another thread; each of
    them would see one batch overwritten by a later one.

    Args:
        loader: of the store.
        rows: (N,) rows of the store.
        modalities: names, as in `Loader.get_batch`, which also says what a batch holds.
    """

    def __init__(self, loader: Loader, rows: Sequence[int], modalities: Sequence[str]):
        self.loader, self.rows, self.modalities = loader, np.asarray(rows, np.int64), tuple(modalities)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        return self.loader.read(self.rows[indices], self.modalities)
