import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, Ridge

from src.core.evaluation import conformal
from src.core.evaluation.interval_coverage import coverage
from src.core.stage.errors import DataError

SETS, CROSSED_SETS = 500, 300
"""Calibration sets drawn. The coverage of one varies by 0.02 to 0.094 about its mean (standard deviation), that of a
crossed one, which costs 25 times as much, by 0.03 to 0.08. So the means found lie 3 of their standard errors or more
inside the bars, but for cover_point at 29 places and level 0.8 (2.8)."""
NEW_PLACES = 100


def cv_plus_by_place(estimator, x, y, place, x_new, level, folds, seed):
    """Intervals of new rows from an estimator that is fitted anew without each fold of places."""
    residual, fold, predictions = conformal.cross_fit(estimator, x, y, place, x_new, folds, seed)
    return conformal.cv_plus(residual, place, fold, predictions, level, seed)


def draw_panel(places, icc, generator):
    """Place of each row and its error, variance 1, of which `icc` is the place's own; 1 to 12 years a place."""
    place = np.repeat(np.arange(places), generator.integers(1, 13, places))
    error = np.sqrt(icc) * generator.normal(size=places)[place] + np.sqrt(1 - icc) * generator.normal(size=len(place))
    return place, error


def expected(level, places):
    """Exact coverage where one year is drawn: of K + 1 exchangeable scores the new one is not above the m-th.

    Where every year is kept, about level / K above the level.
    """
    if places >= conformal.HIERARCHICAL_PLACES:
        return level + level / places
    return np.ceil((places + 1) * level - 1e-9) / (places + 1)


def covered(y, bounds, place):
    return coverage(y, *bounds, place)["coverage"]


def hierarchical(scores, place, level):
    """Lee, Barber and Willett 2023: a row weighs 1 / ((K + 1) n_k), and 1 / (K + 1) lies at infinity."""
    counts = np.bincount(place)
    order = np.argsort(scores)
    weight = 1 / ((len(counts) + 1) * counts[place[order]])
    return scores[order][np.searchsorted(np.cumsum(weight), level - 1e-9)]


def cover_point(places, icc, level, seed, threshold=None):
    """Coverage of a point prediction's interval at `NEW_PLACES` new places."""
    generator = np.random.default_rng([seed, 7])
    place, error = draw_panel(places, icc, generator)
    new, new_error = draw_panel(NEW_PLACES, icc, generator)
    scores = np.abs(error)
    q = threshold(scores, place, level) if threshold else conformal.calibrate(scores, place, level, seed)
    return covered(new_error, (np.full(len(new), -q), np.full(len(new), q)), new)


def cover_sampled(places, icc, level, seed):
    """The same of eight sampled answers around it; a tenth is unparsed, and so are all of every tenth row's."""
    generator = np.random.default_rng([seed, 8])
    parts = []
    for count in (places, NEW_PLACES):
        place, error = draw_panel(count, icc, generator)
        spread = generator.uniform(0.2, 1.5, len(place))
        truth = generator.normal(0, 2, len(place))
        samples = truth[:, None] + spread[:, None] * generator.normal(size=(len(place), 8))
        samples[generator.random(samples.shape) < 0.1] = np.nan
        samples[generator.random(len(place)) < 0.1] = np.nan
        parts.append((place, truth + error, samples))
    (place, y, samples), (new, y_new, samples_new) = parts
    q = conformal.calibrate(conformal.sample_scores(y, samples, level, 0.0), place, level, seed)
    return covered(y_new, conformal.sample_bounds(samples_new, q, level, 0.0), new)


def cover_crossed(places, icc, level, seed):
    """The same of ridge on four features of a place, fitted without each of ten folds; one row of each new place."""
    generator = np.random.default_rng([seed, 9])
    place, error = draw_panel(places + NEW_PLACES, icc, generator)
    x = generator.normal(size=(places + NEW_PLACES, 4))[place] + 0.3 * generator.normal(size=(len(place), 4))
    y = x @ np.array([1.0, -1.0, 0.5, 0.0]) + error
    old, new = place < places, np.unique(place, return_index=True)[1][places:]
    bounds = cv_plus_by_place(Ridge(1.0), x[old], y[old], place[old], x[new], level, 10, seed)
    return covered(y[new], bounds, place[new])


def mean_coverage(cover, places, icc, level, sets, **options):
    return np.mean([cover(places, icc, level, seed, **options) for seed in range(sets)])


@pytest.mark.slow
@pytest.mark.parametrize("icc", [0.0, 0.8])
@pytest.mark.parametrize("level", [0.8, 0.9])
@pytest.mark.parametrize("places", [19, 20, 22, 29, 39, 49, 50, 60])
@pytest.mark.parametrize("cover", [cover_point, cover_sampled])
def test_mean_coverage_is_nominal(cover, places, level, icc):
    """At 19, 29, 39 and 49 places (K + 1) level is whole and `expected` is the level itself.

    Found: at most 0.011 from `expected` below 50 places, at most 0.004 from then on.
    """
    bar = 0.02 if places < conformal.HIERARCHICAL_PLACES else 0.01
    found = mean_coverage(cover, places, icc, level, SETS)
    assert abs(found - expected(level, places)) < bar
    if places >= conformal.HIERARCHICAL_PLACES:  # what its docstring promises
        assert abs(found - level) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("icc", [0.0, 0.8])
@pytest.mark.parametrize("places", [19, 39, 50])
def test_mean_coverage_of_fitted_folds_is_nominal(places, icc):
    found = mean_coverage(cover_crossed, places, icc, 0.9, CROSSED_SETS)
    assert abs(found - expected(0.9, places)) < 0.02
    if places >= conformal.HIERARCHICAL_PLACES:
        assert abs(found - 0.9) < 0.02


@pytest.mark.parametrize("cover", [cover_point, cover_sampled, cover_crossed])
def test_mean_coverage_is_near_nominal(cover):
    """The slow test in small: enough to see rows ranked in place of places, or a threshold one rank off."""
    assert abs(mean_coverage(cover, 19, 0.4, 0.9, 100) - 0.9) < 0.03


@pytest.mark.slow
def test_the_hierarchical_quantile_covers_more_than_it_promises():
    """Reason to draw one year: at 19 places and independent years it is 4 points above, and the bar is 2."""
    found = mean_coverage(cover_point, 19, 0.0, 0.9, SETS, threshold=hierarchical)
    assert found > 0.93


@pytest.mark.parametrize("level, needed", [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99), (0.85, 6)])
def test_required_places_by_hand(level, needed):
    assert conformal.required_places(level) == needed
    scores = np.arange(needed) + 1.0
    assert conformal.calibrate(scores, scores, level, 0) == needed  # the largest score, never infinity
    with pytest.raises(DataError):
        conformal.calibrate(scores[1:], scores[1:], level, 0)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 90, np.nan])
def test_a_level_is_between_0_and_1(level):
    with pytest.raises(ValueError, match="between 0 and 1"):
        conformal.required_places(level)


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


@pytest.mark.parametrize("places", [39, 99])
def test_places_whose_error_goes_with_their_number_of_years_are_covered(places):
    """Half the places have one year and errors of 3, half twelve and errors of 1: rows ranked alone cover 0.8."""

    def draw(count, generator):
        place = np.repeat(np.arange(count), np.where(np.arange(count) % 2, 1, 12))
        return place, generator.normal(size=len(place)) * np.where(place % 2, 3, 1)

    found, by_rows = [], []
    for seed in range(300):
        generator = np.random.default_rng([seed, 1])
        (place, error), (new, new_error) = draw(places, generator), draw(100, generator)
        for result, units in ((found, place), (by_rows, np.arange(len(place)))):
            q = conformal.calibrate(np.abs(error), units, 0.9, seed)
            result.append(covered(new_error, (np.full(len(new), -q), np.full(len(new), q)), new))
    assert abs(np.mean(found) - 0.9) < 0.02
    assert np.mean(by_rows) < 0.85


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


def test_fewer_places_than_folds_is_refused():
    place = np.arange(10)
    with pytest.raises(DataError, match="found 10 places, expected at least 12"):
        cv_plus_by_place(Ridge(), np.eye(10), place * 1.0, place, np.eye(10), 0.9, 12, 0)
