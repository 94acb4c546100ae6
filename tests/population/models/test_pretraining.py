"""Views for pretraining: crops, turns and masks as functions of (seed, epoch, index)."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from src.core.data.augment import orient
from src.core.data.quantisation import Quantisation
from src.core.models.mae import MaskedAutoencoder
from src.core.models.patches import BandFrontEnd
from src.population.models.pretraining import Pretraining, TileViews
from tests.population.conftest import begin, small_params

SCALES = [1.0, 0.8, 0.6]


@pytest.fixture
def views(store, split_of):
    def views(**changes):
        settings = {"side": 16, "units": 16, "seed": 0, "samples_per_file": 3, "scales": SCALES} | changes
        return TileViews(store, split_of.tile_rows("train"), **settings)

    return views


@pytest.fixture
def module(study):
    params = small_params()
    start = begin(params, study)
    torch.manual_seed(0)
    mae = MaskedAutoencoder(start.vlm.model.visual, start.front.side, "full", (1, 32, 2), True)
    return Pretraining(start.front, mae, 0.75)


def everything(dataset, epoch):
    dataset.set_epoch(epoch)
    return dataset.__getitems__(list(range(len(dataset))))


def test_every_tile_is_seen_samples_per_file_times_and_differently(views, store, split_of):
    dataset = views()
    rows = split_of.tile_rows("train")
    batch = everything(dataset, 0)
    assert len(dataset) == 3 * len(rows) == len(batch["tiles"])
    for index in (0, 1, 2, 3, 50):
        np.testing.assert_array_equal(batch["tiles"][index].numpy(), store.view(rows[index // 3]))
        np.testing.assert_array_equal(batch["valid"][index].numpy(), store.valid([rows[index // 3]])[0])
    for name in ("noise", "boxes", "orientation"):
        first, second, third = batch[name].float().unflatten(0, (-1, 3)).unbind(1)
        assert not torch.equal(first, second) and not torch.equal(second, third), name


def test_views_change_by_epoch_and_repeat_for_the_same_one(views):
    dataset = views()
    first, second, again = everything(dataset, 0), everything(dataset, 1), everything(views(), 0)
    other = everything(views(seed=1), 0)
    for name in ("noise", "boxes", "orientation"):
        assert torch.equal(first[name], again[name]), name
        assert not torch.equal(first[name], second[name]), name
        assert not torch.equal(first[name], other[name]), name


def test_a_view_does_not_depend_on_its_batch(views):
    dataset = views()
    together = dataset.__getitems__([7, 2, 30])
    for place, index in enumerate([7, 2, 30]):
        for name, value in dataset[index].items():
            assert torch.equal(together[name][place], value[0]), name


def test_crops_have_the_asked_sizes_and_stay_inside(views):
    boxes = everything(views(), 0)["boxes"]
    assert set(boxes[:, 2].tolist()) == {16, 13, 10}
    assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= 16).all()
    assert boxes[:, 0].unique().numel() > 3 and (boxes[:, 0] != boxes[:, 1]).any()


def test_validation_views_are_the_tiles_with_one_mask_for_all_epochs(views):
    dataset = views(scales=None, samples_per_file=1)
    first, later = everything(dataset, 0), everything(dataset, 5)
    assert set(first) == {"tiles", "valid", "noise"}
    assert torch.equal(first["noise"], later["noise"])


def test_images_are_the_cropped_resized_turned_standardised_tile(module, views, split_of):
    batch = views().__getitems__(list(range(24)))
    images, valid = module.images(batch["tiles"], batch["valid"], batch["boxes"], batch["orientation"])
    whole = batch["valid"].flatten(1).all(1)
    assert whole.any() and not whole.all()
    for place in range(24):
        top, left, side = batch["boxes"][place].tolist()
        values = batch["tiles"][place].float() * 0.02
        piece = values[None, :, top : top + side, left : left + side]
        resized = functional.interpolate(piece, size=(16, 16), mode="bilinear", align_corners=False)
        turned = orient(resized, batch["orientation"][place : place + 1])[0]
        expected = (turned - split_of.mean[:, None, None]) / split_of.sd[:, None, None]
        torch.testing.assert_close(images[place][:, valid[place]], expected[:, valid[place]], rtol=0, atol=1e-5)
        assert valid[place].all() or not whole[place]
        assert not images[place][:, ~valid[place]].any(), "no data is the training mean, 0"


def test_no_data_does_not_leak_through_resizing(module, views):
    batch = views().__getitems__(list(range(30)))
    hidden = ~batch["valid"][:, None].expand_as(batch["tiles"])
    assert hidden.any()
    arguments = batch["valid"], batch["boxes"], batch["orientation"]
    before, _ = module.images(batch["tiles"], *arguments)
    after, _ = module.images(batch["tiles"].masked_fill(hidden, 99), *arguments)
    assert torch.equal(before, after)


def test_resized_alphaearth_vectors_keep_length_one():
    unit = functional.normalize(torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    stored = (unit.sign() * unit.abs().sqrt() * 127.5).round().to(torch.int8)
    front = BandFrontEnd(Quantisation("alphaearth"), torch.zeros(8), torch.ones(8), 16)
    module = Pretraining(front, torch.nn.Identity(), 0.75)
    boxes = torch.tensor([[1, 2, 10], [0, 3, 13]])
    images, _ = module.images(stored, torch.ones(2, 16, 16, dtype=torch.bool), boxes, torch.tensor([0, 3]))
    torch.testing.assert_close(images.norm(dim=1), torch.ones(2, 16, 16))


def test_invalid_pixels_carry_no_loss(module, views):
    batch = views(scales=None, samples_per_file=1).__getitems__(list(range(8)))
    assert not batch["valid"].all()
    with torch.no_grad():
        loss = module(**batch)["loss"]
        batch["tiles"] = batch["tiles"].masked_fill(~batch["valid"][:, None], 50)
        assert torch.isfinite(loss) and torch.equal(module(**batch)["loss"], loss)
        batch["valid"] = torch.zeros_like(batch["valid"])
        assert module(**batch)["loss"] == 0
