"""Folds are balanced, and the seed and the names alone decide."""

import numpy as np
import pandas as pd

from src.core.splits import folds
from src.core.stage.errors import DataError


def test_folds_are_balanced_and_follow_the_seed_and_not_the_order():
    generator = np.random.default_rng(1)
    units = np.array([f"u{i}" for i in range(45)])
    sizes = generator.integers(1, 60, 45)
    drawn = folds.draw_folds(units, sizes, 5, seed=3)
    totals = np.bincount(drawn, weights=sizes)
    assert np.ptp(totals) <= 0.05 * totals.mean()
    shuffled = generator.permutation(45)
    again = folds.draw_folds(units[shuffled], sizes[shuffled], 5, seed=3)
    assert (again == drawn[shuffled]).all()
    assert (folds.draw_folds(units, sizes, 5, seed=4) != drawn).any()


def test_validation_share_is_filled_and_never_empty():
    units, sizes = np.array([f"u{i}" for i in range(40)]), np.full(40, 5)
    assert sizes[folds.draw_validation(units, sizes, 0.25, [0, 1])].sum() == 50
    alone = folds.draw_validation(np.array(["a", "b", "c"]), np.array([9, 4, 8]), 0.1, [0, 1])
    assert alone.tolist() == [False, True, False]


def test_a_fold_that_takes_all_but_one_unit_is_refused():
    sides = []
    for fold in range(2):
        try:
            folds.draw_roles(pd.Series(["a", "b", "c"]), "places", 2, fold, 0, "bring more")
            sides.append("drawn")
        except DataError as error:
            assert "of 3 places" in str(error) and "leaves 1" in str(error) and str(error).endswith("bring more")
            sides.append("refused")
    assert sorted(sides) == ["drawn", "refused"]


def test_roles_are_of_whole_units_whatever_the_order_of_rows():
    unit = pd.Series([f"u{i}" for i in range(300)] * 2)
    role = folds.draw_roles(unit, "places", 5, 0, 0, "")
    assert role.value_counts().to_dict() == {"train": 390, "test": 120, "validation": 90}
    assert (role.groupby(unit).nunique() == 1).all()
    shuffled = unit.sample(frac=1, random_state=5)
    pd.testing.assert_series_equal(folds.draw_roles(shuffled, "places", 5, 0, 0, "").sort_index(), role)
