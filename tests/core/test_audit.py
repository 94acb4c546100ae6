"""The audit sees what must not be, and says so."""

import numpy as np
import pandas as pd
import pytest

from src.core import audit, normalize
from src.core.errors import DataError
from tests import tiles

ROLES = ["train", "train", "validation", "test", "buffer"]


def make_store(folder, pixels=None, **columns):
    if pixels is None:
        pixels = np.stack([tiles.random_pixels(seed) for seed in range(5)])
    return tiles.write_store(folder, pixels, **columns)


def run_audit(store, roles=ROLES, fitted_on=(0, 1), places=None):
    places = places or [f"p/c{row}" for row in range(len(roles))]
    mean, sd = (array.astype(np.float32) for array in normalize.band_statistics(store, fitted_on))
    return audit.audit(store, pd.DataFrame({"place": places, "role": roles}), mean, sd)


def test_a_clean_split_passes_and_distances_are_geodesic(tmp_path):
    findings = run_audit(make_store(tmp_path / "store", lat=[0.0] * 5, lon=[0.0, 1, 3, 5, 4]))
    degree = 111.31949
    assert findings["nearest_train_test_km"] == pytest.approx(4 * degree, abs=0.01)
    assert findings["nearest_validation_test_km"] == pytest.approx(2 * degree, abs=0.01)
    assert findings["nearest_train_validation_km"] == pytest.approx(2 * degree, abs=0.01)
    assert [findings[key] for key in ("shared_places", "overlapping_footprints", "duplicate_tiles")] == [0, 0, 0]
    audit.require_clean(findings, buffer_km=200, where="out")
    with pytest.raises(DataError, match=r"nearest_validation_test_km: found 222.639 km, expected at least .*250"):
        audit.require_clean(findings, buffer_km=250, where="out")


def test_a_place_in_two_roles_is_found(tmp_path):
    findings = run_audit(make_store(tmp_path / "store"), places=["p/a", "p/b", "p/c", "p/a", "p/c"])
    assert findings["shared_places"] == 1  # p/c is shared with the buffer alone
    with pytest.raises(DataError, match="out: leakage audit: shared_places: found 1"):
        audit.require_clean(findings, buffer_km=0, where="out")


def test_overlap_depends_on_both_half_diagonals_and_only_between_roles(tmp_path):
    where = {"lat": [0.0] * 5, "lon": [0.0, 0.1, 10.0, 10.3, 10.1]}  # 33.4 km from validation to test
    assert run_audit(make_store(tmp_path / "a", half_diagonal_km=16.0, **where))["overlapping_footprints"] == 0
    halves = [16.0, 16, 16, 18, 16]
    findings = run_audit(make_store(tmp_path / "b", half_diagonal_km=halves, **where))
    assert findings["overlapping_footprints"] == 1
    with pytest.raises(DataError, match="overlapping_footprints: found 1 pairs"):
        audit.require_clean(findings, buffer_km=0, where="out")


@pytest.mark.parametrize("copy", [lambda x: x, lambda x: x[:, ::-1], lambda x: np.rot90(x, 1, (1, 2))[:, :, ::-1]])
def test_copies_are_found_in_any_orientation(tmp_path, copy):
    pixels = np.stack([tiles.random_pixels(seed) for seed in range(5)])
    pixels[3] = copy(pixels[0])
    findings = run_audit(make_store(tmp_path / "store", pixels))
    assert findings["duplicate_tiles"] == 1
    with pytest.raises(DataError, match="duplicate_tiles: found 1"):
        audit.require_clean(findings, buffer_km=0, where="out")


def test_copies_within_a_role_and_in_the_buffer_do_not_count(tmp_path):
    pixels = np.stack([tiles.random_pixels(seed) for seed in range(5)])
    pixels[1] = pixels[4] = pixels[0]
    assert run_audit(make_store(tmp_path / "store", pixels))["duplicate_tiles"] == 0


def test_equal_histograms_are_not_copies(tmp_path):
    pixels = np.stack([tiles.random_pixels(seed) for seed in range(5)])
    pixels[3] = np.random.default_rng(0).permutation(pixels[0].reshape(4, 64), axis=1).reshape(4, 8, 8)
    assert run_audit(make_store(tmp_path / "store", pixels))["duplicate_tiles"] == 0


def test_statistics_of_other_tiles_are_found(tmp_path):
    findings = run_audit(make_store(tmp_path / "store"), fitted_on=range(5))
    with pytest.raises(DataError, match="statistics_difference"):
        audit.require_clean(findings, buffer_km=0, where="out")


def test_without_coordinates_distances_are_unknown_and_not_zero(tmp_path):
    findings = run_audit(make_store(tmp_path / "store", lat=[np.nan] * 5, lon=[np.nan] * 5))
    assert findings["overlapping_footprints"] is None
    assert findings["nearest_train_test_km"] is None
    audit.require_clean(findings, buffer_km=0, where="out")
