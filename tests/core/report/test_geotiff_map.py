"""Maps read back exactly, and a map that fails leaves nothing behind."""

import numpy as np
import pytest
import rasterio
from affine import Affine

from src.core.report import geotiff_map
from src.core.stage.errors import DataError, StorageError

UP = Affine(10, 0, 400_000, 0, -10, 4_500_000)


def write(path, rows, shape=(300, 20), crs="EPSG:32650"):
    geotiff_map.write_map(path, rows, shape, rasterio.CRS.from_string(crs), UP, "growth", {"year": 2020})


def test_a_map_reads_back_exactly(tmp_path):
    values = np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32)
    values[10:20, 5] = np.nan
    write(tmp_path / "new" / "map.tif", iter(values))
    with rasterio.open(tmp_path / "new" / "map.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1), values)
        assert dataset.driver == "GTiff" and dataset.dtypes == ("float32",) and np.isnan(dataset.nodata)
        assert dataset.crs == rasterio.CRS.from_epsg(32650) and dataset.transform == UP
        assert dataset.descriptions == ("growth",) and dataset.tags()["year"] == "2020"
        assert (dataset.read_masks(1) == 0).sum() == 10
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["map.tif"]


def test_a_map_that_fails_halfway_leaves_nothing_and_keeps_the_old_one(tmp_path):
    def rows():
        yield from np.zeros((280, 20), np.float32)
        raise DataError("the raster broke")

    (tmp_path / "map.tif").write_text("old")
    with pytest.raises(DataError, match="the raster broke"):
        write(tmp_path / "map.tif", rows())
    assert [path.name for path in tmp_path.iterdir()] == ["map.tif"]
    assert (tmp_path / "map.tif").read_text() == "old"


def test_no_place_to_write(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"map\.tif: cannot write"):
        write(tmp_path / "file" / "map.tif", iter(np.zeros((300, 20), np.float32)))
