"""The stage `evaluate`: tiles that it may score."""

import numpy as np
import pandas as pd
import pytest

from src.core.stage.errors import DataError
from src.minerals import evaluate
from src.minerals.data.cube_store import CubeStore
from tests.minerals.study import write_store

BANDS = np.linspace(400, 2400, 2)


def test_a_tile_whose_truth_is_unknown_is_not_called_unaltered(tmp_path, caplog):
    classes = np.full((8, 24), 255, np.uint8)
    classes[:, :8] = 0
    classes[:6, 8:16] = 1  # three quarters
    store = CubeStore.open(write_store(
        tmp_path / "store", {"a": np.full((8, 24, 2), 0.3)}, truth={"a": classes}, wavelengths=BANDS, fwhm=BANDS
    ))  # fmt: skip
    tiles = pd.DataFrame({"scene": "a", "top": 0, "left": [0, 8, 16]})
    assert evaluate.of_known_truth(store, tiles, 8, 0.8)["left"].tolist() == [0]
    assert "2 of 3 test tiles left out" in caplog.text
    assert evaluate.of_known_truth(store, tiles, 8, 0.7)["left"].tolist() == [0, 8]
    with pytest.raises(DataError, match="found no test tile whose minerals are known for 80% of its pixels"):
        evaluate.of_known_truth(store, tiles.iloc[2:], 8, 0.8)
