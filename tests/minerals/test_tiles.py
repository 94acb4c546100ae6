"""The stage `tiles`: counts by hand, pixels of pictures, statistics of training tiles alone."""

import json
from argparse import Namespace

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from PIL import Image

from src.core.stage.errors import DataError, ParamsError
from src.minerals import tiles
from src.minerals.data import band_table, scene_files
from src.minerals.data.cube_store import CubeStore
from src.minerals.data.simulated_spectra import FWHM, WAVELENGTHS
from src.minerals.mapping.minerals import NAMES
from tests.conftest import minerals_params
from tests.minerals import cubes
from tests.minerals.study import contents, write_blocks, write_kept, write_store

SHAPE = 48, 40
ROLES = {"a": "train", "b": "validation", "c": "test"}
KAOLINITE = 1 + NAMES.index("kaolinite")
CUBES = {name: np.rint(cubes.reflectance(*SHAPE, seed) * 1e4) / 1e4 for seed, name in enumerate(ROLES)}
CUBES["c"] += 0.3  # other statistics than those of training


def inputs_of(tmp_path, cubes_of=None, truth=True, bands=slice(None)) -> Namespace:
    """Outputs of the stages before: one block a scene, whose map is kaolinite in its 20 upper lines."""
    cubes_of = {name: cube[..., bands] for name, cube in (cubes_of or CUBES).items()}
    classes = {}
    for name, cube in cubes_of.items():
        classes[name] = np.zeros(cube.shape[:2], np.uint8)
        classes[name][:20] = KAOLINITE
        classes[name][np.isnan(cube[..., 0])] = 255
    known = {name: np.where(mapped == KAOLINITE, 1, mapped) for name, mapped in classes.items()} if truth else None
    more = {"truth": known, "wavelengths": WAVELENGTHS[bands], "fwhm": FWHM[bands]}
    store = write_store(tmp_path / "store", cubes_of, **more)
    rows = [(name, number, ROLES[name], 0, 0, *cube.shape[:2]) for number, (name, cube) in enumerate(cubes_of.items())]
    (tmp_path / "map/minerals").mkdir(parents=True)
    for name, mapped in classes.items():
        place = CubeStore.open(store).place(name)
        scene_files.write_classes_map(tmp_path / "map/minerals" / f"{name}.tif", mapped, place)
    bands_of, split_of = write_kept(tmp_path / "bands", store), write_blocks(tmp_path / "split", rows)
    return Namespace(store=store, bands=bands_of, split=split_of, map=tmp_path / "map")


def run(tmp_path, inputs: Namespace, name="tiles", dry_run=False, **keys):
    changes = {"tiles.tile_px": 32, "tiles.stride": 8} | {f"tiles.{key}": value for key, value in keys.items()}
    tiles.main(minerals_params(changes), inputs, Namespace(out=tmp_path / name), dry_run)
    return tmp_path / name


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiles")
    inputs = inputs_of(folder)
    return inputs, run(folder, inputs)


def test_the_table_is_what_can_be_counted_by_hand(made):
    table = pd.read_parquet(made[1] / "tiles.parquet")
    assert len(table) == 3 * 3 * 2 and table["tile"].is_unique  # 3 scenes, 3 tops, 2 lefts
    assert table["role"].tolist() == [ROLES[scene] for scene in table["scene"]] and (table["valid"] == 1).all()
    assert table["tile"][1] == "a_0000_0008"
    expected = table["top"].map({0: 20 / 32, 8: 12 / 32, 16: 4 / 32})
    np.testing.assert_allclose(table["map_kaolinite"], expected)
    np.testing.assert_allclose(table["truth_alunite"], expected)
    assert table["map_altered"].all() and (table["map_alunite"] == 0).all() and (table["truth_kaolinite"] == 0).all()


def test_the_threshold_of_alteration_is_that_of_the_params(tmp_path, made):
    folder = run(tmp_path, made[0], altered=0.2)
    altered = pd.read_parquet(folder / "tiles.parquet").groupby("top")["map_altered"].unique()
    assert altered.map(list).to_dict() == {0: [True], 8: [True], 16: [False]}
    assert json.loads((folder / "settings.json").read_text())["altered"] == 0.2


def test_the_audit_says_that_roles_share_no_pixel(made):
    assert json.loads((made[1] / "audit.json").read_text()) == {
        "pairs_of_roles_that_share_pixels": 0,
        "tiles": {"train": 6, "validation": 6, "test": 6},
        "tiles_without_overlap": {"train": 1, "validation": 1, "test": 1},
    }


@pytest.mark.parametrize("name", band_table.COMPOSITES)
def test_pictures_hold_their_tiles_pixels_stretched_by_training_tiles(made, name):
    inputs, folder = made
    kept = band_table.read_kept(inputs.bands, CubeStore.open(inputs.store))
    bands = band_table.composite_bands(WAVELENGTHS, kept, name)
    stretch = np.array(json.loads((folder / "settings.json").read_text())["stretch"][name])
    tops, lefts = (0, 8, 16), (0, 8)
    training = [CUBES["a"][top : top + 32, left : left + 32, bands].reshape(-1, 3) for top in tops for left in lefts]
    expected = np.percentile(np.concatenate(training), [2, 98], axis=0).T
    np.testing.assert_allclose(stretch, expected, atol=1e-5)
    low, high = stretch.T
    for tile, scene, top, left in (("a_0016_0008", "a", 16, 8), ("c_0008_0000", "c", 8, 0)):
        shown = np.asarray(Image.open(folder / "images" / name / f"{tile}.png"))
        values = (CUBES[scene][top : top + 32, left : left + 32, bands] - low) / (high - low)
        np.testing.assert_allclose(shown, np.clip(values, 0, 1) * 255, atol=0.6)


def test_every_tile_has_its_picture(made):
    table = pd.read_parquet(made[1] / "tiles.parquet")
    for name in band_table.COMPOSITES:
        assert sorted(path.stem for path in (made[1] / "images" / name).iterdir()) == sorted(table["tile"])


def test_statistics_are_of_training_pixels(made):
    inputs, folder = made
    kept = band_table.read_kept(inputs.bands, CubeStore.open(inputs.store))
    spectra = np.concatenate([CUBES["a"][top : top + 32, left : left + 32, kept].reshape(-1, kept.sum())
                              for top in (0, 8, 16) for left in (0, 8)])  # fmt: skip
    spectra /= spectra.mean(1, keepdims=True)
    found = safetensors.numpy.load_file(folder / "statistics.safetensors")
    np.testing.assert_allclose(found["mean"], spectra.mean(0), rtol=1e-4)
    np.testing.assert_allclose(found["sd"], spectra.std(0), rtol=1e-3)


def test_tiles_without_enough_data_are_left_out(tmp_path):
    cubes_of = {name: cube.copy() for name, cube in CUBES.items()}
    cubes_of["a"][:16] = np.nan  # tiles at 0, 8 and 16 have 50 %, 75 % and all of their pixels
    cubes_of["b"][40:, :8] = np.nan  # the last one at 0 lacks 8 x 8 pixels
    inputs = inputs_of(tmp_path, cubes_of)
    table = pd.read_parquet(run(tmp_path, inputs, min_valid_ratio=0.8) / "tiles.parquet")
    assert table[table["scene"] == "a"]["top"].unique().tolist() == [16] and len(table) == 2 + 6 + 6
    row = table.set_index("tile").loc["b_0016_0000"]
    assert row["valid"] == 1 - 64 / 1024 and row["map_kaolinite"] == pytest.approx(4 * 32 / (1024 - 64))
    shown = np.asarray(Image.open(tmp_path / "tiles/images/clay/b_0016_0000.png"))
    assert (shown[24:, :8] == 0).all() and shown[:24].any()
    table = pd.read_parquet(run(tmp_path, inputs, "half", min_valid_ratio=0.5) / "tiles.parquet")
    assert len(table) == 18


def test_no_tile_for_a_role_is_named(tmp_path):
    cubes_of = {name: cube.copy() for name, cube in CUBES.items()}
    cubes_of["a"][10:40] = np.nan
    with pytest.raises(DataError, match="found no tile for train, expected some; lower `tile_px`"):
        run(tmp_path, inputs_of(tmp_path, cubes_of))
    assert not (tmp_path / "tiles").exists()


def test_scenes_of_no_data_alone_are_named(tmp_path):
    cubes_of = {name: np.full_like(cube, np.nan) for name, cube in CUBES.items()}
    with pytest.raises(DataError, match="no tile has 80% pixels with data; lower `min_valid_ratio`"):
        run(tmp_path, inputs_of(tmp_path, cubes_of))


def test_a_tile_larger_than_the_scene_is_named(tmp_path, made):
    with pytest.raises(ParamsError, match=r"tiles\.tile_px: found 49, no block of scenes of {\(48, 40\)} px"):
        run(tmp_path, made[0], tile_px=49)


def test_without_truth_and_without_visible_light(tmp_path, caplog):
    inputs = inputs_of(tmp_path, truth=False, bands=WAVELENGTHS > 1000)
    folder = run(tmp_path, inputs)
    table = pd.read_parquet(folder / "tiles.parquet")
    assert not any(column.startswith("truth") for column in table) and "map_altered" in table
    assert [path.name for path in (folder / "images").iterdir()] == ["clay"]
    assert "not drawn: composite natural" in caplog.text


def test_the_same_in_the_same_out_and_a_dry_run_writes_nothing(tmp_path, made):
    assert not run(tmp_path, made[0], "dry", dry_run=True).exists()
    assert contents(run(tmp_path, made[0], "again")) == contents(made[1])
