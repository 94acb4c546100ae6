"""The audit of points: clean splits pass, and every planted leak is named."""

import numpy as np
import pandas as pd
import pytest

from src.core.geo.distances import WGS84
from src.core.splits import point_audit, squares
from src.core.stage.errors import DataError

SIDE, BUFFER, APART, GAP = 10.0, 5.0, 15.0, 30
CENTRES = [(28.5, -81.4), (28.5, -81.0), (29.2, -81.4)]  # the first two are 39.2 km apart


def make_points(seed=0, count=4000):
    """Points of two years around two test squares and one of validation, in the roles they should have."""
    generator = np.random.default_rng(seed)
    lat, lon = generator.uniform([28.2, -82.0], [29.5, -80.7], (count, 2)).T
    chosen = pd.DataFrame(CENTRES, columns=["lat", "lon"])
    square, near = squares.assign_squares(lat, lon, chosen, side_km=SIDE, buffer_km=BUFFER)
    late = generator.random(count) < 0.2
    held_out = np.array(["test", "test", "validation", "train"], dtype=object)[square]
    role = np.where(near, "buffer", held_out)
    role[late & (role == "train")] = "test"
    role[late & (role == "validation")] = "buffer"
    kind = np.where(square >= 0, np.where(late, "both", "spatial"), np.where(late, "temporal", ""))
    kind[~np.isin(role, ["test", "validation"])] = ""
    days = np.where(late, 19000, 18000) + generator.integers(365, size=count)
    points = pd.DataFrame({
        "record": np.arange(count), "role": role, "kind": kind, "square": square, "lat": lat, "lon": lon,
        "uncertainty_m": generator.uniform(1, 1000, count), "first_day": days, "last_day": days, "species": "a",
    })  # fmt: skip
    return points, chosen


def audit(points, chosen, buffer_km=BUFFER):
    found = point_audit.audit(points, chosen, side_km=SIDE, buffer_km=buffer_km, max_uncertainty_m=1000)
    return found | {"embeddings": {}}


def require_clean(findings, **changes):
    settings = {"buffer_km": BUFFER, "apart_km": APART, "gap_days": GAP, "shared_embeddings": []}
    point_audit.require_clean(findings, **settings | changes, where="out")


def place(points, rows, x, y, centre=CENTRES[0]):
    """Move rows to x km east and y km north of a square's centre."""
    lon, lat, _ = WGS84.fwd(centre[1], centre[0], np.degrees(np.arctan2(x, y)), np.hypot(x, y) * 1000)
    points.loc[rows, ["lat", "lon"]] = lat, lon


def test_a_clean_split_passes_and_is_measured():
    points, chosen = make_points()
    findings = audit(points, chosen)
    require_clean(findings)
    assert all(findings[key] == 0 for key in ("shared_records", "uncertain_in_use", "misplaced_points"))
    assert findings["training_in_squares"] == findings["amiss_kinds"] == findings["points_near_squares"] == 0
    centres_km = WGS84.inv(-81.4, 28.5, -81.0, 28.5)[2] / 1000
    assert findings["square_gap_km"] == pytest.approx(centres_km - SIDE, abs=0.02)
    assert 5 < findings["nearest_train_test_spatial_km"] < 6
    assert findings["nearest_train_validation_both_km"] is None
    assert findings["nearest_validation_test_spatial_km"] > 65
    train = points[points["role"] == "train"]
    later = points[points["kind"].isin(["temporal", "both"])]
    assert findings["gap_days_train_test"] == later["first_day"].min() - train["last_day"].max() - 1
    assert findings["temporal_train_test_km"]["least"] < findings["temporal_train_test_km"]["median"] < 5


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (5 + 4.9, 0.0, "points_near_squares: found 1"),
        (5 + 3.5, 5 + 3.5, "points_near_squares: found 1"),  # 4.95 km from the corner
        (0.0, -5 - 4.99, "points_near_squares: found 1"),
        (4.9, 4.9, "misplaced_points: found 1"),
        (5 + 3.6, 5 + 3.6, None),  # 5.09 km from the corner
        (5 + 5.01, 0.0, None),
    ],
)
def test_a_training_point_near_a_square_is_caught(x, y, message):
    points, chosen = make_points()
    place(points, points.index[points["role"] == "train"][0], x, y)
    if message is None:
        require_clean(audit(points, chosen))
        return
    with pytest.raises(DataError, match=message):
        require_clean(audit(points, chosen))


@pytest.mark.parametrize("square", [0, 2])  # of test, of validation
@pytest.mark.parametrize("said", [True, False])
def test_training_in_a_square_is_caught_where_no_test_is_near(square, said):
    points, chosen = make_points()
    points = points[points["square"] != square].reset_index(drop=True)
    row = points.index[points["role"] == "train"][0]
    place(points, row, 3.0, -4.0, CENTRES[square])
    points.loc[row, "square"] = square if said else -1
    findings = audit(points, chosen)
    assert findings["training_in_squares"] == 1 and findings["misplaced_points"] == (not said)
    with pytest.raises(DataError, match="training_in_squares: found 1 training points in a held-out square"):
        require_clean(findings)


def test_training_said_to_be_in_a_square_is_caught():
    points, chosen = make_points()
    points.loc[points.index[points["role"] == "train"][:2], "square"] = [0, 2]
    findings = audit(points, chosen)
    assert findings["training_in_squares"] == findings["misplaced_points"] == 2


@pytest.mark.parametrize("role", ["train", "validation", "test", "buffer", "uncertain"])
def test_a_kind_where_none_belongs_and_none_where_one_does_are_caught(role):
    """No distance and no day of a test row without kind is compared with anything."""
    points, chosen = make_points()
    row = points.index[points["role"] == ("buffer" if role == "uncertain" else role)][0]
    points.loc[row, "role"] = role
    require_clean(audit(points, chosen))
    for kind in ("", "spacial", None) if role in ("validation", "test") else ("temporal", "spatial", "both", None):
        points["kind"] = points["kind"].astype(object)
        points.loc[row, "kind"] = kind
        with pytest.raises(DataError, match="amiss_kinds: found 1 points of validation or test without a kind"):
            require_clean(audit(points, chosen))


def test_every_leak_is_named_at_once():
    points, chosen = make_points()
    rows = points.index[points["role"] == "train"]
    test = points.index[points["role"] == "test"][0]
    points.loc[rows[0], "record"] = points.loc[test, "record"]
    points.loc[rows[1], "uncertainty_m"] = 1000.5
    first = points.loc[points["kind"] == "temporal", "first_day"].min()
    points.loc[rows[2], "last_day"] = first - 30  # 29 days between
    inside = points.index[points["square"] == 0][:2]
    points.loc[inside, "square"] = [1, -1]
    findings = audit(points, chosen)
    with pytest.raises(DataError) as error:
        require_clean(findings, apart_km=40)
    lines = str(error.value).splitlines()
    assert all(line.startswith("out: leakage audit: ") for line in lines)
    for expected in (
        "shared_records: found 1 ",
        "uncertain_in_use: found 1 ",
        "misplaced_points: found 2 ",
        "gap_days_train_test: found 29 days, expected at least `gap_days` = 30",
        "square_gap_km: found 29.1",
    ):
        assert sum(expected in line for line in lines) == 1
    require_clean(audit(*make_points()), apart_km=29)


def test_a_split_without_buffer_is_caught_by_distance():
    """Findings of a split without a buffer: training reaches to the edges."""
    points, chosen = make_points()
    points.loc[(points["role"] == "buffer") & (points["first_day"] < 18500) & (points["square"] < 0), "role"] = "train"
    with pytest.raises(DataError) as error:
        require_clean(audit(points, chosen))
    assert "nearest_train_test_spatial_km: found " in str(error.value)
    assert "points_near_squares: found" in str(error.value)
    require_clean(audit(points, chosen, buffer_km=0), buffer_km=0)


def test_what_nobody_uses_is_not_audited():
    points, chosen = make_points()
    buffer = points.index[points["role"] == "buffer"]
    points.loc[buffer[0], ["record", "uncertainty_m"]] = points.loc[0, "record"], 9999
    place(points, buffer[1], 0.0, 0.0)
    require_clean(audit(points, chosen))


def test_one_square_has_no_gap():
    points, chosen = make_points()
    points = points[~points["square"].isin([1, 2])]
    findings = audit(points, chosen[:1])
    require_clean(findings)
    assert findings["square_gap_km"] is None
