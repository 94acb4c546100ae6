"""Coverage of prediction intervals: a place counts once, in the share and in its interval."""

import numpy as np
import pandas as pd
import pytest

from src.population.evaluation import prediction_intervals


def scored(years: list[int]) -> pd.DataFrame:
    """One place in each of len(years) blocks, with so many rows, all at 0."""
    place = np.repeat(np.arange(len(years)), years)
    names = {"province": "P", "city": [f"c{n}" for n in place], "block": [f"b{n:02d}" for n in place]}
    return pd.DataFrame(names | {"y": 0.0, "year": np.concatenate([np.arange(count) for count in years])})


def test_a_place_of_many_years_weighs_as_much_as_one_of_few():
    rows = scored([12] + [1] * 11)  # unequal units, but places count once: 12 equal ones
    missed = (rows.city == "c0").to_numpy()
    low, high = np.where(missed, 1.0, -1.0), np.full(len(rows), 2.0)
    found = prediction_intervals.coverage(rows, low, high, "block")
    assert found["coverage"] == pytest.approx(11 / 12)
    assert 0 <= found["coverage_low"] < 11 / 12 < found["coverage_high"] <= 1


def test_shares_within_places_stay_shares():
    rows = scored([2] * 12)
    low = np.where((rows.year == 1) & (rows.city == "c0"), 1.0, -1.0)
    found = prediction_intervals.coverage(rows, low, np.full(len(rows), 2.0), "block")
    assert found["coverage"] == pytest.approx(23 / 24) and found["coverage_high"] == 1
