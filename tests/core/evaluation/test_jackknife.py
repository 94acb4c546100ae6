import numpy as np
import pytest
from scipy.stats import t
from sklearn.metrics import mean_absolute_error, r2_score

from src.core.evaluation import jackknife, regression_scores
from tests import panels


def problem(seed=0, units=20, per_unit=8, units_apart=3.0):
    """Truth with a common part per unit, and a noisy prediction."""
    generator = np.random.default_rng(seed)
    unit = np.repeat([f"b{number}" for number in range(units)], per_unit)
    y = np.repeat(generator.normal(0, units_apart, units), per_unit) + generator.normal(0, 1, len(unit))
    return y, 0.7 * y + generator.normal(0, 1, len(y)) + 0.5, unit


def intervals(y, prediction, unit, year=None, place=None, reference=None):
    """Bounds, method and label; where they are not given all rows are of one year, and each is a place."""
    columns = (np.zeros(len(y)), np.arange(len(y)), np.zeros(len(y)))
    columns = [
        default if given is None else given for given, default in zip((year, place, reference), columns, strict=True)
    ]
    found = jackknife.score_panel(y, prediction, unit, *columns)
    return {key: value for key, value in found.items() if key.endswith(("_low", "_high")) or key in ("method", "label")}


def without_each(unit, score):
    """The score of all rows, and of the rows left when each unit is left out."""
    return np.array([score(np.arange(len(unit)))] + [score(np.flatnonzero(unit != name)) for name in np.unique(unit)])


def bounds(values, effective, forward, backward):
    whole, parts = forward(values[0]), forward(values[1:])
    reach = t.ppf(0.975, effective - 1) * np.sqrt((len(parts) - 1) / len(parts) * np.sum((parts - parts.mean()) ** 2))
    return sorted([backward(whole - reach), backward(whole + reach)])


SCALES = {"mae": (np.log, np.exp), "rmse": (np.log, np.exp), "bias": (lambda x: x, lambda x: x)}
SCALES |= dict.fromkeys(("pearson_r", "spearman_r"), (np.arctanh, np.tanh))


@pytest.mark.parametrize("name", [*regression_scores.SCORES, *regression_scores.PANEL_SCORES])
def test_bounds_equal_a_jackknife_that_leaves_rows_out(name):
    drawn = panels.clustered(np.random.default_rng(2), 14, 0.4)
    order = np.random.default_rng(1).permutation(len(drawn.y))
    # far from zero, where sums of squares lose digits, and with ties
    y, prediction = np.round(drawn.y, 1)[order] + 1000, np.round(drawn.a, 1)[order] + 1000
    unit, place, year = drawn.unit[order], drawn.place[order], drawn.year[order]
    reference = 1000 + 0.1 * (unit % 3)
    found = intervals(y, prediction, unit, year=year, place=place, reference=reference)

    def score(rows):
        some = y[rows], prediction[rows]
        return (
            regression_scores.scores(*some)
            | regression_scores.panel_scores(*some, year[rows], place[rows], reference[rows])
        )[name]

    size = np.unique(unit, return_counts=True)[1]
    scale = SCALES.get(name, (lambda r2: np.sqrt(1 - r2), lambda z: 1 - z**2))
    expected = bounds(without_each(unit, score), size.sum() ** 2 / np.sum(size**2), *scale)
    assert [found[f"{name}_low"], found[f"{name}_high"]] == pytest.approx(expected, abs=1e-7)


def test_an_interval_of_a_mean_of_equal_units_is_students():
    values = np.random.default_rng(0).normal(3, 1, 12)
    found = intervals(np.zeros(12), values, np.arange(12))
    reach = t.ppf(0.975, 11) * values.std(ddof=1) / np.sqrt(12)
    assert [found["bias_low"], found["bias_high"]] == pytest.approx([values.mean() - reach, values.mean() + reach])
    found = jackknife.mean_interval(values, np.arange(12))
    assert [found["_low"], found["_high"]] == pytest.approx([values.mean() - reach, values.mean() + reach])


def test_leaving_rows_out_would_claim_too_much():
    y, _, unit = problem(units_apart=5.0)
    constant = np.zeros_like(y)
    ours, rows = (intervals(y, constant, names) for names in (unit, np.arange(len(y))))
    assert ours["bias_high"] - ours["bias_low"] > 2 * (rows["bias_high"] - rows["bias_low"])


def test_intervals_do_not_depend_on_row_order_and_hold_the_score():
    y, prediction, unit = problem()
    order = np.random.default_rng(1).permutation(len(y))
    place, year = np.char.add(unit, "p"), np.tile([1, 2, 3, 4], len(y) // 4)
    first = intervals(y, prediction, unit, year=year, place=place)
    second = intervals(y[order], prediction[order], unit[order], year=year[order], place=place[order])
    assert regression_scores.rounded(first) == regression_scores.rounded(second)
    values = regression_scores.scores(y, prediction) | regression_scores.panel_scores(y, prediction, year, place, y)
    for name in (*regression_scores.SCORES, *regression_scores.PANEL_SCORES[:3]):
        assert first[f"{name}_low"] < values[name] < first[f"{name}_high"], name


def test_too_few_units_give_no_interval_and_say_so():
    y, prediction, unit = problem(units=jackknife.MINIMUM_UNITS - 1)
    found = intervals(y, prediction, unit)
    assert found.pop("method") == "none: 9 units, expected at least 10"
    assert set(found.values()) == {None}
    paired = jackknife.paired_interval(y, prediction, y, unit)
    assert paired["r2_low"] is None and paired["r2"] is not None and paired["n_units"] == 9
    assert paired["method"].startswith("none: 9 units")
    y, prediction, unit = problem(units=jackknife.MINIMUM_UNITS)
    found = intervals(y, prediction, unit)
    assert found["r2_low"] is not None and found["method"].startswith("jackknife-t over 10 units")


def test_units_so_unequal_that_they_count_as_few_are_too_few():
    unit = np.concatenate([np.zeros(66, int), np.repeat(np.arange(1, 12), 6)])
    assert jackknife.effective_units(np.full(7, 3)) == pytest.approx(7)
    assert jackknife.effective_units(np.array([66] + [6] * 11)) == pytest.approx(132**2 / (66**2 + 11 * 36))
    y = np.random.default_rng(0).normal(0, 1, len(unit))
    found = intervals(y, y / 2, unit)
    assert found["r2_low"] is None and "12 units are so unequal that they count as 3.7" in found["method"]


def test_a_score_that_is_not_defined_has_no_interval():
    y, _, unit = problem()
    found = intervals(y, np.full_like(y, 0.1), unit)
    assert found["r2_low"] is not None and found["pearson_r_low"] is None and found["spearman_r_low"] is None
    # all that varies lies in one unit: without it there is no score
    y = np.where(unit == "b3", y, 0.0)
    found = intervals(y, np.zeros_like(y), unit, place=unit)
    assert found["r2_low"] is None and found["r2_between_place_low"] is None and found["r2_change_low"] is None
    assert found["bias_low"] is not None


def test_a_perfect_prediction_scores_one_without_doubt():
    y, _, unit = problem()
    found = intervals(y, y, unit, year=np.tile([1, 2], len(y) // 2), place=unit)
    for name in ("r2", "r2_within_year", "r2_between_place", "r2_change", "pearson_r", "spearman_r"):
        assert found[f"{name}_low"] == found[f"{name}_high"] == pytest.approx(1.0), name


def test_a_place_in_two_units_is_refused():
    y, prediction, unit = problem()
    with pytest.raises(ValueError, match="place p lies in two units"):
        intervals(y, prediction, unit, place=np.where(np.arange(len(y)) < 20, "p", unit))


def test_paired_interval_is_narrower_than_the_two_apart_and_signed():
    y, a, unit = problem()
    b = a + np.random.default_rng(5).normal(0, 0.3, len(a))
    paired, alone = jackknife.paired_interval(y, a, b, unit), intervals(y, a, unit)
    assert paired["r2_high"] - paired["r2_low"] < alone["r2_high"] - alone["r2_low"]
    assert paired["r2"] == pytest.approx(r2_score(y, a) - r2_score(y, b))
    assert paired["mae"] == pytest.approx(mean_absolute_error(y, a) - mean_absolute_error(y, b))
    same = jackknife.paired_interval(y, a, a, unit)
    assert same["r2_low"] == same["r2_high"] == 0.0
    assert jackknife.paired_interval(np.ones_like(y), a, b, unit)["r2"] is None


def test_mean_interval_of_a_share():
    hits, unit = np.tile([1.0, 1.0, 1.0, 0.0], 20), np.repeat(np.arange(20), 4)
    found = jackknife.mean_interval(hits, unit)
    assert (found[""], found["_low"], found["_high"]) == (0.75, 0.75, 0.75)  # every unit has the same share
    assert jackknife.mean_interval(hits, np.arange(80))["_low"] < 0.75
    assert jackknife.mean_interval(hits, np.zeros(80))["_low"] is None
    nearly = np.array([1.0] * 11 + [0.0])
    assert jackknife.mean_interval(nearly, np.arange(12))["_high"] == 1.0
    all_of_them = jackknife.mean_interval(np.ones(12), np.arange(12))
    assert all_of_them["_low"] is None and all_of_them["method"] == "none: all 12 values are equal"


def test_the_label_names_what_is_covered_badly_with_the_number():
    assert jackknife.coverage_label(("rmse",), 9) is None
    for units, found in jackknife.COVERAGE.items():
        for name, (low, high) in found.items():
            assert low < 0.92 or high > 0.98
            assert f"{name} {low:.2f} to {high:.2f}" in jackknife.coverage_label((name,), units)
    drawn = panels.clustered(np.random.default_rng(0), 12, 0.4)
    assert "rmse 0." in intervals(drawn.y, drawn.a, drawn.unit)["label"]


def test_the_score_is_computed_of_all_rows_and_of_those_without_each_unit():
    seen = []
    values, unit = np.array([1.0, 2.0, 4.0, 8.0]), np.array(["b", "a", "b", "c"])

    def score(rows):
        seen.append(values[rows].tolist())
        return {"sum": float(values[rows].sum()), "undefined": None if len(seen) == 2 else 1.0}

    found = jackknife.bounds_of(score, unit)
    assert seen == [[1, 2, 4, 8], [1, 4, 8], [2, 8], [1, 2, 4]]
    reach = t.ppf(0.975, 16 / 6 - 1) * np.sqrt(2) * np.std([13, 10, 7])
    assert found["sum"] == pytest.approx((15 - reach, 15 + reach)) and found["undefined"] is None


@pytest.mark.slow
@pytest.mark.parametrize("icc", [0.0, 0.8])
@pytest.mark.parametrize("units", jackknife.COVERAGE)
def test_intervals_cover_what_they_claim(units, icc):
    """The fewest units of each label, where coverage is worst, at both ends of the ICC; tests.panels has all settings.

    500 simulations have a standard error of 0.01: 0.95 lies 3 of them inside the bars. A labelled score has to lie in
    the range of its label, give or take 3 standard errors at its lower end, of all settings found in 2000 simulations.
    """
    for name, share in panels.coverage(units, icc).items():
        low, high = jackknife.COVERAGE[units].get(name, (0.95, 0.95))
        reach = 3 * np.sqrt(low * (1 - low) / 500)
        assert low - reach <= share <= high + reach, f"{name}: {share}, expected {low} to {high}"


def test_a_label_is_that_of_the_number_of_units():
    assert jackknife.coverage_label(("r2", "mae"), 15).endswith("in simulation: r2 0.90 to 0.96")
    assert jackknife.coverage_label(("rmse",), 30) is None
    assert jackknife.coverage_label(("r2", "r2_oos"), 45) is None is jackknife.coverage_label(("r2",), 110)


def test_an_undefined_score_has_no_bounds():
    """Deviations from a place's own mean: place means are 0 but for rounding."""
    generator = np.random.default_rng(0)
    place = np.repeat(np.arange(24).astype(str), 3)
    y = generator.normal(0, 5, (24, 3))
    y = (y - y.mean(axis=1, keepdims=True)).ravel()
    found = intervals(y, generator.normal(0, 1, 72), place, place=place)
    assert found["r2_between_place_low"] is None and found["r2_change_low"] is not None
