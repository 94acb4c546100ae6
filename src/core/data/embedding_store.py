"""Embeddings of observations as memory-mapped arrays with an index and a manifest.

A store is a folder:

    <modality>.npy   (N or M, *shape) float16, one row an embedding
    index.parquet    one row an observation; its column <modality>_row is the row of the array, -1 where it has none
    manifest.json    format, count, shapes, what the writer adds, sha256 of every file; written last
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src.core.data import npy
from src.core.stage import files
from src.core.stage.errors import DataError, ParamsError, StorageError

FORMAT = "embeddings 1"
DTYPE = np.dtype(np.float16)
# Larger rows are copied by two threads: row by row one thread takes 1.6 times as long as one copy of the whole batch.
LARGE_BYTES = 2**20
THREADS = 2


class EmbeddingStore:
    """A complete store, read-only. Open it with `EmbeddingStore.open`.

    Attributes:
        index: DataFrame of N observations in row order.
        modalities: name -> shape of one embedding, e.g. {"language": (7168,)}.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], index: pd.DataFrame, arrays: dict[str, np.ndarray]):
        self.folder, self.manifest, self.index = folder, manifest, index
        self.modalities = {name: array.shape[1:] for name, array in arrays.items()}
        # Plain arrays over the same mapping: indexing the subclass np.memmap costs more than copying a small row.
        self._arrays = {name: np.asarray(array) for name, array in arrays.items()}
        self._rows = {name: index[f"{name}_row"].to_numpy(np.int64) for name in arrays}

    @classmethod
    def open(cls, folder: Path) -> "EmbeddingStore":
        """Open a complete store; only the index is read into memory.

        Raises:
            StorageError, DataError: as `files.read_manifest`; an array's header or size is not what the manifest says
                (a truncated file kills the process that touches its mapping); the index does not fit.
        """
        folder = Path(folder)
        manifest = files.read_manifest(folder, FORMAT)
        shapes = {name: tuple(shape) for name, shape in manifest["modalities"].items()}
        arrays = {name: _map(folder / f"{name}.npy", shape, "r") for name, shape in shapes.items()}
        index = files.read_table(folder / "index.parquet")
        if len(index) != manifest["count"]:
            raise DataError(
                f"{folder}/index.parquet: found {len(index)} rows, the manifest says {manifest['count']}; write the "
                "store again"
            )
        _check_rows(folder / "index.parquet", index, shapes)
        return cls(folder, manifest, index, arrays)

    def __len__(self) -> int:
        return len(self.index)

    def __reduce__(self):
        # A spawned worker maps the files itself; pickling the arrays would send it all they hold.
        return EmbeddingStore.open, (self.folder,)

    def read(self, modality: str, rows: Sequence[int], out: np.ndarray | None = None) -> np.ndarray:
        """(B, *shape) float16 embeddings of the observations `rows`, zeros where one has none.

        Into `out[:B]` where given, (at least B, *shape) float16 and C-contiguous: new memory would cost as much as
        the copy.

        Raises:
            ParamsError: no such modality.
            IndexError: a row outside 0 to N - 1.
        """
        at = self._rows_of(modality, rows)
        array, shape = self._arrays[modality], (len(at), *self.modalities[modality])
        out = np.empty(shape, DTYPE) if out is None else out[: len(at)]
        if out.shape != shape or out.dtype != DTYPE or not out.flags.c_contiguous:
            raise ValueError(f"out: found {out.shape} {out.dtype}, expected {shape} {DTYPE}, C-contiguous")
        if len(array) and len(at):
            if array[0].nbytes >= LARGE_BYTES:
                halves = zip(np.array_split(at, THREADS), np.array_split(out, THREADS), strict=True)
                with ThreadPoolExecutor(THREADS) as pool:  # made anew each time: a pool does not survive a fork
                    list(pool.map(lambda half: _take(array, *half), halves))
            else:
                _take(array, at, out)
        missing = at < 0
        if missing.any():
            out[missing] = 0
        return out

    def present(self, modality: str, rows: Sequence[int] | None = None) -> np.ndarray:
        """(B,) bool: True for those of `rows` (all where None) that have this embedding; raises as `read`."""
        return self._rows_of(modality, np.arange(len(self)) if rows is None else rows) >= 0

    def verify(self) -> None:
        """Hash every file again; raises DataError if one differs from the manifest."""
        files.verify(self.folder, self.manifest)

    def _rows_of(self, modality: str, rows: Sequence[int]) -> np.ndarray:
        """(B,) int64 rows of the modality's array, -1 where an observation has no embedding."""
        if modality not in self._rows:
            known = ", ".join(self._rows) or "none"
            raise ParamsError(f"modality: found {modality!r}, {self.folder} holds {known}; choose one of these")
        rows = np.asarray(rows, dtype=np.int64)
        if rows.size and rows.min() < 0:  # numpy would count from the end, so that "unknown" reads another's embedding
            raise IndexError(f"row {rows.min()}: expected 0 to {len(self) - 1}")
        return self._rows[modality][rows]


class EmbeddingWriter:
    """Writes a store's arrays, in any order and over several runs, and its index and manifest last.

    Args:
        folder: made where it does not exist; what an earlier run of the same shapes left in it is kept.
        shapes: modality -> (rows, *shape of one embedding).

    Raises:
        DataError: an array of another shape is there.
        StorageError: the folder cannot be written, or has not enough space for all the rows.
    """

    def __init__(self, folder: Path, shapes: dict[str, tuple[int, ...]]):
        self.folder, self.shapes = Path(folder), {name: tuple(shape) for name, shape in shapes.items()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "manifest.json").unlink(missing_ok=True)  # complete no longer
        except OSError as error:
            raise StorageError(f"{self.folder}: cannot write: {error.strerror}; choose another folder") from error
        self._arrays = {name: self._open(name, shape) for name, shape in self.shapes.items()}

    def array(self, name: str) -> np.memmap:
        """The float16 array to write into; zeros where nothing was written yet."""
        return self._arrays[name]

    def flush(self) -> None:
        """Return when all that was written is on disk."""
        for array in self._arrays.values():
            array.flush()

    def finish(self, index: pd.DataFrame, manifest: dict[str, Any]) -> None:
        """Write index.parquet, then manifest.json with every file's sha256. The arrays cannot be written after that.

        Raises:
            DataError: a `<modality>_row` is missing, or names a row that the array does not have.
            StorageError: a file cannot be written.
        """
        path = self.folder / "index.parquet"
        _check_rows(path, index, self.shapes)
        self.flush()
        self._arrays = {}
        files.write_table(path, index)
        names = sorted(["index.parquet", *(f"{name}.npy" for name in self.shapes)])
        head = {"format": FORMAT, "count": len(index), "modalities": {name: list(s) for name, s in self.shapes.items()}}
        hashes = {name: files.sha256(self.folder / name) for name in names}
        files.write_json(self.folder / "manifest.json", {**head, **manifest, **head, "files": hashes})

    def _open(self, name: str, shape: tuple[int, ...]) -> np.memmap:
        path = self.folder / f"{name}.npy"
        if not path.exists():
            # Aside first: a run killed here would leave a file too short to be opened again.
            with files.complete_file(path) as aside:
                npy.create(aside, shape, DTYPE)
        return _map(path, shape, "r+")


def _map(path: Path, shape: tuple[int, ...], mode: str) -> np.memmap:
    try:
        _, found, columns_first, dtype = npy.read_array_header(path, str(path))
        if found != shape or dtype != DTYPE or columns_first:
            order = " (columns first)" * columns_first
            raise DataError(
                f"{path}: shape: found {found} {dtype}{order}, expected {shape} {DTYPE}; delete it and write it again"
            )
        return np.lib.format.open_memmap(path, mode=mode)
    except OSError as error:
        raise StorageError(f"{path}: cannot open: {error.strerror or error}") from error


def _check_rows(path: Path, index: pd.DataFrame, shapes: dict[str, tuple[int, ...]]) -> None:
    for name, (count, *_) in shapes.items():
        column = f"{name}_row"
        if column not in index:
            raise DataError(f"{path}: {column}: column is missing, expected one for {name}.npy; write the store again")
        wrong = index.loc[~index[column].between(-1, count - 1), column]
        if len(wrong):
            raise DataError(
                f"{path}: {column}: found {wrong.iloc[0]}, expected -1 to {count - 1}; write the store again"
            )


def _take(array: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
    # mode "raise" would copy into a buffer first; a missing row (-1) becomes row 0, for the caller to overwrite
    np.take(array, rows, axis=0, out=out, mode="clip")
