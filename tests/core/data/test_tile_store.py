import json

import numpy as np
import pytest

from src.core.data import tile_store
from src.core.data.tile_store import Store
from src.core.stage import files
from src.core.stage.errors import DataError, StorageError
from tests.tiles import ALPHAEARTH, random_pixels, write_store


@pytest.fixture
def pixels():
    return np.stack([random_pixels(seed) for seed in range(5)])  # (5, 4, 8, 8) int8


def test_reads_back_what_was_written_across_shards(tmp_path, pixels, monkeypatch):
    monkeypatch.setattr(tile_store, "SHARD_BYTES", 2 * pixels[0].nbytes + tile_store.NPY_HEADER_BYTES)
    valid = np.random.default_rng(0).random((5, 8, 8)) > 0.5
    opened = write_store(tmp_path / "store", pixels, valid=valid)
    assert len(list((tmp_path / "store").glob("tiles-*.npy"))) == 3
    assert (opened.bands, opened.height, opened.width, opened.dtype) == (4, 8, 8, np.int8)
    rows = [4, 0, 3, 0]
    np.testing.assert_array_equal(opened.read(rows), pixels[rows])
    np.testing.assert_array_equal(opened.valid(rows), valid[rows])


def test_shards_stay_within_their_size_in_bytes(tmp_path, pixels, monkeypatch):
    monkeypatch.setattr(tile_store, "SHARD_BYTES", 1000)
    write_store(tmp_path / "store", pixels)
    assert all(file.stat().st_size <= 1000 for file in (tmp_path / "store").glob("tiles-*.npy"))


def test_a_tile_larger_than_a_shard_is_refused(pixels):
    with pytest.raises(DataError, match=r"^`tile_px`: a tile of 64 x 5000 x 5000 int8 is"):
        tile_store.tiles_per_shard((64, 5000, 5000), "int8")


def test_contract_columns(tmp_path, pixels):
    opened = write_store(tmp_path / "store", pixels, lat=[1.0, 2.0, 3.0, 4.0, 5.0], code=list("abcde"))
    assert opened.quantisation == ALPHAEARTH
    key = ["tile", "tile_id", "province", "city", "year", "lat", "lon"]
    facts = ["crs", "pixel_size", "half_diagonal_km", "valid_fraction", "sha256", "path"]
    assert list(opened.tiles.columns) == key + facts
    assert list(opened.samples.columns) == ["sample", *key, "growth_rate", "code"]
    assert opened.tiles.lat.tolist() == opened.samples.lat.tolist() == [1, 2, 3, 4, 5]


def test_written_twice_is_byte_identical(tmp_path, pixels):
    for name in ("first", "second"):
        write_store(tmp_path / name, pixels)
    assert files.tree_sha256([tmp_path / "first"]) == files.tree_sha256([tmp_path / "second"])


@pytest.mark.parametrize("name", ["tiles-00000.npy", "valid-00000.npy", "index.parquet", "samples.parquet"])
def test_verify_names_the_file_with_a_flipped_bit(tmp_path, pixels, name):
    opened = write_store(tmp_path / "store", pixels)
    opened.verify()
    with (tmp_path / "store" / name).open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    with pytest.raises(DataError, match=name):
        opened.verify()


def test_open_needs_a_manifest_and_every_file_in_it(tmp_path, pixels):
    with pytest.raises(StorageError, match=r"manifest\.json"):
        Store.open(tmp_path)
    write_store(tmp_path / "store", pixels)
    (tmp_path / "store" / "valid-00000.npy").unlink()
    with pytest.raises(DataError, match=r"valid-00000\.npy is missing"):
        Store.open(tmp_path / "store")


def test_open_refuses_another_format(tmp_path, pixels):
    write_store(tmp_path / "store", pixels)
    manifest = tmp_path / "store" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 0}))
    with pytest.raises(DataError, match="format"):
        Store.open(tmp_path / "store")
