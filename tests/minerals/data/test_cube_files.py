"""Cubes as users have them: values where they belong, and errors that name what is wrong."""

import weakref

import h5py
import numpy as np
import pytest
import rasterio
import scipy.io
from affine import Affine

from src.core.stage.errors import DataError, StorageError
from src.minerals.data import cube_files
from src.minerals.data.simulated_spectra import WAVELENGTHS
from tests.minerals.cubes import reflectance, write_envi

STORED = np.rint(reflectance() * 10000).astype(np.int16)


def opened(path, listed=None, scale=None, nodata=None):
    return cube_files.open_cube(path, listed, scale, nodata)


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
@pytest.mark.parametrize("byteorder", [0, 1])
def test_envi_in_every_order_gives_the_same_values(tmp_path, interleave, byteorder):
    cube = opened(write_envi(tmp_path, "scene", STORED, interleave=interleave, byteorder=byteorder))
    assert (cube.read(0, 6) == STORED).all() and (cube.read(2, 4) == STORED[2:4]).all()
    assert cube.shape == STORED.shape and cube.scale == 10000 and cube.nodata is None
    np.testing.assert_allclose(cube.bands.wavelengths, WAVELENGTHS, atol=0.01)


def test_the_header_says_bad_bands_no_data_widths_and_place(tmp_path):
    good = np.ones(224, int)
    good[[3, 7]] = 0
    place = ["UTM", 1, 1, 494000, 4156000, 15, 15, 11, "North", "WGS-84"]
    path = write_envi(tmp_path, "scene", STORED, bbl=good.tolist(), data_ignore_value=-50, fwhm=["9.5"] * 224,
                      map_info=place)  # fmt: skip
    cube = opened(path)
    assert np.flatnonzero(~cube.bands.good).tolist() == [3, 7] and cube.nodata == -50
    assert (cube.bands.fwhm == 9.5).all()
    assert cube.place.crs == "EPSG:32611" and cube.place.transform == (15, 0, 494000, 0, -15, 4156000)


def test_bands_are_sorted_by_wavelength_and_their_values_with_them(tmp_path):
    order = np.random.default_rng(1).permutation(224)
    shuffled = [f"{WAVELENGTHS[number]:.2f}" for number in order]
    cube = opened(write_envi(tmp_path, "scene", STORED[..., order], wavelength=shuffled))
    assert (np.diff(cube.bands.wavelengths) > 0).all()
    assert (cube.read(0, 6)[..., cube.bands.order] == STORED).all()


@pytest.mark.parametrize("unit", ["Micrometers", "um", "µm", "Unknown", ""])
def test_micrometres_become_nanometres(tmp_path, unit):
    micro = [f"{nm / 1000:.5f}" for nm in WAVELENGTHS]
    cube = opened(write_envi(tmp_path, "scene", STORED, wavelength=micro, wavelength_units=unit or None))
    np.testing.assert_allclose(cube.bands.wavelengths, WAVELENGTHS, atol=0.02)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"wavelength": None}, "wavelength: found none, expected one for each of 224 bands"),
        ({"wavelength": ["400"] * 223}, "found 223 numbers, the cube has 224 bands"),
        ({"wavelength": ["400.00"] * 224}, "two bands at 400 nm"),
        ({"wavelength": ["x"] * 224}, "expected numbers"),
        ({"wavelength": [f"{nm * 10:.1f}" for nm in WAVELENGTHS]}, "expected 300 to 3000 nm"),
        ({"wavelength_units": "Wavenumber"}, "wavelength units: found 'Wavenumber'"),
        ({"fwhm": ["0"] * 224}, "fwhm: found 0, expected widths above 0"),
        ({"bbl": [1] * 10}, "bbl: found 10 numbers"),
    ],
)
def test_wavelengths_that_are_missing_or_wrong_are_named(tmp_path, fields, said):
    with pytest.raises(DataError, match=said):
        opened(write_envi(tmp_path, "scene", STORED, **fields))


def test_header_and_data_of_different_size_are_named(tmp_path):
    path = write_envi(tmp_path, "scene", STORED)
    data = path.with_suffix(".img")
    data.write_bytes(data.read_bytes()[:-2])
    expected = STORED.size * 2
    with pytest.raises(DataError, match=rf"scene.img: found {expected - 2} bytes, .* says {expected}"):
        opened(path)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("unit", ["Micrometers", "µm"])
def test_a_header_in_the_encoding_of_older_programs(tmp_path, encoding, unit):
    fields = {"description": "réflectance, pixels de 15 m, longueurs d'onde en µm", "wavelength_units": unit}
    place = ["UTM", 1, 1, 494000, 4156000, 15, 15, 11, "North", "WGS-84"]
    path = write_envi(
        tmp_path, "scène", STORED, wavelength=[f"{nm / 1000:.5f}" for nm in WAVELENGTHS], map_info=place, **fields
    )
    path.write_bytes(path.read_text(encoding="utf-8").replace("\n", "\r\n").encode(encoding))
    cube = opened(path)
    assert (cube.read(0, 6) == STORED).all() and cube.place.crs == "EPSG:32611"
    np.testing.assert_allclose(cube.bands.wavelengths, WAVELENGTHS, atol=0.02)


def test_a_file_that_is_no_text_is_no_header(tmp_path):
    path = write_envi(tmp_path, "scene", STORED)
    path.write_bytes(bytes(range(256)) * 40)
    with pytest.raises(DataError, match="no complete ENVI header"):
        opened(path)


def test_a_header_without_its_data_is_named(tmp_path):
    path = write_envi(tmp_path, "scene", STORED)
    path.with_suffix(".img").unlink()
    with pytest.raises(StorageError, match=r"no data file beside it, expected scene\.img"):
        opened(path)


@pytest.mark.parametrize("text", ["", "ENVI\nsamples = 3", "ENVI\nsamples = x\nlines = 2\nbands = 2\n"])
def test_a_broken_header_is_named(tmp_path, text):
    (tmp_path / "scene.hdr").write_text(text)
    with pytest.raises(DataError, match="no complete ENVI header"):
        opened(tmp_path / "scene.hdr")


@pytest.mark.parametrize(
    ("line", "other", "said"),
    [
        ("interleave = bil", "interleave = tiled", "interleave, file compression: found 'tiled', 0"),
        ("interleave = bil", "", "interleave, file compression: found '', 0"),
        ("header offset = 0", "file compression = 1", "interleave, file compression: found 'bil', 1"),
        ("data type = 2", "data type = 6", "no complete ENVI header"),
        ("byte order = 0", "byte order = 2", "byte order: found .*, 2; correct them"),
        ("samples = 5", "samples = -5", "found .6, -5, 224."),
    ],
)
def test_a_header_that_says_what_cannot_be_is_named(tmp_path, line, other, said):
    path = write_envi(tmp_path, "scene", STORED)
    path.write_text(path.read_text().replace(line, other))
    with pytest.raises(DataError, match=rf"scene\.hdr: .*{said}"):
        opened(path)


def test_a_picture_of_three_bands_is_refused(tmp_path):
    path = write_envi(tmp_path, "scene", STORED[..., :3], wavelength=["480", "560", "660"])
    with pytest.raises(DataError, match="found 3 bands, expected a hyperspectral cube"):
        opened(path)


def write_tif(path, values, descriptions=None, tags=None, **profile):
    profile = {"driver": "GTiff", "height": 6, "width": 5, "count": values.shape[2], "dtype": values.dtype, **profile}
    with rasterio.open(path, "w", crs="EPSG:32611", transform=Affine(30, 0, 5e5, 0, -30, 4e6), **profile) as dataset:
        dataset.write(np.moveaxis(values, -1, 0))
        if descriptions:
            dataset.descriptions = descriptions
        for band, more in enumerate(tags or [], 1):
            dataset.update_tags(band, **more)
    return path


@pytest.mark.parametrize("form", ["{:.2f} Nanometers", "wl_{:.2f}nm", "Band ({:.2f} nm)", "{:.2f}"])
def test_geotiff_with_wavelengths_in_the_names_of_its_bands(tmp_path, form):
    path = write_tif(tmp_path / "a.tif", reflectance(), [form.format(nm) for nm in WAVELENGTHS], nodata=-1)
    cube = opened(path)
    np.testing.assert_allclose(cube.bands.wavelengths, WAVELENGTHS, atol=0.01)
    assert (cube.read(1, 3) == reflectance()[1:3]).all() and cube.nodata == -1 and cube.place.crs == "EPSG:32611"


def test_geotiff_with_wavelengths_in_micrometres_after_the_number_of_the_band(tmp_path):
    names = [f"Band {number} ({nm / 1000:.5f} um)" for number, nm in enumerate(WAVELENGTHS, 1)]
    np.testing.assert_allclose(
        opened(write_tif(tmp_path / "a.tif", reflectance(), names)).bands.wavelengths, WAVELENGTHS, atol=0.02
    )


def test_geotiff_with_wavelengths_in_tags(tmp_path):
    tags = [{"wavelength": f"{nm:.2f}", "fwhm": "11"} for nm in WAVELENGTHS]
    bands = opened(write_tif(tmp_path / "a.tif", reflectance(), tags=tags)).bands
    np.testing.assert_allclose(bands.wavelengths, WAVELENGTHS, atol=0.01)
    assert (bands.fwhm == 11).all()


def test_geotiff_with_nothing_that_is_a_wavelength_asks_for_a_list(tmp_path):
    path = write_tif(tmp_path / "a.tif", reflectance(), [f"Band {number}" for number in range(224)])
    with pytest.raises(DataError, match="write them to a CSV file and set `wavelengths`"):
        opened(path)
    assert len(opened(path, listed=(WAVELENGTHS.tolist(), None)).bands.wavelengths) == 224


def scaled_tif(path, scale, offset=0.0):
    write_tif(path, STORED, [f"{nm:.2f} nm" for nm in WAVELENGTHS])
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = [scale] * 224, [offset] * 224
    return path


def test_geotiff_with_gdals_scale(tmp_path):
    assert opened(scaled_tif(tmp_path / "a.tif", 0.0001)).scale == pytest.approx(10000)
    for scale, offset in ((0, 0), (-1, 0), (0.0001, 0.1)):
        with pytest.raises(DataError, match="found several dtypes or scales, a scale of 0 or an offset"):
            opened(scaled_tif(tmp_path / "a.tif", scale, offset))


def test_geotiff_that_is_broken_is_named(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.tif: found no GeoTIFF"):
        opened(tmp_path / "a.tif")
    path = write_tif(tmp_path / "b.tif", STORED, [f"{nm:.2f} nm" for nm in WAVELENGTHS], compress="deflate")
    with rasterio.open(path) as dataset:
        start = int(dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    content = bytearray(path.read_bytes())
    content[start : start + 50] = bytes(50)
    path.write_bytes(content)
    cube = opened(path)
    with pytest.raises(DataError, match=r"b\.tif: lines 1 to 6: cannot be read"):
        cube.read(0, 6)


def test_complex_numbers_are_refused(tmp_path):
    path = write_tif(tmp_path / "a.tif", STORED.astype(np.complex64), [f"{nm:.2f} nm" for nm in WAVELENGTHS])
    with pytest.raises(DataError, match="found complex64 values, expected integers or floats"):
        opened(path)


def test_mat_of_version_5_and_7_3_give_the_same_cube(tmp_path):
    arrays = {"hsi_img": STORED, "wavelengths": WAVELENGTHS[:, None], "rgb": STORED[..., 0]}
    scipy.io.savemat(tmp_path / "old.mat", arrays)
    with h5py.File(tmp_path / "new.mat", "w") as file:
        file["hsi_img"] = STORED.T
        file["wavelengths"] = WAVELENGTHS[None]
    for name in ("old", "new"):
        cube = opened(tmp_path / f"{name}.mat", scale=10000)
        assert (cube.read(0, 6) == STORED).all() and cube.scale == 10000
        np.testing.assert_allclose(cube.bands.wavelengths, WAVELENGTHS)


def test_mat_with_bands_first_is_turned_by_its_wavelengths(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"cube": np.moveaxis(STORED, -1, 0), "wavelength": WAVELENGTHS})
    assert (opened(tmp_path / "a.mat").read(0, 6) == STORED).all()


def test_of_several_mat_files_one_is_in_memory(tmp_path):
    cubes = []
    for number in range(3):
        scipy.io.savemat(tmp_path / f"{number}.mat", {"cube": STORED + number, "wavelength": WAVELENGTHS})
        cubes.append(opened(tmp_path / f"{number}.mat"))
    alive = weakref.ref(cubes[0].read(0, 6).base)
    for number, cube in enumerate(cubes):
        assert (cube.read(0, 6) == STORED + number).all()
    assert alive() is None


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"rgb": STORED[..., 0]}, "expected one array of lines x samples x bands"),
        ({"a": STORED, "b": STORED}, "expected one array"),
        ({"a": STORED, "s": {"field": 1}}, "found s .struct., expected numeric arrays"),
        ({"a": STORED, "c": np.array([[1, "x"]], dtype=object)}, "found c .cell., expected numeric arrays"),
    ],
)
def test_mat_without_one_cube_or_with_objects_is_refused(tmp_path, arrays, said):
    scipy.io.savemat(tmp_path / "a.mat", arrays)
    with pytest.raises(DataError, match=said):
        opened(tmp_path / "a.mat")


def test_mat_that_points_to_another_file_is_refused(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["hsi_img"] = STORED.T
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file["hsi_img"] = h5py.ExternalLink("secret.h5", "/hsi_img")
    with pytest.raises(DataError, match="hsi_img: found a link"):
        opened(tmp_path / "a.mat")
    with h5py.File(tmp_path / "b.mat", "w") as file:
        file.create_dataset("hsi_img", (224, 5, 6), "i2", external=[(str(tmp_path / "secret.h5"), 0, 13440)])
    with pytest.raises(DataError, match="data outside the file"):
        opened(tmp_path / "b.mat")
