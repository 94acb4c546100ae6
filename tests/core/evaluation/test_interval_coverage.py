import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from src.core.evaluation import conformal
from src.core.evaluation.interval_coverage import coverage, draw_reliability, reliability


def test_coverage_by_hand_weighs_places_equally():
    """One place of eight covered years and one of a single missed year: 0.5, not 8/9."""
    place = np.array(["a"] * 8 + ["b"])
    y = np.array([1.0] * 8 + [9.0])
    low, high = np.zeros(9), np.array([1.0] * 8 + [3.0])  # the upper end belongs to the interval
    found = coverage(y, low, high, place)
    assert found == {
        "coverage": 0.5,
        "coverage_low": None,
        "coverage_high": None,
        "mean_width": 2.0,
        "n_places": 2,
    }


@pytest.mark.parametrize("places, given", [(9, False), (10, True)])
def test_no_interval_below_ten_places(places, given):
    found = coverage(np.zeros(places), np.zeros(places), np.ones(places), np.arange(places))
    assert (found["coverage_low"] is not None) == given
    # a row more does not make a place more
    twice = np.arange(places).repeat(2)
    assert coverage(twice * 0.0, twice * 0.0, twice + 1.0, twice)["coverage_low"] == found["coverage_low"]


def test_the_interval_is_wilsons():
    """9 of 10 covered: 0.596 to 0.982 (Newcombe 1998, method 3); 10 of 10: 0.722 to 1, not a point."""
    y = np.zeros(10)
    found = coverage(np.append(y[:9], 5.0), y - 1, y + 1, np.arange(10))
    assert (round(found["coverage_low"], 3), round(found["coverage_high"], 3)) == (0.596, 0.982)
    found = coverage(y, y - 1, y + 1, np.arange(10))
    assert (round(found["coverage_low"], 3), found["coverage_high"]) == (0.722, 1.0)


@pytest.mark.parametrize("icc", [0.0, 0.4, 0.8])
@pytest.mark.parametrize("places", [10, 22, 45, 110])
def test_the_interval_holds_the_true_coverage_at_least_95_times_in_100(places, icc):
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(500):
        place = np.repeat(np.arange(places), generator.integers(1, 13, places))
        y = np.sqrt(icc) * generator.normal(size=places)[place] + np.sqrt(1 - icc) * generator.normal(size=len(place))
        found = coverage(y, np.full(len(y), -1.644854), np.full(len(y), 1.644854), place)
        hits += found["coverage_low"] <= 0.9 <= found["coverage_high"]
    assert hits / 500 > 0.92


def test_regions_below_20_places_are_left_out():
    region = np.array(["south"] * 20 + ["north"] * 19 + ["west"] * 40)
    place = np.concatenate([np.arange(39), np.arange(40) % 19 + 100])  # west: 40 rows of 19 places
    y = np.where(region == "south", 5.0, 0.0)
    found = coverage(y, y * 0 - 1, y * 0 + 1, place, region)
    assert found["n_places"] == 58 and found["coverage"] == pytest.approx(38 / 58)
    assert list(found["regions"]) == ["south"] and found["regions_left_out"] == 2
    south = found["regions"]["south"]
    assert (south["coverage"], south["n_places"], south["coverage_low"]) == (0, 20, 0)
    assert 0.1 < south["coverage_high"] < 0.2  # its own interval, of 20 places


def test_an_infinite_interval_is_refused():
    y = np.zeros(12)
    for low, high in ((y - np.inf, y + 1), (y - 1, y + np.nan)):
        with pytest.raises(ValueError, match="finite"):
            coverage(y, low, high, np.arange(12))


def draw_table(calibration_places, test_places, spread=1.0):
    """Reliability of a point prediction whose errors at test places are `spread` times those of calibration."""
    generator = np.random.default_rng(2)
    place = np.repeat(np.arange(calibration_places), 3)
    scores = np.abs(generator.normal(size=len(place)) + generator.normal(size=calibration_places)[place])
    new = np.repeat(np.arange(test_places), 3)
    y = spread * (generator.normal(size=len(new)) + generator.normal(size=test_places)[new])

    def bounds(level):
        q = conformal.calibrate(scores, place, level, 0)
        return np.full(len(y), -q), np.full(len(y), q)

    return reliability(y, new, bounds, calibration_places)


def test_levels_without_enough_places_are_left_out():
    assert draw_table(19, 40).level.tolist() == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert draw_table(18, 40).level.max() == 0.9
    assert draw_table(8, 40).level.max() == 0.85
    table = draw_table(0, 40)
    assert len(table) == 0 and list(table)[:4] == ["level", "coverage", "low", "high"]


def test_observed_follows_nominal_and_a_shift_shows():
    honest, shifted = draw_table(199, 400), draw_table(199, 400, spread=2.0)
    assert np.abs(honest.coverage - honest.level).max() < 0.08
    assert honest.coverage.is_monotonic_increasing and honest.mean_width.is_monotonic_increasing
    assert (shifted.high < shifted.level).all()  # errors twice as large are seen at every level
    assert draw_table(30, 9).low.isna().all()


def test_the_plot_has_the_same_bytes_twice(tmp_path):
    tables = {"head": draw_table(40, 36), "text_sampled": draw_table(12, 9), "few": draw_table(0, 30)}
    for name in ("a.png", "b.png"):
        draw_reliability(tmp_path / name, tables, "no guarantee: places come from different regions")
    one = (tmp_path / "a.png").read_bytes()
    assert one == (tmp_path / "b.png").read_bytes() and b"Software" not in one
    assert imread(tmp_path / "a.png")[..., :3].std() > 0.01
    draw_reliability(tmp_path / "c.png", {"head": pd.DataFrame(tables["head"])}, "at least 0.9")
    assert (tmp_path / "c.png").read_bytes() != one
