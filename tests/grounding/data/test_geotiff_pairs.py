"""Pairs of GeoTIFFs: files by name, bands by name, grids, dates and masks."""

import numpy as np
import pytest
import rasterio

from src.core.stage.errors import DataError
from src.grounding.data import geotiff_pairs, pairs
from src.grounding.data.sensors import OPTICAL_BANDS, SAR_BANDS
from tests.grounding.pair_files import declare, images, write_pair, write_raster

ALL = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]


def open_one(folder, sar_names=None, names=None):
    ((name, paths),) = geotiff_pairs.find(folder).items()
    return geotiff_pairs.open_pair(name, *paths, sar_names, names)


def twelve(optical: np.ndarray) -> np.ndarray:
    """The four bands at their places among twelve, each other one 7777."""
    stack = np.full((12, *optical.shape[1:]), 7777, np.int16)
    stack[[1, 2, 3, 7]] = np.rint(optical * 10_000)
    return stack


def test_files_are_matched_by_name_and_by_folder(tmp_path):
    write_pair(tmp_path / "a", "plain")
    for sensor, values in zip(("S1", "S2"), images(0), strict=True):
        write_raster(tmp_path / f"b/Spain_1_{sensor}Hand.tif", values)
        write_raster(tmp_path / f"b/{sensor}L2A/x_3.tif", values)
    write_raster(tmp_path / "b/Spain_1_LabelHand.tif", images(0)[0])
    write_raster(tmp_path / "b/DEM/x_3.tif", images(0)[0])
    found = geotiff_pairs.find(tmp_path)
    assert list(found) == ["Spain_1", "plain", "x_3"]
    assert found["Spain_1"][1].name == "Spain_1_S2Hand.tif" and found["x_3"][0].parent.name == "S1L2A"


def test_an_image_without_partner_or_with_two_is_named(tmp_path):
    _, optical = write_pair(tmp_path, "a")
    write_pair(tmp_path / "more", "a")
    with pytest.raises(DataError, match=r"a_s1\.tif: a second radar image of a, beside"):
        geotiff_pairs.find(tmp_path)
    assert list(geotiff_pairs.find(tmp_path, [tmp_path / "more"])) == ["a"]
    optical.unlink()
    with pytest.raises(DataError, match=r"a_s1\.tif: found the radar image of a alone"):
        geotiff_pairs.find(tmp_path, [tmp_path / "more"])


def test_bands_are_read_by_name_in_any_order_and_spelling(tmp_path):
    sar, optical = images(5)
    order = np.random.default_rng(0).permutation(12)
    stored, names = twelve(optical)[order], [ALL[at].replace("B0", "b") for at in order]
    path = write_raster(tmp_path / "a_s2.tif", stored, names)
    read = geotiff_pairs.read_bands(path, OPTICAL_BANDS, None, "data.optical.bands")
    np.testing.assert_array_equal(read, np.rint(optical * 10_000))
    path = write_raster(tmp_path / "a_s1.tif", sar[::-1], ["VH", "VV"])
    np.testing.assert_array_equal(geotiff_pairs.read_bands(path, SAR_BANDS, None, "data.sar.bands"), sar)


def test_declared_names_stand_for_those_that_files_lack(tmp_path):
    """As in TerraMesh: no names of optical bands, and radar bands that are both called `bands`."""
    sar, optical = images(5)
    write_raster(tmp_path / "S1RTC/x.tif", sar.astype(np.float64), ["bands", "bands"])
    write_raster(tmp_path / "S2L2A/x.tif", twelve(optical))
    with pytest.raises(DataError, match=r"found BANDS, BANDS, expected VV once; .* `data\.sar\.bands`"):
        open_one(tmp_path)
    with pytest.raises(DataError, match=r"\(no name\), .*expected B02 once; .* `data\.optical\.bands`"):
        open_one(tmp_path, ["VV", "VH"])
    with pytest.raises(DataError, match=r"bands: found 12, expected 4 as `data\.optical\.bands` names"):
        open_one(tmp_path, ["VV", "VH"], list(OPTICAL_BANDS))
    pair = open_one(tmp_path, ["VV", "VH"], ALL)
    assert pair.name == "x" and pair.crs == "EPSG:32630" and (pair.height, pair.width) == sar.shape[1:]
    read = geotiff_pairs.read_bands(pair.optical, OPTICAL_BANDS, ALL, "data.optical.bands")
    np.testing.assert_array_equal(read, np.rint(optical * 10_000))


def test_declared_names_that_contradict_the_file_are_named(tmp_path):
    write_pair(tmp_path, "a")
    with pytest.raises(DataError, match=r"a_s2\.tif: bands: found B02 as band 1, expected band 4 as `data.optical"):
        open_one(tmp_path, names=["B04", "B03", "B08", "B02"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"crs": "EPSG:32631"}, "crs: found EPSG:32630, and EPSG:32631 in a_s2.tif"),
        ({"transform": (10, 0, 500_005, 0, -10, 5_000_000)}, "transform: found .* and .*500005.* in a_s2.tif"),
        ({"transform": (20, 0, 500_000, 0, -20, 5_000_000)}, "transform: found"),
    ],
)
def test_pairs_on_two_grids_are_named(tmp_path, options, said):
    write_pair(tmp_path, "a", optical_options=options)
    with pytest.raises(DataError, match=f"a_s1.tif: {said}.*expected .*; warp one of them"):
        open_one(tmp_path)


def test_other_sizes_no_crs_and_turned_pixels_are_named(tmp_path):
    write_pair(tmp_path / "size", "a", optical=images(0)[1][:, :-1])
    with pytest.raises(DataError, match=r"a_s1\.tif: size: found \(40, 40\) px, and \(39, 40\) in a_s2\.tif"):
        open_one(tmp_path / "size")
    write_pair(tmp_path / "crs", "a", sar_options={"crs": None}, optical_options={"crs": None})
    with pytest.raises(DataError, match=r"a_s1\.tif: crs: found None"):
        open_one(tmp_path / "crs")
    turned = {"transform": (10, 0, 500_000, 0, 10, 5_000_000)}
    write_pair(tmp_path / "turned", "a", sar_options=turned, optical_options=turned)
    with pytest.raises(DataError, match=r"transform: .*expected north-up pixels"):
        open_one(tmp_path / "turned")


def test_dates_come_from_tags_and_the_sidecar_counts_more(tmp_path):
    _, optical = write_pair(tmp_path, "a", optical_options={"tags": {"TIFFTAG_DATETIME": "2021:07:25 10:00:00"}})
    pair = open_one(tmp_path)
    assert (pair.sar_date, pair.optical_date, pair.split, pair.offset) == ("2021-07-20", "2021-07-25", None, None)
    with pytest.raises(DataError, match=r"found 2021-07-20 .* 2021-07-25 .*, 5 days apart, expected at most 4"):
        pairs.check_days(pair, 4)
    pairs.check_days(pair, 5)
    declare(optical, date="2021-07-21", offset=-1000, split="ground")
    pair = open_one(tmp_path)
    assert (pair.optical_date, pair.split, pair.offset) == ("2021-07-21", "ground", -1000)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"date": "July"}, "date: found 'July', expected a date such as"),
        ({"ofset": -1000}, "ofset: unknown key, expected date, offset, split"),
        ({"offset": "none"}, "offset: found 'none', expected a number"),
        ({"split": "exam"}, "split: found 'exam', expected one of train, val"),
    ],
)
def test_a_sidecar_that_is_wrong_is_named(tmp_path, values, said):
    declare(write_pair(tmp_path, "a")[1], **values)
    with pytest.raises(DataError, match=rf"a_s2\.tif\.json: {said}"):
        open_one(tmp_path)


def test_a_date_that_is_not_known_is_named_unless_dates_do_not_count(tmp_path):
    write_pair(tmp_path, "a", sar_options={"tags": {}})
    pair = open_one(tmp_path)
    assert pair.sar_date == ""
    with pytest.raises(
        DataError,
        match=r"a_s1\.tif: date: found none of the sar image.*declare date in a_s1\.tif\.json, or leave `max_days`",
    ):
        pairs.check_days(pair, 3)
    pairs.check_days(pair, None)


def test_scale_and_offset_in_tags_are_named(tmp_path):
    write_pair(tmp_path, "a", optical_options={"scales": (1e-4,) * 4, "offsets": (-0.1,) * 4})
    with pytest.raises(DataError, match=r"a_s2\.tif: band 1: found the tags scale 0\.0001 and offset -0\.1.*-unscale"):
        open_one(tmp_path)


def test_no_data_of_value_nan_and_mask_is_nan(tmp_path):
    sar, optical = images(2)
    sar = sar.copy()
    sar[0, 1, 1], sar[1, 2, 2], sar[1, 3, 3] = np.nan, np.inf, -99
    radar = write_raster(tmp_path / "a_s1.tif", sar, SAR_BANDS, nodata=-99)
    read = geotiff_pairs.read_bands(radar, SAR_BANDS, None, "data.sar.bands")
    assert np.argwhere(np.isnan(read)).tolist() == [[0, 1, 1], [1, 2, 2], [1, 3, 3]]
    path = write_raster(tmp_path / "a_s2.tif", np.rint(optical * 10_000), OPTICAL_BANDS)
    with rasterio.open(path, "r+") as dataset:
        mask = np.full(optical.shape[1:], 255, np.uint8)
        mask[5, 6] = 0
        dataset.write_mask(mask)
    read = geotiff_pairs.read_bands(path, OPTICAL_BANDS, None, "data.optical.bands")
    assert np.argwhere(np.isnan(read).any(0)).tolist() == [[5, 6]]


def test_what_is_no_geotiff_is_named(tmp_path):
    _, optical = write_pair(tmp_path, "a")
    content = optical.read_bytes()
    optical.write_text(f'<VRTDataset rasterXSize="1" rasterYSize="1"><SRS>{optical}</SRS></VRTDataset>')
    with pytest.raises(DataError, match=r"a_s2\.tif: found no GeoTIFF"):
        open_one(tmp_path)
    optical.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"a_s2\.tif: "):
        open_one(tmp_path)
        geotiff_pairs.read_bands(optical, OPTICAL_BANDS, None, "data.optical.bands")


def test_a_scene_too_large_for_memory_is_named_before_it_is_read(tmp_path, monkeypatch):
    write_pair(tmp_path, "a")
    monkeypatch.setattr(pairs, "MAX_BYTES", 4 * 40 * 40)
    with pytest.raises(DataError, match="size: found 2 x 40 x 40 numbers of 4 bytes, expected at most 6400"):
        open_one(tmp_path)
