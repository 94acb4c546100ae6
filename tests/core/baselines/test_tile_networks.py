import numpy as np
import pytest
import torch
from torch.nn import functional

from src.core.baselines import tile_networks
from src.core.baselines.tile_networks import TileNetwork, TileRows, train_network
from src.core.data.band_statistics import standardise
from tests.tiles import random_pixels, write_store

BANDS = 3
SETTING = {"lr": 3e-3, "weight_decay": 0.01}


@pytest.fixture
def store(tmp_path):
    pixels = np.stack([random_pixels(seed, BANDS, 8, 12) for seed in range(4)])
    valid = np.ones((4, 8, 12), bool)
    valid[1, :, :6] = False
    return write_store(tmp_path / "store", pixels, valid=valid)


def test_images_are_the_standardised_centre_square_with_masked_pixels_zero(store):
    mean, sd = np.float32([0.1, 0, -0.1]), np.float32([1, 2, 3])
    images = tile_networks.tile_images(store, np.array([3, 1]), mean, sd)
    assert images.shape == (2, BANDS, 8, 8)
    for image, tile in zip(images, (3, 1), strict=True):
        expected = standardise(store.view(tile), store.valid([tile])[0], store.quantisation, mean, sd)[..., 2:10]
        np.testing.assert_allclose(image.numpy(), expected, atol=1e-3)
    assert (images[1, :, :, :4] == 0).all()


def test_large_tiles_are_averaged_over_their_valid_pixels(store, monkeypatch):
    monkeypatch.setattr(tile_networks, "SIDE", 4)
    mean, sd = np.zeros(BANDS, np.float32), np.ones(BANDS, np.float32)
    images = tile_networks.tile_images(store, np.array([0, 1]), mean, sd)
    whole = standardise(store.view(0), store.valid([0])[0], store.quantisation, mean, sd)[..., 2:10]
    expected = functional.avg_pool2d(torch.from_numpy(whole), 2)
    np.testing.assert_allclose(images[0].numpy(), expected, atol=1e-3)
    half = standardise(store.view(1), store.valid([1])[0], store.quantisation, mean, sd)[..., 6:10]
    np.testing.assert_allclose(images[1, ..., 2:].numpy(), functional.avg_pool2d(torch.from_numpy(half), 2), atol=1e-3)
    assert (images[1, ..., :2] == 0).all()
    monkeypatch.setattr(tile_networks, "IMAGE_BYTES", 2 * 2 * BANDS * 9)
    assert tile_networks.tile_images(store, np.array([0, 1]), mean, sd).shape[-1] == 3


def rows(count=60, kind="cnn", seed=0, view_seed=None):
    """Labels that depend on the mean of band 0 and on the column."""
    generator = np.random.default_rng(seed)
    means = generator.normal(size=(count, BANDS, 1, 1))
    images = torch.from_numpy(means + 0.3 * generator.normal(size=(count, BANDS, 8, 8))).half()
    column = generator.normal(size=(count, 1))
    target = 0.8 * means[:, 0, 0, 0] + 0.6 * column[:, 0]
    columns = np.hstack([means[:, :, 0, 0], column]) if kind == "mlp" else column
    given = None if kind == "mlp" else (images, np.arange(count))
    return TileRows(np.arange(count), columns, target, given, view_seed)


@pytest.mark.parametrize("kind", ["mlp", "cnn", pytest.param("resnet18", marks=pytest.mark.slow)])
def test_every_network_learns_from_tiles_and_columns(kind):
    sets = {"train": rows(300, kind, view_seed=1), "validation": rows(50, kind, 1), "held": rows(100, kind, 2)}
    found, curves = train_network(kind, SETTING, **sets, seed=0, epochs=15)
    target = sets["held"].target.numpy()
    assert np.mean((found - target) ** 2) < 0.3 * target.var()  # the tile alone leaves 0.36, the column alone 0.64
    for epochs, loss in curves.values():
        assert epochs[0] == 1 and len(loss) == len(epochs) <= 15


@pytest.mark.parametrize("kind", ["mlp", "cnn", "resnet18"])
def test_every_network_repeats_itself(kind):
    sets = {"train": rows(40, kind, view_seed=1), "validation": rows(10, kind, 1), "held": rows(10, kind, 2)}
    found, _ = train_network(kind, SETTING, **sets, seed=0, epochs=2)
    assert np.array_equal(found, train_network(kind, SETTING, **sets, seed=0, epochs=2)[0])
    assert not np.array_equal(found, train_network(kind, SETTING, **sets, seed=1, epochs=2)[0])


def test_the_best_epoch_on_validation_predicts_and_training_stops_after_it(monkeypatch):
    monkeypatch.setattr(tile_networks, "PATIENCE", 2)
    train, wrong = rows(), rows(30, seed=1)
    wrong.target = -wrong.target  # the better the training, the worse the validation
    found, curves = train_network("cnn", SETTING, train, wrong, wrong, seed=0, epochs=10)
    epochs, loss = curves["validation"]
    best = int(np.argmin(loss))
    assert epochs[-1] == epochs[best] + 2 < 10
    np.testing.assert_allclose(np.mean((found - wrong.target.numpy()) ** 2), loss[best], rtol=1e-4)


def test_held_out_labels_change_nothing():
    train, validation, held = rows(), rows(30, seed=1), rows(20, seed=2)
    found, _ = train_network("cnn", SETTING, train, validation, held, seed=0, epochs=2)
    held.target[:] = np.nan
    again, _ = train_network("cnn", SETTING, train, validation, held, seed=0, epochs=2)
    assert np.array_equal(found, again)


def test_views_are_turned_by_epoch_and_sample_whatever_the_batch():
    data = rows(count=20, view_seed=5)
    together = data.__getitems__(list(range(20)))["tiles"]
    assert torch.equal(together[[7]], data[7]["tiles"])
    data.set_epoch(1)
    assert not torch.equal(together, data.__getitems__(list(range(20)))["tiles"])
    plain = rows(count=20)
    assert torch.equal(plain[7]["tiles"][0], plain.images[0][7].float())


def test_networks_start_at_the_training_mean_and_resnet18_is_that_of_the_paper():
    resnet = TileNetwork("resnet18", 64, 1).eval()
    assert (resnet(torch.ones(4, 1), torch.zeros(4), torch.randn(4, 64, 16, 16))["prediction"] == 0).all()
    count = sum(weight.numel() for weight in tile_networks.ResNetModel(tile_networks.resnet18_config(3)).parameters())
    assert count == 11_689_512 - 513_000  # He et al. 2016 as torchvision has it, less its classifier


def test_no_batch_is_a_single_row():
    assert tile_networks.batch_size(64) == 32
    for count in range(2, 200):
        assert count % tile_networks.batch_size(count) != 1
