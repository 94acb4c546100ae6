"""Conformal intervals by hand: ranks, ties, years of a place, sampled answers, folds."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, Ridge

from src.core.evaluation import conformal
from src.core.stage.errors import DataError
from tests.core.evaluation.conformal_panels import covered, cv_plus_by_place, draw_panel, hierarchical


@pytest.mark.parametrize("level, needed", [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99), (0.85, 6)])
def test_required_places_by_hand(level, needed):
    assert conformal.required_places(level) == needed
    scores = np.arange(needed) + 1.0
    assert conformal.calibrate(scores, scores, level, 0) == needed  # the largest score, never infinity
    with pytest.raises(DataError):
        conformal.calibrate(scores[1:], scores[1:], level, 0)


@pytest.mark.parametrize("places", [19, 49, 99, 199])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_the_two_rules_agree_where_every_place_has_one_year(places, level, monkeypatch):
    scores = np.random.default_rng(0).permutation(places) + 1.0
    found = []
    for first in (0, 1000):
        monkeypatch.setattr(conformal, "HIERARCHICAL_PLACES", first)
        found.append(conformal.calibrate(scores, np.arange(places), level, 0))
    assert found == [round((places + 1) * level)] * 2


def test_many_places_are_not_drawn_from():
    """From 50 places on every year counts: no seed changes the result, and it is Lee, Barber and Willett's."""
    place, error = draw_panel(50, 0.4, np.random.default_rng(0))
    found = {conformal.calibrate(np.abs(error), place, 0.9, seed) for seed in range(10)}
    assert found == {hierarchical(np.abs(error), place, 0.9)}


def test_one_year_each_is_split_conformal():
    """Vovk's order statistic: of 19 places at 0.9 the 18th smallest, of 20 the 19th."""
    scores = np.random.default_rng(0).permutation(19) + 1.0
    assert conformal.calibrate(scores, np.arange(19), 0.9, 0) == 18
    assert conformal.calibrate(np.append(scores, 20), np.arange(20), 0.9, 0) == 19


def test_an_unsupported_level_is_refused_with_the_number_needed():
    rows = np.arange(12.0).repeat(30)  # 360 rows are still 12 places
    with pytest.raises(DataError, match=r"`level`: found 0\.95 with 12 .* at least 19 places .* at most 0\.923"):
        conformal.calibrate(rows, rows, 0.95, 0)
    assert np.isfinite(conformal.calibrate(rows, rows, 0.923, 0))  # what the message advises does work
    x = np.random.default_rng(0).normal(size=(360, 2))
    with pytest.raises(DataError, match="at least 19"):
        cv_plus_by_place(Ridge(), x, x[:, 0], rows, x, 0.95, 5, 0)
    with pytest.raises(DataError, match=r"0 calibration places"):
        conformal.calibrate(np.empty(0), np.empty(0), 0.9, 0)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_an_infinite_score_is_never_calibrated(wrong):
    scores = np.append(np.ones(30), wrong)
    with pytest.raises(ValueError, match="1 of 31 values are not finite"):
        conformal.calibrate(scores, np.arange(31), 0.9, 0)
    with pytest.raises(ValueError, match="not finite"):
        conformal.cv_plus(scores, np.arange(31), np.zeros(31, int), np.zeros((1, 2)), 0.9, 0)


def test_ties_are_covered():
    place = np.arange(19)
    assert conformal.calibrate(np.full(19, 2.0), place, 0.9, 0) == 2
    low, high = conformal.cv_plus(np.full(19, 2.0), place, place % 2, np.array([[5.0], [5.0]]), 0.9, 0)
    assert (low, high) == (3, 7)


@pytest.mark.parametrize("others", [29, 79])  # drawn from, and hierarchical
def test_a_place_with_many_years_does_not_dominate(others):
    place = np.concatenate([np.arange(others), np.full(5000, others)])
    scores = np.concatenate([np.full(others, 10.0), np.full(5000, 0.1)])
    assert conformal.calibrate(scores, place, 0.9, 0) == 10
    # and one bad place with many years is one bad place
    assert conformal.calibrate(-scores, place, 0.9, 0) == -10


def test_the_order_of_rows_and_the_type_of_names_do_not_matter():
    generator = np.random.default_rng(0)
    place, error = draw_panel(30, 0.4, generator)
    scores, fold, predictions = np.abs(error), place % 5, generator.normal(size=(5, 7))
    shuffled = generator.permutation(len(place))
    one = conformal.calibrate(scores, place, 0.9, 3)
    assert one == conformal.calibrate(scores[shuffled], place[shuffled].astype(str), 0.9, 3)
    first = conformal.cv_plus(scores, place, fold, predictions, 0.9, 3)
    second = conformal.cv_plus(scores[shuffled], place[shuffled], fold[shuffled], predictions, 0.9, 3)
    np.testing.assert_array_equal(first, second)
    assert len({conformal.calibrate(scores, place, 0.9, seed) for seed in range(20)}) > 1  # a year is drawn
    levels = [conformal.calibrate(scores, place, level, 3) for level in (0.5, 0.7, 0.9)]
    assert levels == sorted(levels)  # a higher level holds the lower one's interval


def test_every_year_of_a_place_is_drawn_as_often():
    place = np.array(["a", "a", "a", "b", "b", "b", "b"])
    scores = np.array([3.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0])
    drawn = np.array([conformal.draw_years(place, scores, seed) for seed in range(3000)])
    assert set(drawn[:, 0]) == {0, 1, 2} and set(drawn[:, 1]) == {3, 4, 5, 6}
    assert np.ptp(np.bincount(drawn[:, 0]) / 3000) < 0.04


def test_sample_range_by_hand():
    nan = np.nan
    samples = np.array([[3, 1, 2, nan, 5], [nan] * 5, [4, nan, nan, nan, nan], [2, 2, 2, 2, 2]], dtype=float)
    low, high = conformal.sample_range(samples, 0.9, fallback=-7.0)
    assert low.tolist() == [1, -7, 4, 2] and high.tolist() == [5, -7, 4, 2]  # few answers: their ends
    hundred = np.random.default_rng(0).permutation(100)[None] + 1.0
    assert [end.item() for end in conformal.sample_range(hundred, 0.9, 0.0)] == [5, 96]
    assert [end.item() for end in conformal.sample_range(hundred, 0.5, 0.0)] == [25, 76]
    y = np.array([6.0, -4.0, 4.0, 1.5])
    assert conformal.sample_scores(y, samples, 0.9, -7.0).tolist() == [1, 3, 0, 0.5]


def test_a_negative_score_narrows_but_never_turns_an_interval_inside_out():
    samples = np.array([[0.0, 10.0], [4.0, 6.0], [np.nan, np.nan]])
    low, high = conformal.sample_bounds(samples, -2.0, 0.9, fallback=1.0)
    assert low.tolist() == [2, 5, 1] and high.tolist() == [8, 5, 1]
    low, high = conformal.sample_bounds(samples, 2.0, 0.9, fallback=1.0)
    assert low.tolist() == [-2, 2, -1] and high.tolist() == [12, 8, 3]


def test_unparsed_rows_cost_width_and_not_coverage():
    """A model that never answers gets the training mean's interval, wide enough for the labels."""
    place = np.arange(19)
    y = np.arange(19.0) - 9
    silent = np.full((19, 3), np.nan)
    q = conformal.calibrate(conformal.sample_scores(y, silent, 0.9, 0.0), place, 0.9, 0)
    assert q == 9
    assert covered(y, conformal.sample_bounds(silent, q, 0.9, 0.0), place) == 1


def test_cv_plus_by_hand():
    """Barber et al. 2021, eq. 11 with K = 4 at level 0.75: the 4th smallest and the 2nd smallest reflected."""
    residual, fold = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 0, 1, 1])
    low, high = conformal.cv_plus(residual, list("abcd"), fold, np.array([[10.0], [20.0]]), 0.75, 0)
    # prediction + residual: 11 12 23 24, rank ceil(5 * 0.75) = 4; prediction - residual: 9 8 17 16, rank 5 - 4 = 1
    assert (high.item(), low.item()) == (24, 8)


def test_cv_plus_refuses_a_place_in_two_folds():
    place = np.repeat(np.arange(20), 2)
    fold = np.arange(40) % 5
    with pytest.raises(ValueError, match="places in several folds: 0, 1, 10"):
        conformal.cv_plus(np.ones(40), place, fold, np.zeros((5, 3)), 0.9, 0)


def test_cv_plus_never_trains_on_the_place_it_calibrates():
    """Features that name the place are memorised: residuals within places are 0, between places they are not."""
    generator = np.random.default_rng(0)
    place = np.repeat(np.arange(30), 6)
    x = np.eye(30)[place]
    y = generator.normal(size=30)[place]
    assert np.abs(y - LinearRegression().fit(x, y).predict(x)).max() < 1e-9
    low, high = cv_plus_by_place(LinearRegression(), x, y, place, x[:6], 0.9, 5, 0)
    assert (high - low > 2).all()
