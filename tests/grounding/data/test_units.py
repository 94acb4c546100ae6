"""Numbers that mean something else than declared are named; those that are right keep their values."""

import numpy as np
import pytest

from src.core.stage.errors import DataError
from src.grounding.data import units
from tests.grounding import pair_files

SAR, OPTICAL = pair_files.images(3)
POWER = 10 ** (SAR / 10)
DB, LINEAR = (pair_files.params({"data.sar.scale": scale}).data.sar for scale in ("dB", "linear"))


def test_linear_power_becomes_decibels_and_zero_power_no_data():
    stored = POWER.copy()
    stored[1, 4, 5] = 0
    measured = units.to_db(stored, LINEAR, "scene")
    assert np.argwhere(~measured.known).tolist() == [[4, 5]] and np.isnan(measured.values[:, 4, 5]).all()
    np.testing.assert_allclose(measured.values[:, measured.known], SAR[:, measured.known], atol=1e-4)
    np.testing.assert_array_equal(units.to_db(SAR, DB, "scene").values, SAR)


def test_what_is_clipped_is_counted():
    stored = SAR.copy()
    stored[:, 0, :10] = 20
    stored[0, 1, 0] = -50
    measured = units.to_db(stored, DB, "scene")
    assert measured.values.min() >= -30 and measured.values.max() == 5
    assert measured.clipped == pytest.approx(21 / stored.size)
    bright = np.rint(OPTICAL * 10_000)
    bright[:, 2, 3] = 12_000
    measured = units.to_reflectance(bright, 10_000, 0, "scene")
    assert measured.values.max() == 1 and measured.clipped == pytest.approx(4 / bright.size)


@pytest.mark.parametrize(
    ("stored", "declared", "said"),
    [
        (POWER, DB, r"data\.sar\.scale: found values from .* hardly any below 0.*set data\.sar\.scale: linear"),
        (SAR, LINEAR, r"100% of them below 0, expected linear power.*set data\.sar\.scale: dB"),
        (POWER * 1e4, LINEAR, "digital numbers; calibrate them"),
        (SAR * 100, DB, "expected dB with a median from -45 to 10"),
        (np.zeros_like(SAR), DB, "found 0 everywhere in 2 of 2 bands"),
        (np.stack([SAR[0], 0 * SAR[1]]), DB, "found 0 everywhere in 1 of 2 bands"),
        (np.full_like(SAR, np.nan), DB, "nothing but no data"),
    ],
)
def test_radar_numbers_that_are_not_what_is_declared(stored, declared, said):
    with pytest.raises(DataError, match=f"^scene: .*{said}"):
        units.to_db(stored, declared, "scene")


def test_swapped_bands_are_flagged():
    assert units.to_db(SAR[::-1], DB, "scene").flags == ("vh_above_vv",)
    assert units.to_db(SAR, DB, "scene").flags == ()


def test_a_declared_offset_is_applied_once():
    measured = units.to_reflectance(np.rint(OPTICAL * 10_000) + 1000, 10_000, -1000, "scene")
    np.testing.assert_allclose(measured.values, OPTICAL, atol=6e-5)
    assert measured.flags == () and measured.known.all()


STORED = np.rint(OPTICAL * 10_000)


@pytest.mark.parametrize(
    ("stored", "scale", "offset", "said"),
    [
        (STORED, 1, 0, r"digital numbers; set data\.optical\.scale"),
        (OPTICAL, 10_000, 0, r"reflectance already; set data\.optical\.scale: 1"),
        (STORED + 1000, 10_000, 0, r"is forgotten; set data\.optical\.offset: -1000"),
        (STORED, 10_000, -1000, r"applied twice, or to numbers without one; set data\.optical\.offset: 0"),
        (STORED - 1000, 10_000, 0, "applied twice"),
        (np.zeros_like(STORED), 10_000, 0, "found 0 everywhere in 4 of 4 bands"),
        (np.full_like(STORED, np.nan), 10_000, 0, "nothing but no data"),
    ],
)
def test_optical_numbers_that_are_not_what_is_declared(stored, scale, offset, said):
    with pytest.raises(DataError, match=f"^scene: .*{said}"):
        units.to_reflectance(stored, scale, offset, "scene")


def test_an_offset_declared_for_the_very_file_is_believed_and_flagged():
    measured = units.to_reflectance(STORED + 1000, 10_000, 0, "scene", declared_here=True)
    assert measured.flags == ("offset_suspect",)


def test_a_bright_scene_and_slightly_negative_water_pass():
    desert = np.array([0.11, 0.18, 0.26, 0.35])[:, None, None] + 0 * OPTICAL + OPTICAL[:1]
    assert units.to_reflectance(desert * 10_000, 10_000, 0, "scene").flags == ()
    water = OPTICAL - 0.015
    measured = units.to_reflectance(water * 10_000, 10_000, 0, "scene")
    assert measured.values.min() == 0 and measured.clipped > 0.05


def test_nan_and_a_margin_of_zeros_are_no_data_in_every_band():
    stored = STORED.copy()
    stored[2, 1, 1] = np.nan
    stored[:, :, :3] = 0
    stored[:3, 5, 5] = 0  # dark in some bands, not all
    measured = units.to_reflectance(stored, 10_000, 0, "scene")
    expected = np.ones(stored.shape[1:], bool)
    expected[1, 1] = expected[:, :3] = False
    np.testing.assert_array_equal(measured.known, expected)
    assert np.isnan(measured.values[:, ~expected]).all()
