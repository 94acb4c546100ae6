"""Pixels of tiles out of the store."""

import numpy as np
import pandas as pd
import pytest

from src.minerals.data.cube_store import CubeStore
from src.minerals.data.tile_reader import TileReader
from tests.minerals import cubes
from tests.minerals.study import write_store

CUBES = {name: np.rint(cubes.reflectance(12, 10, seed) * 1e4) / 1e4 for seed, name in enumerate("ab")}
CUBES["b"][5, 6] = np.nan
TABLE = pd.DataFrame({"scene": ["b", "a"], "top": [4, 2], "left": [5, 0]})
KEPT = np.arange(224) % 3 == 0


@pytest.fixture
def reader(tmp_path):
    return TileReader(CubeStore.open(write_store(tmp_path / "store", CUBES)), TABLE, KEPT, 4)


def test_a_tile_has_its_own_pixels_and_the_bands_asked_for(reader):
    values, valid = reader.reflectance(1, [30, 7, 7])
    np.testing.assert_allclose(np.moveaxis(values, 0, -1), CUBES["a"][2:6, 0:4][..., [30, 7, 7]], atol=1e-6)
    assert valid.all() and values.dtype == np.float32
    values, valid = reader.reflectance(0, KEPT)
    assert values.shape == (75, 4, 4) and np.argwhere(~valid).tolist() == [[1, 1]] and np.isnan(values[:, 1, 1]).all()


def test_relative_spectra_do_not_see_the_light(tmp_path, reader):
    values, valid = reader.relative(0)
    np.testing.assert_allclose(values[:, valid].mean(0), 1, rtol=1e-5)
    shaded = {name: np.rint(cube / 2 * 1e4) / 1e4 for name, cube in CUBES.items()}
    other = TileReader(CubeStore.open(write_store(tmp_path / "shaded", shaded)), TABLE, KEPT, 4)
    np.testing.assert_allclose(other.relative(0)[0], values, atol=2e-3)
