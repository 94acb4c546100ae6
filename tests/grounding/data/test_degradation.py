"""First guesses made from the truth: each kind alone, their strengths, and nothing of the truth in holes."""

import numpy as np
import pytest

from src.core.stage.errors import DataError
from src.grounding.data.degradation import HAZE_OF_BAND, degrade, fill_bicubic, fill_telea
from src.grounding.data.random_surface import smooth
from src.grounding.params import Degradation

KINDS = ("blur_px", "noise", "haze", "holes")
MIXED = {"blur_px": 1.5, "noise": 0.01, "haze": 0.2, "holes": 0.25}


def strengths(**fixed) -> Degradation:
    """Every kind at one strength, 0 where none is named."""
    return Degradation(**{kind: [float(fixed.get(kind, 0))] * 2 for kind in KINDS})


def truth(seed: int = 0, side: int = 64) -> np.ndarray:
    """Smooth reflectance with an edge that blur can wear down, around 0.2."""
    generator = np.random.default_rng(seed)
    image = np.stack([0.2 + 0.04 * smooth(generator, side, 3) for _ in range(4)])
    image[:, :, side // 2 :] += 0.1
    return np.clip(image, 0.01, 1).astype(np.float32)


def run(image: np.ndarray, valid: np.ndarray | None = None, seed: int = 0, **fixed):
    valid = np.ones(image.shape[1:], bool) if valid is None else valid
    return degrade(image, valid, strengths(**fixed), np.random.default_rng(seed))


def psnr(guess: np.ndarray, image: np.ndarray, where: np.ndarray | None = None) -> float:
    difference = guess - image if where is None else (guess - image)[:, where]
    return float(-10 * np.log10(np.mean(difference**2)))


def test_no_strength_leaves_the_truth():
    guess, missing, drawn = run(truth())
    np.testing.assert_array_equal(guess, truth())
    assert not missing.any() and drawn == dict.fromkeys(KINDS, 0.0)


@pytest.mark.parametrize(
    ("kind", "weak", "strong"), [("blur_px", 0.5, 2.5), ("noise", 0.005, 0.03), ("haze", 0.1, 0.4), ("holes", 0.1, 0.4)]
)
def test_each_kind_alone_lowers_psnr_by_its_strength(kind, weak, strong):
    image = truth()
    scores = [psnr(run(image, **{kind: strength})[0], image) for strength in (weak, strong)]
    assert scores[0] > scores[1] + 3
    assert psnr(run(image, **MIXED)[0], image) < psnr(run(image, **{kind: MIXED[kind]})[0], image)


def test_a_kind_that_is_off_changes_no_draw_of_the_others():
    image = truth()
    _, holes, drawn = run(image, holes=0.25)
    _, mixed_holes, mixed_drawn = run(image, **MIXED)
    np.testing.assert_array_equal(holes, mixed_holes)
    assert drawn["holes"] == mixed_drawn["holes"]
    noise = run(image, noise=0.01)[0] - image
    np.testing.assert_allclose(run(image, noise=0.01, haze=0.1)[0] - run(image, haze=0.1)[0], noise, atol=1e-6)


def test_strengths_are_drawn_between_their_limits():
    limits = Degradation(blur_px=[1.0, 2.0], noise=[0.01, 0.02], haze=[0.1, 0.3], holes=[0.1, 0.3])
    drawn = [degrade(truth(side=32), np.ones((32, 32), bool), limits, np.random.default_rng(s))[2] for s in range(30)]
    for kind, (low, high) in limits:
        values = np.array([one[kind] for one in drawn])
        assert values.min() >= low - 0.001 and values.max() <= high + 0.001
        assert np.ptp(values) > 0.6 * (high - low)


def test_noise_has_its_standard_deviation_and_is_independent_in_bands():
    image = np.full((4, 64, 64), 0.5, np.float32)
    noise = run(image, noise=0.02)[0] - image
    assert noise.std() == pytest.approx(0.02, rel=0.03)
    assert np.corrcoef(noise.reshape(4, -1))[np.triu_indices(4, 1)] == pytest.approx(0, abs=0.06)


def test_blur_keeps_the_mean_and_wears_edges_down():
    image = truth()
    guess = run(image, blur_px=2)[0]
    assert guess.mean() == pytest.approx(image.mean(), rel=0.01)
    assert np.abs(np.diff(guess, axis=2)).max() < 0.5 * np.abs(np.diff(image, axis=2)).max()


def test_haze_is_bluish_and_smooth_and_adds_light_over_dark_ground():
    black = np.zeros((4, 64, 64), np.float32)
    haze = np.mean([run(black, seed=seed, haze=0.3)[0] for seed in range(20)], axis=(0, 2, 3))
    assert haze == pytest.approx(0.3 * 0.25 * HAZE_OF_BAND, rel=0.15)
    assert (np.diff(haze) < 0).all()
    one = run(black, haze=0.3)[0]
    assert np.ptp(one[0]) > 0.001 and np.abs(np.diff(one, axis=1)).max() < 0.005


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_holes_have_their_share_and_irregular_shapes(share):
    _, missing, drawn = run(truth(), holes=share)
    assert missing.mean() == pytest.approx(share, abs=0.001) and drawn["holes"] == pytest.approx(share, abs=0.001)
    inside = missing[:-1] & missing[1:]
    assert inside.sum() > 0.8 * missing.sum()  # patches, no single pixels


def test_holes_are_filled_with_the_mean_of_what_is_seen():
    guess, missing, _ = run(truth(), **MIXED)
    for band in guess:
        np.testing.assert_array_equal(band[missing], band[missing][0])
        assert band[missing][0] == pytest.approx(band[~missing].mean(), rel=1e-5)


@pytest.mark.parametrize("fill", [None, fill_telea, fill_bicubic])
def test_no_truth_under_a_hole_reaches_any_pixel(fill):
    """Neither the hole nor, through blur, mean or filling, what lies around it."""
    image = truth()
    guess, missing, _ = run(image, **MIXED)
    other = np.where(missing, np.random.default_rng(9).uniform(0, 1, image.shape), image).astype(np.float32)
    again, again_missing, _ = run(other, **MIXED)
    np.testing.assert_array_equal(missing, again_missing)
    if fill:
        guess, again = fill(guess, missing), fill(again, missing)
    np.testing.assert_array_equal(guess, again)


def test_nothing_that_is_not_valid_reaches_any_pixel():
    image, valid = truth(), np.ones((64, 64), bool)
    valid[10:30, 40:] = False
    guess, missing, drawn = run(np.where(valid, image, np.nan).astype(np.float32), valid, **MIXED)
    again, _, _ = run(np.where(valid, image, 1).astype(np.float32), valid, **MIXED)
    np.testing.assert_array_equal(guess, again)
    assert np.isfinite(guess).all() and missing[~valid].all()
    assert (missing & valid).sum() / valid.sum() == pytest.approx(0.25, abs=0.001) == drawn["holes"]


def test_a_first_guess_is_reflectance_from_0_to_1():
    image = np.where(truth() > 0.25, 0.999, 0.001).astype(np.float32)
    guess, missing, drawn = run(image, **(MIXED | {"noise": 0.2}))
    assert guess.dtype == np.float32 and guess.shape == image.shape and missing.dtype == bool
    assert guess.min() == 0 and guess.max() == 1
    assert all(type(value) is float for value in drawn.values())  # JSON takes them


def test_the_same_generator_gives_the_same_guess_and_another_one_another():
    one, same, other = (run(truth(), seed=seed, **MIXED) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one[0], same[0])
    assert (one[1] != other[1]).any() and (one[0] != other[0]).any()


def test_scenes_need_not_be_square():
    image = truth()[:, :40]
    guess, missing, _ = run(image, **MIXED)
    assert guess.shape == (4, 40, 64) and missing.shape == (40, 64)
    assert missing.mean() == pytest.approx(0.25, abs=0.001)


def test_a_scene_without_clear_pixels_is_refused():
    with pytest.raises(DataError, match="no clear pixel"):
        run(truth(), np.zeros((64, 64), bool), **MIXED)


@pytest.mark.parametrize("fill", [fill_telea, fill_bicubic])
def test_fillings_beat_the_mean_on_smooth_ground_and_touch_nothing_else(fill):
    image = np.stack([0.2 + 0.05 * smooth(np.random.default_rng(band), 64, 12) for band in range(4)]).clip(0, 1)
    guess, missing, _ = run(image, holes=0.2)
    filled = fill(guess, missing)
    assert filled.dtype == np.float32 and filled.min() >= 0 and filled.max() <= 1
    np.testing.assert_array_equal(filled[:, ~missing], guess[:, ~missing])
    assert psnr(filled, image, missing) > psnr(guess, image, missing) + 6


@pytest.mark.parametrize("fill", [fill_telea, fill_bicubic])
def test_fillings_with_nothing_to_fill_or_little_to_fill_from(fill):
    image, none = truth(), np.zeros((64, 64), bool)
    np.testing.assert_array_equal(fill(image, none), image)
    nearly_all = ~none
    nearly_all[:, 3] = False  # one line of pixels: no triangle spans it
    filled = fill(image, nearly_all)
    assert np.isfinite(filled).all() and np.ptp(filled[:, :, 60], axis=1).max() < 0.4
    np.testing.assert_array_equal(filled[:, :, 3], image[:, :, 3])
