"""Rows of the report beside truth."""

import pandas as pd

from src.minerals.mapping.minerals import NAMES
from src.minerals.report.score_figures import example_rows
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
