"""Closed-form and convex classifiers: neighbours, forests and logistic regression, and the choice among their settings.

Each yields candidates: pairs of a setting and natural log-probabilities (Q, C) over all C classes. The prior, which is
the classes' frequencies in training, is mixed into all of them, so that a class without a vote is unlikely and not
impossible. Where votes are few the prior's share is chosen too; beside a regression it counts as one more row.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from sklearn.base import ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize
from tqdm import tqdm

from src.core.evaluation.classification_scores import Answers
from src.core.geo import distances
from src.species.data.task import Task

Candidates = Iterable[tuple[dict, np.ndarray]]

NEAR_KM = 0.1  # votes weigh 1 / (distance + this), for nearer records may well be of one spot
PRIOR_SHARES = (0.02, 0.1, 0.3, 0.5)  # of the prior in a vote of neighbours or trees, chosen on validation
TREES = 100
TREES_AT_ONCE = 10  # held in memory: a tree keeps a share per class in every node
STEPS = 300  # of L-BFGS at most
SLOPE = 3e-3  # at which L-BFGS stops: below it, validation gained nothing and time doubled
WIDEST_DAYS = 31  # an interval of dates up to this has a season
SEASON_KM = (3.0, 10.0, 30.0, 100.0)  # radius of the circle of seasons; half a year is its diameter
YEAR_DAYS = 365.2425


@dataclass(frozen=True)
class Examples:
    """Training rows: vectors (n, F), codes (n,) int64 in 0 to C - 1, and the number of classes C."""

    vectors: np.ndarray
    codes: np.ndarray
    classes: int

    @property
    def prior(self) -> np.ndarray:
        """(C,) frequencies of the codes, each class counted once more than it occurs (Laplace)."""
        return (np.bincount(self.codes, minlength=self.classes) + 1) / (len(self.codes) + self.classes)


class Fits:
    """Predictors chosen so far, each with log-probabilities (H, C) for `Task.held_out` and a choice for JSON.

    Attributes:
        groups: name -> (H, C) log-probabilities, NaN where there is no answer.
        choices: name -> setting, validation_balanced_log_loss, by which it was chosen, validation_log_loss,
            validation_top1, rows (that trained), and all that was tried; or left_out, the reason.
    """

    def __init__(self, task: Task):
        self.task = task
        self.classes = len(task.classes)
        self.truth = task.targets(task.held_out)
        self.validates = np.isin(task.held_out, task.rows("validation"))
        self.groups: dict[str, np.ndarray] = {}
        self.choices: dict[str, dict] = {}

    def choose(self, name: str, candidates: Candidates, rows: int, answered: np.ndarray | None = None) -> None:
        """Keep the candidate with the least balanced log loss on validation; of equal ones the first.

        Known and new places count half each (`Task.balance`), of the rows whose species trained. The candidates are
        of the held-out rows that are `answered`, (H,) bool, of all where None; `rows` is how many trained.
        """
        answered = np.ones(len(self.truth), bool) if answered is None else answered
        checks, truth = self.validates[answered], self.truth[answered]
        known = np.flatnonzero(checks & (truth >= 0))
        if not len(known):
            self.choices[name] = {"left_out": "no validation row that it could answer is of a trained species"}
            return
        weights = self.task.balance(self.task.held_out[answered][known])
        best, least, tried = None, np.inf, []
        for setting, values in tqdm(candidates, desc=name, unit="setting", leave=False):
            score = Answers(values[checks], truth[checks], truth[checks]).scores()
            balanced = float(np.average(-values[known, truth[known]], weights=weights))
            found = {"validation_balanced_log_loss": balanced}
            found |= {"validation_log_loss": score["log_loss"], "validation_top1": score["top1"]}
            tried.append(setting | found)
            if balanced < least:
                best, least = (setting, values, found), balanced
        setting, values, found = best
        self.groups[name] = np.full((len(self.truth), self.classes), np.nan)
        self.groups[name][answered] = values
        self.choices[name] = {"setting": setting} | found | {"rows": rows, "tried": tried}


def majority(known: Examples, query: np.ndarray) -> Candidates:
    """The prior for every query."""
    yield {}, np.tile(np.log(known.prior), (len(query), 1))


def near_neighbours(
    known: Examples, query: np.ndarray, neighbours: Sequence[int], prior_share: Sequence[float] = PRIOR_SHARES
) -> Candidates:
    """k nearest neighbours, whose votes weigh 1 / (distance + NEAR_KM), for every k of `neighbours` (n in place of a
    larger one) and every `prior_share`.

    Vectors, (Q, F) of the query, are in km, Earth-centred coordinates (`distances.to_cartesian`) for example.
    """
    # the tree, because distances from matrix products are wrong by centimetres at the radius of the Earth
    how = {"weights": lambda km: 1 / (km + NEAR_KM), "algorithm": "kd_tree"}
    return _neighbours(known, query, neighbours, prior_share, **how)


def like_neighbours(
    known: Examples, query: np.ndarray, neighbours: Sequence[int], prior_share: Sequence[float] = PRIOR_SHARES
) -> Candidates:
    """k nearest neighbours by cosine, with one vote each. Arguments as of `near_neighbours`."""
    known = replace(known, vectors=normalize(known.vectors))  # of unit vectors the nearest has the least angle
    # not weights="uniform", for which scikit-learn has a slower search
    return _neighbours(known, normalize(query), neighbours, prior_share, weights=np.ones_like)


def forest(
    known: Examples,
    query: np.ndarray,
    leaf: Sequence[int],
    prior_share: Sequence[float] = PRIOR_SHARES,
    *,
    seed: int,
    threads: int,
) -> Candidates:
    """Random forests (Breiman 2001) with every least number of rows in a leaf. Arguments as of `near_neighbours`."""
    for least in leaf:
        shares = np.zeros((len(query), known.classes))
        for first in range(0, TREES, TREES_AT_ONCE):
            state = int(np.random.default_rng([seed, first]).integers(2**31))
            trees = RandomForestClassifier(TREES_AT_ONCE, min_samples_leaf=least, random_state=state, n_jobs=threads)
            trees.fit(known.vectors, known.codes)
            # One job: with more, the trees' shares are summed in the order in which threads finish.
            trees.set_params(n_jobs=1)
            shares += _shares(trees, query, known.classes) * TREES_AT_ONCE / TREES
        for share in prior_share:
            yield {"leaf": least, "prior_share": share}, with_prior(shares, share, known.prior)


def places(
    known: Examples,
    query: np.ndarray,
    *,
    neighbours: Sequence[int] = (),
    leaf: Sequence[int] = (),
    prior_share: Sequence[float] = PRIOR_SHARES,
    seed: int,
    threads: int,
) -> Candidates:
    """Classifiers of the place, or of place and season: neighbours in km, then forests. Other arguments as of both.

    Vectors are (Q, 2) latitude and longitude in degrees, or (Q, 4) with `season` beside them, of which neighbours see a
    circle of every radius in SEASON_KM.
    """
    for radius in SEASON_KM if query.shape[1] == 4 else (0.0,):
        ours, theirs = (
            np.hstack([distances.to_cartesian(*at[:, :2].T), radius * at[:, 2:]]) for at in (known.vectors, query)
        )
        beside = {"season_km": radius} if radius else {}
        near = near_neighbours(replace(known, vectors=ours), theirs, neighbours, prior_share)
        yield from ((setting | beside, values) for setting, values in near)
    yield from forest(known, query, leaf, prior_share, seed=seed, threads=threads)


def logistic(known: Examples, query: np.ndarray, inverse_penalty: Sequence[float]) -> Candidates:
    """Multinomial logistic regression with every inverse penalty C of scikit-learn.

    "converged" says whether L-BFGS came to its end within STEPS. Classes without a training row get the prior alone.
    """
    single = len(np.unique(known.codes)) == 1  # of which scikit-learn fits no regression
    for inverse in inverse_penalty:
        model = DummyClassifier() if single else LogisticRegression(C=inverse, max_iter=STEPS, tol=SLOPE)
        shares = _shares(model.fit(known.vectors, known.codes), query, known.classes)
        setting = {"inverse_penalty": inverse, "converged": single or int(model.n_iter_[0]) < STEPS}
        yield setting, with_prior(shares, 1 / (len(known.codes) + 1), known.prior)


def season(observations: pd.DataFrame) -> np.ndarray:
    """Sine and cosine of the middle day's angle in the year, (N, 2); NaN where dates are wider than WIDEST_DAYS."""
    first, last = (observations[name].to_numpy(np.float64) for name in ("first_day", "last_day"))
    angle = 2 * np.pi * ((first + last) / 2 % YEAR_DAYS) / YEAR_DAYS
    angle[last - first > WIDEST_DAYS] = np.nan
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)


def with_prior(shares: np.ndarray, share: float, prior: np.ndarray) -> np.ndarray:
    """Logarithm of (Q, C) shares mixed with the (C,) prior, whose weight is `share`."""
    return np.log((1 - share) * shares + share * prior)


def _neighbours(
    known: Examples, query: np.ndarray, neighbours: Sequence[int], prior_share: Sequence[float], **how
) -> Candidates:
    for count in sorted({min(count, len(known.codes)) for count in neighbours}):
        model = KNeighborsClassifier(count, **how).fit(known.vectors, known.codes)
        shares = _shares(model, query, known.classes)
        for share in prior_share:
            yield {"neighbours": count, "prior_share": share}, with_prior(shares, share, known.prior)


def _shares(model: ClassifierMixin, query: np.ndarray, classes: int) -> np.ndarray:
    """(Q, C) probabilities of a fitted classifier, 0 for classes without a training row."""
    shares = np.zeros((len(query), classes))
    shares[:, model.classes_] = model.predict_proba(query)
    return shares
