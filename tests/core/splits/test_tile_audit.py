"""The audit sees what must not be, and says so where the task forbids it."""

import numpy as np
import pandas as pd
import pytest

from src.core.data import band_statistics
from src.core.data.pca import fit_pca
from src.core.splits import tile_audit
from src.core.stage.errors import DataError
from tests import tiles

ROLES = ["train", "train", "validation", "test", "buffer"]


def make_store(folder, pixels=None, **columns):
    if pixels is None:
        pixels = np.stack([tiles.random_pixels(seed) for seed in range(5)])
    return tiles.write_store(folder, pixels, **columns)


def run_audit(store, roles=ROLES, fitted_on=(0, 1), places=None, samples=None, origin=None):
    table = store.tiles.assign(place=places or [f"p/c{row}" for row in range(len(roles))], role=roles, block="")
    if samples is None:
        samples = store.samples.assign(place=table.place, role=table.role, tile_year=table.year)
    mean, sd = (array.astype(np.float32) for array in band_statistics.band_statistics(store, fitted_on))
    columns = ["tile", "tile_id", "place", "role", "block", "lat", "lon"]
    return tile_audit.audit(store, table[columns], samples, mean, sd, origin=origin)


def require_clean(findings, task="new_place", buffer_km=0.0, retrospective_tiles=False):
    tile_audit.require_clean(
        findings,
        by_place=task != "next_year",
        by_time=task in ("next_year", "new_place_and_year"),
        buffer_km=buffer_km,
        retrospective_tiles=retrospective_tiles,
        where=f"out: leakage audit of {task}",
    )


def panel(rows, columns=("place", "year", "tile_year", "role")):
    """Labels as the split stage hands them over; each on tile 0."""
    return pd.DataFrame(rows, columns=columns).assign(sample=range(len(rows)), tile=0)


FORECAST = [
    ("p/a", 1980, 1970, "train"),
    ("p/a", 1990, 1980, "validation"),
    ("p/a", 2000, 1980, "test"),
    ("p/a", 1970, 1970, "buffer"),
]


def test_a_clean_split_passes_and_distances_are_geodesic(tmp_path):
    findings = run_audit(make_store(tmp_path / "store", lat=[0.0] * 5, lon=[0.0, 1, 3, 5, 4]))
    degree = 111.31949
    assert findings["nearest_train_test_km"] == pytest.approx(4 * degree, abs=0.01)
    assert findings["nearest_validation_test_km"] == pytest.approx(2 * degree, abs=0.01)
    assert findings["nearest_train_validation_km"] == pytest.approx(2 * degree, abs=0.01)
    counts = ("shared_places", "overlapping_footprints", "duplicate_tiles", "near_identical_tiles")
    assert [findings[key] for key in counts] == [0, 0, 0, 0]
    assert findings["nearest_tile_difference"] > 0.5
    nothing = ("nearest_train_locked_km", "nearest_validation_locked_km", "gap_years", "future_labels", "future_tiles")
    assert [findings[key] for key in nothing] == [None] * 5
    require_clean(findings, buffer_km=200)
    with pytest.raises(DataError, match=r"nearest_validation_test_km: found 222.639 km, expected at least .*250"):
        require_clean(findings, buffer_km=250)


def test_locked_places_keep_away_from_what_is_learned_and_not_from_test(tmp_path):
    roles = ["train", "train", "validation", "test", "locked"]
    store = make_store(tmp_path / "store", lat=[0.0] * 5, lon=[0.0, 1, 4, 7, 7.1])
    findings = run_audit(store, roles)
    assert findings["nearest_train_locked_km"] == pytest.approx(6.1 * 111.31949, abs=0.01)
    assert findings["overlapping_footprints"] == 0  # test and locked share ground
    require_clean(findings, buffer_km=300)
    with pytest.raises(DataError, match=r"nearest_validation_locked_km: found 345.*expected at least .*350"):
        require_clean(findings, buffer_km=350)


def test_a_place_with_labels_in_two_roles_is_found(tmp_path):
    findings = run_audit(make_store(tmp_path / "store"), places=["p/a", "p/b", "p/c", "p/a", "p/c"])
    assert findings["shared_places"] == 1  # p/c is shared with the buffer alone
    with pytest.raises(DataError, match="out: leakage audit of new_place: shared_places: found 1"):
        require_clean(findings)


def test_overlap_depends_on_both_half_diagonals_and_only_between_roles(tmp_path):
    where = {"lat": [0.0] * 5, "lon": [0.0, 0.1, 10.0, 10.3, 10.1]}  # 33.4 km from validation to test
    assert run_audit(make_store(tmp_path / "a", half_diagonal_km=16.0, **where))["overlapping_footprints"] == 0
    halves = [16.0, 16, 16, 18, 16]
    findings = run_audit(make_store(tmp_path / "b", half_diagonal_km=halves, **where))
    assert findings["overlapping_footprints"] == 1
    with pytest.raises(DataError, match="overlapping_footprints: found 1 pairs"):
        require_clean(findings)


@pytest.mark.parametrize("copy", [lambda x: x, lambda x: x[:, ::-1], lambda x: np.rot90(x, 1, (1, 2))[:, :, ::-1]])
@pytest.mark.parametrize("role", ["test", "locked"])
def test_copies_are_found_in_any_orientation(tmp_path, copy, role):
    pixels = np.stack([tiles.random_pixels(seed) for seed in range(5)])
    pixels[3] = copy(pixels[0])
    findings = run_audit(make_store(tmp_path / "store", pixels), ["train", "train", "validation", role, "buffer"])
    assert findings["duplicate_tiles"] == findings["near_identical_tiles"] == 1
    assert findings["nearest_tile_difference"] == pytest.approx(0, abs=1e-4)
    with pytest.raises(DataError, match="duplicate_tiles: found 1"):
        require_clean(findings)


def test_copies_within_a_role_and_in_the_buffer_do_not_count(tmp_path):
    pixels = np.stack([tiles.random_pixels(seed) for seed in range(5)])
    pixels[1] = pixels[4] = pixels[0]
    findings = run_audit(make_store(tmp_path / "store", pixels))
    assert findings["duplicate_tiles"] == findings["near_identical_tiles"] == 0


def test_equal_histograms_are_not_copies(tmp_path):
    pixels = np.stack([tiles.random_pixels(seed) for seed in range(5)])
    pixels[3] = np.random.default_rng(0).permutation(pixels[0].reshape(4, 64), axis=1).reshape(4, 8, 8)
    findings = run_audit(make_store(tmp_path / "store", pixels))
    assert findings["duplicate_tiles"] == findings["near_identical_tiles"] == 0


@pytest.mark.parametrize("noise", [0, 8])  # of values from -127 to 127, whose sd is 73
def test_shifted_copies_are_found_once_with_noise_or_without(tmp_path, noise):
    pixels = np.stack([tiles.random_pixels(seed, height=16) for seed in range(5)])
    pixels[3, :, 4:] = np.rot90(pixels[0], 1, (1, 2))[:, :12]
    noisy = pixels[3] + np.random.default_rng(9).integers(-noise, noise + 1, pixels[3].shape)
    pixels[3] = np.clip(noisy, -127, 127)
    findings = run_audit(make_store(tmp_path / "store", pixels))
    assert findings["duplicate_tiles"] == 0
    assert findings["near_identical_tiles"] == 1
    with pytest.raises(DataError, match="near_identical_tiles: found 1 pairs"):
        require_clean(findings)


def test_statistics_of_other_tiles_are_found(tmp_path):
    findings = run_audit(make_store(tmp_path / "store"), fitted_on=range(5))
    for task in ("new_place", "next_year", "new_place_and_year", "change"):
        with pytest.raises(DataError, match="statistics_difference"):
            require_clean(findings | {"future_labels": 0, "future_tiles": 0}, task)


def test_without_coordinates_distances_are_unknown_and_not_zero(tmp_path):
    findings = run_audit(make_store(tmp_path / "store", lat=[np.nan] * 5, lon=[np.nan] * 5))
    assert findings["overlapping_footprints"] is None
    assert findings["nearest_train_test_km"] is None
    require_clean(findings)


@pytest.mark.parametrize(
    "row, year, labels",
    [
        (0, 1990, 1),  # a training label of the year that validation predicts
        (0, 2000, 1),
        (1, 2000, 1),  # a validation label of the year to predict
        (3, 2010, 0),  # nobody uses it
        (2, 2010, 0),
    ],
)
def test_labels_of_the_future_are_found(row, year, labels):
    rows = [list(values) for values in FORECAST]
    rows[row][1] = year
    assert tile_audit.compare_years(panel(rows), origin=2000)["future_labels"] == labels


def test_a_clean_forecast_has_a_gap_and_nothing_of_the_future():
    found = tile_audit.compare_years(panel(FORECAST), origin=2000)
    assert found == {"gap_years": 20, "future_labels": 0, "future_tiles": 0}


@pytest.mark.parametrize("row", [0, 1, 2])
def test_tiles_of_the_future_are_found(tmp_path, row):
    rows = [list(values) for values in FORECAST]
    rows[row][2] = 2000
    findings = run_audit(make_store(tmp_path / "store"), samples=panel(rows), origin=2000)
    assert (findings["future_tiles"], findings["future_labels"]) == (1, 0)
    for task in ("next_year", "new_place_and_year"):
        with pytest.raises(DataError, match=f"leakage audit of {task}.*future_tiles: found 1 .*raise `tile_lag`"):
            require_clean(findings | {"shared_places": 0}, task)
        require_clean(findings | {"shared_places": 0}, task, retrospective_tiles=True)


CLEAN = {
    "shared_places": 0,
    "overlapping_footprints": 0,
    "nearest_train_test_km": 120.0,
    "duplicate_tiles": 0,
    "near_identical_tiles": 0,
    "nearest_tile_difference": 0.9,
    "statistics_difference": 0.0,
    "gap_years": 10,
    "future_labels": 0,
    "future_tiles": 0,
}
OF_PLACE = {
    "shared_places": 2,
    "overlapping_footprints": 3,
    "nearest_train_test_km": 99.0,
    "duplicate_tiles": 1,
    "near_identical_tiles": 1,
}
OF_TIME = {"future_labels": 4, "future_tiles": 5}


@pytest.mark.parametrize(
    "task, forbidden",
    [
        ("new_place", [*OF_PLACE]),
        ("change", [*OF_PLACE]),
        ("next_year", [*OF_TIME]),
        ("new_place_and_year", [*OF_PLACE, *OF_TIME]),
    ],
)
def test_the_gates_follow_the_task(task, forbidden):
    require_clean(CLEAN, task, buffer_km=100)
    for key, value in (OF_PLACE | OF_TIME).items():
        if key in forbidden:
            with pytest.raises(DataError, match=f"^out: leakage audit of {task}: {key}: found {value}"):
                require_clean(CLEAN | {key: value}, task, buffer_km=100)
        else:
            require_clean(CLEAN | {key: value}, task, buffer_km=100)


def test_every_violation_is_named():
    with pytest.raises(DataError) as error:
        require_clean(CLEAN | OF_PLACE | OF_TIME, "new_place_and_year", buffer_km=100)
    assert len(str(error.value).splitlines()) == len(OF_PLACE | OF_TIME)


@pytest.fixture
def banded(tmp_path):
    """Five tiles of six bands with different spreads, so that directions are clear and tiles differ."""
    generator = np.random.default_rng(0)
    spread = np.array([60, 30, 20, 15, 12, 10])[:, None, None]
    mixed = [np.linalg.qr(generator.normal(size=(6, 6)))[0] for _ in range(2)]
    turns = [mixed[0], mixed[0], mixed[0], mixed[1], mixed[1]]
    values = [np.tensordot(turn, spread * generator.normal(size=(6, 32, 32)), axes=1) for turn in turns]
    return make_store(tmp_path / "store", np.clip(values, -127, 127).astype(np.int8))


def fit(store, rows, standardised_on=(0, 1)):
    mean, sd = (array.astype(np.float32) for array in band_statistics.band_statistics(store, standardised_on))
    values = [
        band_statistics.standardise(store.view(r), store.valid([r])[0], store.quantisation, mean, sd) for r in rows
    ]
    weight, bias = fit_pca(tile.reshape(6, -1).T for tile in values)[:2]
    return {"weight": weight, "bias": bias}


def test_components_of_the_training_tiles_pass_whatever_their_sign_or_order_of_sums(banded):
    stored = fit(banded, [1, 0])
    assert tile_audit.audit_pca(banded, [0, 1], stored) == 0.0
    sign = np.array([1, -1, -1], np.float32)
    turned = {"weight": stored["weight"] * sign[:, None], "bias": stored["bias"] * sign}
    assert tile_audit.audit_pca(banded, [0, 1], turned) == 0.0
    rounded = {key: value * np.float32(1 + 1e-5) for key, value in stored.items()}
    assert tile_audit.audit_pca(banded, [0, 1], rounded) == 0.0


@pytest.mark.parametrize("rows, standardised_on", [(range(5), (0, 1)), ((0, 1, 3), (0, 1)), ((0, 1), range(5))])
def test_components_of_other_tiles_are_found(banded, rows, standardised_on):
    assert tile_audit.audit_pca(banded, [0, 1], fit(banded, rows, standardised_on)) > 0.05


def test_a_projection_that_is_no_number_does_not_pass(banded):
    stored = fit(banded, [0, 1])
    stored["weight"][0, 0] = np.nan
    assert not tile_audit.audit_pca(banded, [0, 1], stored) <= tile_audit.PCA_ROUNDING
