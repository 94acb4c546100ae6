"""The stage `split`: its audit, and what it refuses."""

import json
import re
from argparse import Namespace

import numpy as np
import pandas as pd
import pytest

from src.core.stage.errors import DataError
from src.minerals import split
from src.minerals.data import blocks
from src.minerals.data.cube_store import CubeStore
from tests.conftest import minerals_params
from tests.minerals.study import contents, write_store

BANDS = np.linspace(400, 2400, 2)


def write(folder, **shapes):
    scenes = {name: np.full((*shape, 2), 0.3) for name, shape in shapes.items()}
    return write_store(folder, scenes, wavelengths=BANDS, fwhm=BANDS)


def run(tmp_path, store, name="split", dry_run=False, **keys):
    params = minerals_params({"tiles.tile_px": 32} | {f"split.{key}": value for key, value in keys.items()})
    split.main(params, Namespace(store=store), Namespace(out=tmp_path / name), dry_run)
    return tmp_path / name


def test_the_audit_of_one_large_scene(tmp_path):
    store = write(tmp_path / "store", scene=(300, 310))
    folder = run(tmp_path, store, block_px=100, gap_px=40)
    assert json.loads((folder / "audit.json").read_text()) == {
        "blocks": 9, "pixels_in_two_roles": 0, "least_gap_px": 40
    }  # fmt: skip
    assert set(pd.read_parquet(folder / "blocks.parquet")["role"]) == {"train", "validation", "test"}
    again = contents(run(tmp_path, store, "again", block_px=100, gap_px=40))
    assert again == contents(folder) and set(again) == {"audit.json", "blocks.parquet", "blocks.png"}


def test_scenes_that_are_blocks_need_no_gap(tmp_path):
    store = write(tmp_path / "store", a=(40, 40), b=(40, 40), c=(50, 40))
    folder = run(tmp_path, store)
    assert json.loads((folder / "audit.json").read_text())["least_gap_px"] is None
    assert not run(tmp_path, store, "dry", dry_run=True).exists()


@pytest.mark.parametrize(
    ("left", "width", "said"),
    [([0, 30], [40, 40], "400 pixels lie in two blocks"), ([0, 50], [40, 40], "0 pixels .* least gap 10 px")],
)
def test_blocks_that_overlap_or_are_too_near_stop_the_stage(tmp_path, left, width, said):
    store = CubeStore.open(write(tmp_path / "store", scene=(40, 100)))
    table = pd.DataFrame(
        {"scene": "scene", "role": ["train", "test"], "top": 0, "left": left, "height": 40, "width": width}
    )
    with pytest.raises(DataError, match=said):
        split.check(store, table, 32)


def overlapping(folder, crs="EPSG:32611", shift=20, empty=0) -> CubeStore:
    """Two scenes of 40 x 40 px, the second `shift` px east of the first and without data in its first samples."""
    store = CubeStore.open(write(folder, a=(40, 40), b=(40, 40)))
    east = store.place("a").transform[2]
    store.scenes["b"]["place"] = [crs, [15.0, 0.0, east + 15 * shift, 0.0, -15.0, 4156000.0]]
    stored = np.load(folder / "b.npy")
    stored[:, :empty] = -32768
    np.save(folder / "b.npy", stored)
    return store


def roles(first, second) -> pd.DataFrame:
    rows = [("a", 0, first, 0, 0, 40, 40), ("b", 1, second, 0, 0, 40, 40)]
    return pd.DataFrame(rows, columns=blocks.COLUMNS)


def test_scenes_of_two_roles_that_show_the_same_ground_stop_the_stage(tmp_path):
    store = overlapping(tmp_path / "store")
    with pytest.raises(DataError, match=r"scenes a \(train\) and b \(test\): 800 pixels show the same ground"):
        split.check_ground(store, roles("train", "test"))
    split.check_ground(store, roles("train", "train"))
    split.check_ground(overlapping(tmp_path / "margin", empty=20), roles("train", "test"))
    split.check_ground(overlapping(tmp_path / "beside", shift=40), roles("train", "test"))
    split.check_ground(overlapping(tmp_path / "nowhere", crs=""), roles("train", "test"))


def test_the_same_ground_is_found_in_another_crs(tmp_path):
    store = overlapping(tmp_path / "store", shift=0)
    ground = split.bounds(store, next(roles("train", "test").itertuples()))
    width = (ground[2] - ground[0]) / 40
    store.scenes["b"]["place"] = ["EPSG:4326", [width, 0.0, ground[0], 0.0, -width, ground[3]]]
    with pytest.raises(DataError, match=r"scenes a \(train\) and b \(test\): 1\d\d\d pixels show the same ground"):
        split.check_ground(store, roles("train", "test"))


def unplaced(folder, change=lambda cube: cube[10:, 5:]) -> CubeStore:
    """Scene a of 40 x 40 px, its first quarter without data and some pixels saturated, and b, made of it by `change`.

    As those of .mat files they have no place.
    """
    cube = np.random.default_rng(0).uniform(0.1, 0.6, (40, 40, 70))
    cube[:10], cube[20:22] = np.nan, 1
    nm = np.linspace(400, 2400, 70)
    store = CubeStore.open(write_store(folder, {"a": cube, "b": change(cube)}, wavelengths=nm, fwhm=nm))
    for scene in store.scenes.values():
        scene["place"] = ["", [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]]
    return store


def whole(store, first, second) -> pd.DataFrame:
    sides = [store.scenes[name]["shape"] for name in "ab"]
    rows = [(name, n, (first, second)[n], 0, 0, *sides[n]) for n, name in enumerate("ab")]
    return pd.DataFrame(rows, columns=blocks.COLUMNS)


@pytest.mark.parametrize(
    ("change", "count"),
    [
        (lambda cube: cube.copy(), 28 * 40 + 1),  # the saturated spectrum is one
        (lambda cube: cube[12:18, 31:], 54),
        (lambda cube: np.rot90(cube[12:15, :3])[::-1], 9),
    ],
)
def test_scenes_without_a_place_that_hold_the_same_pixels_stop_the_stage(tmp_path, change, count):
    store = unplaced(tmp_path / "store", change)
    split.check_ground(store, whole(store, "train", "test"))  # knows nothing of them
    with pytest.raises(DataError, match=rf"scenes a \(train\) and b \(test\): {count} spectra are the same"):
        split.check_spectra(store, whole(store, "train", "test"))
    with pytest.raises(DataError, match=r"a \(validation\) and b \(test\)"):
        split.check_spectra(store, whole(store, "validation", "test"))
    split.check_spectra(store, whole(store, "train", "train"))


@pytest.mark.parametrize(
    "change",
    [
        lambda cube: np.nan_to_num(cube, nan=0.3)[::-1] * 0.9,  # other ground
        lambda cube: cube[20:22],  # saturated
        lambda cube: cube[:10],  # no data
        lambda cube: cube[12:14, :4],  # few enough to be chance
    ],
)
def test_what_is_not_the_same_ground_does_not_stop_it(tmp_path, change):
    store = unplaced(tmp_path / "store", change)
    split.check_spectra(store, whole(store, "train", "test"))


def test_the_stage_itself_looks_for_the_same_spectra(tmp_path):
    nm = np.linspace(400, 2400, 40)
    cubes = {name: np.random.default_rng(n // 2).uniform(0.1, 0.6, (9, 9, 40)) for n, name in enumerate("abcdef")}
    store = write_store(tmp_path / "store", cubes, wavelengths=nm, fwhm=nm)  # three pairs, so that one is torn
    with pytest.raises(DataError, match="81 spectra are the same"):
        run(tmp_path, store)
    assert not (tmp_path / "split").exists()


def test_one_scene_without_blocks_is_named_and_nothing_written(tmp_path):
    said = (
        r"found 1 spatial block in 1 scene of 300 x 310 px .*, expected at least 3, .*; `block_px` 150, `gap_px` 64 and"
    )
    with pytest.raises(DataError, match=said):
        run(tmp_path, write(tmp_path / "store", scene=(300, 310)))
    assert not (tmp_path / "split").exists()


@pytest.mark.parametrize("shape", [(300, 310), (614, 972), (64, 192), (131, 140), (60, 400)])
def test_the_blocks_that_the_refusal_names_are_the_largest_that_work(tmp_path, shape):
    store = write(tmp_path / "store", scene=shape)
    with pytest.raises(DataError) as error:
        run(tmp_path, store, block_px=600, gap_px=224)
    numbers = [int(number) for number in re.findall(r"`\w+_px` (?:of at most )?(\d+)", str(error.value))[:3]]
    block, gap, tile = numbers
    table = pd.read_parquet(run(tmp_path, store, **{"block_px": block, "gap_px": gap}) / "blocks.parquet")
    assert len(table) >= 3 and len(list(blocks.windows(table, tile, tile))) >= len(table)
    with pytest.raises(DataError, match=f"`block_px` {block}, `gap_px` "):
        run(tmp_path, store, "larger", block_px=block + 1, gap_px=gap)


def test_the_blocks_that_give_intervals_are_named_too(tmp_path):
    with pytest.raises(DataError, match=r"Scores have an interval from 10 test blocks on: `block_px` 153, `gap_px` 64"):
        run(tmp_path, write(tmp_path / "store", scene=(614, 972)))
    table = pd.read_parquet(run(tmp_path, tmp_path / "store", block_px=153, gap_px=64) / "blocks.parquet")
    assert (table["role"] == "test").sum() == 10


def test_a_scene_too_small_for_any_block_is_named(tmp_path):
    said = r"in 1 scene of 90 x 90 px \(lines x samples\), .*; blocks of 64 px, the smallest, are too few as well: add"
    with pytest.raises(DataError, match=said):
        run(tmp_path, write(tmp_path / "store", scene=(90, 90)))
