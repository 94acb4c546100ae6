"""The map on scenes that it has not seen: better than the spectral angle, and good enough."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from sklearn.metrics import f1_score

from src.minerals import bands, ingest, map, simulate, split
from src.minerals.data.cube_store import CubeStore
from src.minerals.mapping.minerals import NAMES
from src.minerals.mapping.other_methods import METHODS
from tests.conftest import minerals_params

LIBRARY = Path("data/sample/usgs_minerals")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scores(tmp_path_factory) -> dict[str, float]:
    """Macro-F1 of the minerals, of each method on the test blocks of six small scenes."""
    folder = tmp_path_factory.mktemp("bars")
    changes = {
        "simulate.scenes": 6,
        "simulate.side_px": 64,
        "simulate.snr": 200.0,
        "simulate.barren": 0.0,
        "split.test": 0.5,
    }
    params = minerals_params(changes)
    paths = {name: folder / name for name in ("simulated", "store", "bands", "split", "map")}
    simulate.main(params, Namespace(library=LIBRARY), Namespace(out=paths["simulated"]))
    ingest.main(params, Namespace(root=paths["simulated"]), Namespace(out=paths["store"]))
    inputs = Namespace(library=LIBRARY, **paths)
    for stage, name in ((bands, "bands"), (split, "split"), (map, "map")):
        stage.main(params, inputs, Namespace(out=paths[name]))
    store, tests = CubeStore.open(paths["store"]), pd.read_parquet(paths["split"] / "blocks.parquet")
    tests = tests[tests["role"] == "test"]
    truth = np.concatenate([store.truth(scene).ravel() for scene in tests["scene"]])
    named = {"feature fit": []}
    for scene in tests["scene"]:
        with rasterio.open(paths["map"] / "minerals" / f"{scene}.tif") as dataset:
            named["feature fit"].append(dataset.read(1))
    with np.load(paths["map"] / "other_methods.npz") as others:
        named |= {name: [others[f"{name}/{block}"] for block in tests["block"]] for name in METHODS}
    present = [number for number in range(1, 1 + len(NAMES)) if (truth == number).sum() >= 50]
    assert len(tests) == 3 and len(present) >= 6
    return {
        name: f1_score(truth, np.concatenate([one.ravel() for one in classes]), labels=present, average="macro")
        for name, classes in named.items()
    }


def test_the_feature_fit_names_the_dominant_mineral(scores):
    assert scores["feature fit"] >= 0.75


def test_the_feature_fit_is_not_below_the_spectral_angle(scores):
    assert scores["feature fit"] >= scores["spectral angle"]
