"""NPZ tiles: keys, sidecars, and nothing that is unpickled or too large."""

import zipfile

import numpy as np
import pytest

from src.core.stage.errors import DataError
from src.grounding.data import npz_tiles, pairs
from tests.grounding.pair_files import images, write_tile

TRAIN = {"split": "train"}


def test_a_tile_is_read_with_what_its_sidecar_says(tmp_path):
    place = {"crs": "EPSG:32630", "transform": [10, 0, 500_000, 0, -10, 5_000_000], "more": "ignored"}
    dates = {"sar_date": "2021-07-20", "optical_date": "2021-07-21T10:00:00Z", "offset": -1000}
    path = write_tile(tmp_path / "train", "t", 4, sidecar=TRAIN | place | dates)
    assert npz_tiles.find(tmp_path) == {"t": path}
    pair = npz_tiles.open_tile(path)
    assert (pair.name, pair.split, pair.crs, pair.offset) == ("t", "train", "EPSG:32630", -1000)
    assert pair.transform == (10, 0, 500_000, 0, -10, 5_000_000) and pair.sar == pair.optical == path
    assert (pair.sar_date, pair.optical_date, pair.height, pair.width) == ("2021-07-20", "2021-07-21", 40, 40)
    sar, optical = images(4)
    np.testing.assert_array_equal(npz_tiles.read(path, npz_tiles.SAR_KEYS), sar)
    np.testing.assert_array_equal(npz_tiles.read(path, npz_tiles.OPTICAL_KEYS), np.rint(optical * 10_000))


def test_a_tile_without_place_has_pixels_and_no_crs(tmp_path):
    pair = npz_tiles.open_tile(write_tile(tmp_path, "t"))
    assert (pair.crs, pair.transform, pair.split, pair.sar_date) == ("", pairs.PIXELS, None, "")


def test_the_folder_gives_the_split_where_the_sidecar_does_not(tmp_path):
    assert npz_tiles.open_tile(write_tile(tmp_path / "val", "t", sidecar={})).split == "val"
    assert npz_tiles.open_tile(write_tile(tmp_path / "other", "t", sidecar={})).split is None


@pytest.mark.parametrize(
    ("sidecar", "said"),
    [
        ({"split": "valid"}, "split: found 'valid', expected one of train, val, validation"),
        ({"split": "test"}, "split: found 'test', expected 'train' as its folder"),
        (TRAIN | {"crs": "EPSG:32630"}, "transform: found None, expected six numbers"),
        (TRAIN | {"transform": [10, 0, 1, 0, -10, 1]}, "crs: found None"),
        (TRAIN | {"crs": "EPSG:1", "transform": [10, 0, 1, 0, -10, 1]}, "crs: found 'EPSG:1'"),
        (TRAIN | {"crs": "EPSG:32630", "transform": [10, 0, 1, 0, 10, 1]}, "transform: .*expected north-up"),
        (TRAIN | {"sar_date": "20.7.2021"}, "sar_date: found '20.7.2021', expected a date"),
        ([1], "found list, expected an object"),
    ],
)
def test_a_sidecar_that_is_wrong_is_named(tmp_path, sidecar, said):
    path = write_tile(tmp_path / "train", "t", sidecar=sidecar)
    with pytest.raises(DataError, match=rf"t\.json: {said}"):
        npz_tiles.open_tile(path)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"s1_vh": None}, "s1_vh: missing, found s1_vv, s2_b2, s2_b3, s2_b4, s2_b8; save the array"),
        ({"s2_b8": np.array([{"a": 1}])}, r"s2_b8: dtype: found Python objects \(a pickle\)"),
        ({"s2_b8": np.zeros((40, 40), complex)}, "s2_b8: dtype: found complex128, expected real numbers"),
        ({"s2_b8": np.zeros((40, 39))}, r"s2_b8: found shape \(40, 39\), expected \(H, W\) as s1_vv \(40, 40\)"),
        ({"s1_vv": np.zeros((1, 40, 40))}, r"s1_vv: found shape \(1, 40, 40\), expected \(H, W\)"),
    ],
)
def test_an_array_that_is_wrong_is_named(tmp_path, arrays, said):
    path = write_tile(tmp_path, "t", arrays=arrays)
    with pytest.raises(DataError, match=rf"t\.npz: {said}"):
        npz_tiles.open_tile(path)


def test_two_tiles_of_one_name_would_be_one_scene_in_two_roles(tmp_path):
    for folder in ("train", "test"):
        write_tile(tmp_path / folder, "t", sidecar={"split": folder})
    with pytest.raises(DataError, match=r"train/t\.npz: a second tile of the name t, beside .*test/t\.npz"):
        npz_tiles.find(tmp_path)


def test_files_that_are_no_or_half_an_npz_are_named(tmp_path):
    path = write_tile(tmp_path, "t")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="found no array"):
        npz_tiles.open_tile(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("s1_vv.npy", b"no header")
    with pytest.raises(DataError, match="s1_vv: found no array"):
        npz_tiles.open_tile(path)


def test_a_header_that_claims_more_than_fits_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "t.npz"
    claimed = np.lib.format.header_data_from_array_1_0(np.zeros(1, np.float32)) | {"shape": (10**6, 10**6)}
    with zipfile.ZipFile(path, "w") as archive, archive.open("s1_vv.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, claimed)
    with pytest.raises(DataError, match="size: found 1000000 x 1000000 numbers of 4 bytes"):
        npz_tiles.header(path, "s1_vv")
    with zipfile.ZipFile(path, "w") as archive, archive.open("s1_vv.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, claimed | {"shape": (10, 10)})
        member.write(b"\0" * 399)
    with pytest.raises(DataError, match="bytes: found 527, expected 528 by its header"):
        npz_tiles.header(path, "s1_vv")


def test_values_that_are_not_finite_are_nan(tmp_path):
    band = images(4)[0][0].copy()
    band[0, 1], band[2, 3] = np.nan, -np.inf
    path = write_tile(tmp_path, "t", arrays={"s1_vv": band})
    assert np.argwhere(np.isnan(npz_tiles.read(path, npz_tiles.SAR_KEYS)[0])).tolist() == [[0, 1], [2, 3]]
