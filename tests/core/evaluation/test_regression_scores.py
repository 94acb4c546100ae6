import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from src.core.evaluation import regression_scores
from tests.panels import panel

SD = {"place": 1.0, "tile": 0.8, "noise": 0.6}
YEARS = np.array([-1.5, 0.0, 0.3, 0.9, 2.0, -0.4, 0.2])


def test_scores_follow_their_definitions():
    y, prediction = np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 1.0, 2.0, 5.0])
    found = regression_scores.scores(y, prediction)
    assert found["r2"] == pytest.approx(1 - 5 / 5)
    assert found["mae"] == pytest.approx(3 / 4)
    assert found["rmse"] == pytest.approx(np.sqrt(5 / 4))
    assert found["bias"] == pytest.approx(3 / 4)
    assert found["n"] == 4
    # by hand: sum of products 6.5, of squares 5 and 10.75; ranks 1 2 3 4 and 1.5 1.5 3 4
    assert found["pearson_r"] == pytest.approx(6.5 / np.sqrt(5 * 10.75))
    assert found["spearman_r"] == pytest.approx(4.5 / np.sqrt(5 * 4.5))


def test_correlations_are_those_of_scipy():
    generator = np.random.default_rng(0)
    y = np.round(generator.normal(1000, 1, 3000), 1)  # far from zero, with ties
    prediction = np.exp(y - 1000) + generator.normal(0, 1, 3000)
    found = regression_scores.scores(y, prediction)
    assert found["pearson_r"] == pytest.approx(pearsonr(y, prediction).statistic, abs=1e-12)
    assert found["spearman_r"] == pytest.approx(spearmanr(y, prediction).statistic, abs=1e-12)


def test_undefined_scores_are_none_and_not_a_number_of_someones_choice():
    found = regression_scores.scores(np.array([1.0, 2.0, 4.0]), np.full(3, 2.0))
    assert found["pearson_r"] is None and found["spearman_r"] is None and found["r2"] is not None
    assert regression_scores.scores(np.full(3, 2.0), np.array([1.0, 2.0, 3.0]))["r2"] is None


def test_a_truth_that_is_constant_up_to_rounding_has_no_r2():
    y = np.full(7, 0.1)
    assert y.mean() != 0.1  # so that deviations from it are not exactly 0
    assert regression_scores.scores(y, np.arange(7.0))["r2"] is None
    assert set(
        regression_scores.panel_scores(y, np.arange(7.0), np.arange(7) % 2, np.zeros(7), np.full(7, y.mean())).values()
    ) == {None}


def test_a_missing_answer_scores_as_the_train_mean_and_never_silently():
    filled, parsed = regression_scores.fill_missing(np.array([1.0, np.nan, 3.0, np.nan]), 9.0)
    assert filled.tolist() == [1.0, 9.0, 3.0, 9.0] and parsed == 0.5
    with pytest.raises(ValueError, match="1 of 2 values are not finite"):
        regression_scores.scores(np.array([1.0, 2.0]), np.array([1.0, np.nan]))


def test_panel_scores_by_hand():
    place, year = np.array(["a", "a", "b", "b", "b"]), np.array([1, 2, 1, 2, 2])
    y, prediction = np.array([1.0, 3.0, 4.0, 5.0, 6.0]), np.array([2.0, 2.0, 5.0, 5.0, 8.0])
    found = regression_scores.panel_scores(y, prediction, year, place, reference=np.array([2.0, 2.0, 4.0, 4.0, 4.0]))
    error = 1 + 1 + 1 + 0 + 4
    # year 1: 1, 4 about 2.5; year 2: 3, 5, 6 about 14/3
    assert found["r2_within_year"] == pytest.approx(1 - error / (4.5 + 14 / 3))
    # places: truth 2 and 5 about 3.5, prediction 2 and 6
    assert found["r2_between_place"] == pytest.approx(1 - 1 / 4.5)
    # changes: -1, 1 | -1, 0, 1 against 0, 0 | -1, -1, 2
    assert found["r2_change"] == pytest.approx(1 - (1 + 1 + 0 + 1 + 1) / 4)
    assert found["r2_oos"] == pytest.approx(1 - error / (1 + 1 + 0 + 1 + 4))


def test_panel_scores_are_none_where_they_mean_nothing():
    y, prediction, many = np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0]), np.arange(3)
    found = regression_scores.panel_scores(y, prediction, year=np.zeros(3), place=many, reference=y)
    assert found["r2_oos"] is None
    assert found["r2_within_year"] is None and found["r2_change"] is None and found["r2_between_place"] is not None
    found = regression_scores.panel_scores(y, prediction, year=many, place=np.zeros(3), reference=y)
    assert found["r2_within_year"] is None and found["r2_between_place"] is None and found["r2_change"] is not None


def test_the_training_mean_of_each_fold_scores_exactly_zero():
    generator = np.random.default_rng(0)
    fold = generator.integers(0, 5, 200)
    y = generator.normal(0, 1, 200) + fold
    reference = np.array([y[fold != number].mean() for number in range(5)])[fold]
    assert regression_scores.panel_scores(y, reference, fold, fold, reference)["r2_oos"] == 0.0
    assert regression_scores.scores(y, reference)["r2"] < -0.1  # which is what r2_oos is there for


def test_r2_within_year_gives_the_calendar_no_credit():
    generator = np.random.default_rng(0)
    year = np.repeat([2018, 2019, 2020], 40)
    y = (year - 2019) * 10.0 + generator.normal(0, 1, len(year))
    calendar = np.array([y[year == value].mean() for value in year])
    assert regression_scores.scores(y, calendar)["r2"] > 0.9

    def within_year(y, prediction, year):
        return regression_scores.panel_scores(y, prediction, year, year, y)["r2_within_year"]

    assert within_year(y, calendar, year) == pytest.approx(0.0, abs=1e-12)
    assert within_year(y, y, year) == 1.0
    assert within_year(np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.array([1, 2])) is None


@pytest.mark.parametrize("present", [1.0, 0.6])
def test_simulated_panels_recover_what_is_true_within_years_and_of_change(present):
    rows = panel(np.random.default_rng(3), 5000, YEARS, present, SD)
    place, tile, noise = (SD[name] ** 2 for name in ("place", "tile", "noise"))
    calendar = YEARS.var(ddof=1)  # of the years that a place happens to have, about their mean
    knows = {
        ("tile_effect",): (place + noise + np.mean(YEARS**2), calendar + noise),
        ("tile_effect", "year_effect"): (place + noise, noise),
        ("tile_effect", "place_effect"): (noise + np.mean(YEARS**2), calendar + noise),
        ("place_effect",): (tile + noise + np.mean(YEARS**2), calendar + tile + noise),
        ("year_effect",): (place + tile + noise, tile + noise),
    }
    total = place + tile + noise, calendar + tile + noise
    for effects, errors in knows.items():
        found = regression_scores.panel_scores(
            rows["y"], sum(rows[name] for name in effects), rows["year"], rows["place"], rows["y"]
        )
        for name, error, all_of_it in zip(("r2_within_year", "r2_change"), errors, total, strict=True):
            # Four standard errors: of a mean of squares over 5000 places it is at most sqrt(2/5000), twice for a ratio.
            assert found[name] == pytest.approx(
                1 - error / all_of_it, abs=4 * 2 * np.sqrt(2 / 5000) * error / all_of_it
            )
            if effects == ("place_effect",) and name == "r2_change":
                assert found[name] == pytest.approx(0.0, abs=1e-12)


def test_rounded_keeps_structure_and_has_no_negative_zero():
    found = regression_scores.rounded({"a": [-1e-9, 0.12345678], "b": None, "n": 3, "yes": True})
    assert str(found) == "{'a': [0.0, 0.123457], 'b': None, 'n': 3, 'yes': True}"
