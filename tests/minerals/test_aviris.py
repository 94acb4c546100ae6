"""A real scene of AVIRIS, Santa Barbara 2014, where none of the minerals is known to be."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from src.core.stage.errors import DataError
from src.minerals import bands, ingest, map
from src.minerals.data.cube_store import CubeStore
from tests.conftest import minerals_params
from tests.minerals.study import write_blocks
from tests.pipelines import ROOT

FOLDER = ROOT / "../shared/data/aviris"
SCENE = "santa_barbara_2014"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="../shared/data/aviris is absent")
PARAMS = minerals_params({"data.truth": None, "data.scale": 10000.0})


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Store, bands and map of the scene."""
    folder = tmp_path_factory.mktemp("aviris")
    ingest.main(PARAMS, Namespace(root=FOLDER), Namespace(out=folder / "store"))
    bands.main(PARAMS, Namespace(store=folder / "store"), Namespace(out=folder / "bands"))
    write_blocks(folder / "split", [(SCENE, 0, "train", 0, 0, 90, 90)])
    inputs = Namespace(
        library=Path("data/sample/usgs_minerals"), **{n: folder / n for n in ("store", "bands", "split")}
    )
    map.main(PARAMS, inputs, Namespace(out=folder / "map"))
    return folder


def test_its_bands_are_those_of_aviris(made):
    store = CubeStore.open(made / "store")
    assert store.stored(SCENE).shape == (90, 90, 224) and (~store.filled).sum() == 43
    assert 365 < store.wavelengths[0] < 367 and 2495 < store.wavelengths[-1] < 2497


def test_plants_and_soil_are_seldom_called_minerals(made):
    with rasterio.open(made / "map/minerals" / f"{SCENE}.tif") as dataset:
        classes = dataset.read(1)
    assert np.mean((classes > 0) & (classes < 255)) <= 0.05 and (classes != 255).mean() > 0.95


def test_without_a_scale_it_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"set `scale` \(10000 is usual\)"):
        ingest.main(minerals_params({"data.truth": None}), Namespace(root=FOLDER), Namespace(out=tmp_path / "store"))
