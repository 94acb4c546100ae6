import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from src.core.geo.distances import to_cartesian
from src.species.data import task
from src.species.evaluation import classifiers
from src.species.evaluation.classifiers import Examples
from src.species.models import features
from tests.species.study import write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return task.read(*write_study(tmp_path_factory.mktemp("study"), missing=25))


def clouds(seed=0, count=90, width=6):
    """Three classes about their own means, (N, F) and (N,)."""
    generator = np.random.default_rng(seed)
    codes = np.arange(count) % 3
    return generator.normal(size=(3, width))[codes] * 3 + generator.normal(size=(count, width)), codes


def only(candidates):
    ((setting, values),) = candidates
    return setting, values


def test_the_prior_by_hand():
    known = Examples(np.zeros((3, 1)), np.array([0, 0, 1]), 3)
    assert known.prior.tolist() == [3 / 6, 2 / 6, 1 / 6]
    _, values = only(classifiers.majority(known, np.zeros((2, 1))))
    assert np.exp(values).tolist() == pytest.approx(np.tile([3 / 6, 2 / 6, 1 / 6], (2, 1)))


def test_near_votes_weigh_by_distance_by_hand():
    known = Examples(np.array([[0.0], [1.0], [10.0]]), np.array([2, 1, 0]), 4)
    setting, values = only(classifiers.near_neighbours(known, np.array([[0.1]]), [2], [0.1]))
    votes = np.array([0, 1 / (0.9 + classifiers.NEAR_KM), 1 / (0.1 + classifiers.NEAR_KM), 0])
    assert setting == {"neighbours": 2, "prior_share": 0.1}
    assert np.exp(values[0]) == pytest.approx(0.9 * votes / votes.sum() + 0.1 * np.array([2, 2, 2, 1]) / 7)


def test_like_votes_go_by_angle_and_not_by_length():
    known = Examples(np.array([[100.0, 1.0], [1.0, 1.1], [0.0, 1.0]]), np.array([0, 1, 2]), 4)
    query = np.array([[0.001, 0.0], [0.0, 50.0]])
    _, values = only(classifiers.like_neighbours(known, query, [1], [0.02]))
    assert values.argmax(axis=1).tolist() == [0, 2]
    _, values = only(classifiers.like_neighbours(known, query, [2], [0.02]))
    assert np.exp(values[0]) == pytest.approx(0.98 * np.array([0.5, 0.5, 0, 0]) + 0.02 * np.array([2, 2, 2, 1]) / 7)


@pytest.mark.parametrize("width", [4, 40])  # scikit-learn searches a tree in few dimensions, and products in many
def test_like_votes_are_those_of_the_least_angles_counted_one_by_one(width):
    train, codes = clouds(count=300, width=width)
    query, _ = clouds(seed=1, count=50, width=width)
    _, values = only(classifiers.like_neighbours(Examples(train.astype(np.float32), codes, 3), query, [7], [0.1]))
    cosine = query @ train.T / np.linalg.norm(query, axis=1)[:, None] / np.linalg.norm(train, axis=1)
    votes = [np.bincount(codes[np.argsort(-row)[:7]], minlength=3) for row in cosine]
    assert np.exp(values) == pytest.approx(0.9 * np.array(votes) / 7 + 0.1 / 3)


def test_k_above_the_rows_is_the_rows_and_tried_once():
    points, codes = clouds(count=6)
    known = Examples(points, codes, 3)
    for neighbours in (classifiers.near_neighbours, classifiers.like_neighbours):
        settings = [setting for setting, _ in neighbours(known, points[:2], [1, 6, 30, 100], [0.1])]
        assert [setting["neighbours"] for setting in settings] == [1, 6]


def test_every_classifier_names_what_is_easy_and_sums_to_one_with_absent_classes():
    train, codes = clouds()
    query, truth = clouds(count=30)
    known = Examples(train, codes, 5)  # classes 3 and 4 have no row
    families = {
        "near": classifiers.near_neighbours(known, query, [5]),
        "like": classifiers.like_neighbours(known, query, [5]),
        "forest": classifiers.forest(known, query, [1], seed=0, threads=1),
        "logistic": classifiers.logistic(known, query, [1.0]),
    }
    for name, candidates in families.items():
        for _, values in candidates:
            assert values.shape == (30, 5) and np.isfinite(values).all(), name
            assert np.exp(values).sum(axis=1) == pytest.approx(1), name
            assert np.mean(values.argmax(axis=1) == truth) > 0.9, name


def test_logistic_regression_is_scikit_learns_also_of_two_classes_and_of_one():
    train, codes = clouds()
    known = Examples(train, codes, 3)
    setting, values = only(classifiers.logistic(known, train, [0.1]))
    model = LogisticRegression(C=0.1, tol=1e-6, max_iter=1000).fit(train, codes)
    assert setting["converged"]
    expected = 90 / 91 * model.predict_proba(train) + known.prior / 91  # the prior as one row more
    assert np.exp(values) == pytest.approx(expected, abs=0.01)
    two = codes < 2
    _, values = only(classifiers.logistic(Examples(train[two], codes[two], 3), train, [0.1]))
    assert np.mean(values[two].argmax(axis=1) == codes[two]) > 0.95
    _, values = only(classifiers.logistic(Examples(train[:1], codes[:1], 3), train, [0.1]))
    assert (values.argmax(axis=1) == codes[0]).all()


def test_a_forest_depends_on_its_seed_and_not_on_threads():
    train, codes = clouds()
    known = Examples(train, codes, 3)
    draw = [
        np.stack([values for _, values in classifiers.forest(known, train, [5], seed=seed, threads=threads)])
        for seed, threads in ((0, 1), (0, 2), (1, 1))
    ]
    np.testing.assert_array_equal(draw[0], draw[1])
    assert not np.array_equal(draw[0], draw[2])


def test_season_is_a_circle_and_unknown_of_a_year_alone():
    days = pd.DataFrame({"first_day": [0, 365, 182, 0, 10], "last_day": [0, 365, 183, 364, 41]})
    found = classifiers.season(days)
    assert found[0] == pytest.approx([0, 1]) and found[1] == pytest.approx([0, 1], abs=0.01)
    assert found[2] == pytest.approx([0, -1], abs=0.01)
    assert np.isnan(found[3]).all() and np.isfinite(found[4]).all()


def test_components_are_those_of_training_rows_alone(study):
    rows = study.train[study.store.present("language", study.train)]
    ours, theirs = features.components(study, ["language"], rows, study.held_out[:5], 8, seed=0)
    values = study.store.read("language", rows).astype(np.float64)
    exact = PCA(8, svd_solver="full").fit_transform(values)
    exact /= np.sqrt(exact.var(axis=0).mean())
    # four species: the first three components are apart from the rest, signs are free
    assert np.abs(ours[:, :3]) == pytest.approx(np.abs(exact[:, :3]), abs=1e-2)
    assert ours.var(axis=0).mean() == pytest.approx(1, rel=1e-4) and ours.mean(axis=0) == pytest.approx(0, abs=1e-4)
    again, other = features.components(study, ["language"], rows, study.held_out[5:9], 8, seed=0)
    np.testing.assert_array_equal(ours, again)
    assert theirs.shape == (5, 8) and other.shape == (4, 8)


def test_components_are_of_one_matrix_and_alike_in_any_parts(tmp_path, monkeypatch):
    study = task.read(*write_study(tmp_path, count=500, missing=60))
    both = ["language", "vision_pooled"]
    rows = study.train[study.store.present("language", study.train)]
    others = study.held_out[study.store.present("language", study.held_out)]
    whole = features.components(study, both, rows, others, 8, seed=0)
    monkeypatch.setattr(features, "ROWS_AT_ONCE", 32)
    size = features.matrix_bytes(study, both)
    assert (
        size == len(rows) * (7168 + 1408) * 4 and features.matrix_bytes(study, both[1:]) == len(study.train) * 1408 * 4
    )
    tracemalloc.start()
    parts = features.components(study, both, rows, others, 8, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size < peak < 1.6 * size
    for one, other in zip(whole, parts, strict=True):
        assert one == pytest.approx(other, abs=1e-3) and one.dtype == other.dtype == np.float32


def test_modalities_side_by_side_weigh_alike(study):
    rows = study.train[study.store.present("language", study.train)]
    both, _ = features.components(study, ["language", "vision_pooled"], rows, rows, 8, seed=0)
    unit = {
        name: values * np.float32(0.01 if name == "vision_pooled_sd" else 1)
        for name, values in study.statistics.items()
    }
    same, _ = features.components(replace(study, statistics=unit), ["language", "vision_pooled"], rows, rows, 8, seed=0)
    assert same == pytest.approx(both, abs=1e-3)


def test_the_choice_is_by_validation_alone(study):
    found = classifiers.Fits(study)
    right = np.full((len(study.held_out), 4), np.log(0.1))
    right[np.arange(len(right)), found.truth] = np.log(0.7)
    wrong = np.roll(right, 1, axis=1)
    validates = found.validates[:, None]
    assert validates.any() and not validates.all()
    candidates = [({"name": "test"}, np.where(validates, wrong, right)), ({"name": "both"}, right),
                  ({"name": "validation"}, np.where(validates, right, wrong))]  # fmt: skip
    found.choose("group", candidates, rows=7)
    choice = found.choices["group"]
    assert choice["setting"] == {"name": "both"}, "of equal ones the first"
    assert choice["validation_log_loss"] == pytest.approx(-np.log(0.7)) and choice["rows"] == 7
    assert [entry["validation_top1"] for entry in choice["tried"]] == [0, 1, 1]
    np.testing.assert_array_equal(found.groups["group"], right)


def test_new_places_count_half_in_the_choice_however_few_validate(study):
    """A third of the validation rows is of known places: by plain log loss the other candidate would be chosen."""
    found = classifiers.Fits(study)
    known = study.observations["kind"].to_numpy()[study.held_out] == "temporal"
    assert known[found.validates].mean() == pytest.approx(1 / 3, abs=0.05)

    def right(where, probability):
        share = np.where(where, probability, 0.1)[:, None]
        return np.log(np.where(np.arange(4) == found.truth[:, None], share, (1 - share) / 3))

    found.choose("group", [({"knows": "new"}, right(~known, 0.7)), ({"knows": "old"}, right(known, 0.8))], rows=1)
    choice = found.choices["group"]
    assert choice["setting"] == {"knows": "old"}
    assert choice["validation_balanced_log_loss"] == pytest.approx(-np.log([0.8, 0.1]).mean())
    plain = [entry["validation_log_loss"] for entry in choice["tried"]]
    assert plain[0] < plain[1] and choice["validation_log_loss"] == plain[1]


def test_rows_without_an_answer_are_nan_and_no_validation_is_said(study):
    found = classifiers.Fits(study)
    flat = np.full((len(study.held_out), 4), np.log(0.25))
    answered = np.arange(len(flat)) % 2 == 0
    found.choose("half", [({}, flat[answered])], rows=1, answered=answered)
    assert np.isnan(found.groups["half"][~answered]).all() and np.isfinite(found.groups["half"][answered]).all()
    found.choose("none", [({}, flat[~found.validates])], rows=1, answered=~found.validates)
    assert "none" not in found.groups and "no validation row" in found.choices["none"]["left_out"]


def test_a_setting_of_places_fitted_again_alone_answers_alike():
    generator = np.random.default_rng(0)
    degrees = np.hstack([generator.uniform([27, -82], [28, -81], (80, 2)), generator.normal(size=(80, 2))])
    codes, more = generator.integers(3, size=60), {"seed": 0, "threads": 1}
    for columns, names in ((2, {"neighbours", "prior_share"}), (4, {"neighbours", "prior_share", "season_km"})):
        known, query = Examples(degrees[:60, :columns], codes, 3), degrees[60:, :columns]
        found = list(classifiers.places(known, query, neighbours=[1, 5], leaf=[5], **more))
        assert set(found[0][0]) == names
        setting, values = found[-1]
        assert setting == {"leaf": 5, "prior_share": classifiers.PRIOR_SHARES[-1]}
        shares = {"prior_share": classifiers.PRIOR_SHARES[-1:]}
        _, alone = only(classifiers.places(known, query, leaf=[5], **shares, **more))
        np.testing.assert_array_equal(values, alone)


def test_distances_are_kilometres():
    points = to_cartesian(np.array([28.0, 28.0, 28.0]), np.array([-81.0, -81.001, -81.1]))
    _, values = only(classifiers.near_neighbours(Examples(points, np.arange(3), 3), points[:1], [3], [0.01]))
    votes = 1 / (np.array([0, 0.0983, 9.83]) + classifiers.NEAR_KM)
    assert np.exp(values[0]) == pytest.approx(0.99 * votes / votes.sum() + 0.01 / 3, rel=2e-3)
