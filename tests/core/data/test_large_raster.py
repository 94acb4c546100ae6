"""A large raster window by window, and a map back on disk."""

import numpy as np
import pytest
from rasterio import Affine

from src.core.data import large_raster, raster
from src.core.stage.errors import DataError
from tests.tiles import random_pixels, write_geotiff, write_npy

UP = Affine(10, 0, 400_000, 0, -10, 4_500_000)


def read(path, *window, bands=4):
    header = large_raster.read_header(path, bands)
    with raster.opened(header) as dataset:
        return large_raster.read_window(header, dataset, *window)


@pytest.mark.parametrize("layout", [{}, {"tiled": True, "blockxsize": 16, "blockysize": 16, "interleave": "pixel"}])
def test_windows_are_those_of_the_array(tmp_path, layout):
    pixels = random_pixels(0, height=50, width=70)
    pixels[2, 11:13, 20:23] = -128
    path = write_geotiff(tmp_path / "a.tif", pixels, **layout)
    for top, left, height, width in ((0, 0, 50, 70), (7, 15, 20, 33), (49, 69, 1, 1)):
        found, valid = read(path, top, left, height, width)
        window = np.s_[top : top + height, left : left + width]
        np.testing.assert_array_equal(found, pixels[(slice(None), *window)])
        np.testing.assert_array_equal(valid, (pixels != -128).all(0)[window])


def test_a_south_up_raster_is_read_from_its_north(tmp_path):
    pixels = random_pixels(1, height=40, width=30)
    down = Affine(10, 0, 400_000, 0, 10, 4_500_000 - 400)
    path = write_geotiff(tmp_path / "a.tif", pixels[:, ::-1], crs="EPSG:32650", transform=down)
    assert large_raster.read_header(path, 4).transform == UP
    np.testing.assert_array_equal(read(path, 5, 3, 8, 9)[0], pixels[:, 5:13, 3:12])


def test_floats_become_what_a_store_holds(tmp_path):
    pixels = random_pixels(2, height=20).astype(np.float32) / 100
    pixels[1, 3, 4], pixels[0, 5, 6] = np.nan, -9999
    path = write_geotiff(tmp_path / "a.tif", pixels, {"quantisation": "none"}, nodata=np.nan)
    found, valid = read(path, 0, 0, 20, 20)
    assert found.dtype == np.float16 and np.argwhere(~valid).tolist() == [[3, 4]] and not found[:, 3, 4].any()
    np.testing.assert_array_equal(found[:, valid], pixels[:, valid].astype(np.float16))
    write_geotiff(path, pixels, {"quantisation": "none"}, nodata=-9999)
    with pytest.raises(DataError, match=r"a\.tif: pixels: found NaN in 1 of 400.*gdal_edit -a_nodata nan"):
        read(path, 0, 0, 20, 20)
    found, valid = read(path, 4, 0, 16, 20)
    assert np.argwhere(~valid).tolist() == [[1, 6]] and not found[:, 1, 6].any()


def test_a_raster_may_exceed_a_tile_but_its_blocks_may_not(tmp_path, monkeypatch):
    monkeypatch.setattr(large_raster, "MAX_BLOCK_BYTES", 64 * 64)
    options = {"compress": "deflate", "blockysize": 64}
    path = write_geotiff(tmp_path / "a.tif", random_pixels(0, height=64), interleave="band", **options)
    assert large_raster.read_header(path, 4).height == 64
    mixed = write_geotiff(tmp_path / "b.tif", random_pixels(0, height=64), interleave="pixel", **options)
    with pytest.raises(DataError, match=r"b\.tif: blocks: found 64 x 64 px of 4 bands, expected at most 4096 bytes"):
        large_raster.read_header(mixed, 4)
    monkeypatch.setattr(large_raster, "MAX_RASTER_BYTES", 64 * 64 * 4 - 1)
    with pytest.raises(DataError, match=r"size: found 4 x 64 x 64 int8, expected at most 16383 bytes"):
        large_raster.read_header(path, 4)


def test_what_is_no_geotiff_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"a\.npy: format: found \.npy, expected a GeoTIFF"):
        large_raster.read_header(write_npy(tmp_path / "a.npy", random_pixels(0)), 4)
    (tmp_path / "b.tif").write_text("<VRTDataset/>")
    with pytest.raises(DataError, match=r"b\.tif: format"):
        large_raster.read_header(tmp_path / "b.tif", 4)


def test_a_damaged_block_is_named(tmp_path):
    path = write_geotiff(tmp_path / "a.tif", random_pixels(0, height=64), compress="deflate", blockysize=16)
    raw = bytearray(path.read_bytes())
    raw[-200:] = bytes(200)
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.tif: pixels.*copy or export it again"):
        read(path, 0, 0, 64, 64)
