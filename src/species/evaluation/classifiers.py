"""Cheap classifiers - majority, neighbours, forests, logistic regression - and the choice among them on validation.

Every classifier yields pairs of a setting and natural log-probabilities (Q, C) over all C classes. The prior, the
classes' frequencies in training, is mixed into all of them, so that a class which got no vote is unlikely and not
impossible: with a share that is chosen too where votes are few, and as one row more beside a regression's.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from src.core.evaluation import classification_scores
from src.core.geo import distances
from src.species.data.task import Task
from src.species.params import Baselines

Candidates = Iterable[tuple[dict, np.ndarray]]

NEAR_KM = 0.1  # votes weigh 1 / (distance + this), for nearer records may well be of one spot
PRIOR_SHARES = (0.02, 0.1, 0.3, 0.5)  # of the prior in a vote of neighbours or trees, chosen on validation
TREES = 100
TREES_AT_ONCE = 10  # held in memory: a tree keeps a share per class in every node
QUERIES_AT_ONCE = 1024
STEPS = 300  # of L-BFGS at most
SLOPE = 3e-3  # at which L-BFGS stops: below it, validation gained nothing and time doubled
WIDEST_DAYS = 31  # an interval of dates up to this has a season
SEASON_KM = (3.0, 10.0, 30.0, 100.0)  # radius of the circle of seasons: twice as far are two records half a year apart
YEAR_DAYS = 365.2425


class Fits:
    """What was chosen so far: a group of log-probabilities (H, C) for `Task.held_out` and a choice for JSON each.

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

        Known and new places count half each (`Task.balance`), of the rows whose species trained.

        Args:
            candidates: settings with (A, C) log-probabilities for the A held-out rows that are answered.
            rows: how many trained.
            answered: (H,) bool; all where None.
        """
        answered = np.ones(len(self.truth), bool) if answered is None else answered
        checks, truth = self.validates[answered], self.truth[answered]
        known = np.flatnonzero(checks & (truth >= 0))
        if not len(known):
            self.leave_out(name, "no validation row that it could answer is of a trained species")
            return
        weights = self.task.balance(self.task.held_out[answered][known])
        best, least, tried = None, np.inf, []
        for setting, values in tqdm(candidates, desc=name, unit="setting", leave=False):
            score = classification_scores.scores(values[checks], truth[checks])
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

    def choose_on_features(
        self,
        names: tuple[str, str],
        train: np.ndarray,
        codes: np.ndarray,
        query: np.ndarray,
        section: Baselines,
        answered: np.ndarray,
    ) -> None:
        """Choose neighbours by angle and logistic regression, called `names`, with the settings of `section`.

        Args:
            train, query: (n, F) features of training rows and (A, F) of the held-out rows that are answered.
            codes: (n,) int64 class of each training row.
            answered: (H,) bool.
        """
        prior, (knn, regression) = class_prior(codes, self.classes), names
        self.choose(knn, like_neighbours(train, codes, query, section.neighbours, prior), len(train), answered)
        penalties = section.inverse_penalties
        self.choose(regression, logistic(train, codes, query, penalties, prior), len(train), answered)

    def leave_out(self, name: str, reason: str) -> None:
        """Say why a group is absent."""
        self.choices[name] = {"left_out": reason}


def class_prior(codes: np.ndarray, classes: int) -> np.ndarray:
    """(C,) frequencies of codes (n,) in 0 to C - 1, each class counted once more than it occurs (Laplace)."""
    return (np.bincount(codes, minlength=classes) + 1) / (len(codes) + classes)


def with_prior(shares: np.ndarray, share: float, prior: np.ndarray) -> np.ndarray:
    """Logarithm of (Q, C) shares mixed with so large a share of the (C,) prior."""
    return np.log((1 - share) * shares + share * prior)


def majority(queries: int, prior: np.ndarray) -> Candidates:
    """The prior for every query."""
    yield {}, np.tile(np.log(prior), (queries, 1))


def near_neighbours(
    train: np.ndarray,
    codes: np.ndarray,
    query: np.ndarray,
    neighbours: Sequence[int],
    prior: np.ndarray,
    prior_shares: Sequence[float] = PRIOR_SHARES,
) -> Candidates:
    """k nearest neighbours, whose votes weigh 1 / (distance + NEAR_KM).

    Args:
        train, query: (n, F) and (Q, F) km, Earth-centred coordinates (`geo.to_cartesian`) for example.
        codes: (n,) int64 class of each training row.
        neighbours: every k; one above n is n.
        prior: (C,) of `class_prior`.
        prior_shares: every share of it.
    """
    counts = _at_most(neighbours, len(train))
    distance, found = cKDTree(train).query(query, k=np.arange(1, max(counts) + 1))
    yield from _votes(codes[found], 1 / (distance + NEAR_KM), counts, prior, prior_shares)


def like_neighbours(
    train: np.ndarray,
    codes: np.ndarray,
    query: np.ndarray,
    neighbours: Sequence[int],
    prior: np.ndarray,
    prior_shares: Sequence[float] = PRIOR_SHARES,
) -> Candidates:
    """k neighbours of the least angle (cosine), whose votes weigh alike. Arguments as of `near_neighbours`."""
    counts = _at_most(neighbours, len(train))
    found = _least_angle(_unit(train), _unit(query), max(counts))
    yield from _votes(codes[found], np.ones(found.shape), counts, prior, prior_shares)


def forest(
    train: np.ndarray,
    codes: np.ndarray,
    query: np.ndarray,
    leaves: Sequence[int],
    prior: np.ndarray,
    prior_shares: Sequence[float] = PRIOR_SHARES,
    *,
    seed: int,
    threads: int,
) -> Candidates:
    """Random forests (Breiman 2001) with every least number of rows in a leaf. Arguments as of `near_neighbours`."""
    for least in leaves:
        shares = np.zeros((len(query), len(prior)))
        for first in range(0, TREES, TREES_AT_ONCE):
            state = int(np.random.default_rng([seed, first]).integers(2**31))
            trees = RandomForestClassifier(TREES_AT_ONCE, min_samples_leaf=least, random_state=state, n_jobs=threads)
            trees.fit(train, codes)
            # One job: with more, the trees' shares are summed in the order in which threads finish.
            trees.set_params(n_jobs=1)
            shares[:, trees.classes_] += trees.predict_proba(query) * TREES_AT_ONCE / TREES
        for share in prior_shares:
            yield {"leaf": least, "prior_share": share}, with_prior(shares, share, prior)


def places(
    train: np.ndarray,
    codes: np.ndarray,
    query: np.ndarray,
    prior: np.ndarray,
    *,
    neighbours: Sequence[int] = (),
    leaves: Sequence[int] = (),
    prior_shares: Sequence[float] = PRIOR_SHARES,
    seed: int,
    threads: int,
) -> Candidates:
    """What knows the place, or place and season: neighbours in km, then forests. Other arguments as of both.

    Args:
        train, query: (n, 2) and (Q, 2) latitude and longitude in degrees, or (n, 4) and (Q, 4) with `season` beside
            them, of which neighbours see a circle of every radius in SEASON_KM.
    """
    if neighbours:
        for radius in SEASON_KM if train.shape[1] == 4 else (0.0,):
            ours, theirs = (
                np.hstack([distances.to_cartesian(*at[:, :2].T), radius * at[:, 2:]]) for at in (train, query)
            )
            beside = {"season_km": radius} if radius else {}
            near = near_neighbours(ours, codes, theirs, neighbours, prior, prior_shares)
            yield from ((setting | beside, values) for setting, values in near)
    yield from forest(train, codes, query, leaves, prior, prior_shares, seed=seed, threads=threads)


def logistic(
    train: np.ndarray, codes: np.ndarray, query: np.ndarray, inverse_penalties: Sequence[float], prior: np.ndarray
) -> Candidates:
    """Multinomial logistic regression with every inverse penalty C of scikit-learn, (n, F) and (Q, F) features.

    "converged" says whether L-BFGS came to its end within STEPS. Classes without a training row get the prior alone.
    """
    present = np.unique(codes)
    for inverse in inverse_penalties:
        shares, converged = np.zeros((len(query), len(prior))), True
        if len(present) == 1:
            shares[:, present] = 1.0
        else:
            model = LogisticRegression(C=inverse, max_iter=STEPS, tol=SLOPE).fit(train, codes)
            shares[:, model.classes_] = model.predict_proba(query)
            converged = int(model.n_iter_[0]) < STEPS
        yield {"inverse_penalty": inverse, "converged": converged}, with_prior(shares, 1 / (len(train) + 1), prior)


def season(observations: pd.DataFrame) -> np.ndarray:
    """Sine and cosine of the middle day's angle in the year, (N, 2); NaN where dates are wider than WIDEST_DAYS."""
    first, last = (observations[name].to_numpy(np.float64) for name in ("first_day", "last_day"))
    angle = 2 * np.pi * ((first + last) / 2 % YEAR_DAYS) / YEAR_DAYS
    angle[last - first > WIDEST_DAYS] = np.nan
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)


def _votes(
    codes: np.ndarray, weights: np.ndarray, counts: Sequence[int], prior: np.ndarray, prior_shares: Sequence[float]
) -> Candidates:
    """Votes of the first 1 to K neighbours, nearest first, from codes and weights (Q, K)."""
    for count in counts:
        shares = _shares(codes[:, :count], weights[:, :count], len(prior))
        for share in prior_shares:
            yield {"neighbours": count, "prior_share": share}, with_prior(shares, share, prior)


def _at_most(neighbours: Sequence[int], rows: int) -> list[int]:
    return sorted({min(count, rows) for count in neighbours})


def _unit(values: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(length > 0, length, 1)


def _least_angle(train: np.ndarray, query: np.ndarray, count: int) -> np.ndarray:
    """(Q, count) rows of `train`, nearest first; of equally near ones the first. Both are unit vectors."""
    found = np.empty((len(query), count), np.int64)
    for start in range(0, len(query), QUERIES_AT_ONCE):
        far = -(query[start : start + QUERIES_AT_ONCE] @ train.T)
        near = np.sort(np.argpartition(far, count - 1, axis=1)[:, :count], axis=1)
        order = np.argsort(np.take_along_axis(far, near, axis=1), axis=1, kind="stable")
        found[start : start + QUERIES_AT_ONCE] = np.take_along_axis(near, order, axis=1)
    return found


def _shares(codes: np.ndarray, weights: np.ndarray, classes: int) -> np.ndarray:
    """Share of each query's votes for each class, (Q, C), from codes and weights (Q, k)."""
    cells = np.arange(len(codes))[:, None] * classes + codes
    votes = np.bincount(cells.ravel(), weights.ravel(), minlength=len(codes) * classes).reshape(-1, classes)
    return votes / votes.sum(axis=1, keepdims=True)
