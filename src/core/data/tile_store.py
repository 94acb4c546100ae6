"""Tiles as a sharded, memory-mapped array with an index and a manifest.

A store is a folder:

    tiles-00000.npy ...   (n, C, H, W) int8 or float16, as stored in the tiles; at most 1 GiB each
    valid-00000.npy ...   (n, H, W) bool, True where no band is no data; same rows as the tiles shard
    index.parquet         one row per tile, in row order
    samples.parquet       one row per matched label
    manifest.json         shapes, dtype, quantisation, sha256 of every file; written last
"""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src.core.data import npy
from src.core.data.quantisation import Quantisation
from src.core.stage import files
from src.core.stage.errors import DataError

FORMAT = 2
SHARD_BYTES = 2**30
NPY_HEADER_BYTES = 128


class Store:
    """A complete store, read-only. Open it with `Store.open`.

    Attributes:
        tiles: DataFrame, one row per tile in row order: tile (int, the row), tile_id ("region/place/year"), region and
            place under the pipeline's own names, year, lat, lon (centre, WGS 84 degrees, NaN where unknown), crs,
            pixel_size (width in CRS units), half_diagonal_km, valid_fraction, sha256 (of the pixels as stored),
            path (below the tiles' root).
        samples: DataFrame, one row per matched label: sample (int), tile, tile_id, region, place and year (the
            label's), lat, lon, the target and other label columns, under the pipeline's own names.
        band_names: (C,) as the tiles name them, or None.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]):
        self.folder = folder
        self.manifest = manifest
        self.tiles = files.read_table(folder / "index.parquet")
        self.samples = files.read_table(folder / "samples.parquet")
        self.quantisation = Quantisation(**manifest["quantisation"])
        self.bands, self.height, self.width = manifest["shape"][1:]
        self.dtype = np.dtype(manifest["dtype"])
        self.band_names: list[str] | None = manifest["band_names"]
        self._per_shard = manifest["tiles_per_shard"]
        shards = range(-(-manifest["shape"][0] // self._per_shard))
        self._pixels = [np.load(folder / _name("tiles", shard), mmap_mode="r") for shard in shards]
        self._valid = [np.load(folder / _name("valid", shard), mmap_mode="r") for shard in shards]

    @classmethod
    def open(cls, folder: Path) -> "Store":
        """Open a complete store; only the index is read into memory. Raises as `files.read_manifest`."""
        return cls(Path(folder), files.read_manifest(Path(folder), FORMAT))

    def __len__(self) -> int:
        return len(self.tiles)

    def view(self, row: int) -> np.ndarray:
        """(C, H, W) memory-mapped pixels of one tile; a crop of it reads that crop alone."""
        return self._pixels[row // self._per_shard][row % self._per_shard]

    def read(self, rows: Sequence[int]) -> np.ndarray:
        """(N, C, H, W) pixels in the stored dtype."""
        return self._copy(self._pixels, rows)

    def valid(self, rows: Sequence[int]) -> np.ndarray:
        """(N, H, W) bool: True where no band is no data."""
        return self._copy(self._valid, rows)

    def _copy(self, shards: list[np.ndarray], rows: Sequence[int]) -> np.ndarray:
        out = np.empty((len(rows), *shards[0].shape[1:]), shards[0].dtype)
        for target, row in zip(out, rows, strict=True):
            np.copyto(target, shards[row // self._per_shard][row % self._per_shard])
        return out

    def verify(self) -> None:
        """Hash every file again; raises DataError if one differs from the manifest."""
        files.verify(self.folder, self.manifest)


class Writer:
    """Writes a store row by row into an empty folder; tiles are decoded straight into the shard."""

    def __init__(self, folder: Path, count: int, shape: tuple[int, int, int], dtype: np.dtype | str):
        self.folder, self.count, self.shape, self.dtype = Path(folder), count, shape, np.dtype(dtype)
        self._per_shard = tiles_per_shard(shape, dtype)
        self._shard = -1

    def tile(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Arrays to write tile `row` into: (C, H, W) pixels and (H, W) bool valid. Rows must ascend."""
        shard, local = divmod(row, self._per_shard)
        if shard != self._shard:
            self._shard, rows = shard, min(self._per_shard, self.count - shard * self._per_shard)
            self._pixels = npy.create(self.folder / _name("tiles", shard), (rows, *self.shape), self.dtype)
            self._valid = npy.create(self.folder / _name("valid", shard), (rows, *self.shape[1:]), np.dtype(bool))
        return self._pixels[local], self._valid[local]

    def finish(
        self,
        tiles: pd.DataFrame,
        samples: pd.DataFrame,
        quantisation: Quantisation,
        band_names: Sequence[str] | None = None,
    ) -> None:
        """Write index and samples, and the manifest last."""
        files.write_table(self.folder / "index.parquet", tiles)
        files.write_table(self.folder / "samples.parquet", samples)
        shards = [_name(kind, shard) for kind in ("tiles", "valid") for shard in range(self._shard + 1)]
        manifest = {
            "format": FORMAT,
            "shape": [self.count, *self.shape],
            "dtype": self.dtype.name,
            "quantisation": quantisation.as_dict(),
            "band_names": list(band_names) if band_names else None,
            "tiles_per_shard": self._per_shard,
            "files": {name: files.sha256(self.folder / name) for name in ["index.parquet", "samples.parquet", *shards]},
        }
        files.write_json(self.folder / "manifest.json", manifest)


def tiles_per_shard(shape: tuple[int, int, int], dtype: np.dtype | str) -> int:
    """Number of (C, H, W) tiles in a shard of 1 GiB; raises DataError if not even one fits."""
    tile_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    count = (SHARD_BYTES - NPY_HEADER_BYTES) // tile_bytes
    if count == 0:
        raise DataError(
            f"`tile_px`: a tile of {shape[0]} x {shape[1]} x {shape[2]} {np.dtype(dtype).name} is "
            f"{tile_bytes / 2**30:.2f} GiB, expected less than 1 GiB; give a smaller `tile_px`"
        )
    return count


def differing_band(found: Sequence[str] | None, expected: Sequence[str] | None) -> str:
    """Text on the first band with another name, because another order is other data; "" for none, or unknown names."""
    for band, names in enumerate(zip_longest(found or (), expected or ()), start=1):
        if found and expected and names[0] != names[1]:
            return f"band {band}: found {names[0]!r}, expected {names[1]!r}"
    return ""


def _name(kind: str, shard: int) -> str:
    return f"{kind}-{shard:05d}.npy"
