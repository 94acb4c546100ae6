"""Folds are balanced, and the seed and the names alone decide."""

import numpy as np

from src.core.splits import folds


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
