import json
import pickle

import numpy as np
import pandas as pd
import pytest

from src.core.data import embedding_store
from src.core.data.embedding_store import EmbeddingStore, EmbeddingWriter
from src.core.stage import files
from src.core.stage.errors import DataError, ParamsError, StorageError

COUNT = 6
# Row by row but for one observation without language; vision in another order, for two alone.
ROWS = {"language": [0, 1, -1, 3, 4, 5], "vision": [-1, 1, -1, -1, 0, -1]}
SHAPES = {"language": (COUNT, 8), "vision": (2, 2, 3)}


def values(name):
    """Ones and up, so that no embedding looks like a missing one."""
    return np.arange(1, 1 + np.prod(SHAPES[name]), dtype=np.float16).reshape(SHAPES[name])


def make_index():
    return pd.DataFrame({"id": [f"{row}_0" for row in range(COUNT)]} | {f"{name}_row": ROWS[name] for name in ROWS})


def write_store(folder, index=None, manifest=None):
    writer = EmbeddingWriter(folder, SHAPES)
    for name in SHAPES:
        writer.array(name)[:] = values(name)
    writer.array("language")[2] = 0
    writer.finish(make_index() if index is None else index, {"simulated": True} if manifest is None else manifest)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_store(tmp_path / "store")


def expected(name, rows):
    found = [values(name)[ROWS[name][row]] if ROWS[name][row] >= 0 else np.zeros(SHAPES[name][1:]) for row in rows]
    return np.asarray(found, np.float16).reshape(-1, *SHAPES[name][1:])


@pytest.mark.parametrize("large_bytes", [2**20, 1], ids=["one thread", "two threads"])
@pytest.mark.parametrize("rows", [[4, 0, 1, 1, 2, 5], [2], []], ids=["several", "one", "none"])
@pytest.mark.parametrize("name", SHAPES)
def test_reads_the_rows_asked_for_with_zeros_where_missing(folder, monkeypatch, name, rows, large_bytes):
    monkeypatch.setattr(embedding_store, "LARGE_BYTES", large_bytes)
    store = EmbeddingStore.open(folder)
    np.testing.assert_array_equal(store.read(name, rows), expected(name, rows))
    buffer = np.full((7, *SHAPES[name][1:]), 99, np.float16)
    found = store.read(name, rows, out=buffer)
    assert found.dtype == np.float16 and (not rows or np.shares_memory(found, buffer))
    np.testing.assert_array_equal(found, expected(name, rows))
    assert (buffer[len(rows) :] == 99).all()


def test_attributes_follow_the_manifest(folder):
    store = EmbeddingStore.open(folder)
    assert len(store) == store.manifest["count"] == COUNT and store.manifest["simulated"] is True
    assert store.modalities == {"language": (8,), "vision": (2, 3)}
    pd.testing.assert_frame_equal(store.index, make_index(), check_dtype=False)
    assert store.present("language").tolist() == [True, True, False, True, True, True]
    assert store.present("vision", [4, 0]).tolist() == [True, False]


def test_a_modality_that_nobody_has_is_all_zeros(tmp_path):
    writer = EmbeddingWriter(tmp_path / "store", {"vision": (0, 2, 3)})
    writer.finish(pd.DataFrame({"id": ["1_0", "2_0"], "vision_row": [-1, -1]}), {})
    store = EmbeddingStore.open(tmp_path / "store")
    assert not store.read("vision", [1, 0]).any() and not store.present("vision").any()


def test_unknown_rows_and_modalities_are_refused(folder):
    store = EmbeddingStore.open(folder)
    with pytest.raises(ParamsError, match=r"'sound'.*language, vision"):
        store.read("sound", [0])
    with pytest.raises(IndexError, match="row -1"):  # not the last row
        store.read("language", [0, -1])
    with pytest.raises(IndexError):
        store.present("language", [COUNT])
    with pytest.raises(ValueError, match="float32"):
        store.read("language", [0], out=np.empty((1, 8), np.float32))


def test_a_process_that_is_spawned_maps_the_files_itself(folder):
    sent = pickle.dumps(EmbeddingStore.open(folder))
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).read("vision", [1]), expected("vision", [1]))


def test_written_in_two_runs_is_written_once(tmp_path, folder):
    partial = EmbeddingWriter(tmp_path / "resumed", SHAPES)
    for name in SHAPES:
        partial.array(name)[:1] = values(name)[:1]
    partial.flush()
    del partial
    with pytest.raises(StorageError, match=r"manifest\.json"):
        EmbeddingStore.open(tmp_path / "resumed")
    resumed = EmbeddingWriter(tmp_path / "resumed", SHAPES)
    for name in SHAPES:
        assert not resumed.array(name)[1:].any()
        resumed.array(name)[1:] = values(name)[1:]
    resumed.array("language")[2] = 0
    resumed.finish(make_index(), {"simulated": True})
    assert files.tree_sha256([tmp_path / "resumed"]) == files.tree_sha256([folder])


def test_a_store_that_is_written_to_again_is_complete_no_longer(folder):
    EmbeddingWriter(folder, SHAPES)
    with pytest.raises(StorageError, match=r"manifest\.json"):
        EmbeddingStore.open(folder)


@pytest.mark.parametrize("shape", [(COUNT, 9), (COUNT + 1, 8)])
def test_another_shape_is_no_continuation(folder, shape):
    with pytest.raises(DataError, match=r"language\.npy: shape: found \(6, 8\)"):
        EmbeddingWriter(folder, {"language": shape})


def test_manifest_of_a_caller_cannot_say_another_count(tmp_path):
    write_store(tmp_path / "store", manifest={"count": 1, "files": {}, "description": "two"})
    manifest = files.read_json(tmp_path / "store/manifest.json")
    assert manifest["count"] == COUNT and manifest["description"] == "two"
    assert sorted(manifest["files"]) == ["index.parquet", "language.npy", "vision.npy"]


def test_index_carries_no_path_of_this_machine(tmp_path):
    index = make_index()
    index.attrs["source"] = "/home/someone/observations.csv"
    write_store(tmp_path / "store", index=index)
    assert b"someone" not in (tmp_path / "store/index.parquet").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index.drop(columns="vision_row"), "vision_row: column is missing"),
        (lambda index: index.assign(vision_row=2), "vision_row: found 2, expected -1 to 1"),
        (lambda index: index.assign(language_row=-2), "language_row: found -2"),
    ],
)
def test_rows_must_lie_in_their_arrays(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        write_store(tmp_path / "store", index=change(make_index()))
    assert not (tmp_path / "store/manifest.json").exists()


def test_more_rows_than_the_disk_holds_fail_at_the_start(tmp_path):
    with pytest.raises(StorageError, match=r"language\.npy"):
        EmbeddingWriter(tmp_path / "store", {"language": (2**50, 8)})
    assert not list((tmp_path / "store").iterdir())


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "store").write_text("")
    with pytest.raises(StorageError, match="store"):
        EmbeddingWriter(tmp_path / "store", SHAPES)
    with pytest.raises(StorageError, match="store"):
        EmbeddingStore.open(tmp_path / "store")


@pytest.mark.parametrize("name", ["language.npy", "vision.npy", "index.parquet"])
def test_verify_names_the_file_with_a_flipped_bit(folder, name):
    store = EmbeddingStore.open(folder)
    store.verify()
    with (folder / name).open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    with pytest.raises(DataError, match=name):
        store.verify()


@pytest.mark.parametrize("name", ["language.npy", "index.parquet"])
def test_open_needs_every_file_of_the_manifest(folder, name):
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        EmbeddingStore.open(folder)


def truncated(array, path):
    path.write_bytes(path.read_bytes()[:-1])


def emptied(array, path):
    path.write_bytes(b"")


def lengthened(array, path):
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        emptied,
        lengthened,
        lambda array, path: np.save(path, array[:-1]),
        lambda array, path: np.save(path, array.view(np.int16)),
        lambda array, path: np.save(path, np.asfortranarray(array)),
        lambda array, path: np.save(path, array.astype(object), allow_pickle=True),
    ],
    ids=["truncated", "emptied", "lengthened", "fewer rows", "int16", "column by column", "pickle"],
)
def test_an_array_that_is_not_what_the_manifest_says_is_not_mapped(folder, damage):
    damage(values("language"), folder / "language.npy")
    with pytest.raises(DataError, match=r"language\.npy"):
        EmbeddingStore.open(folder)


def test_an_index_of_other_rows_is_refused(folder):
    make_index().iloc[:-1].to_parquet(folder / "index.parquet")
    with pytest.raises(DataError, match=r"index\.parquet: found 5 rows"):
        EmbeddingStore.open(folder)
    make_index().assign(vision_row=7).to_parquet(folder / "index.parquet")
    with pytest.raises(DataError, match="vision_row: found 7"):
        EmbeddingStore.open(folder)


@pytest.mark.parametrize("manifest", [[], {"format": 2, "shape": [1, 2, 3, 4]}])
def test_another_format_is_refused(folder, manifest):
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="format"):
        EmbeddingStore.open(folder)
