"""Stores of cubes: blocks of lines, and folders that are broken."""

import json

import numpy as np
import pytest

from src.core.stage.errors import DataError, StorageError
from src.minerals.data import cube_files
from src.minerals.data.cube_store import CubeStore, read_about
from tests.minerals import cubes
from tests.minerals.study import write_store

CUBE = cubes.reflectance(7, 5)
CUBE[2, 3] = np.nan


@pytest.fixture
def store(tmp_path):
    return CubeStore.open(write_store(tmp_path / "store", {"a": CUBE}))


def test_blocks_of_lines_are_the_scene(store, monkeypatch):
    monkeypatch.setattr(cube_files, "BLOCK_BYTES", 4 * 5 * 224 * 3)  # three lines
    firsts, values, valid = zip(*store.blocks("a"), strict=True)
    assert firsts == (0, 3, 6)
    np.testing.assert_allclose(np.concatenate(values), CUBE, atol=0.51e-4)
    np.testing.assert_array_equal(np.concatenate(valid), ~np.isnan(CUBE[..., 0]))


def test_a_line_wider_than_a_block_is_read_all_the_same(store, monkeypatch):
    monkeypatch.setattr(cube_files, "BLOCK_BYTES", 1)
    assert [first for first, _, _ in store.blocks("a")] == list(range(7))


def test_a_store_that_is_missing_cut_or_of_another_format_is_named(store):
    with pytest.raises(StorageError, match="cannot read"):
        CubeStore.open(store.folder / "none")
    path = store.folder / "a.npy"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"a\.npy: missing or cut, expected \(7, 5, 224\) int16"):
        CubeStore.open(store.folder)
    manifest = json.loads((store.folder / "manifest.json").read_text()) | {"format": "cubes 0"}
    (store.folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="expected 'cubes 1'"):
        CubeStore.open(store.folder)


def test_a_changed_byte_is_found_when_hashes_are_checked(store):
    store.verify()
    path = store.folder / "a.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npy: sha256"):
        store.verify()


def test_cubes_are_measured_unless_source_json_says_that_they_are_simulated(tmp_path):
    assert read_about(tmp_path) == {"simulated": False, "description": ""}
    for about, simulated in (
        ({"simulated": True, "description": "x"}, True),
        ({"simulated": False, "description": "x"}, False),
        ({"simulated": "yes"}, False),
        (["a file of the user that is called so"], False),
    ):
        (tmp_path / "source.json").write_text(json.dumps(about))
        assert read_about(tmp_path)["simulated"] is simulated
