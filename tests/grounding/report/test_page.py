"""The page: a verdict that claims no more than the intervals show, and every section with its numbers."""

import html
from pathlib import Path

import pandas as pd
import pytest

from src.core.report.figures import drawing
from src.core.stage.errors import StorageError
from src.grounding.evaluation.calibration import COVERAGE
from src.grounding.evaluation.predictors import COMPARISONS, PREDICTORS
from src.grounding.report import page
from tests.conftest import grounding_params

FIGURES = ("gains", "panels", "calibration", "roles")


def interval(names, value: float | None, reach: float | None = 0.1) -> dict:
    known = value is not None and reach is not None
    ends = {"": value, "_low": value - reach if known else None, "_high": value + reach if known else None}
    return {name + end: bound for name in names for end, bound in ends.items()}


def made_up(gains: dict[str, float] | None = None, reach: float | None = 0.1, **data) -> dict:
    """Scores with a gain of 4 dB over every predictor but for `gains`: name -> dB."""
    gains = {one.theirs: 4.0 for one in COMPARISONS} | (gains or {})
    columns = page.TRUTH | page.COLOUR | page.AGREEMENT
    return {
        "data": {"simulated": True, "opt_v2": "synthetic", "scenes": 16, "blocks": 12} | data,
        "audit": dict.fromkeys(page.AUDIT, 0)
        | {"scenes": {"pretrain": 3, "test": 2}, "nearest_km": {"pretrain_test": 5.002, "ground_test": None}},
        **{one.name: {"test": interval(columns, 20.0 + at)} for at, one in enumerate(PREDICTORS)},
        "paired": {one.key: interval(page.PAIRED, gains[one.theirs], reach) for one in COMPARISONS},
        "references": {name: {"agreement": 0.123, "seed_agreement": 0.789} for name in page.REFERENCES},
        "kinds": {kind: {"opt_v3": 31.25, "telea": 29.0} for kind in page.KINDS},
        "calibration": {"samples": 8} | interval(["spearman_r", "expected_rmse", "rmse", *COVERAGE.values()], 0.4),
    }


@pytest.fixture
def written(tmp_path):
    """`written(scores)` -> text of the page."""
    for path in [*(f"{name}.png" for name in FIGURES), *(f"curves/{name}/curves.png" for name in page.TRAININGS)]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        with drawing(tmp_path / path, 1, 1):
            pass
    rows = pd.DataFrame({"predictor": [one.name for one in PREDICTORS]})
    rows = rows.assign(**{f"rmse_{band}": 0.0321 for band in ("B02", "B03", "B04", "B08")})

    def write(scores: dict, curves: Path = tmp_path / "curves") -> str:
        page.write(tmp_path / "index.html", scores, rows, grounding_params(), tmp_path, curves)
        return html.unescape((tmp_path / "index.html").read_text(encoding="utf-8"))

    return write


def test_a_verdict_in_which_everything_is_shown():
    said = page.verdict(made_up())
    assert "makes the first guess truer: 4.00 [3.90, 4.10] dB of PSNR, where 3 dB were asked for" in said
    assert "Radar is used" in said and "LoRA pays" in said
    assert "is truer than a plain regression U-Net" in said


@pytest.mark.parametrize(
    ("gains", "reach", "line"),
    [
        ({"opt_v2": 0.05}, 0.1, "is not shown to make the first guess truer: 0.05 [−0.05, 0.15] dB"),
        ({"opt_v2": -1.0}, 0.1, "makes the first guess less true: −1.00"),
        ({"shuffled_sar": 0.0}, 0.1, "Radar is not shown to be used"),
        ({"no_sar_network": -0.2}, 0.1, "Radar is not shown to be used"),
        ({"no_lora": 0.0}, 0.1, "LoRA is not shown to pay"),
        ({"no_lora": -0.5}, 0.1, "LoRA does harm"),
        ({"regression_unet": -0.5}, 0.1, "is less true than a plain regression U-Net"),
        ({"regression_unet": 0.0}, 0.1, "cannot be told from a plain regression U-Net"),
        ({}, None, "No verdict: 12 blocks of test scenes allow no interval"),
    ],
)
def test_a_verdict_claims_no_more_than_the_intervals_show(gains, reach, line):
    assert line in page.verdict(made_up(gains, reach))


def test_one_difference_without_interval_is_no_proof():
    scores = made_up()
    scores["paired"]["opt_v3-shuffled_sar"] |= {"psnr_low": None, "psnr_high": None}
    assert "Radar is not shown to be used" in page.verdict(scores)


@pytest.mark.parametrize(
    ("gain", "reach", "answer"),
    [(4, 0.1, "yes"), (2, 0.1, "less than 3 dB"), (0, 0.1, "not shown"), (-1, 0.1, "no"), (4, None, "no interval")],
)
def test_a_claim_about_the_first_guess_needs_three_db(gain, reach, answer):
    (one,) = [one for one in COMPARISONS if one.theirs == "opt_v2"]
    assert page.holds(one, interval(["psnr"], float(gain), reach)) == answer


def test_a_comparison_that_asks_for_nothing_is_shown_above_zero():
    (one,) = [one for one in COMPARISONS if one.theirs == "regression_unet"]
    assert page.holds(one, interval(["psnr"], 0.2)) == "yes"


def test_the_page_has_every_predictor_number_and_figure(written):
    text = written(made_up())
    for at, one in enumerate(PREDICTORS):
        assert f"{one.title}</td><td>{20 + at}.00 [" in text
    for one in COMPARISONS:
        assert one.claim in text
    assert page.SIMULATED in text and page.SYNTHETIC in text
    for value in (
        "31.25",
        "0.123",
        "0.789",
        "0.0321",
        "5.002 pretrain to test",
        "– ground to test",
        "3 pretrain, 2 test",
    ):
        assert value in text, value
    assert text.count("data:image/png;base64,") == len(FIGURES) + len(page.TRAININGS)


def test_a_page_on_real_scenes_with_a_given_first_guess_says_neither_and_has_no_kinds(written):
    scores = made_up(simulated=False, opt_v2="given") | {"kinds": {}}
    scores["opt_v3"]["test"] |= interval(["missing_psnr"], None)  # where no mask of holes is given
    scores["paired"]["opt_v3-opt_v2"] |= interval(["missing_psnr"], None)
    text = written(scores)
    assert page.SIMULATED not in text and page.SYNTHETIC not in text and "One fault at a time" not in text


def test_curves_that_are_missing_are_named_and_no_page_is_left(written, tmp_path):
    with pytest.raises(StorageError, match=r"pretrain/curves\.png: cannot read the figure"):
        written(made_up(), tmp_path / "elsewhere")
    assert not (tmp_path / "index.html").exists()
