"""Images of test scenes: the radar image that each predictor is given, samples by number, one degradation alone."""

import numpy as np
import pytest

from src.grounding.evaluation import refined_scenes
from src.grounding.evaluation.predictors import PREDICTORS
from tests.conftest import grounding_params
from tests.grounding.scenes import scene
from tests.grounding.stores import SCALING, networks

NAMED = {one.name: one for one in PREDICTORS}
CHANGES = {
    "tiles.tile_px": 16, "infer.overlap_px": 4, "model.width": 16, "model.heads": 2, "model.depth": 1, "model.steps": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def params():
    return grounding_params(CHANGES)


@pytest.fixture
def given(monkeypatch):
    """Radar images that reach the networks, in place of what these would draw."""
    seen = []

    def refine(scene, network, steps, overlap, samples, seed):
        seen.append((scene.sar, network))
        return np.repeat(scene.first_guess[None], samples, axis=0)

    monkeypatch.setattr(refined_scenes, "refine_scene", refine)
    return seen


def test_each_predictor_is_given_its_network_and_its_radar_image(params, given):
    one, other, nets = scene("one", 24), scene("two", 16, seed=1), networks(params)
    for name in ("opt_v3", "shuffled_sar", "zeroed_sar", "no_lora", "no_sar_network", "regression_unet"):
        assert refined_scenes.draw(NAMED[name], one, other, nets, params, 3).shape == (3, 4, 24, 24)
    used = [network for _, network in given]
    assert used == [nets.adapted] * 3 + [nets.pretrained, nets.without_radar, nets.regression]
    own, shuffled, zeroed, *rest = [sar for sar, _ in given]
    assert own is one.sar and all(sar is one.sar for sar in rest)
    np.testing.assert_array_equal(shuffled[:, :16, :16], other.sar)
    np.testing.assert_array_equal(shuffled[:, 16:, 16:], other.sar[:, :8, :8])
    np.testing.assert_array_equal(zeroed[:, 5, 7], np.float32(SCALING.sar_mean))


def test_more_samples_begin_with_the_same_ones(params):
    one, nets = scene("one", 24), networks(params)
    few, many = (refined_scenes.draw(NAMED["opt_v3"], one, one, nets, params, count) for count in (2, 4))
    np.testing.assert_array_equal(many[:2], few)
    assert not np.array_equal(many[0], many[1])


def test_a_predictor_that_does_not_draw_gives_one_image(params):
    missing = np.zeros((24, 24), bool)
    missing[8:12, 8:12] = True
    hole = scene("one", 24, missing=missing)
    for name in ("opt_v2", "bicubic", "telea"):
        (image,) = refined_scenes.draw(NAMED[name], hole, hole, None, params, 4)
        np.testing.assert_array_equal(image[:, ~missing], hole.first_guess[:, ~missing])
        assert np.array_equal(image, hole.first_guess) == (name == "opt_v2")


def test_each_kind_is_alone(params, given):
    one = scene("one", 24)
    found = list(refined_scenes.by_kind([one], networks(params), params))
    assert len(found) == 4 * 5
    guesses = {kind: scene for kind, _, scene, _ in found}
    assert guesses["holes"].missing.any() and not guesses["noise"].missing.any()
    seen = ~guesses["holes"].missing
    np.testing.assert_array_equal(guesses["holes"].first_guess[:, seen], one.optical[:, seen])
    assert guesses["noise"].first_guess.std() > one.optical.std() > guesses["blur_px"].first_guess.std()
    assert guesses["haze"].first_guess.std() < one.optical.std()
