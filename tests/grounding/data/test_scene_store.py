"""Stores give back what was written, and name what is missing or changed."""

from dataclasses import fields

import numpy as np
import pytest

from src.core.stage.errors import DataError, StorageError
from src.grounding.data import scene_store
from src.grounding.data.scene_store import Scene, SceneStore

TRANSFORM = (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0)


def scene(name: str, role: str, height: int = 6, width: int = 5) -> Scene:
    draw = np.random.default_rng(len(name))
    image = draw.random((10, height, width), np.float32)
    masks = draw.random((2, height, width)) < 0.5
    return Scene(name, role, image[:2], image[2:6], image[6:], *masks, "EPSG:32630", TRANSFORM)


def row(scene: Scene) -> dict:
    height, width = scene.valid.shape
    about = {"height": height, "width": width, "crs": scene.crs, "transform": list(scene.transform)}
    rest = {"sar_date": "2020-06-01", "optical_date": "", "shift_px": np.nan, "valid_share": 1.0, "flags": ""}
    return {"name": scene.name, "role": scene.role, "block": "3,4"} | about | rest


@pytest.fixture
def scenes():
    return [scene("later", "test"), scene("a", "pretrain", 4, 7), scene("bb", "pretrain")]


@pytest.fixture
def store(tmp_path, scenes):
    for one in scenes:
        scene_store.write_scene(tmp_path, one)
    scene_store.finish(tmp_path, [row(one) for one in scenes], {"opt_v2": "given"}, {"scenes": 3})
    return SceneStore.open(tmp_path)


def test_a_scene_is_read_as_it_was_written(store, scenes):
    assert store.names("pretrain") == ["a", "bb"] and store.names("ground") == [] and store.facts["opt_v2"] == "given"
    assert tuple(store.table) == scene_store.COLUMNS and store.table["name"].tolist() == ["a", "bb", "later"]
    for written in scenes:
        read = store.read(written.name)
        for field in fields(Scene):
            one, other = getattr(read, field.name), getattr(written, field.name)
            np.testing.assert_array_equal(one, other)
            assert getattr(one, "dtype", None) == getattr(other, "dtype", None)
    store.verify()


def test_a_changed_file_is_found(store):
    path = store.folder / "scenes/a.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"a\.safetensors: sha256"):
        store.verify()


def test_a_store_that_is_not_complete_is_named(store):
    (store.folder / "scenes/a.safetensors").unlink()
    with pytest.raises(DataError, match=r"scenes/a\.safetensors is missing"):
        SceneStore.open(store.folder)
    (store.folder / "manifest.json").unlink()
    with pytest.raises(StorageError, match="manifest"):
        SceneStore.open(store.folder)


def test_arrays_of_another_size_than_the_table_says_are_named(store):
    scene_store.write_scene(store.folder, scene("a", "pretrain", 7, 7))
    with pytest.raises(DataError, match=r"a\.safetensors: found .*\(2, 7, 7\).*expected .*\(2, 4, 7\)"):
        store.read("a")
