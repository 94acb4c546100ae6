"""Blended windows: nothing invented by blending, no seam, noise of the place and not of the run."""

import numpy as np
import pytest
import torch

from src.grounding.models import whole_scene
from src.grounding.models.whole_scene import Strip
from tests.grounding.scenes import scene
from tests.grounding.small_models import generator

SIDE = 16


def strips(image: np.ndarray, missing=None, wanted=None):
    """Reader of a (4, H, W) image with an even radar image."""
    missing = np.zeros(image.shape[1:], bool) if missing is None else missing

    def read(top, height):
        rows = slice(top, top + height)
        sar = np.full((2, height, image.shape[2]), -10, np.float32)
        return Strip(sar, image[:, rows], missing[rows], None if wanted is None else wanted[rows])

    return read


def refined(read, shape, refine, samples=1, overlap=6, seed=0):
    windows = whole_scene.grid(*shape, SIDE, overlap)
    return np.concatenate(list(whole_scene.refine_rows(read, windows, refine, samples, seed)), axis=2)


def unchanged(first_guess, missing, sar, noise):
    return first_guess


@pytest.mark.parametrize("shape", [(16, 16), (16, 50), (37, 16), (41, 53)])
def test_windows_that_agree_are_not_changed_by_blending(shape):
    image = np.random.default_rng(0).uniform(0, 1, (4, *shape)).astype(np.float32)
    found = refined(strips(image), shape, unchanged, samples=2)
    assert found.dtype == np.float32 and found.shape == (2, 4, *shape)
    np.testing.assert_allclose(found, np.stack([image, image]), atol=1e-6)


def test_a_windows_seam_is_no_larger_than_the_steps_within_the_overlap():
    calls = iter(range(10_000))

    def alternating(first_guess, missing, sar, noise):
        return torch.stack([torch.full_like(one, next(calls) % 2) for one in first_guess])

    overlap, image = 6, np.zeros((4, SIDE, 46), np.float32)
    found = refined(strips(image), (SIDE, 46), alternating, overlap=overlap)[0, 0]
    steps = np.abs(np.diff(found, axis=1))
    assert np.ptp(found) == 1, "windows differ by 1, side by side"
    np.testing.assert_allclose(steps.max(axis=1), 1 / (overlap + 1), atol=1e-6, err_msg="in the first row as in any")


def test_samples_and_whole_scenes_come_from_their_own_noise_at_each_place():
    def drawn(first_guess, missing, sar, noise):
        return noise

    image = np.zeros((4, 40, 44), np.float32)
    first, second = refined(strips(image), (40, 44), drawn, samples=2)
    for sample, found in enumerate((first, second)):
        np.testing.assert_allclose(found, whole_scene.noise_rows(0, sample, 0, 40, 44), atol=1e-6)
    assert np.abs(first - second).mean() > 0.5
    assert np.abs(first - refined(strips(image), (40, 44), drawn, seed=1)[0]).mean() > 0.5


def test_noise_is_a_function_of_its_row():
    rows = whole_scene.noise_rows(3, 1, 10, 5, 7)
    assert rows.shape == (4, 5, 7) and rows.dtype == np.float32
    np.testing.assert_array_equal(rows[:, 2:4], whole_scene.noise_rows(3, 1, 12, 2, 7))
    assert abs(whole_scene.noise_rows(0, 0, 0, 50, 50).std() - 1) < 0.05


def test_the_generator_gives_the_same_scene_whatever_else_is_in_its_batches(monkeypatch):
    one = scene(side=40, missing=np.random.default_rng(1).uniform(size=(40, 40)) < 0.2)
    model = generator()
    whole = whole_scene.refine_scene(one, model, steps=2, overlap=6, samples=2, seed=4)
    assert whole.shape == (2, 4, 40, 40) and np.abs(whole[0] - whole[1]).mean() > 1e-4
    monkeypatch.setattr(whole_scene, "BATCH", 3)
    np.testing.assert_allclose(
        whole_scene.refine_scene(one, model, steps=2, overlap=6, samples=2, seed=4), whole, atol=1e-5
    )
    alone = whole_scene.refine_scene(one, model, steps=2, overlap=6, samples=1, seed=4)
    np.testing.assert_allclose(alone[0], whole[0], atol=1e-5)


def test_what_is_not_wanted_is_nan_and_windows_without_any_first_guess_are_left_out():
    seen = []

    def counted(first_guess, missing, sar, noise):
        seen.append(len(first_guess))
        return first_guess

    shape = (SIDE, 4 * SIDE)
    missing, wanted = np.zeros(shape, bool), np.ones(shape, bool)
    missing[:, 2 * SIDE :] = True
    missing[3, 5] = True
    wanted[:, :4] = False
    found = refined(strips(np.full((4, *shape), 0.5, np.float32), missing, wanted), shape, counted, overlap=0)[0, 0]
    assert sum(seen) == 2
    np.testing.assert_array_equal(np.isfinite(found), wanted & (np.arange(4 * SIDE) < 2 * SIDE))
    assert found[3, 5] == 0.5
    wanted[:] = False
    nothing = refined(strips(np.zeros((4, *shape), np.float32), missing, wanted), shape, counted)
    assert np.isnan(nothing).all()
