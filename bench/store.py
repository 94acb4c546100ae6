"""Batches of 64 random observations from the embedding store, all of it in the page cache.

    python -m bench.store --json

Large rows are 8 x 24 x 24 x 1408 float16 (13 MB each, 830 MB a batch), small ones language and pooled vision (8576
values together, 1.1 MB a batch). The base copies as many bytes, in order, from memory to a reused buffer. Peers of the
small rows hold the same values: one .npy or torch file an observation, HDF5 in chunks of one row, Parquet in row groups
of 64.

An epoch of the loader is a DataLoader over `Observations` with an identity collator and no workers; its base is the
loop that reads the same rows into one buffer. The bar is on large rows in batches of 8, about as many bytes as the
crops that bench.crops draws: on small rows what DataLoader does for each batch weighs more than the copy.
"""

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader

from bench.timing import REPETITIONS, Benchmark
from src.core.data.embedding_store import EmbeddingStore, EmbeddingWriter
from src.species.data.batches import Loader, Observations

BATCH, COUNT, LARGE_COUNT = 64, 2048, 128
SMALL = {"language": (7168,), "vision_pooled": (1408,)}
LARGE = (8, 24, 24, 1408)


def main() -> None:
    benchmark = Benchmark("store")
    with tempfile.TemporaryDirectory() as name:
        store = write_store(Path(name, "store"))
        compare_large(benchmark, store)
        values = np.concatenate([store.read(modality, range(COUNT)) for modality in SMALL], axis=1)
        compare_small(benchmark, store, values, Path(name))
        compare_epochs(benchmark, store)
    benchmark.finish()


def write_store(folder: Path) -> EmbeddingStore:
    shapes = {name: (COUNT, *shape) for name, shape in SMALL.items()} | {"vision": (LARGE_COUNT, *LARGE)}
    writer = EmbeddingWriter(folder, shapes)
    generator = np.random.default_rng(0)
    for name, (count, *shape) in shapes.items():
        for row in range(count):
            writer.array(name)[row] = generator.integers(1, 1000) + np.arange(shape[-1])
    rows = np.arange(COUNT)
    columns = {f"{name}_row": np.where(rows < shape[0], rows, -1) for name, shape in shapes.items()}
    facts = {"id": [f"{row}_0" for row in rows], "lat": 28.0, "lon": -81.0, "first_day": 0, "species": "one"}
    writer.finish(pd.DataFrame(facts | columns), {"simulated": True})
    return EmbeddingStore.open(folder)


def compare_large(benchmark: Benchmark, store: EmbeddingStore) -> None:
    rows = np.random.default_rng(1).permutation(LARGE_COUNT)[:BATCH]
    source, out = np.ones((BATCH, *LARGE), np.float16), np.zeros((BATCH, *LARGE), np.float16)

    def memcpy():
        np.copyto(out, source)

    benchmark.compare("large ours/memcpy", lambda: store.read("vision", rows, out=out), memcpy, at_most=1.2)
    seconds = statistics.median(timed(memcpy) for _ in range(REPETITIONS))
    benchmark.record("memcpy GB/s", out.nbytes / seconds / 1e9)
    print(f"  one thread copies {out.nbytes / seconds / 1e9:.1f} GB/s: {seconds * 1000:.0f} ms for {out.nbytes} bytes")


def compare_small(benchmark: Benchmark, store: EmbeddingStore, values: np.ndarray, folder: Path) -> None:
    many, few = (np.random.default_rng(2).integers(COUNT, size=(count, BATCH)) for count in (32, 4))
    outs = {name: np.zeros((BATCH, *shape), np.float16) for name, shape in SMALL.items()}
    out = np.zeros((BATCH, values.shape[1]), np.float16)
    ids = np.array([f"{row}_0" for row in range(COUNT)], dtype=object)
    loader = Loader(store)

    def ours(batches):
        for rows in batches:
            for name, buffer in outs.items():
                store.read(name, rows, out=buffer)

    def memcpy():
        for start in range(0, len(many) * BATCH, BATCH):
            np.copyto(out, values[start : start + BATCH])

    def get_batches():
        for rows in many:
            loader.get_batch(ids[rows], SMALL)

    benchmark.compare("small ours/memcpy", lambda: ours(many), memcpy, at_most=2.5)
    benchmark.compare("small get_batch/memcpy", get_batches, memcpy)
    for name, read, bar in peers(values, folder):

        def peer(read=read):
            for rows in few:
                read(rows, out)

        peer()
        assert np.array_equal(out, values[few[-1]]), f"{name} read other values"
        benchmark.compare(f"small {name}/ours", peer, lambda: ours(few), at_least=bar)


def peers(values: np.ndarray, folder: Path) -> list[tuple[str, Callable, float | None]]:
    """Name, a function of (rows, out) and the bar of each other way to hold `values`."""
    for kind in ("npy", "torch"):
        Path(folder, kind).mkdir()
    for row, value in enumerate(values):
        np.save(folder / f"npy/{row}.npy", value)
        torch.save(torch.from_numpy(value), folder / f"torch/{row}.pt")
    # Bytes and no lists, which take pyarrow fifty times as long.
    bytes_of_row = pa.binary(values.shape[1] * values.itemsize)
    column = pa.FixedSizeBinaryArray.from_buffers(bytes_of_row, len(values), [None, pa.py_buffer(values)])
    plain = {"row_group_size": BATCH, "compression": "none", "use_dictionary": False}
    pq.write_table(pa.table({"embedding": column}), folder / "rows.parquet", **plain)
    table = pq.ParquetFile(folder / "rows.parquet", memory_map=True)

    def npy(rows, out):
        for target, row in zip(out, rows, strict=True):
            target[:] = np.load(folder / f"npy/{row}.npy")

    def torch_files(rows, out):
        for target, row in zip(out, rows, strict=True):
            target[:] = torch.load(folder / f"torch/{row}.pt", weights_only=True).numpy()

    def parquet(rows, out):
        groups, group_of = np.unique(rows // BATCH, return_inverse=True)
        found = table.read_row_groups(groups.tolist())["embedding"].combine_chunks()
        found = np.frombuffer(found.buffers()[1], np.float16).reshape(len(found), -1)
        np.take(found, group_of * BATCH + rows % BATCH, axis=0, out=out, mode="clip")

    ways = [("np.load per file", npy, 8), ("torch.load per file", torch_files, None), ("Parquet", parquet, None)]
    if importlib.util.find_spec("h5py") is None:
        print("  no HDF5: h5py is not installed")
        return ways
    import h5py

    with h5py.File(folder / "rows.h5", "w") as file:
        file.create_dataset("embedding", data=values, chunks=(1, values.shape[1]))
    dataset = h5py.File(folder / "rows.h5", "r")["embedding"]

    def hdf5(rows, out):
        wanted, back = np.unique(rows, return_inverse=True)  # h5py takes rows in ascending order, each once
        np.take(dataset[wanted], back, axis=0, out=out, mode="clip")

    return [*ways, ("HDF5", hdf5, None)]


def compare_epochs(benchmark: Benchmark, store: EmbeddingStore) -> None:
    loader = Loader(store)
    for label, modality, size, bar in (("large", "vision", 8, 1.15), ("small", "language", BATCH, None)):
        rows = np.random.default_rng(3).permutation(np.flatnonzero(store.present(modality)))
        data = Observations(partial(loader.read, modalities=[modality]), rows)
        buffer = np.zeros((size, *store.modalities[modality]), np.float16)

        def raw(modality=modality, size=size, rows=rows, buffer=buffer):
            for start in range(0, len(rows), size):
                store.read(modality, rows[start : start + size], out=buffer)

        def epoch(data=data, size=size):
            for _ in DataLoader(data, batch_size=size, collate_fn=identity):
                pass

        benchmark.compare(f"{label} epoch/raw loop", epoch, raw, at_most=bar)


def identity(batch):
    return batch


def timed(way: Callable[[], object]) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
