"""Rows that are scored: those that all groups answer; bins and pairs are made of the same rows."""

import numpy as np
import pandas as pd
import pytest

from src.core.stage.errors import DataError
from src.species.data import task
from src.species.evaluation import group_scores
from tests.species.study import write_study

BINS = 15


@pytest.fixture
def held(tmp_path):
    return group_scores.Held(task.read(*write_study(tmp_path, count=600, missing=60)), BINS)


def perfect(held):
    """Log-probabilities that name every species rightly."""
    values = np.full((len(held.truth), 4), np.log(0.01))
    values[np.arange(len(held.truth)), held.truth] = np.log(0.97)
    return values


def test_only_complete_test_records_are_scored(held):
    assert (~held.complete).sum() == 24
    for kind in ("temporal", "spatial", "both"):
        rows = held.tests[kind]
        assert (held.role[rows] == "test").all() and (held.kind[rows] == kind).all() and held.complete[rows].all()
    assert held.tests["all"].sum() == sum(held.tests[kind].sum() for kind in ("temporal", "spatial", "both")) == 108


def test_a_group_without_answers_where_a_modality_is_missing_is_scored_on_the_others(held):
    values = perfect(held)
    values[~held.complete] = np.nan
    scored = group_scores.score_groups(held, {"language": values, "both": perfect(held)})
    assert scored["language"]["all"]["top1"] == scored["both"]["all"]["top1"] == 1
    assert scored["language"]["all"]["n"] == 108
    groups, incomplete = {"language": values, "both": perfect(held)}, held.rows("test", complete=False)
    assert group_scores.score_points(held, groups, incomplete, ("top1", "n")) == {"both": {"top1": 1.0, "n": 12}}
    assert group_scores.score_points(held, groups, incomplete & False, ("top1", "n")) == {}


def test_units_are_squares_in_new_places_and_cells_and_dates_in_known_ones(held):
    spatial = held.units(held.tests["spatial"], "spatial")
    assert list(spatial) == ["regions"] and all(name.startswith("square ") for name in spatial["regions"])
    temporal = held.units(held.tests["temporal"], "temporal")
    assert set(temporal) == {"regions", "dates"} and all(name.startswith("cell ") for name in temporal["regions"])
    assert len(set(temporal["dates"])) == held.tests["temporal"].sum()


def test_a_record_known_by_its_month_does_not_switch_dates_off(tmp_path):
    store, split = write_study(tmp_path)
    index = pd.read_parquet(store / "index.parquet")
    for share, kinds in ((0.2, {"regions", "dates"}), (0.9, {"regions"})):
        wide = np.arange(len(index)) < share * len(index)
        index.assign(last_day=index["first_day"] + 30 * wide).to_parquet(store / "index.parquet", index=False)
        held = group_scores.Held(task.read(store, split), BINS)
        assert set(held.units(held.tests["temporal"], "temporal")) == kinds


def test_a_group_that_leaves_a_complete_record_out_is_named(held):
    values = perfect(held)
    group_scores.require_answers(held, {"both": values}, "folder")
    values[np.flatnonzero(held.complete)[0]] = np.nan
    with pytest.raises(DataError, match=r"folder: both: found no finite probabilities for 1 of \d+ records"):
        group_scores.require_answers(held, {"both": values}, "folder")


def test_a_pair_compares_the_same_rows(held):
    wrong = np.roll(perfect(held), 1, axis=1)
    pairs = group_scores.score_pairs(held, {"both": perfect(held), "location": wrong})
    assert list(pairs) == ["both-location"] and pairs["both-location"]["temporal"]["top1"] == 1


def test_bins_hold_every_row_once(held):
    bins = group_scores.score_bins(held, {"both": perfect(held)}, held.distance_km, [1.0, 5.0])
    for kind, groups in bins.items():
        assert [bin_["label"] for bin_ in groups["both"]] == ["< 1", "1–5", "≥ 5"]
        assert sum(bin_["n"] for bin_ in groups["both"]) == held.tests[kind].sum()


def test_a_row_on_an_edge_belongs_to_the_bin_that_starts_there_and_an_empty_bin_has_no_scores(held):
    values = np.random.default_rng(0).integers(3, size=len(held.truth))
    bins = group_scores.score_bins(held, {"both": perfect(held)}, values, [1, 2, 9])
    for kind, groups in bins.items():
        counts = np.bincount(values[held.tests[kind]], minlength=3)
        assert [bin_["n"] for bin_ in groups["both"]] == [*counts, 0]
        assert [(bin_["from"], bin_["to"]) for bin_ in groups["both"]] == [(None, 1), (1, 2), (2, 9), (9, None)]
        empty = groups["both"][-1]
        assert empty["top1"] is empty["macro_f1"] is empty["top1_low"] is None and empty["label"] == "≥ 9"


def test_validation_is_scored_apart_from_the_test(held):
    values = perfect(held)
    values[held.role == "test"] = np.roll(values[held.role == "test"], 1, axis=1)
    found = group_scores.score_points(held, {"both": values}, held.rows("validation"), ("top1", "n"))
    assert found == {"both": {"top1": 1, "n": 108}}
