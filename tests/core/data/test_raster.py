import math
import pickle

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio.transform import from_origin

from src.core.data import raster
from src.core.data.quantisation import NODATA, Quantisation
from src.core.stage.errors import DataError
from tests.tiles import random_pixels, write_geotiff, write_npy


def crop(path, bands=4, size=8, nan_is_nodata=False, dtype="int8"):
    """Header, pixels and valid mask of the centre crop."""
    header = raster.read_header(path, bands)
    pixels, valid = np.empty((bands, size, size), dtype), np.empty((size, size), bool)
    raster.read_crop(header, size, nan_is_nodata, pixels, valid)
    return header, pixels, valid


@pytest.mark.parametrize("options", [{}, {"interleave": "pixel", "compress": "deflate", "predictor": 2}])
def test_geotiff_and_npy_read_back_exactly(tmp_path, options):
    pixels = random_pixels(0)
    for path in (
        write_geotiff(tmp_path / "a.tif", pixels, **options),
        write_npy(tmp_path / "a.npy", pixels, {"quantisation": "alphaearth"}),
    ):
        header, found, valid = crop(path)
        np.testing.assert_array_equal(found, pixels)
        assert valid.all()
        assert (header.bands, header.height, header.width, header.dtype) == (4, 8, 8, "int8")
        assert header.quantisation == Quantisation("alphaearth")


def test_geotiff_header_has_crs_pixel_size_and_footprint(tmp_path):
    path = write_geotiff(tmp_path / "a.tif", random_pixels(0, height=10), lat=0.2, lon=20, pixel_size=0.04)
    header = raster.read_header(path, 4)
    assert header.crs == "EPSG:4326" and header.pixel_size == pytest.approx((0.04, 0.04))
    lat, lon, half_diagonal = raster.footprint(header, 10)
    assert (lat, lon) == pytest.approx((0.0, 20.2))
    assert half_diagonal == pytest.approx(math.hypot(0.2 * 111.32, 0.2 * 110.57), rel=1e-3)
    assert raster.footprint(header, 5)[2] == pytest.approx(half_diagonal / 2, rel=1e-2)


def test_footprint_comes_from_the_tiles_own_crs(tmp_path):
    utm = Affine(10, 0, 500_000 - 40, 0, -10, 4_427_757 + 40)  # centred on 117 E, 40 N in zone 50
    header = raster.read_header(write_geotiff(tmp_path / "a.tif", random_pixels(0), crs="EPSG:32650", transform=utm), 4)
    lat, lon, half_diagonal = raster.footprint(header, 8)
    assert (lat, lon) == pytest.approx((40.0, 117.0), abs=1e-4)
    assert half_diagonal == pytest.approx(0.0566, rel=1e-2)


def test_centre_crop_of_odd_margins(tmp_path):
    pixels = random_pixels(1, height=11, width=8)
    _, found, _ = crop(write_geotiff(tmp_path / "a.tif", pixels), size=8)
    np.testing.assert_array_equal(found, pixels[:, 1:9])


@pytest.mark.parametrize("kind", ["tif", "npy"])
def test_bottom_up_tile_equals_its_north_up_twin(tmp_path, kind):
    pixels = random_pixels(2, height=11)
    up = Affine(0.04, 0, 116, 0, -0.04, 40)
    down = Affine(0.04, 0, 116, 0, 0.04, 40 - 11 * 0.04)
    found = []
    for name, stored, transform in (("up", pixels, up), ("down", pixels[:, ::-1], down)):
        path = tmp_path / f"{name}.{kind}"
        if kind == "tif":
            write_geotiff(path, stored, transform=transform)
        else:
            write_npy(path, stored, {"crs": "EPSG:4326", "transform": list(transform[:6])})
        found.append(crop(path, size=8))
    (north, pixels_north, _), (south, pixels_south, _) = found
    assert not north.flipped and south.flipped
    np.testing.assert_array_equal(pixels_north, pixels_south)
    assert raster.footprint(north, 8) == pytest.approx(raster.footprint(south, 8))


def test_a_pixel_is_valid_when_no_band_is_no_data(tmp_path):
    pixels = random_pixels(3)
    pixels[2, 1, 5] = NODATA
    _, _, valid = crop(write_geotiff(tmp_path / "a.tif", pixels, nodata=NODATA))
    assert np.argwhere(~valid).tolist() == [[1, 5]]


def test_floats_are_stored_as_float16_with_masked_pixels_zero(tmp_path):
    pixels = np.random.default_rng(0).normal(size=(4, 8, 8)).astype(np.float32)
    pixels[0, 0, 0] = np.nan
    pixels[3, 2, 2] = -3.4028234663852886e38
    path = write_geotiff(tmp_path / "a.tif", pixels, {"quantisation": "none"}, nodata=-3.4028234663852886e38)
    _, found, valid = crop(path, nan_is_nodata=True, dtype="float16")
    assert np.argwhere(~valid).tolist() == [[0, 0], [2, 2]]
    assert (found[:, ~valid] == 0).all()
    np.testing.assert_array_equal(found[:, valid], pixels[:, valid].astype(np.float16))


@pytest.mark.parametrize(("value", "message"), [(np.nan, "nan_is_nodata"), (7e4, "65504"), (np.inf, "inf")])
def test_floats_that_cannot_be_stored_are_refused(tmp_path, value, message):
    pixels = np.zeros((4, 8, 8), np.float32)
    pixels[1, 2, 3] = value
    with pytest.raises(DataError, match=message):
        crop(write_npy(tmp_path / "a.npy", pixels), dtype="float16")


def test_all_no_data_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"a\.tif: pixels: found nothing but no data"):
        crop(write_geotiff(tmp_path / "a.tif", np.full((4, 8, 8), NODATA, np.int8)))


@pytest.mark.parametrize("bands", [63, 65])
def test_another_number_of_bands_is_refused(tmp_path, bands):
    path = write_geotiff(tmp_path / "a.tif", random_pixels(0, bands=bands))
    with pytest.raises(DataError, match=rf"a\.tif: bands: found {bands}, expected 64"):
        raster.read_header(path, 64)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float64"])
def test_another_dtype_is_refused(tmp_path, dtype):
    pixels = np.ones((4, 8, 8), dtype)
    for path in (write_geotiff(tmp_path / "a.tif", pixels), write_npy(tmp_path / "a.npy", pixels)):
        with pytest.raises(DataError, match=f"dtype: found {dtype}"):
            raster.read_header(path, 4)


def test_one_pixel_is_too_small(tmp_path):
    path = write_geotiff(tmp_path / "a.tif", random_pixels(0, height=1, width=8))
    with pytest.raises(DataError, match="size: found 1 x 8"):
        raster.read_header(path, 4)


def test_another_int8_no_data_value_is_refused(tmp_path):
    with pytest.raises(DataError, match="nodata: found 0"):
        raster.read_header(write_geotiff(tmp_path / "a.tif", random_pixels(0), nodata=0), 4)


VRT = (
    '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    "<SourceFilename>{}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
)


@pytest.mark.parametrize("content", [b"", b"city,year\nParis,2018\n", VRT.encode()])
def test_what_is_not_a_geotiff_is_refused(tmp_path, content):
    secret = write_geotiff(tmp_path / "secret.tif", random_pixels(0))
    path = tmp_path / "a.tif"
    path.write_bytes(content.replace(b"{}", str(secret).encode()))
    with pytest.raises(DataError, match=r"a\.tif: format: .*GeoTIFF"):
        raster.read_header(path, 4)


@pytest.mark.parametrize("interleave", ["band", "pixel"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.999])
def test_a_truncated_geotiff_is_refused_from_its_header(tmp_path, interleave, kept):
    path = write_geotiff(
        tmp_path / "a.tif",
        random_pixels(0, height=64),
        tiled=True,
        blockxsize=16,
        blockysize=16,
        interleave=interleave,
        compress="deflate",
    )
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError, match=r"a\.tif: (bytes|format): "):
        raster.read_header(path, 4)


def test_damaged_pixels_are_refused(tmp_path):
    path = write_geotiff(tmp_path / "a.tif", random_pixels(0, height=64), compress="deflate")
    content = bytearray(path.read_bytes())
    content[-4000:-1000] = bytes(3000)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tif: pixels: found"):
        crop(path, size=64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crs": None}, "crs: found"),
        ({"transform": Affine(0.04, 0.01, 116, 0, -0.04, 40)}, "transform: found"),
        ({"transform": Affine(-0.04, 0, 116, 0, -0.04, 40)}, "transform: found"),
    ],
)
def test_a_geotiff_without_usable_coordinates_is_refused(tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        raster.read_header(write_geotiff(tmp_path / "a.tif", random_pixels(0), **options), 4)


def test_coordinates_off_earth_are_refused(tmp_path):
    header = raster.read_header(write_geotiff(tmp_path / "a.tif", random_pixels(0), lat=500), 4)
    with pytest.raises(DataError, match="Earth"):
        raster.footprint(header, 8)


def test_npy_without_coordinates_has_no_footprint(tmp_path):
    header = raster.read_header(write_npy(tmp_path / "a.npy", random_pixels(0)), 4)
    assert all(math.isnan(value) for value in raster.footprint(header, 8))
    assert header.quantisation is None


def test_npy_sidecar_gives_position_and_quantisation(tmp_path):
    sidecar = {"lat": 31.2, "lon": 121.5, "quantisation": "linear", "scale": 0.01, "nodata": -128}
    header = raster.read_header(write_npy(tmp_path / "a.npy", random_pixels(0), sidecar), 4)
    assert raster.footprint(header, 8)[:2] == (31.2, 121.5)
    assert header.quantisation == Quantisation("linear", 0.01)


@pytest.mark.parametrize(
    ("sidecar", "message"),
    [
        ({"quantization": "linear"}, "quantization: unknown key"),
        ({"lat": 3}, "give one pair"),
        ({"crs": "EPSG:4326"}, "give one pair"),
        ({"lat": 91, "lon": 0}, "lat: found 91"),
        ({"crs": "EPSG:4326", "transform": [1, 2]}, "transform: found"),
        ({"crs": "EPSG:999999", "transform": [1, 0, 0, 0, -1, 0]}, "crs: found"),
        ([1], "found list"),
    ],
)
def test_malformed_sidecars_are_refused(tmp_path, sidecar, message):
    with pytest.raises(DataError, match=r"a\.npy\.json: .*" + message):
        raster.read_header(write_npy(tmp_path / "a.npy", random_pixels(0), sidecar), 4)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was loaded",))


def test_pickles_are_refused_unread(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([[[Bomb()]]], dtype=object), allow_pickle=True)
    (tmp_path / "plain.npy").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match=r"objects\.npy: dtype: found Python objects"):
        raster.read_header(tmp_path / "objects.npy", 4)
    with pytest.raises(DataError, match=r"plain\.npy: header"):
        raster.read_header(tmp_path / "plain.npy", 4)


@pytest.mark.parametrize(
    ("shape", "message"),
    [("(64, 1000000, 1000000)", "bytes: found"), ("(4, 8, 9)", "bytes: found"), ("(4, 64)", "shape: found")],
)
def test_implausible_npy_headers_are_refused(tmp_path, shape, message):
    path = write_npy(tmp_path / "a.npy", random_pixels(0))
    body = path.read_bytes()[128:]
    header = f"{{'descr': '|i1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + body)
    with pytest.raises(DataError, match=r"a\.npy: " + message):
        raster.read_header(path, 4)


def test_a_huge_geotiff_is_refused_from_its_header(tmp_path):
    path, side = tmp_path / "a.tif", 40_000
    profile = {"count": 1, "height": side, "width": side, "dtype": "int8", "crs": "EPSG:4326"}
    options = {"transform": from_origin(116, 40, 1e-4, 1e-4), "tiled": True, "sparse_ok": True}
    rasterio.open(path, "w", driver="GTiff", **profile, **options).close()
    assert path.stat().st_size < 10**6
    with pytest.raises(DataError, match="size: found 1 x 40000 x 40000"):
        raster.read_header(path, 1)
