"""Figures of grounding: same bytes, no data left out, and every comparison drawn."""

import numpy as np
import pytest
from matplotlib.image import imread

from src.grounding.evaluation.predictors import COMPARISONS, TITLES
from src.grounding.report import panels
from tests.grounding.scenes import scene

COLOURS = panels.ACCENT, panels.SECOND


def refined(name: str = "one", side: int = 24) -> panels.Refined:
    known = scene(name, side)
    return panels.Refined(known, known.optical + 0.02, np.full_like(known.optical, 0.01))


def test_panels_are_the_same_bytes_each_time_whatever_lies_in_pixels_that_are_not_valid(tmp_path):
    one, valid = refined(), np.ones((24, 24), bool)
    valid[10:, :12] = False
    for at, value in enumerate((0.0, np.nan)):
        arrays = {"sar": one.scene.sar, "optical": one.scene.optical, "first_guess": one.scene.first_guess}
        changed = {key: np.where(valid, array, value).astype(np.float32) for key, array in arrays.items()}
        images = [np.where(valid, image, value) for image in one[1:]]
        shown = panels.Refined(scene(valid=valid, **changed), *images)
        panels.draw_panels(tmp_path / f"{at}.png", [shown, refined("two", 12)])
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()


def test_large_scenes_are_thinned_and_an_exact_image_has_a_scale(tmp_path):
    large = refined(side=900)
    panels.draw_panels(tmp_path / "p.png", [large._replace(mean=large.scene.optical)])
    assert imread(tmp_path / "p.png").shape[1] < 1500
    assert panels._thinned(np.zeros((900, 300))).shape == (300, 100)


def test_gains_have_a_row_for_each_comparison_and_leave_out_what_has_no_score(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr("src.core.report.figures.save", lambda figure, *rest: figures.append(figure))
    gain = {"psnr": 2.0, "psnr_low": 1.0, "psnr_high": 3.0, "degraded_psnr": None}
    panels.draw_gains(tmp_path / "g.png", {one.key: gain for one in COMPARISONS})
    axes = figures[0].axes[0]
    titles = [label.get_text() for label in axes.get_yticklabels()]
    assert titles == [f"against {TITLES[one.theirs]}" for one in COMPARISONS]
    lines = {
        colour: [list(line.get_xdata()) for line in axes.lines if line.get_color() == colour] for colour in COLOURS
    }
    assert lines[panels.ACCENT] == [[1.0, 3.0], [2.0]] * len(COMPARISONS) + [[]]  # the last one is the legend's
    assert lines[panels.SECOND] == [[]]


def test_calibration_is_drawn_from_its_table(tmp_path):
    table = [{"n": 5, "expected_rmse": value, "rmse": 2 * value} for value in (0.01, 0.02)]
    panels.draw_calibration(tmp_path / "c.png", table, {0.5: 0.4, 0.95: 0.9})
    assert imread(tmp_path / "c.png").std() > 0.01
    with pytest.raises(ValueError, match="zero-size"):
        panels.draw_calibration(tmp_path / "d.png", [], {})
    assert not (tmp_path / "d.png").exists()
