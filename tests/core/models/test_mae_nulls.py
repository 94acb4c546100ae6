"""The nulls guess from visible pixels alone, and the errors are over masked valid pixels alone."""

import pytest
import torch

from src.core.models.mae_nulls import inverse_distance, masked_errors, mean_spectrum
from src.core.models.patches import patchify

BANDS, PATCH, SIDE = 3, 2, 8


@pytest.fixture
def images():
    return torch.randn(2, BANDS, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def mask():
    """(2, 16): every second unit of each tile is masked."""
    return torch.tensor([[True, False, True, False], [False, True, False, True]]).repeat_interleave(4, dim=1)


def ones() -> torch.Tensor:
    return torch.ones(2, 16, 1, PATCH, PATCH)


def positions() -> torch.Tensor:
    """(16, 2) row and column of each patch in merge order."""
    grid = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")).float()
    return patchify(grid[None], 1)[0, :, :, 0, 0]


def test_mean_spectrum_is_that_of_visible_valid_pixels(images, mask):
    patches, weight = patchify(images, PATCH), ones()
    weight[:, 5, :, 1, 1] = 0
    hidden = mask[:, :, None, None, None] | (weight == 0)
    spoiled = torch.where(hidden, torch.tensor(1e6), patches)
    guess = mean_spectrum(spoiled, weight, mask)
    assert guess.shape == (2, 1, BANDS, 1, 1)
    seen = ~hidden.expand_as(patches)
    for tile in range(2):
        for band in range(BANDS):
            expected = patches[tile, :, band][seen[tile, :, band]].mean()
            assert guess[tile, 0, band, 0, 0] == pytest.approx(float(expected), abs=1e-5)


def test_inverse_distance_weighs_visible_patches_by_squared_distance(images, mask):
    patches = patchify(images, PATCH)
    spoiled = torch.where(mask[:, :, None, None, None], torch.tensor(1e6), patches)
    weight = ones()
    weight[:, 5, :, 1, 1] = 0  # a pixel without data takes no part
    spoiled[:, 5, :, 1, 1] = 1e6
    guess = inverse_distance(spoiled, weight, mask, positions())
    for tile, patch in ((0, 0), (1, 7)):
        total, weights = torch.zeros(BANDS), 0.0
        for other in range(16):
            if not mask[tile, other]:
                near = 1 / float(((positions()[patch] - positions()[other]) ** 2).sum())
                seen = weight[tile, other, 0] > 0
                total = total + near * patches[tile, other][:, seen].sum(1)
                weights = weights + near * int(seen.sum())
        torch.testing.assert_close(guess[tile, patch, :, 0, 0], total / weights, rtol=1e-4, atol=1e-4)


class Oracle:
    """Stands where the autoencoder does; its prediction is given."""

    patch_size, merge_size, unit = PATCH, 2, 4

    def __init__(self, mask, predict):
        self.mask, self.predict = mask, predict

    def __call__(self, images, valid, noise, mask_ratio):
        return {"prediction": self.predict(patchify(images, PATCH)), "mask": self.mask}

    def reconstruct(self, images, valid, prediction):
        return prediction


def test_errors_are_over_masked_valid_pixels(images, mask):
    valid = torch.ones(2, SIDE, SIDE, dtype=torch.bool)
    valid[:, 0, 0] = False  # a pixel of a masked patch of tile 0 and of a visible one of tile 1
    model = Oracle(
        mask, lambda patches: patches + 2.0 * mask[:, :, None, None, None] + 100.0 * ~mask[:, :, None, None, None]
    )
    sums, count = masked_errors(model, images, valid, None, 0.5, positions())
    assert count == BANDS * (mask.sum() * PATCH * PATCH - 1)
    assert sums["model"] == pytest.approx(4 * count, rel=1e-4)


def test_a_model_that_copies_its_context_is_found_out_by_swapping_it(images, mask):
    valid = torch.ones(2, SIDE, SIDE, dtype=torch.bool)
    sums, count = masked_errors(Oracle(mask, lambda patches: patches), images, valid, None, 0.5, positions())
    assert sums["model"] == 0
    patches = patchify(images, PATCH)
    weight = mask[:, :, None, None, None].float()
    assert sums["swapped_context"] == pytest.approx(
        float(((patches.roll(1, 0) - patches) ** 2 * weight).sum()), rel=1e-4
    )
    units = images.unflatten(2, (2, 4)).unflatten(4, (2, 4))  # (B, C, 2, 4, 2, 4): 4 x 4 px each
    within = patchify((units - units.mean((3, 5), keepdim=True)).flatten(4, 5).flatten(2, 3), PATCH)
    assert sums["true_unit_mean"] == pytest.approx(float((within**2 * weight).sum()), rel=1e-4)
    assert set(sums) == {"model", "mean_spectrum", "inverse_distance", "swapped_context", "true_unit_mean"}
    assert count == BANDS * mask.sum() * PATCH * PATCH
