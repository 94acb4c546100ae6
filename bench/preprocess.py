"""Reading a GeoTIFF of 64 x 512 x 512 (zstd, pixel interleave) into a shard of the store.

    python -m bench.preprocess --json

`ours` decodes with one GDAL thread per core into an array that exists: for int8 the memory-mapped
shard of a store, checks and valid mask included (`raster.read_crop`); for float32 a buffer
(`raster.decode_window`), and `stored` is the same with checks, mask and conversion to the store's float16.
`plain` is `src.read()`. The base reads as many bytes as are decoded from a cached file into a buffer
that exists: neither side allocates (`read_bytes()` takes 4 to 5 times as long for float32 and would
flatter us). Run it on idle cores: with both busy, decoding threads have nowhere to go.
"""

import tempfile
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

from bench.timing import Benchmark
from src.core.data import raster
from src.core.data.tile_store import Writer

BANDS, SIDE = 64, 512


def main() -> None:
    benchmark = Benchmark("preprocess")
    with tempfile.TemporaryDirectory() as name:
        # float32 first: after int8, glibc's allocator has settled on thresholds that make GDAL's larger
        # buffers fault in anew at every read (2.8e5 page faults for 2.3e4, 103 ms for 65), plain read or ours.
        for dtype, stored, bar in (("float32", "float16", 8), ("int8", "int8", 12)):
            compare(benchmark, Path(name, dtype), dtype, stored, bar)
    benchmark.finish()


def compare(benchmark: Benchmark, folder: Path, dtype: str, stored: str, bar: float) -> None:
    folder.mkdir()
    path, raw = write_tile(folder / "tile.tif", dtype), folder / "raw"
    header = raster.read_header(path, BANDS)
    pixels, valid = Writer(folder, 1, (BANDS, SIDE, SIDE), stored).tile(0)
    decoded = np.ones((BANDS, SIDE, SIDE), dtype)
    decoded.tofile(raw)
    buffer = np.ones(decoded.nbytes, np.uint8)

    def base():
        with raw.open("rb", buffering=0) as file:
            file.readinto(buffer)

    def into_store():
        raster.read_crop(header, SIDE, False, pixels, valid)

    def into_buffer():
        with raster.opened(header) as source:
            raster.decode_window(header, source, 0, 0, decoded)

    def plain():
        with rasterio.open(path) as dataset:
            dataset.read()

    ours = into_store if dtype == stored else into_buffer
    benchmark.compare(f"{dtype} ours/base", ours, base, at_most=bar)
    benchmark.compare(f"{dtype} plain/ours", plain, ours, at_least=3)
    if dtype != stored:
        benchmark.compare(f"{dtype} stored/base", into_store, base)


def write_tile(path: Path, dtype: str) -> Path:
    """A smooth field with noise, so that zstd has about as much to do as on real embeddings."""
    generator = np.random.default_rng(0)
    row, column = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    waves = generator.normal(size=(BANDS, 3))
    field = waves[:, :1, None] * row + waves[:, 1:2, None] * column + waves[:, 2:, None]
    values = np.clip(20 * field + generator.normal(0, 2, field.shape), -127, 127)
    profile = {"count": BANDS, "height": SIDE, "width": SIDE, "dtype": dtype, "crs": "EPSG:32650"}
    options = {"compress": "zstd", "interleave": "pixel", "tiled": True, "blockxsize": 256, "blockysize": 256}
    transform = from_origin(500_000, 4_000_000, 10, 10)
    with rasterio.open(path, "w", driver="GTiff", transform=transform, **profile, **options) as dataset:
        dataset.write(values.astype(dtype))
    return path


if __name__ == "__main__":
    main()
