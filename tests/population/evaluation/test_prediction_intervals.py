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


def guarantees(method: str, task: str, split: str = "test") -> dict[str, str]:
    generator = np.random.default_rng(0)
    rows = scored([1] * 40)
    table = pd.concat([rows.assign(split="validation"), rows.assign(split=split)], ignore_index=True)
    samples = [list(generator.normal(size=4)) for _ in table.y]
    table = table.assign(head=generator.normal(size=len(table)), text_samples=samples)
    left_out = pd.DataFrame({"place": rows.city, "fold": np.arange(40) % 2, "residual": 1.0})
    facts = {"method": method, "task": task, "label_mean": 0.0, "unit": "block"}
    found, _, _ = prediction_intervals.assess(table, left_out, np.zeros((2, 40)), 0.9, facts, 0)
    return {group: part["guarantee"] for group, part in found["groups"].items()}


def test_a_guarantee_is_given_only_where_places_are_exchangeable():
    found = guarantees("place", "new_place")
    assert found["head"] == found["text_samples"] == "at least 0.9 for a new place like the calibration places"
    assert found["ridge"] == "about 0.9, proven only 0.8, for a new place like the calibration places"
    for later in (guarantees("place", "next_year"), guarantees("blocks", "new_place_and_year")):
        assert set(later.values()) == {"no guarantee: test years are later than calibration years"}
    for elsewhere in (guarantees("blocks", "new_place"), guarantees("place", "new_place", split="locked")):
        assert set(elsewhere.values()) == {"no guarantee: calibration and test places come from different regions"}
