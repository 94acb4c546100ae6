import numpy as np
import pandas as pd
import pytest
from scipy.stats import t, ttest_1samp

from src.core.evaluation import repeated_splits
from src.core.stage.errors import DataError


def runs(splits, seeds, folds, difference, data_variance=0.04):
    rows = [(s, m, f, difference(s, m, f), data_variance) for s in splits for m in seeds for f in folds]
    return pd.DataFrame(rows, columns=["split_seed", "seed", "fold", "difference", "data_variance"])


def test_spread_by_hand():
    found = repeated_splits.spread([0.9, 0.7, 0.8])
    assert found == {"mean": pytest.approx(0.8), "sd": pytest.approx(0.1), "low": 0.7, "high": 0.9, "J": 3}
    for scores in ([0.9], [0.9, np.nan]):
        with pytest.raises(ValueError, match="expected at least two, all finite"):
            repeated_splits.spread(scores)


def test_corrected_interval_by_hand():
    found = repeated_splits.corrected_interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), n_train=80, n_test=20)
    error = np.sqrt((1 / 5 + 20 / 80) * 2.5)
    assert found["mean"] == 3 and found["J"] == 5 and found["reason"] is None
    assert [found["low"], found["high"]] == pytest.approx([3 - 2.7764451 * error, 3 + 2.7764451 * error])
    assert found["p"] == pytest.approx(2 * t.sf(3 / error, 4))
    assert repeated_splits.corrected_interval(-np.array([1.0, 2.0, 3.0, 4.0, 5.0]), 80, 20)["p"] == found["p"]


def test_too_few_or_equal_differences_give_no_interval_and_say_why():
    found = repeated_splits.corrected_interval(np.array([1.0, 2.0, 3.0, 4.0]), 80, 20)
    assert found["low"] is None and found["p"] is None and found["reason"] == "4 splits, expected at least 5"
    assert repeated_splits.corrected_interval(np.array([]), 80, 20)["mean"] is None
    assert "are equal" in repeated_splits.corrected_interval(np.full(6, 0.1), 80, 20)["reason"]
    with pytest.raises(ValueError, match="1 of 2 differences are not finite"):
        repeated_splits.corrected_interval(np.array([0.1, np.nan]), 80, 20)


def test_two_models_that_are_equally_good_seldom_differ_and_would_often_without_the_correction():
    generator = np.random.default_rng(0)
    ours, uncorrected = [], []
    for _ in range(300):
        x = generator.normal(size=(60, 2))
        y = x.sum(axis=1) + generator.normal(size=60)
        differences = []
        for _ in range(15):
            order = generator.permutation(60)
            train, test = order[:48], order[48:]
            slope = (x[train] * y[train, None]).sum(axis=0) / (x[train] ** 2).sum(axis=0)
            errors = (y[test, None] - x[test] * slope) ** 2
            differences.append(errors[:, 0].mean() - errors[:, 1].mean())
        ours.append(repeated_splits.corrected_interval(np.array(differences), 48, 12)["p"] < 0.05)
        uncorrected.append(ttest_1samp(differences, 0).pvalue < 0.05)
    assert np.mean(ours) <= 0.09 and np.mean(uncorrected) > 0.25


def test_variance_components_by_hand():
    # splits 0, 1, 5 apart and nothing else: variance 7
    found = repeated_splits.variance_components(
        runs(range(3), range(2), range(2), lambda s, m, f: [0.0, 1.0, 5.0][s] + f)
    )
    assert found["split"] == pytest.approx(7) and found["seed"] == pytest.approx(0, abs=1e-12)
    # two folds of variance 0.04: their mean has half of it
    assert found["data"] == pytest.approx(0.02) and found["reason"] is None
    # the seed alone: 0 and 2 have variance 2
    found = repeated_splits.variance_components(runs(range(3), range(2), [0], lambda s, m, f: 2.0 * m))
    assert found["split"] == 0 and found["seed"] == pytest.approx(2) and (found["n_splits"], found["n_seeds"]) == (3, 2)
    # interaction: +-1 gives each split's seeds variance 2, and equal means
    found = repeated_splits.variance_components(runs(range(2), range(2), [0], lambda s, m, f: (-1.0) ** (s + m)))
    assert found["split"] == 0 and found["seed"] == pytest.approx(2)


def test_simulated_components_are_recovered():
    generator = np.random.default_rng(0)
    found = []
    for _ in range(300):
        split, seed, rest = generator.normal(0, 2, 8), generator.normal(0, 1, 4), generator.normal(0, 0.5, (8, 4))
        table = runs(range(8), range(4), [0], lambda s, m, f: split[s] + seed[m] + rest[s, m])  # noqa: B023
        found.append(repeated_splits.variance_components(table))
    assert np.mean([one["split"] for one in found]) == pytest.approx(4, rel=0.15)
    assert np.mean([one["seed"] for one in found]) == pytest.approx(1 + 0.25, rel=0.15)


def test_one_split_or_one_seed_is_said():
    one_split = repeated_splits.variance_components(runs([3], range(4), range(5), lambda s, m, f: float(m)))
    assert (
        one_split["split"] is None and one_split["seed"] == pytest.approx(5 / 3) and "one split" in one_split["reason"]
    )
    one_seed = repeated_splits.variance_components(runs(range(4), [0], range(5), lambda s, m, f: float(s)))
    assert one_seed["split"] is None and one_seed["seed"] is None and "one seed" in one_seed["reason"]
    assert one_seed["data"] == pytest.approx(5 * 0.04 / 25)


def test_row_order_changes_nothing():
    table = runs(range(3), range(3), range(2), lambda s, m, f: float(s * 7 % 5 + m * 3 % 4 + f))
    shuffled = table.sample(frac=1, random_state=0)
    assert repeated_splits.variance_components(shuffled) == repeated_splits.variance_components(table)


def test_missing_results_are_named():
    table = runs(range(3), range(2), range(2), lambda s, m, f: float(s))
    with pytest.raises(DataError, match=r"1 of 12 results are missing \(first: split_seed 1, seed 0, fold 1\)"):
        repeated_splits.variance_components(table.drop(index=5))
