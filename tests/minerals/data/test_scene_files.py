"""Files for other programs: what rasterio and GDAL read back of them."""

from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from src.minerals.data import cube_files, scene_files
from src.minerals.data.simulated_spectra import FWHM, WAVELENGTHS
from src.minerals.mapping.map_classes import COLOURS, both_languages
from src.minerals.mapping.minerals import NAMES
from tests.minerals import cubes

PLACE = scene_files.Place("EPSG:32611", (15.5, 0, 494000, 0, -15.5, 4156000))
NOWHERE = scene_files.Place("", (1, 0, 0, 0, 1, 0))
CLASSES = np.arange(9 * 700, dtype=np.uint8).reshape(9, 700) % 9
CLASSES[0, :5] = 255


def test_envi_comes_back_with_wavelengths_scale_no_data_and_place(tmp_path):
    values = cubes.reflectance(4, 3)
    values[1, 2] = np.nan
    values[0, 0, :2] = -0.05, 1.7  # noise below 0, and brighter than white
    scene_files.write_envi(tmp_path / "a.hdr", values, WAVELENGTHS, FWHM, PLACE)
    cube = cube_files.open_cube(tmp_path / "a.hdr", None, None, None)
    stored = cube.read(0, 4)
    assert (cube.scale, cube.nodata, cube.place) == (10000, -9999, PLACE)
    assert (stored[1, 2] == -9999).all() and (stored != -9999).sum() == 11 * 224
    np.testing.assert_allclose(np.where(stored == -9999, np.nan, stored / 10000), values, atol=0.51e-4)
    np.testing.assert_allclose(cube.bands.wavelengths, WAVELENGTHS, atol=0.006)
    np.testing.assert_array_equal(cube.bands.fwhm, FWHM)


@pytest.fixture(scope="module")
def classes_map(tmp_path_factory):
    path = tmp_path_factory.mktemp("map") / "a.tif"
    scene_files.write_classes_map(path, CLASSES, PLACE)
    return path


def test_a_map_of_classes_has_its_values_colours_place_and_tags(classes_map):
    with rasterio.open(classes_map) as dataset:
        np.testing.assert_array_equal(dataset.read(1), CLASSES)
        assert dataset.crs.to_epsg() == 32611 and tuple(dataset.transform)[:6] == PLACE.transform
        assert dataset.nodata == 255 and dataset.dtypes == ("uint8",)
        np.testing.assert_array_equal(dataset.dataset_mask() == 0, CLASSES == 255)
        colours = dataset.colormap(1)
        tags = dataset.tags(1)
    for number, name in enumerate(("background", *NAMES)):
        assert colours[number] == (*COLOURS[name], 255)
        assert tags[f"class_{number}"].split()[0] == name
    assert len({colours[number] for number in range(9)}) == 9


def test_gdal_reads_the_names_of_the_classes(classes_map, tmp_path):
    rasterio.shutil.copy(classes_map, tmp_path / "a.vrt", driver="VRT")  # GDAL writes there what it has read
    names = [node.text for node in ElementTree.parse(tmp_path / "a.vrt").iter("Category")]
    assert names == both_languages() and names[2] == "kaolinite 高岭石"


@pytest.mark.parametrize("kind", ["classes", "bands"])
def test_maps_are_cloud_optimised(tmp_path, kind):
    shape = 1100, 600
    path = tmp_path / "a.tif"
    values = np.random.default_rng(0).integers(0, 9, shape).astype(np.uint8)
    if kind == "classes":
        scene_files.write_classes_map(path, values, PLACE)
    else:
        scene_files.write_bands(path, np.repeat(values[..., None] / 8, 2, -1), ["a", "b"], PLACE)
    with rasterio.open(path) as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (
            dataset.block_shapes[0] == (512, 512)
            and dataset.compression.value == "DEFLATE"
            and dataset.overviews(1)[0] == 2
        )
    with rasterio.open(path, overview_level=0) as dataset:  # classes are chosen, never averaged
        small = dataset.read(1)
    np.testing.assert_array_equal(np.isin(small * (8 if kind == "bands" else 1), range(9)), True)


def test_bands_have_values_names_and_no_data(tmp_path):
    values = np.random.default_rng(0).random((5, 7, 3)).astype(np.float32)
    values[2, 3] = np.nan
    scene_files.write_bands(tmp_path / "a.tif", values, ["x", "y", "z"], PLACE)
    with rasterio.open(tmp_path / "a.tif") as dataset:
        np.testing.assert_array_equal(np.moveaxis(dataset.read(), 0, -1), values)
        assert dataset.descriptions == ("x", "y", "z") and np.isnan(dataset.nodata)
        assert dataset.dataset_mask()[2, 3] == 0 and dataset.crs.to_epsg() == 32611


def test_a_cube_without_place_has_a_map_without_one(tmp_path, recwarn):
    scene_files.write_classes_map(tmp_path / "a.tif", CLASSES, NOWHERE)
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.crs is None and dataset.transform.is_identity
        np.testing.assert_array_equal(dataset.read(1), CLASSES)


def test_classes_csv_names_every_class(tmp_path):
    scene_files.write_classes(tmp_path / "classes.csv")
    rows = [f"{number},{name}\n" for number, name in enumerate(("background", *NAMES))]
    assert (tmp_path / "classes.csv").read_text() == "value,mineral\n" + "".join(rows)
