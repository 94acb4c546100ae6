import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import mean_absolute_error, r2_score

from src.core import metrics


def problem(seed=0, units=20, per_unit=8, units_apart=3.0):
    """Truth with a common part per unit, and a noisy prediction."""
    generator = np.random.default_rng(seed)
    unit = np.repeat([f"b{number}" for number in range(units)], per_unit)
    y = np.repeat(generator.normal(0, units_apart, units), per_unit) + generator.normal(0, 1, len(unit))
    return y, 0.7 * y + generator.normal(0, 1, len(y)) + 0.5, unit


def naive(y, prediction, unit, score, resamples=400, seed=0):
    """The same bootstrap with rows copied out, draw by draw."""
    names = np.unique(unit)
    draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    values = []
    for draw in draws:
        rows = np.concatenate(
            [np.flatnonzero(unit == name) for name, times in zip(names, draw, strict=True) for _ in range(times)]
        )
        values.append(score(y[rows], prediction[rows]))
    return np.percentile(values, [2.5, 97.5])


def test_scores_follow_their_definitions():
    y, prediction = np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 1.0, 2.0, 5.0])
    found = metrics.scores(y, prediction)
    assert found["r2"] == pytest.approx(1 - 5 / 5)
    assert found["mae"] == pytest.approx(3 / 4)
    assert found["rmse"] == pytest.approx(np.sqrt(5 / 4))
    assert found["bias"] == pytest.approx(3 / 4)
    assert found["n"] == 4
    assert found["pearson_r"] == pytest.approx(np.corrcoef(y, prediction)[0, 1])


def test_undefined_scores_are_none_and_not_a_number_of_someones_choice():
    found = metrics.scores(np.array([1.0, 2.0, 4.0]), np.full(3, 2.0))
    assert found["pearson_r"] is None and found["spearman_r"] is None and found["r2"] is not None
    assert metrics.scores(np.full(3, 2.0), np.array([1.0, 2.0, 3.0]))["r2"] is None


def test_a_missing_answer_scores_as_the_train_mean_and_never_silently():
    filled, parsed = metrics.fill_missing(np.array([1.0, np.nan, 3.0, np.nan]), 9.0)
    assert filled.tolist() == [1.0, 9.0, 3.0, 9.0] and parsed == 0.5
    with pytest.raises(ValueError, match="1 of 2 values are not finite"):
        metrics.scores(np.array([1.0, 2.0]), np.array([1.0, np.nan]))


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("r2", r2_score),
        ("mae", mean_absolute_error),
        ("pearson_r", lambda y, p: np.corrcoef(y, p)[0, 1]),
        ("spearman_r", lambda y, p: spearmanr(y, p).statistic),
        ("bias", lambda y, p: np.mean(p - y)),
    ],
)
def test_intervals_equal_a_bootstrap_that_copies_rows(name, score):
    y, prediction, unit = problem()
    y = y + 1000.0  # far from zero, where sums of squares lose digits
    prediction = np.round(prediction, 1) + 1000.0  # ties
    found = metrics.intervals(y, prediction, unit, 400, seed=0)
    expected = naive(y, prediction, unit, score)
    assert [found[f"{name}_low"], found[f"{name}_high"]] == pytest.approx(list(expected), abs=1e-9)


def test_resampling_rows_would_claim_too_much():
    y, _, unit = problem(units_apart=5.0)
    constant = np.zeros_like(y)
    ours = metrics.intervals(y, constant, unit, 1000, seed=0)
    rows = metrics.intervals(y, constant, np.arange(len(y)), 1000, seed=0)
    assert ours["bias_high"] - ours["bias_low"] > 2 * (rows["bias_high"] - rows["bias_low"])


def test_intervals_do_not_depend_on_row_order():
    y, prediction, unit = problem()
    order = np.random.default_rng(1).permutation(len(y))
    first = metrics.intervals(y, prediction, unit, 200, seed=3)
    second = metrics.intervals(y[order], prediction[order], unit[order], 200, seed=3)
    assert metrics.rounded(first) == metrics.rounded(second)


def test_too_few_units_give_no_interval():
    y, prediction, unit = problem(units=metrics.MINIMUM_UNITS - 1)
    assert set(metrics.intervals(y, prediction, unit, 100, seed=0).values()) == {None}
    paired = metrics.paired_interval(y, prediction, y, unit, 100, seed=0)
    assert paired["r2_low"] is None and paired["r2"] is not None and paired["n_units"] == 9
    y, prediction, unit = problem(units=metrics.MINIMUM_UNITS)
    assert metrics.intervals(y, prediction, unit, 100, seed=0)["r2_low"] is not None


def test_a_constant_prediction_has_an_interval_of_r2_but_none_of_correlation():
    y, _, unit = problem()
    found = metrics.intervals(y, np.full_like(y, 0.1), unit, 200, seed=0)
    assert found["r2_high"] <= 0 and found["pearson_r_low"] is None and found["spearman_r_low"] is None


def test_paired_interval_is_narrower_than_the_two_apart_and_signed():
    y, a, unit = problem()
    b = a + np.random.default_rng(5).normal(0, 0.3, len(a))
    paired = metrics.paired_interval(y, a, b, unit, 1000, seed=0)
    alone = metrics.intervals(y, a, unit, 1000, seed=0)
    assert paired["r2_high"] - paired["r2_low"] < alone["r2_high"] - alone["r2_low"]
    assert paired["r2"] == pytest.approx(r2_score(y, a) - r2_score(y, b))
    assert paired["mae"] == pytest.approx(mean_absolute_error(y, a) - mean_absolute_error(y, b))
    same = metrics.paired_interval(y, a, a, unit, 100, seed=0)
    assert same["r2_low"] == same["r2_high"] == 0.0


def test_r2_within_year_gives_the_calendar_no_credit():
    generator = np.random.default_rng(0)
    year = np.repeat([2018, 2019, 2020], 40)
    y = (year - 2019) * 10.0 + generator.normal(0, 1, len(year))
    calendar = np.array([y[year == value].mean() for value in year])
    assert metrics.scores(y, calendar)["r2"] > 0.9
    assert metrics.r2_within_year(y, calendar, year) == pytest.approx(0.0, abs=1e-12)
    assert metrics.r2_within_year(y, y, year) == 1.0
    assert metrics.r2_within_year(np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.array([1, 2])) is None
    unit = np.tile(np.arange(40), 3)
    found = metrics.intervals(y, y, unit, 200, seed=0, year=year)
    assert found["r2_within_year_low"] == found["r2_within_year_high"] == 1.0
    bounds = metrics.intervals(y, calendar, unit, 200, seed=0, year=year)
    assert bounds["r2_within_year_low"] < bounds["r2_within_year_high"] <= 1e-9


def test_within_year_interval_equals_a_bootstrap_that_copies_rows():
    y, prediction, unit = problem()
    year = np.tile([2018, 2019, 2019, 2020], len(y) // 4)
    found = metrics.intervals(y, prediction, unit, 100, seed=0, year=year)
    values = np.arange(len(y))
    expected = naive(
        values, values, unit, lambda rows, _: metrics.r2_within_year(y[rows], prediction[rows], year[rows]), 100
    )
    assert [found["r2_within_year_low"], found["r2_within_year_high"]] == pytest.approx(list(expected), abs=1e-9)


def test_mean_interval_of_a_share():
    hits = np.tile([1.0, 1.0, 1.0, 0.0], 20)
    unit = np.repeat(np.arange(20), 4)
    found = metrics.mean_interval(hits, unit, 200, seed=0)
    assert found == {"": 0.75, "_low": 0.75, "_high": 0.75}  # every unit has the same share
    assert metrics.mean_interval(hits, np.arange(80), 200, seed=0)["_low"] < 0.75
    assert metrics.mean_interval(hits, np.zeros(80), 200, seed=0)["_low"] is None


def test_rounded_keeps_structure_and_has_no_negative_zero():
    found = metrics.rounded({"a": [-1e-9, 0.12345678], "b": None, "n": 3, "yes": True})
    assert str(found) == "{'a': [0.0, 0.123457], 'b': None, 'n': 3, 'yes': True}"
