"""Pixels and rows of the report that stand beside truth."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from src.minerals.data import blocks
from src.minerals.mapping.minerals import NAMES
from src.minerals.report.score_figures import example_rows, pixels_of_test_blocks
from tests.conftest import minerals_params


def test_examples_name_what_the_params_call_present_in_the_first_language():
    tested = pd.DataFrame({"tile": ["t"]} | {f"truth_{name}": [0.0] for name in NAMES})
    tested["truth_alunite"], tested["truth_calcite"] = 0.3, 0.04
    answers = pd.DataFrame(
        [("t", "analysis", "en", "English"), ("t", "analysis", "zh", "中文"), ("t", "minerals", "zh", "别的")],
        columns=["tile", "task", "language", "text"],
    )
    for present, languages, expected in (
        (0.02, ["en", "zh"], ["t", "alunite 30 %, calcite 4 %", "English"]),
        (0.05, ["zh"], ["t", "alunite 30 %", "中文"]),
        (0.5, ["zh"], ["t", "none", "中文"]),
    ):
        asked = minerals_params({"annotate.present": present, "annotate.languages": languages}).annotate
        assert example_rows({"bands": answers}, tested, "truth", 8, asked) == [expected]


def test_confusion_counts_no_pixel_of_a_training_block_in_the_same_scene():
    truth = np.arange(48).reshape(4, 12)
    rows = [("a", 0, "train", 0, 0, 4, 4), ("a", 1, "test", 1, 6, 2, 3), ("b", 2, "test", 0, 0, 1, 2)]
    store = SimpleNamespace(truth={"a": truth, "b": truth + 100}.get)
    mapped = {"a": -truth, "b": -truth}
    known, found = pixels_of_test_blocks(store, pd.DataFrame(rows, columns=blocks.COLUMNS), mapped)
    assert known.tolist() == [18, 19, 20, 30, 31, 32, 100, 101]
    assert found.tolist() == [-18, -19, -20, -30, -31, -32, 0, -1]
