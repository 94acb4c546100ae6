"""Views of a tile repeat exactly, never mix no-data into data and stay on the sphere."""

import numpy as np
import pytest
import torch

from src.core.data.augment import MASK, ORIENT, VIEW, draw_box, generator, orient, resized_crop


def test_draws_are_a_function_of_seed_epoch_index_and_stream():
    def numbers(*key: int) -> list[int]:
        return generator(*key).integers(1 << 60, size=3).tolist()

    assert numbers(0, 3, 7, VIEW) == numbers(0, 3, 7, VIEW)
    keys = [(s, e, i, stream) for s in (0, 1) for e in (0, 1, 2) for i in (0, 1, 2) for stream in (VIEW, MASK, ORIENT)]
    assert len({tuple(numbers(*key)) for key in keys}) == len(keys), "no two samples, epochs or purposes share draws"


def test_eight_orientations_are_distinct_and_can_be_undone():
    image = torch.arange(2 * 4 * 4).view(1, 2, 4, 4)
    turned = [orient(image, torch.tensor([k])) for k in range(8)]
    assert len({tuple(view.flatten().tolist()) for view in turned}) == 8
    assert torch.equal(turned[0], image)
    for k, view in enumerate(turned):
        back = next(j for j in range(8) if torch.equal(orient(view, torch.tensor([j])), image))
        assert back == (k if k >= 4 else -k % 4), "a mirrored view is its own inverse"


def test_each_image_and_its_mask_turn_together():
    images = torch.arange(3 * 16.0).view(3, 1, 4, 4)
    orientation = torch.tensor([0, 3, 6])
    turned = orient(images, orientation)
    assert torch.equal(turned[:, 0] > 20, orient(images[:, 0] > 20, orientation))
    assert torch.equal(turned[1], orient(images[1:2], torch.tensor([3]))[0])


def test_boxes_lie_inside_and_use_every_scale():
    boxes = [draw_box(np.random.default_rng(i), 20, [1.0, 0.8, 0.6]) for i in range(300)]
    assert {crop for _, _, crop in boxes} == {20, 16, 12}
    assert all(min(top, left) >= 0 and max(top, left) + crop <= 20 for top, left, crop in boxes)
    assert {top for top, _, crop in boxes if crop == 12} == set(range(9)), "up to and including the far edge"
    assert draw_box(np.random.default_rng(0), 3, [0.1])[2] == 1


def tile(side: int = 16, bands: int = 6) -> torch.Tensor:
    values = torch.randn(1, bands, side, side, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.normalize(values, dim=1)


def test_resized_vectors_stay_on_the_sphere():
    values, valid = tile(), torch.ones(1, 16, 16, dtype=torch.bool)
    box = torch.tensor([[2, 3, 10]])
    unit, mask = resized_crop(values, valid, box, unit_norm=True)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(1, 16, 16))
    plain, _ = resized_crop(values, valid, box, unit_norm=False)
    assert (plain.norm(dim=1) < 0.99).any(), "interpolation alone leaves the sphere"
    assert mask.all() and unit.shape == values.shape


def test_a_whole_crop_is_the_tile_itself():
    values, valid = tile(), torch.rand(1, 16, 16) > 0.5
    same, mask = resized_crop(values, valid, torch.tensor([[0, 0, 16]]), unit_norm=True)
    assert torch.equal(same, values) and torch.equal(mask, valid)


def test_a_crop_shows_its_own_box():
    values = torch.zeros(1, 1, 16, 16)
    values[0, 0, 4:12, 6:14] = 1.0
    inside, _ = resized_crop(
        values, torch.ones(1, 16, 16, dtype=torch.bool), torch.tensor([[4, 6, 8]]), unit_norm=False
    )
    assert (inside == 1).all()


@pytest.mark.parametrize("unit_norm", [True, False])
def test_no_data_never_leaks_into_valid_pixels(unit_norm):
    valid = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(1)) > 0.15
    box = torch.tensor([[1, 2, 12]])
    clean, mask = resized_crop(tile(), valid, box, unit_norm=unit_norm)
    for filler in (1e6, float("nan")):
        dirty, again = resized_crop(tile().masked_fill(~valid[:, None], filler), valid, box, unit_norm=unit_norm)
        assert torch.equal(mask, again) and torch.equal(clean, dirty)
    changed, _ = resized_crop(tile() + 1.0 * ~valid[:, None], torch.ones_like(valid), box, unit_norm=unit_norm)
    plain, _ = resized_crop(tile(), torch.ones_like(valid), box, unit_norm=unit_norm)
    untouched = (changed == plain).all(1)
    assert torch.equal(mask, untouched), "valid is exactly where no invalid pixel takes part"
    assert mask.any() and not mask.all()
