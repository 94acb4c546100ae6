"""Cloud masks and given first guesses: on the scene's grid, by name, and never missing in silence."""

import numpy as np
import pytest

from src.core.stage.errors import DataError, StorageError
from src.grounding.data import companions
from src.grounding.data.pairs import Pair
from src.grounding.data.sensors import OPTICAL_BANDS
from tests.grounding.pair_files import SIDE, images, write_raster

PLACE = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)
OPTICAL = images(0)[1]


@pytest.fixture
def pair(tmp_path):
    return Pair("a", tmp_path / "a_s1.tif", tmp_path / "a_s2.tif", SIDE, SIDE, "EPSG:32630", PLACE)


def test_clouds_and_no_data_hide_the_ground(tmp_path, pair):
    mask = np.zeros((1, SIDE, SIDE), np.uint8)
    mask[0, 2, 3], mask[0, 4, 5] = 1, 255
    write_raster(tmp_path / "a.tif", mask, nodata=255)
    assert np.argwhere(companions.read_cloud_mask(tmp_path, pair)).tolist() == [[2, 3], [4, 5]]


def test_a_cloud_mask_that_is_wrong_is_named(tmp_path, pair):
    with pytest.raises(StorageError, match=r"a\.tif: no such file; .*`cloud_mask`"):
        companions.read_cloud_mask(tmp_path, pair)
    write_raster(tmp_path / "a.tif", np.full((1, SIDE, SIDE), 4, np.uint8))
    with pytest.raises(DataError, match=r"a\.tif: pixels: found the value 4, expected 0 .* and 1"):
        companions.read_cloud_mask(tmp_path, pair)
    for wrong in ({"crs": "EPSG:32631"}, {"transform": (20, 0, 500_000, 0, -20, 5_000_000)}):
        write_raster(tmp_path / "a.tif", np.zeros((1, SIDE, SIDE), np.uint8), **wrong)
        with pytest.raises(DataError, match=r"a\.tif: grid: found .*expected EPSG:32630.* as a_s2\.tif; warp it"):
            companions.read_cloud_mask(tmp_path, pair)


def test_a_first_guess_is_read_from_either_format(tmp_path, pair):
    np.savez(tmp_path / "a.npz", opt_v2=OPTICAL)
    np.testing.assert_array_equal(companions.read_first_guess(tmp_path, pair, None), OPTICAL)
    (tmp_path / "a.npz").unlink()
    write_raster(tmp_path / "a.tif", OPTICAL[::-1], OPTICAL_BANDS[::-1])
    np.testing.assert_array_equal(companions.read_first_guess(tmp_path, pair, None), OPTICAL)
    np.testing.assert_array_equal(companions.read_first_guess(tmp_path, pair, ["B01", *OPTICAL_BANDS]), OPTICAL)


def test_a_first_guess_that_is_missing_or_wrong_is_named(tmp_path, pair):
    with pytest.raises(StorageError, match=r"a\.npz: opt_v2: found no such file, nor a\.tif.*`first_guess`: degrade"):
        companions.read_first_guess(tmp_path, pair, None)
    for arrays, said in (
        ({"opt_v3": OPTICAL}, "opt_v2: missing, found opt_v3"),
        ({"opt_v2": np.moveaxis(OPTICAL, 0, -1)}, r"found shape \(40, 40, 4\), expected \(4, 40, 40\)"),
        ({"opt_v2": np.array([None])}, "opt_v2: dtype: found Python objects"),
    ):
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(DataError, match=rf"a\.npz: .*{said}"):
            companions.read_first_guess(tmp_path, pair, None)
    (tmp_path / "a.npz").unlink()
    write_raster(tmp_path / "a.tif", OPTICAL)
    with pytest.raises(DataError, match=r"a\.tif: bands: found \(no name\)"):
        companions.read_first_guess(tmp_path, pair, None)
    write_raster(tmp_path / "a.tif", OPTICAL[:, 1:], OPTICAL_BANDS)
    with pytest.raises(DataError, match=r"a\.tif: grid: found .*\(39, 40\) px"):
        companions.read_first_guess(tmp_path, pair, None)
