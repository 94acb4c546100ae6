"""Random crops of 64-band tiles, batches of 8, from the memory-mapped int8 store.

    python -m bench.crops --json

`ours` copies crops out of `Store.view` into a reused int8 batch; dequantising is the model's lookup
table. The base copies a float32 batch of the same shape. Peers hold the same tiles: zarr 3 (blosc lz4,
chunks of one tile, 64 bands and 128 x 128 px) and windowed rasterio on zstd, pixel-interleaved
GeoTIFFs, in place of torchgeo, which needs torchvision (which has no build for this torch). Its handles stay
open, as a sampler would hold them. GDAL's block cache is set to 16 MiB for 128 MiB of tiles: 5 % of memory
(the default) for 41 GB of tiles misses as often. On tiles that all fit into that cache, rasterio needs
two to three times our time, not fifteen.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
import zarr
from rasterio.transform import from_origin
from rasterio.windows import Window

from bench.timing import Benchmark
from src.core.data.quantisation import Quantisation
from src.core.data.tile_store import Store, Writer

TILES, BANDS, SIDE, BATCH = 8, 64, 512, 8
BATCHES = 4  # a repetition copies this many, so that the small crops are long enough to time


def main() -> None:
    benchmark = Benchmark("crops")
    with tempfile.TemporaryDirectory() as name, rasterio.Env(GDAL_CACHEMAX=16 * 2**20):
        pixels = np.random.default_rng(0).integers(-127, 128, (TILES, BANDS, SIDE, SIDE), dtype=np.int8)
        store = write_store(Path(name, "store"), pixels)
        array = write_zarr(Path(name, "tiles.zarr"), pixels)
        datasets = [rasterio.open(path) for path in write_geotiffs(Path(name), pixels)]
        for size in (224, 112):
            compare(benchmark, size, store, array, datasets)
        for dataset in datasets:
            dataset.close()
    benchmark.finish()


def compare(
    benchmark: Benchmark, size: int, store: Store, array: zarr.Array, datasets: list[rasterio.DatasetReader]
) -> None:
    generator = np.random.default_rng(size)
    rows = generator.integers(TILES, size=(BATCHES, BATCH))
    corners = generator.integers(SIDE - size + 1, size=(BATCHES, BATCH, 2))
    out = np.zeros((BATCH, BANDS, size, size), np.int8)
    source, target = (np.ones(out.shape, np.float32) for _ in range(2))

    def each(copy):
        for batch in range(BATCHES):
            for crop, row, (top, left) in zip(out, rows[batch], corners[batch], strict=True):
                copy(crop, row, top, left)

    def ours():
        each(lambda crop, row, top, left: np.copyto(crop, store.view(row)[:, top : top + size, left : left + size]))

    def from_zarr():
        each(lambda crop, row, top, left: np.copyto(crop, array[row, :, top : top + size, left : left + size]))

    def windowed():
        each(lambda crop, row, top, left: datasets[row].read(out=crop, window=Window(left, top, size, size)))

    def memcpy():
        for _ in range(BATCHES):
            np.copyto(target, source)

    benchmark.compare(f"{size} px ours/memcpy", ours, memcpy, at_most=0.6)
    benchmark.compare(f"{size} px zarr/ours", from_zarr, ours, at_least=4)
    benchmark.compare(f"{size} px rasterio/ours", windowed, ours, at_least=15)


def write_store(folder: Path, pixels: np.ndarray) -> Store:
    folder.mkdir()
    writer = Writer(folder, TILES, (BANDS, SIDE, SIDE), "int8")
    for row in range(TILES):
        target, valid = writer.tile(row)
        target[:], valid[:] = pixels[row], True
    tiles = pd.DataFrame({"tile": range(TILES)})
    writer.finish(tiles, tiles, Quantisation("alphaearth"))
    return Store.open(folder)


def write_zarr(path: Path, pixels: np.ndarray) -> zarr.Array:
    array = zarr.create_array(
        str(path),
        shape=pixels.shape,
        chunks=(1, BANDS, 128, 128),
        dtype="int8",
        compressors=zarr.codecs.BloscCodec(cname="lz4"),
    )
    array[:] = pixels
    return array


def write_geotiffs(folder: Path, pixels: np.ndarray) -> list[Path]:
    profile = {"count": BANDS, "height": SIDE, "width": SIDE, "dtype": "int8", "crs": "EPSG:32650"}
    options = {"compress": "zstd", "interleave": "pixel", "tiled": True, "blockxsize": 256, "blockysize": 256}
    paths = [folder / f"{row}.tif" for row in range(TILES)]
    for path, tile in zip(paths, pixels, strict=True):
        transform = from_origin(500_000, 4_000_000, 10, 10)
        with rasterio.open(path, "w", driver="GTiff", transform=transform, **profile, **options) as dataset:
            dataset.write(tile)
    return paths


if __name__ == "__main__":
    main()
