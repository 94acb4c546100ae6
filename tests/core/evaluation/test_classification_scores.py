import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import t
from sklearn.metrics import accuracy_score, f1_score, log_loss, top_k_accuracy_score

from src.core.evaluation import classification_scores, jackknife

CLASSES = 10


def clustered(seed, units, icc, classes=CLASSES, rows=20):
    """Log-probabilities, classes and units of rows whose classes and whose ease a unit's rows have in common.

    `icc` is the intraclass correlation of the ease; the classes of a unit are Dirichlet about a long-tailed whole.
    """
    generator = np.random.default_rng(seed)
    share = 1 / np.arange(1, classes + 1)
    share /= share.sum()
    unit = np.repeat(np.arange(units), np.maximum(1, generator.poisson(rows, units)))
    n = len(unit)
    truth = generator.choice(classes, n, p=share)
    if icc:
        own = generator.dirichlet(share * classes * (1 / icc - 1) / 2, units).cumsum(axis=1)
        truth = np.minimum((generator.random(n)[:, None] > own[unit]).sum(axis=1), classes - 1)
    ease = np.sqrt(icc) * generator.normal(size=units)[unit] + np.sqrt(1 - icc) * generator.normal(size=n)
    logits = 0.5 * np.log(share) + 0.5 * generator.gumbel(size=(n, classes))
    logits[np.arange(n), truth] += 1.8 + ease
    return log_softmax(1.5 * logits, axis=1), truth, unit


def with_unknown(seed=0, units=14, icc=0.3):
    """The same with rows of classes that were never trained: truth -1, species 90 to 92."""
    values, truth, unit = clustered(seed, units, icc)
    generator = np.random.default_rng(seed)
    species = truth.copy()
    gone = generator.random(len(truth)) < 0.15
    species[gone] = 90 + generator.integers(3, size=gone.sum())
    return values, np.where(gone, -1, truth), unit, species


def answers(values, truth, truth_class=None, bins=classification_scores.BINS):
    """Answers; those never trained are one class, unless classes are named."""
    return classification_scores.Answers(values, truth, truth if truth_class is None else truth_class, bins)


def scores(*args, **options):
    return answers(*args, **options).scores()


def score_intervals(values, truth, unit, truth_class=None):
    return classification_scores.score_intervals(answers(values, truth, truth_class), {"regions": unit})


def paired_difference(values, other, truth, unit, truth_class=None):
    ours, theirs = (answers(each, truth, truth_class) for each in (values, other))
    return classification_scores.paired_difference(ours, theirs, {"regions": unit})


def expected_error(values, truth, bins):
    """Guo et al. 2017, equation 3, a bin at a time."""
    confidence, right = np.exp(values.max(axis=1)), values.argmax(axis=1) == truth
    total = 0.0
    for low, high in zip(np.arange(bins) / bins, np.arange(1, bins + 1) / bins, strict=True):
        here = (confidence > low) & (confidence <= high)
        if here.any():
            total += here.mean() * abs(right[here].mean() - confidence[here].mean())
    return total


def reference(values, truth, species, bins=classification_scores.BINS):
    """The scores by scikit-learn and the definition."""
    known = truth >= 0
    labels = np.unique(species)
    five = top_k_accuracy_score(truth[known], values[known], k=5, labels=np.arange(values.shape[1]))
    return {
        "top1": accuracy_score(truth, values.argmax(axis=1)),
        "top5": five * known.mean(),
        "macro_f1": f1_score(species, values.argmax(axis=1), labels=labels, average="macro", zero_division=0),
        "log_loss": log_loss(truth[known], np.exp(values[known]), labels=np.arange(values.shape[1])),
        "calibration_error": expected_error(values[known], truth[known], bins),
    }


def test_by_hand():
    probability = np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.3, 0.6], [0.6, 0.3, 0.1]])
    found = scores(np.log(probability), np.array([0, 1, 2, -1]), bins=2)
    assert found["top1"] == 0.5 and found["top5"] == 0.75
    # F1 of class 0: 1 right, guessed 3 times; of 1: never guessed; of 2: always right; of the untrained: 0
    assert found["macro_f1"] == pytest.approx((2 / 4 + 0 + 1 + 0) / 4)
    assert found["log_loss"] == pytest.approx(-np.log([0.7, 0.4, 0.6]).mean())
    # 0.5 belongs to the lower bin, where it is wrong; above, 0.7 and 0.6 are right
    assert found["calibration_error"] == pytest.approx((0.5 + 0.3 + 0.4) / 3)
    assert (found["n"], found["n_unknown"]) == (4, 1)


def test_points_are_those_of_scikit_learn_and_the_definition():
    for seed in range(3):
        values, truth, _, species = with_unknown(seed)
        found = scores(values, truth, species)
        for name, expected in reference(values, truth, species).items():
            assert found[name] == pytest.approx(expected, abs=1e-12), name
        assert found["n_unknown"] == np.sum(truth < 0) > 0


def test_untrained_species_count_each_as_a_class():
    values, truth, _, species = with_unknown()
    one_class = scores(values, truth)["macro_f1"]
    three = scores(values, truth, species)["macro_f1"]
    present = len(np.unique(truth[truth >= 0]))
    assert three == pytest.approx(one_class * (present + 1) / (present + 3))


def test_of_equal_probabilities_the_first_is_named():
    flat = np.full((7, 7), np.log(1 / 7))
    found = scores(flat, np.arange(7))
    assert found["top1"] == pytest.approx(1 / 7) and found["top5"] == pytest.approx(5 / 7)


def test_intervals_are_those_of_leaving_rows_out():
    values, truth, unit, species = with_unknown(seed=4)
    order = np.random.default_rng(1).permutation(len(truth))
    values, truth, unit, species = values[order], truth[order], unit[order], species[order]
    found = score_intervals(values, truth, unit, species)
    size = np.unique(unit, return_counts=True)[1]
    reach = t.ppf(0.975, jackknife.effective_units(size) - 1)
    whole = reference(values, truth, species)
    parts = [reference(values[rest], truth[rest], species[rest]) for rest in (unit != u for u in np.unique(unit))]
    for name in ("top1", "top5", "macro_f1", "log_loss"):
        column = np.array([part[name] for part in parts])
        error = np.sqrt((len(column) - 1) * column.var())
        bounds = [whole[name] - reach * error, whole[name] + reach * error]
        assert [found[f"{name}_low"], found[f"{name}_high"]] == pytest.approx(bounds, abs=1e-9), name
    assert found["calibration_error"] is not None and found["calibration_error_low"] is None
    assert found["method"].startswith("jackknife-t over 14 regions, which count as 1")
    assert found["n_units"] == {"regions": 14}


def test_the_wider_of_two_kinds_is_kept_and_named():
    values, truth, unit = clustered(0, 20, 0.9)
    alone = np.arange(len(truth))
    wide, narrow = (score_intervals(values, truth, names) for names in (unit, alone))
    both = classification_scores.score_intervals(answers(values, truth), {"dates": alone, "regions": unit})
    assert wide["top1_high"] - wide["top1_low"] > 1.5 * (narrow["top1_high"] - narrow["top1_low"])
    assert [both["top1_low"], both["top1_high"]] == [wide["top1_low"], wide["top1_high"]]
    assert "top1" in both["method"] and "over 20 regions" in both["method"]


def test_too_few_units_of_either_kind_give_none_and_say_so():
    values, truth, unit = clustered(0, 20, 0.3)
    few = unit % 9
    for units in ({"regions": few}, {"regions": few, "dates": unit}):
        found = classification_scores.score_intervals(answers(values, truth), units)
        assert found["method"] == "none: 9 regions, expected at least 10"
        assert found["top1_low"] is found["log_loss_high"] is None and found["top1"] is not None


def test_no_spread_is_no_certainty_and_shares_stay_shares():
    _, truth, unit = clustered(0, 20, 0.3)
    perfect = np.log(np.full((len(truth), CLASSES), 0.001))
    perfect[np.arange(len(truth)), truth] = np.log(1 - 0.001 * (CLASSES - 1))
    found = score_intervals(perfect, truth, unit)
    assert found["top1"] == 1 and found["top1_low"] is found["top1_high"] is None
    perfect[0] = np.roll(perfect[0], 1)
    found = score_intervals(perfect, truth, unit)
    assert found["top1_low"] < found["top1"] < 1 and found["top1_high"] == 1


def test_a_paired_difference_knows_what_both_share():
    values, truth, unit, species = with_unknown(seed=1, units=20)
    worse = log_softmax(values + 0.6 * np.random.default_rng(0).gumbel(size=values.shape), axis=1)
    found = paired_difference(values, worse, truth, unit, species)
    ours, theirs = (score_intervals(v, truth, unit, species) for v in (values, worse))
    for name in classification_scores.DIFFERENCES:
        assert found[name] == pytest.approx(ours[name] - theirs[name])
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]
    assert found["log_loss_high"] < 0  # seen as better, though the intervals of both overlap
    assert ours["log_loss_high"] > theirs["log_loss_low"]
    same = paired_difference(values, values, truth, unit)
    assert same["top1"] == 0 and same["top1_low"] is None


def test_the_reliability_table_adds_up_to_the_calibration_error():
    values, truth, _, species = with_unknown()
    table = classification_scores.reliability_table(answers(values, truth, bins=8))
    score = scores(values, truth, species, bins=8)
    assert table["count"].sum() == score["n"] - score["n_unknown"]
    gaps = (table["accuracy"] - table["confidence"]).abs() * table["count"]
    assert gaps.sum() / table["count"].sum() == pytest.approx(score["calibration_error"])
    assert ((table["low"] < table["confidence"]) & (table["confidence"] <= table["high"])).all()


def test_what_a_calibrated_model_scores_by_chance():
    generator = np.random.default_rng(0)
    values = log_softmax(2 * generator.gumbel(size=(200, 5)), axis=1)
    draws = []
    for _ in range(200):
        truth = (generator.random(200)[:, None] > np.exp(values).cumsum(axis=1)).sum(axis=1).clip(max=4)
        draws.append(scores(values, truth)["calibration_error"])
    expected = scores(values, truth)["calibration_error_if_calibrated"]
    assert expected == pytest.approx(np.mean(draws), rel=0.05) and expected > 0.05


def test_no_rows_and_what_is_no_probability():
    empty = score_intervals(np.zeros((0, 3)), np.zeros(0, np.int64), np.zeros(0))
    assert empty["n"] == 0 and empty["top1"] is None and empty["top1_low"] is None
    assert classification_scores.reliability_table(answers(np.zeros((0, 3)), np.zeros(0, np.int64))).empty
    flat = np.log(np.full((2, 4), 0.25))
    for values, truth in ((flat * np.nan, [0, 1]), (flat, [0, 4]), (flat, [0, -2]), (flat + 1, [0, 1]), (flat, [0])):
        with pytest.raises(ValueError, match="expected"):
            scores(values, np.array(truth))


@pytest.mark.slow
@pytest.mark.parametrize("icc", [0.0, 0.3])
@pytest.mark.parametrize("units", [10, 20, 50])
def test_intervals_cover(units, icc):
    """Share of the intervals of 300 draws that hold the population's scores; few classes, so all are in a draw."""
    values, truth, _ = clustered(99, 20_000, icc)
    whole = scores(values, truth)
    other = log_softmax(values + 0.7 * np.random.default_rng(5).gumbel(size=values.shape), axis=1)
    difference = whole["top1"] - scores(other, truth)["top1"]
    covered = {name: [] for name in ("top1", "macro_f1", "log_loss", "paired")}
    for seed in range(300):
        values, truth, unit = clustered(seed, units, icc)
        noise = np.random.default_rng([seed, 5]).gumbel(size=values.shape)
        found = score_intervals(values, truth, unit)
        worse = log_softmax(values + 0.7 * noise, axis=1)
        paired = paired_difference(values, worse, truth, unit)
        for name in ("top1", "macro_f1", "log_loss"):
            covered[name].append(found[f"{name}_low"] <= whole[name] <= found[f"{name}_high"])
        covered["paired"].append(paired["top1_low"] <= difference <= paired["top1_high"])
    shares = {name: float(np.mean(values)) for name, values in covered.items()}
    print(units, icc, shares)
    assert all(0.88 <= share <= 0.99 for share in shares.values()), shares
