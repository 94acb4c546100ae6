"""Scores of images by hand, over pixels that count, and their means over scenes."""

import math

import numpy as np
import pandas as pd
import pytest

from src.core.stage.errors import DataError
from src.grounding.evaluation import image_scores
from tests.grounding.scenes import scene


def test_errors_by_hand():
    truth = np.full((4, 2), 0.3)
    predicted = truth.copy()
    predicted[1, 0] = 0.5  # green of the first pixel
    found = image_scores.scores(predicted, truth)
    assert found["mae"] == pytest.approx(0.2 / 8) and found["rmse"] == pytest.approx(0.2 / math.sqrt(8))
    assert found["psnr"] == pytest.approx(10 * math.log10(1 / (0.04 / 8)))
    assert found["mae_B03"] == found["bias_B03"] == pytest.approx(0.1) and found["mae_B02"] == 0
    assert found["rmse_B03"] == pytest.approx(0.2 / math.sqrt(2))
    cosine = (3 * 0.09 + 0.15) / (0.6 * math.sqrt(3 * 0.09 + 0.25))
    assert found["sam_deg"] == pytest.approx(math.degrees(math.acos(cosine)) / 2, abs=1e-4)
    assert found["ndvi_mae"] == 0
    assert image_scores.scores(truth, truth)["psnr"] == 100
    assert set(image_scores.scores(truth[:, :0], truth[:, :0]).values()) == {None}


def test_angle_does_not_depend_on_brightness_and_a_black_prediction_is_at_right_angles():
    truth = np.array([[0.1, 0.2, 0.1, 0], [0.1, 0.2, 0.3, 0], [0.1, 0.2, 0.1, 0], [0.4, 0.2, 0.1, 0]])
    predicted = 2 * truth
    predicted[:, 1] = 0
    assert image_scores.spectral_angle(predicted, truth).tolist() == pytest.approx([0, 90, 0], abs=1e-4)


def test_ndvi_error_by_hand_without_dark_pixels():
    truth = np.array([[0.0, 0.0], [0.0, 0.0], [0.1, 0.001], [0.3, 0.002]])  # NDVI 0.5; the second is dark
    predicted = np.array([[0.0, 0.0], [0.0, 0.0], [-0.1, 0.3], [0.3, 0.1]])  # NDVI 1, red below 0 being 0
    assert image_scores.scores(predicted, truth)["ndvi_mae"] == pytest.approx(0.5)


def test_degraded_and_missing_pixels_apart():
    known = scene()
    guess, missing = known.optical.copy(), known.missing.copy()
    guess[:, 0, :4] += 0.06  # changed
    guess[0, 1, 0] += 0.19  # mean over bands below 0.05
    missing[5, :2] = True
    valid = known.valid.copy()
    valid[5, 0] = valid[0, 0] = False
    one = scene(first_guess=guess, missing=missing, valid=valid)
    predicted = one.optical.copy()
    predicted[:, 0, :4] += 0.02
    predicted[:, 5, 1] += 0.1
    predicted[:, 5, 0] = np.nan  # not valid
    row = image_scores.scene_rows("opt_v3", [(one, predicted, scene("two", seed=1))])[0]
    n = 24 * 24 - 2
    assert row["mae"] == pytest.approx((3 * 0.02 + 0.1) / n, rel=1e-4)
    assert row["degraded_mae"] == pytest.approx((3 * 0.02 + 0.1) / 4, rel=1e-4)
    assert row["missing_mae"] == pytest.approx(0.1, rel=1e-4) and row["missing_psnr"] == pytest.approx(20, rel=1e-4)
    assert row["degraded_share"] == pytest.approx(4 / n) and row["missing_share"] == pytest.approx(1 / n)
    assert row["predictor"] == "opt_v3" and row["scene"] == "one"
    assert 0 < row["missing_ssim"] < row["ssim"] < 1
    assert set(image_scores.AGREEMENTS) <= set(row)
    clear = image_scores.scene_rows("opt_v2", [(known, known.optical, known)])[0]
    assert clear["missing_psnr"] is None and clear["missing_ssim"] is None and clear["psnr"] == 100


def test_ssim_of_two_flat_images_by_hand():
    flat = [np.full((4, 24, 24), value, np.float32) for value in (0.3, 0.5)]
    found = image_scores.ssim_map(flat[1], flat[0], np.ones((24, 24), bool))
    assert found == pytest.approx((2 * 0.15 + 1e-4) / (0.09 + 0.25 + 1e-4), rel=1e-4)
    valid = np.zeros((24, 24), bool)
    assert (image_scores.ssim_map(flat[1], flat[0], valid) == 1).all()


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        (np.zeros((4, 8, 8), np.float32), r"opt_v3, one: found an image of shape \(4, 8, 8\)"),
        (np.full((4, 24, 24), np.nan, np.float32), "opt_v3, one: found 576 valid pixels and 2304 values"),
    ],
)
def test_bad_predictions_are_named(predicted, message):
    with pytest.raises(DataError, match=message):
        image_scores.scene_rows("opt_v3", [(scene(), predicted, scene())])


def test_a_scene_without_a_valid_pixel_is_named():
    none = scene(valid=np.zeros((24, 24), bool))
    with pytest.raises(DataError, match="found 0 valid pixels"):
        image_scores.scene_rows("opt_v3", [(none, none.optical, none)])


def table(seeds: int = 1) -> pd.DataFrame:
    """12 scenes of unequal difficulty; opt_v3 is 3 dB better in all, give or take 0.1."""
    hard = np.linspace(20, 31, 12)
    rows = [
        {"predictor": name, "scene": f"s{at:02}", "seed": seed, "psnr": hard[at] + gain * (3 + 0.1 * (-1) ** at)}
        for seed in range(seeds)
        for name, gain in (("opt_v3", 1), ("opt_v2", 0))
        for at in range(12)
    ]
    return pd.DataFrame(rows).assign(missing_psnr=None, block=lambda found: found["scene"].str[:2])


def test_means_with_intervals_over_scenes_and_paired_ones_without_their_difficulty():
    rows = table()
    alone = image_scores.pooled(rows[rows["predictor"] == "opt_v2"], "scene", ["psnr", "missing_psnr"])
    assert alone["psnr"] == pytest.approx(25.5) and alone["n"] == alone["n_units"] == 12
    assert alone["psnr_low"] < 24 and alone["psnr_high"] > 27
    assert alone["missing_psnr"] is None and alone["missing_psnr_low"] is None
    gain = image_scores.paired(rows.sample(frac=1, random_state=0), "opt_v3", "opt_v2", "scene", ["psnr"])
    assert gain["psnr"] == pytest.approx(3) and 2.9 < gain["psnr_low"] < 3 < gain["psnr_high"] < 3.1


def test_seeds_of_a_scene_are_not_units_and_few_blocks_have_no_interval():
    once, thrice = (image_scores.paired(table(seeds), "opt_v3", "opt_v2", "scene", ["psnr"]) for seeds in (1, 3))
    assert thrice["n"] == 36 and thrice["n_units"] == 12
    assert thrice["psnr_low"] == pytest.approx(once["psnr_low"])
    blocks = image_scores.paired(table(), "opt_v3", "opt_v2", "block", ["psnr"])
    assert blocks["n_units"] == 2 and blocks["psnr_low"] is None and "2 units" in blocks["method"]


def test_predictors_with_other_scenes_are_not_paired():
    with pytest.raises(DataError, match="opt_v3 and opt_v2: found 12 and 11 scenes"):
        image_scores.paired(table().iloc[:-1], "opt_v3", "opt_v2", "scene", ["psnr"])
