"""Copies that no hash of a file would find; tiles that are alike and no copies."""

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from src.core.data.quantisation import Quantisation
from src.core.splits import near_duplicates
from tests import tiles

PAIRS = [("train", "test")]
ROLES = ["train", "train", "train", "test", "test"]
STEP = 0.05
LINEAR = Quantisation("linear", STEP)
MEAN, SD = np.zeros(64, np.float32), np.ones(64, np.float32)


def smooth(seed, side=16, bands=64):
    """(bands, side, side) float with mean 0 and sd 1, smooth over 2 px, as embeddings are."""
    noise = np.random.default_rng(seed).normal(size=(bands, side + 8, side + 8))
    field = gaussian_filter(noise, (0, 2, 2))[:, 4:-4, 4:-4]
    return (field - field.mean()) / field.std()


def stored(values):
    return np.clip(np.round(np.asarray(values) / STEP), -127, 127).astype(np.int8)


def noisy(values, sd=0.1, seed=99):
    return values + sd * np.random.default_rng(seed).normal(size=values.shape)


def shifted(tile, rows, columns, rest):
    """`tile` moved down and right; what comes in is of the tile `rest`."""
    moved = rest.copy()
    moved[:, rows:, columns:] = tile[:, : tile.shape[1] - rows, : tile.shape[2] - columns]
    return moved


def turned(tile):
    return np.rot90(tile, 1, (1, 2))[:, :, ::-1]


def write(folder, values, valid=None):
    return tiles.write_store(folder, stored(values), quantisation=LINEAR, valid=valid)


def listing(count=5, roles=ROLES, places=None):
    return pd.DataFrame({"tile": range(count), "place": places or [f"p{row}" for row in range(count)], "role": roles})


def differences(store, table=None, mean=MEAN, sd=SD):
    compared = near_duplicates.registered_differences(store, listing() if table is None else table, PAIRS, mean, sd)
    return compared.set_index(["tile", "other"])["difference"]


@pytest.mark.parametrize(
    "copy",
    [
        lambda tile, rest: turned(tile),
        lambda tile, rest: shifted(tile, 4, 4, rest),
        lambda tile, rest: turned(shifted(tile, 0, 7, rest)),
    ],
)
def test_shifted_and_turned_pixels_are_shared(tmp_path, copy):
    fields = [smooth(seed) for seed in range(5)]
    fields[4] = copy(fields[1], fields[4])
    store = write(tmp_path / "store", fields)
    assert near_duplicates.shared_pixels(store, listing(), PAIRS).tolist() == [[1, 4]]
    assert differences(store)[1, 4] < 1e-4


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_few_bands_share_values_by_chance_and_neighbourhoods_do_not(tmp_path, bands):
    pixels = np.random.default_rng(0).integers(0, 4, (5, bands, 24, 24), dtype=np.int8)  # 4 to 256 distinct pixels
    store = tiles.write_store(tmp_path / "a", pixels)
    assert len(near_duplicates.shared_pixels(store, listing(), PAIRS)) == 0
    pixels[3] = turned(shifted(pixels[0], 4, 4, pixels[3]))
    store = tiles.write_store(tmp_path / "b", pixels)
    assert near_duplicates.shared_pixels(store, listing(), PAIRS).tolist() == [[0, 3]]


def test_masked_and_constant_pixels_are_nothing_in_common(tmp_path):
    values = np.stack([smooth(seed) for seed in range(5)])
    valid = np.ones((5, 16, 16), bool)
    values[:, :, :12], valid[:, :12] = -6.0, False  # the same no data everywhere
    values[3:, :, 12:] = values[1, :, 12:13, :1]  # all tiles of water hold one pixel
    store = write(tmp_path / "store", values, valid)
    assert len(near_duplicates.shared_pixels(store, listing(), PAIRS)) == 0


def test_large_tiles_are_recognised_by_a_part_of_their_hashes(tmp_path):
    pixels = np.random.default_rng(0).integers(-127, 128, (5, 64, 128, 128), dtype=np.int8)
    pixels[3] = turned(shifted(pixels[2], 50, 30, pixels[3]))
    store = tiles.write_store(tmp_path / "store", pixels)
    assert len(near_duplicates._sketch(store, 0)) < 1.2 * near_duplicates.SKETCH
    assert near_duplicates.shared_pixels(store, listing(), PAIRS).tolist() == [[2, 3]]


@pytest.mark.parametrize("rows, columns", [(0, 0), (4, 0), (4, 4), (0, 7)])
def test_noisy_copies_are_found_at_any_shift_and_orientation(tmp_path, rows, columns):
    fields = [smooth(seed) for seed in range(5)]
    fields[4] = noisy(turned(shifted(fields[1], rows, columns, fields[4])))
    store = write(tmp_path / "store", fields)
    assert len(near_duplicates.shared_pixels(store, listing(), PAIRS)) == 0
    found = differences(store)
    assert found[1, 4] < near_duplicates.SAME_DIFFERENCE / 2
    assert found.drop((1, 4)).min() > 5 * near_duplicates.SAME_DIFFERENCE


def test_a_difference_is_that_of_its_definition(tmp_path):
    """No shift is better than none, so the value can be had directly."""
    one = smooth(0, bands=2)
    other = one + 0.5 * smooth(1, bands=2)
    store = write(tmp_path / "store", [one, other])
    directions = near_duplicates._directions(store, np.arange(2), MEAN[:2], SD[:2])
    a, b = (np.tensordot(directions, stored(values) * STEP, axes=1) for values in (one, other))
    spread = sum(np.square(values - values.mean((1, 2), keepdims=True)).sum() for values in (a, b))
    found = differences(store, listing(2, ["train", "test"]), MEAN[:2], SD[:2])
    assert found[0, 1] == pytest.approx(np.square(a - b).sum() / spread, rel=1e-4)


def test_flat_tiles_of_one_level_are_no_copies(tmp_path):
    """Two lakes: far from the mean and alike, but without a pattern that could be the same."""
    fields = [smooth(seed) for seed in range(5)]
    fields[0], fields[3] = (noisy(np.full((64, 16, 16), 3.0), seed=seed) for seed in (1, 2))
    fields[1] = fields[4] = np.full((64, 16, 16), -2.0)
    found = differences(write(tmp_path / "store", fields))
    assert found.get((0, 3), 1.0) > 0.5
    assert (1, 4) not in found.index


def test_coasts_that_have_the_sea_in_common_are_no_copies(tmp_path):
    fields = [smooth(seed) for seed in range(5)]
    for field in fields:
        field[:, :9] = 5.0
    assert differences(write(tmp_path / "store", fields)).min() > 0.5


def test_masks_are_respected(tmp_path):
    """A cloud over the copy hides a third of it and does not hide that it is one."""
    values = np.stack([smooth(seed) for seed in range(5)])
    valid = np.ones((5, 16, 16), bool)
    values[4] = noisy(values[1])
    values[4, :, :5], valid[4, :5] = -6.0, False
    assert differences(write(tmp_path / "store", values, valid))[1, 4] < near_duplicates.SAME_DIFFERENCE / 2
    assert near_duplicates._reduced(write(tmp_path / "b", values, valid), 4, MEAN, SD)[0][:, :5].max() == 0


def test_large_tiles_are_averaged_first(tmp_path):
    fields = [np.kron(smooth(seed, 34, 4), np.ones((1, 4, 4)))[:, :131, :131] for seed in range(5)]
    fields[4] = noisy(turned(shifted(fields[1], 30, 0, fields[4])), sd=0.3)
    store = write(tmp_path / "store", fields)
    bands, valid = near_duplicates._reduced(store, 0, MEAN[:4], SD[:4])
    assert bands.shape == (4, 43, 43) and valid.all()
    expected = (stored(fields[0]) * STEP)[:, 1:130, 1:130].reshape(4, 43, 3, 43, 3).mean((2, 4))
    assert np.allclose(bands, expected, atol=1e-5)
    assert differences(store, mean=MEAN[:4], sd=SD[:4])[1, 4] < near_duplicates.SAME_DIFFERENCE


def test_the_years_of_one_place_do_not_crowd_out_the_others(tmp_path):
    """Ten years of one place are all more alike to the copy than the tile it was made of."""
    source, place = smooth(0), smooth(1)
    copy = shifted(source, 2, 2, place)
    fields = [source, *(noisy(copy, 0.3, seed) + 0.3 for seed in range(10)), noisy(copy)]
    table = listing(12, ["train"] * 11 + ["test"], ["a", *["b"] * 10, "c"])
    found = differences(write(tmp_path / "store", fields), table)
    assert found[0, 11] < near_duplicates.SAME_DIFFERENCE
    assert len(found) == 2


def test_the_order_of_tiles_does_not_matter(tmp_path):
    fields = [smooth(seed) for seed in range(5)]
    fields[4] = noisy(fields[1])
    store = write(tmp_path / "store", fields)
    forward, backward = differences(store), differences(store, listing()[::-1])
    assert backward.sort_index().to_numpy() == pytest.approx(forward.sort_index().to_numpy(), rel=1e-3)
