"""Known minerals: classes by the table beside the raster."""

import numpy as np
import pytest
import rasterio

from src.core.stage.errors import DataError, StorageError
from src.minerals.data import scene_files, truth
from src.minerals.mapping.minerals import NAMES

VALUES = np.array([[1, 2, 7], [9, 0, 3]], np.uint8)
PLACE = scene_files.Place("EPSG:32611", (15, 0, 494000, 0, -15, 4156000))


def write(folder, table: str, values=VALUES, **profile):
    folder.mkdir(exist_ok=True)
    (folder / "classes.csv").write_text(table)
    with rasterio.open(
        folder / "scene.tif", "w", driver="GTiff", height=2, width=3, count=1, dtype=values.dtype, **profile
    ) as dataset:
        dataset.write(values, 1)
    return folder


def test_classes_are_those_that_the_table_says(tmp_path):
    folder = write(tmp_path, "value,mineral\n1,kaolinite\n2,Alunite \n7,background\n9,unknown\n3,epidote\n", nodata=3)
    classes = truth.read(folder, "scene", (2, 3))
    kaolinite, alunite = 1 + NAMES.index("kaolinite"), 1 + NAMES.index("alunite")
    assert classes.tolist() == [[kaolinite, alunite, 0], [255, 255, 255]]  # 0 is not in the table, 3 is no data


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("value,name\n1,kaolinite\n", "no column 'mineral', found value, name"),
        ("value,mineral\n1,quartz\n", "mineral: found 'quartz', expected one of background, unknown, alunite"),
        ("value,mineral\n1,\n", "mineral: found ''"),
        ("value,mineral\n1,2\n", "mineral: found '2'"),
        ("value,mineral\nx,kaolinite\n", "value: found 'x', expected numbers, each once"),
        ("value,mineral\n1,kaolinite\n1.0,alunite\n", "value: found '1.0', expected numbers, each once"),
    ],
)
def test_a_table_that_is_wrong_is_named(tmp_path, table, said):
    with pytest.raises(DataError, match=f"classes.csv: {said}"):
        truth.read(write(tmp_path, table), "scene", (2, 3))


def test_a_raster_that_is_missing_broken_or_of_another_size_is_named(tmp_path):
    folder = write(tmp_path, "value,mineral\n1,kaolinite\n")
    with pytest.raises(DataError, match=r"scene.tif: found \(2, 3\) px, expected \(3, 2\)"):
        truth.read(folder, "scene", (3, 2))
    with pytest.raises(StorageError, match=r"other.tif: no such file; correct `truth`"):
        truth.read(folder, "other", (2, 3))
    (folder / "broken.tif").write_bytes(b"II*\0")
    with pytest.raises(DataError, match=r"broken\.tif: found no GeoTIFF"):
        truth.read(folder, "broken", (2, 3))


def test_abundances_come_back_and_another_size_is_refused(tmp_path):
    shares = np.random.default_rng(0).random((4, 5, len(NAMES) + 1)).astype(np.float32)
    scene_files.write_bands(tmp_path / "a.tif", shares, [*NAMES, "iron oxide"], PLACE)
    np.testing.assert_array_equal(truth.read_abundance(tmp_path / "a.tif", (4, 5)), shares)
    with pytest.raises(DataError, match=r"found bands, lines, samples \(9, 4, 5\), expected \(9, 5, 4\)"):
        truth.read_abundance(tmp_path / "a.tif", (5, 4))
