"""Cubes of users as a store: values and no data where they belong, and values that are no reflectance."""

import json
from argparse import Namespace

import numpy as np
import pytest
import rasterio
import scipy.io

from src.core.stage.errors import DataError, StorageError
from src.minerals import ingest
from src.minerals.data import cube_files
from src.minerals.data.cube_store import NODATA, CubeStore, reflectance
from src.minerals.data.simulated_spectra import WAVELENGTHS
from src.minerals.mapping.minerals import NAMES
from tests.conftest import minerals_params
from tests.minerals import cubes
from tests.minerals.cubes import write_envi

VALUES = cubes.reflectance()
STORED = np.rint(VALUES * 10000).astype(np.int16)


def run(folder, dry_run=False, **data) -> CubeStore | None:
    """The store of the cubes in `folder`; `data` are keys of its section, without truth unless it says so."""
    keys = {f"data.{key}": value for key, value in ({"truth": None} | data).items()}
    out = folder.with_name("store")
    ingest.main(minerals_params(keys), Namespace(root=folder), Namespace(out=out), dry_run)
    return None if dry_run else CubeStore.open(out)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "cubes"
    folder.mkdir()
    return folder


def test_values_land_where_they_belong(root):
    write_envi(root, "scene", STORED, map_info=["UTM", 1, 1, 494000, 4156000, 15, 15, 11, "North", "WGS-84"])
    store = run(root)
    np.testing.assert_array_equal(store.stored("scene"), STORED)
    np.testing.assert_allclose(store.wavelengths, WAVELENGTHS, atol=0.01)
    assert store.place("scene") == ("EPSG:32611", (15, 0, 494000, 0, -15, 4156000))
    assert store.good.all() and store.filled.all() and store.truth("scene") is None
    store.verify()


def test_bands_are_sorted_and_their_values_and_flags_with_them(root):
    order = np.random.default_rng(1).permutation(224)
    good = np.arange(224) != 9
    header = {"wavelength": [f"{nm:.2f}" for nm in WAVELENGTHS[order]], "bbl": good[order].astype(int).tolist()}
    write_envi(root, "scene", STORED[..., order], **header)
    store = run(root)
    np.testing.assert_array_equal(store.stored("scene"), STORED)
    assert np.flatnonzero(~store.good).tolist() == [9]


def test_a_scene_longer_than_what_is_read_at_once(root, monkeypatch):
    monkeypatch.setattr(cube_files, "BLOCK_BYTES", 4 * 4 * 224 * 64)  # 64 lines
    values = np.rint(cubes.reflectance(67, 4) * 10000).astype(np.int16)
    write_envi(root, "scene", values, interleave="bsq")
    np.testing.assert_array_equal(run(root).stored("scene"), values)


def test_no_data_lies_where_a_good_band_has_no_value(root):
    values = STORED.copy()
    values[1, 2] = -50  # everywhere
    values[3, 4, 100] = -50  # in one good band
    values[5, 0, 9] = -50  # in one bad band
    values[..., 20] = -50  # a band without values
    bbl = (np.arange(224) != 9).astype(int).tolist()
    write_envi(root, "scene", values, data_ignore_value=-50, bbl=bbl)
    store = run(root)
    stored = store.stored("scene")
    valid = reflectance(stored)[1]
    assert np.argwhere(~valid).tolist() == [[1, 2], [3, 4]]
    assert (stored[~valid] == NODATA).all() and (stored[valid] != NODATA).all()
    assert np.flatnonzero(~store.filled).tolist() == [20]


def test_a_scene_in_a_wide_margin_of_no_data_is_taken(root, monkeypatch):
    monkeypatch.setattr(cube_files, "BLOCK_BYTES", 4 * 20 * 224 * 4)  # 4 lines
    values = np.full((17, 20, 224), -50, np.int16)
    values[11, 13] = STORED[0, 0]
    write_envi(root, "scene", values, data_ignore_value=-50)
    assert np.argwhere(reflectance(run(root).stored("scene"))[1]).tolist() == [[11, 13]]


def test_a_margin_of_zeros_that_nobody_declares_is_no_data(root):
    stored = STORED.copy()
    stored[:, :4] = 0  # most of the scene, which would else have a median of 0
    stored[0, 4, :220] = 0  # dark, but not in every band
    write_envi(root, "scene", stored)
    store = run(root)
    found = store.stored("scene")
    assert (found[:, :4] == NODATA).all()
    np.testing.assert_array_equal(found[:, 4], stored[:, 4])


def test_bands_of_zeros_are_found(root):
    values = STORED.copy()
    values[..., [106, 107, 160]] = 0
    write_envi(root, "scene", values)
    write_envi(root, "zfull", STORED)
    store = run(root)
    assert np.flatnonzero(~store.filled).tolist() == [106, 107, 160]
    assert reflectance(store.stored("scene"))[1].all()


def test_nan_is_no_data_without_being_declared(root):
    values = VALUES.copy()
    values[2, 3, 50], values[2, 4, 50] = np.nan, np.inf
    write_envi(root, "scene", values, dtype=np.float32, reflectance_scale_factor=None)
    store = run(root)
    assert np.argwhere(~reflectance(store.stored("scene"))[1]).tolist() == [[2, 3], [2, 4]]
    np.testing.assert_array_equal(store.stored("scene")[0], np.rint(VALUES[0] * 10000))


def test_scale_and_no_data_come_from_the_params_where_the_file_lacks_them(root):
    values = (STORED // 10).astype(np.int16)
    values[0, 0] = -9
    write_envi(root, "scene", values, reflectance_scale_factor=None)
    stored = run(root, scale=1000.0, nodata=-9.0).stored("scene")
    np.testing.assert_array_equal(stored[1:], values[1:] * 10)
    assert (stored[0, 0] == NODATA).all()


def test_the_file_counts_more_than_the_params(root):
    write_envi(root, "scene", STORED, data_ignore_value=-50)
    np.testing.assert_array_equal(run(root, scale=100.0, nodata=float(STORED[0, 0, 0])).stored("scene"), STORED)


def test_mat_with_a_list_of_wavelengths(root, tmp_path):
    scipy.io.savemat(root / "cuprite.mat", {"x": STORED})
    path = tmp_path / "bands.csv"
    path.write_text("wavelength_nm,fwhm\n" + "".join(f"{nm},10.5\n" for nm in WAVELENGTHS))
    with pytest.raises(DataError, match="wavelength: found none, expected one for each of 224 bands"):
        run(root, scale=10000.0)
    store = run(root, scale=10000.0, wavelengths=str(path))
    np.testing.assert_array_equal(store.stored("cuprite"), STORED)
    assert (store.fwhm == 10.5).all()


@pytest.mark.parametrize(
    ("factor", "dtype", "header", "said"),
    [
        (10000, np.int16, {}, "reflectance scale factor: found int16 and no scale.*set `scale` .10000 is usual"),
        (10000, np.float32, {}, "median of 3.* after division by 1, .*Set `scale`: 10000"),
        (40, np.float32, {}, "Radiance. Correct it for the atmosphere.* per cent: set `scale`: 100"),
        (10000, np.int16, {"reflectance_scale_factor": 1}, "digital numbers need calibration"),
        (10000, np.int16, {"reflectance_scale_factor": 1e8}, "The scale seems too large"),
        (10000, np.int16, {"reflectance_scale_factor": 0}, "factor: found 0, expected a number above 0"),
        (10000, np.int16, {"reflectance_scale_factor": "ten"}, "factor: found 'ten', expected a number"),
    ],
)
def test_values_that_are_no_reflectance_are_named_with_what_to_do(root, factor, dtype, header, said):
    write_envi(root, "scene", np.rint(VALUES * factor), dtype=dtype, **({"reflectance_scale_factor": None} | header))
    with pytest.raises(DataError, match=f"scene.hdr: .*{said}"):
        run(root)
    assert not root.with_name("store").exists() and len(list(root.parent.iterdir())) == 1


def test_a_cube_of_nothing_is_named(root):
    write_envi(root, "scene", 0 * STORED)
    with pytest.raises(DataError, match="found 0 or no data in every band and pixel"):
        run(root)


def test_no_data_that_nobody_declared_is_named_by_its_lines(root):
    values = VALUES.copy()
    values[4, 1] = -9999
    write_envi(root, "scene", values, dtype=np.float32, reflectance_scale_factor=None)
    with pytest.raises(DataError, match=r"lines 1 to 6: found a reflectance of -9999, .*declare .*: `nodata`"):
        run(root)
    assert run(root, nodata=-9999.0)


def test_a_bad_band_may_hold_any_number(root):
    values = VALUES.copy()
    values[..., 9] = 1e6
    bbl = (np.arange(224) != 9).astype(int).tolist()
    write_envi(root, "scene", values, dtype=np.float32, reflectance_scale_factor=None, bbl=bbl)
    stored = run(root).stored("scene")
    np.testing.assert_array_equal(np.delete(stored, 9, -1), np.delete(np.rint(VALUES * 10000), 9, -1))
    assert (stored[..., 9] == 32767).all()


@pytest.mark.parametrize("bands", [slice(0, 200), slice(None)])
def test_two_sensors_in_one_folder_are_named(root, bands):
    write_envi(root, "a", STORED)
    nm = WAVELENGTHS[bands] + 2
    write_envi(root, "b", STORED[..., bands], wavelength=[f"{value:.2f}" for value in nm])
    with pytest.raises(DataError, match=r"b.hdr: wavelengths: found .* expected the bands of one sensor"):
        run(root)


def test_a_second_cube_that_is_wrong_leaves_nothing_and_an_old_store_stays(root):
    write_envi(root, "a", STORED)
    run(root)
    write_envi(root, "b", 0 * STORED)
    with pytest.raises(DataError, match=r"b\.hdr"):
        run(root)
    assert sorted(path.name for path in root.parent.iterdir()) == ["cubes", "store"]
    assert list(CubeStore.open(root.with_name("store")).scenes) == ["a"]


@pytest.mark.parametrize(("cubes", "said"), [(1, "ingest: 1 cube of 224 bands"), (2, "ingest: 2 cubes of 224 bands")])
def test_one_cube_is_no_cubes(root, capsys, cubes, said):
    for number in range(cubes):
        write_envi(root, f"s{number}", STORED)
    run(root, dry_run=True)
    assert capsys.readouterr().out.startswith(said)


def test_a_dry_run_writes_nothing(root):
    write_envi(root, "a", STORED)
    run(root, dry_run=True)
    assert not root.with_name("store").exists()


def test_a_single_cube_is_its_own_root_and_a_missing_folder_is_named(root):
    path = write_envi(root, "a", STORED)
    write_envi(root, "b", STORED)
    out = root.with_name("store")
    ingest.main(minerals_params({"data.truth": None}), Namespace(root=path), Namespace(out=out))
    assert list(CubeStore.open(out).scenes) == ["a"]
    with pytest.raises(StorageError, match="no such folder; correct `root`"):
        run(root / "none")


def write_truth(root, shape=(6, 5), mineral="kaolinite"):
    (root / "truth").mkdir()
    (root / "truth/classes.csv").write_text(f"value,mineral\n3,{mineral}\n0,background\n")
    values = np.zeros(shape, np.uint8)
    values[1, 2] = 3
    with rasterio.open(
        root / "truth/scene.tif", "w", driver="GTiff", height=shape[0], width=shape[1], count=1, dtype="uint8"
    ) as dataset:
        dataset.write(values, 1)


def test_truth_lies_beside_its_scene(root):
    write_envi(root, "scene", STORED)
    write_truth(root)
    store = run(root, truth="truth")
    expected = np.zeros((6, 5), int)
    expected[1, 2] = 1 + NAMES.index("kaolinite")
    np.testing.assert_array_equal(store.truth("scene"), expected)
    assert store.abundance("scene") is None
    assert set(json.loads((store.folder / "manifest.json").read_text())["files"]) == {"scene.npy", "truth/scene.npy"}


@pytest.mark.parametrize(
    ("change", "said"),
    [({"shape": (5, 6)}, r"found \(5, 6\) px, expected \(6, 5\)"), ({"mineral": "quartz"}, "found 'quartz'")],
)
def test_truth_of_another_size_or_with_an_unknown_mineral_is_named(root, change, said):
    write_envi(root, "scene", STORED)
    write_truth(root, **change)
    with pytest.raises(DataError, match=said):
        run(root, truth="truth")
    assert not root.with_name("store").exists()


def test_a_folder_without_cubes_or_with_two_of_one_name_is_named(tmp_path):
    with pytest.raises(DataError, match="found no cube"):
        ingest.find(tmp_path)
    write_envi(tmp_path, "scene", STORED)
    (tmp_path / "scene.mat").touch()
    with pytest.raises(DataError, match="two cubes named scene"):
        ingest.find(tmp_path)
    with pytest.raises(StorageError, match="no such folder"):
        ingest.find(tmp_path / "none")
