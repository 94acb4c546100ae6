"""The stage `map`: thresholds from training blocks alone, and scenes that are partly unknown or empty."""

import json
import tracemalloc
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio

from src.core.stage.errors import DataError
from src.minerals import map
from src.minerals.data import blocks, spectral_library
from src.minerals.data.cube_store import CubeStore
from src.minerals.data.simulated_geology import dominant, draw
from src.minerals.data.simulated_spectra import FWHM, WAVELENGTHS, endmembers, measure
from src.minerals.mapping.minerals import NAMES
from src.minerals.mapping.other_methods import METHODS
from tests.conftest import minerals_params
from tests.minerals.study import contents, write_blocks, write_kept, write_store

FOLDER = Path("data/sample/usgs_minerals")
SIDE = 32
SCENES = ("a", "b", "c", "d")
BLOCKS = [(name, n, ("train", "train", "validation", "test")[n], 0, 0, SIDE, SIDE) for n, name in enumerate(SCENES)]
CUBES, TRUTH = {}, {}
for SEED, NAME in enumerate(SCENES):
    RANDOM = np.random.default_rng(SEED)
    GROUND = draw(RANDOM, SIDE, False)
    CUBES[NAME] = measure(GROUND, endmembers(spectral_library.read(FOLDER), RANDOM), 0.3, 200, RANDOM)
    TRUTH[NAME] = dominant(GROUND)


def run(tmp_path, name="map", truth=TRUTH, cubes=CUBES, dry_run=False, bands=slice(None)):
    cubes = {scene: cube[..., bands] for scene, cube in cubes.items()}
    more = {"truth": truth, "wavelengths": WAVELENGTHS[bands], "fwhm": FWHM[bands]}
    folder = tmp_path / f"inputs of {name}"
    store = write_store(folder / "store", cubes, **more)
    inputs = Namespace(store=store, library=FOLDER, bands=write_kept(folder / "bands", store),
                       split=write_blocks(folder / "split", BLOCKS))  # fmt: skip
    map.main(minerals_params(), inputs, Namespace(out=tmp_path / name), dry_run)
    return tmp_path / name


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return run(tmp_path_factory.mktemp("map"))


def classes_of(folder, scene) -> np.ndarray:
    with rasterio.open(folder / "minerals" / f"{scene}.tif") as dataset:
        return dataset.read(1)


def test_a_map_for_each_scene_and_every_method_on_test_blocks(made):
    for name in ("minerals", "fit", "depth", "iron"):
        assert sorted(path.name for path in (made / name).glob("*.tif")) == [f"{scene}.tif" for scene in SCENES]
    with np.load(made / "other_methods.npz") as others:
        assert set(others) == {f"{name}/3" for name in METHODS}
        assert all(others[name].shape == (SIDE, SIDE) and others[name].max() <= 8 for name in others)
    limits = json.loads((made / "thresholds.json").read_text())
    assert list(limits) == [map.FEATURE_FIT, *METHODS] and all(
        list(values) == list(NAMES) for values in limits.values()
    )
    assert (made / "label_map.png").stat().st_size > 10_000


def test_most_pixels_of_a_test_scene_are_named_right(made):
    assert (classes_of(made, "d") == TRUTH["d"]).mean() > 0.7


def test_truth_of_test_and_validation_changes_nothing(tmp_path, made):
    other = TRUTH | {scene: np.roll(TRUTH[scene], 7, 0)[:, ::-1] for scene in ("c", "d")}
    assert contents(run(tmp_path, truth=other)) == contents(made)


def test_without_truth_the_threshold_is_that_of_the_params(tmp_path):
    folder = run(tmp_path, truth=None)
    assert json.loads((folder / "thresholds.json").read_text()) == {map.FEATURE_FIT: dict.fromkeys(NAMES, 0.03)}
    assert not (folder / "other_methods.npz").exists() and classes_of(folder, "d").max() > 0


def test_unknown_pixels_and_empty_blocks_are_passed_over(tmp_path):
    unknown = np.full((SIDE, SIDE), 255, np.uint8)
    cubes = CUBES | {"d": np.full_like(CUBES["d"], np.nan)}
    cubes["a"] = np.where((np.arange(SIDE) < 4)[:, None, None], np.nan, CUBES["a"])
    partly = np.where(np.arange(SIDE) % 3, TRUTH["a"], 255).astype(np.uint8)
    folder = run(tmp_path, truth=TRUTH | {"a": partly, "b": unknown, "d": unknown}, cubes=cubes)
    assert (classes_of(folder, "d") == 255).all() and (classes_of(folder, "a")[:4] == 255).all()
    with np.load(folder / "other_methods.npz") as others:
        assert all((others[name] == 255).all() for name in others)


def test_a_large_block_is_never_held_in_all_bands_as_float(tmp_path):
    side, bands = 160, np.arange(170, 215)
    cube = np.full((side, side, len(WAVELENGTHS)), 0.3, np.float32)
    folder = write_store(tmp_path / "store", {"a": cube}, truth={"a": np.ones((side, side), np.uint8)})
    store = CubeStore.open(folder)
    train, test = (pd.DataFrame([("a", n, role, 0, 0, side, side)], columns=blocks.COLUMNS)
                   for n, role in enumerate(("train", "test")))  # fmt: skip

    def score(spectra, scene):
        assert spectra.shape[1] == scene.shape[1] == len(bands) and len(scene) == side**2
        return np.ones((len(spectra), len(NAMES)), np.float32)

    tracemalloc.start()
    training = map.TrainingPixels(store, train, 0)
    map.compare(store, pd.concat([train, test]), training, {"stub": score}, bands)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < cube.nbytes


def test_no_known_pixel_for_training_is_named(tmp_path):
    unknown = np.full((SIDE, SIDE), 255, np.uint8)
    with pytest.raises(DataError, match="found no pixel with a known mineral in the training blocks; correct `truth`"):
        run(tmp_path, truth=TRUTH | {"a": unknown, "b": unknown})
    assert not (tmp_path / "map").exists()


def test_a_sensor_of_short_wave_infrared_alone_maps_with_fewer_rules(tmp_path, caplog):
    folder = run(tmp_path, bands=WAVELENGTHS > 1440)
    assert "no band for ferrous iron at 1000 nm" in caplog.text
    assert (classes_of(folder, "d") == TRUTH["d"]).mean() > 0.6
    with rasterio.open(folder / "iron/d.tif") as dataset:
        assert np.isnan(dataset.read(1)).all()


def test_a_sensor_that_ends_before_the_minerals_is_named(tmp_path):
    with pytest.raises(DataError, match=r"alunite: .*found no band, expected one at least"):
        run(tmp_path, bands=WAVELENGTHS < 2000)


def test_a_dry_run_writes_nothing(tmp_path):
    assert not run(tmp_path, dry_run=True).exists()
