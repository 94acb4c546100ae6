"""Figures are drawn with gaps in the scores, and have the same bytes each time."""

import numpy as np
import pandas as pd
import pytest

from src.species.report import score_figures

SCORE = {"top1": 0.5, "top1_low": 0.4, "top1_high": 0.6}
BARE = {"top1": 0.5, "top1_low": None, "top1_high": None}
NOTHING = {"top1": None, "top1_low": None, "top1_high": None}


def draw_scores(path):
    bare = {"temporal": BARE, "spatial": BARE}
    score_figures.draw_scores(path, {"a": {"temporal": SCORE, "spatial": BARE}, "b": bare}, "title")


def draw_bins(path):
    bins = [{"label": "< 5", "n": 0} | NOTHING, {"label": "≥ 5", "n": 40} | SCORE]
    score_figures.draw_bins(path, {"temporal": {"a": bins, "b": bins[::-1]}}, "records")


def draw_confusion(path):
    truth, named = np.array(["a", "a", "b", "c"]), np.array(["a", "b", "c", "a"])
    score_figures.draw_confusion(path, truth, named, ["a", "b", "never tested"], "title")


def draw_calibration(path):
    table = pd.DataFrame({"confidence": [0.2, 0.9], "accuracy": [0.1, 0.8], "count": [3, 40]})
    score_figures.draw_calibration(path, {"a": table}, {"a": "note"})


def draw_accuracy_map(path):
    records = pd.DataFrame({"lat": [28.0, 28.1], "lon": [-82.0, -81.9], "right": [True, False], "square": [0, -1]})
    corners = [[27.95, -82.05], [27.95, -81.95], [28.05, -81.95], [28.05, -82.05]]
    squares = [{"use": "test", "lat": 28.0, "lon": -82.0, "corners": corners}] * 2
    score_figures.draw_accuracy_map(path, records, records, squares, "title")


@pytest.mark.parametrize("draw", [draw_scores, draw_bins, draw_confusion, draw_calibration, draw_accuracy_map])
def test_the_same_bytes_each_time(draw, tmp_path):
    for name in ("one.png", "two.png"):
        draw(tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert (tmp_path / "one.png").stat().st_size > 5000
