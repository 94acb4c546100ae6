"""The baselines but for the networks: fitted on training labels, tuned on validation, predicting what is held out."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from sklearn.cross_decomposition import PLSRegression
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from tqdm import tqdm

from src.core.baselines import regression
from src.core.baselines.regression import RidgePath, spread, tune
from src.core.evaluation import conformal, permutation

HELD = ("validation", "test", "locked")
TREES = 300
PLACES_OF_A_PROCESS = 5000  # of a Gaussian process, whose memory grows with their square
PENALTY = (1e-3, 1e2)  # of ridge, a row: from next to none to all weights near zero
DECIMALS = 6  # of predictions
CV_FOLDS = 10  # of training places, for CV+


class Fits:
    """What every baseline is fitted on and what came of it: a column of `predictions` and an entry of `choices` each.

    Rows are those of `rows`: training, validation, test and locked labels, of which only the first two have a number.
    """

    def __init__(self, rows: pd.DataFrame, budget: int, seed: int):
        self.rows, self.budget, self.seed = rows, budget, seed
        self.train, self.held = (rows.role == "train").to_numpy(), rows.role.isin(HELD).to_numpy()
        self.labels = rows.growth_rate.to_numpy(np.float64)
        self.y, self.checks = self.labels[self.train], self.labels[self.held]
        self.predictions: dict[str, np.ndarray] = {}
        self.choices: dict[str, dict] = {}

    def tuned(self, name: str, settings: Sequence[dict], predict: Callable[[dict], np.ndarray]) -> None:
        """Keep the best of `predict(setting)` (M,), predictions of the held rows."""
        self.predictions[name], self.choices[name] = tune(settings, predict, self.checks)

    def fixed(self, name: str, prediction: np.ndarray, **facts) -> None:
        """A baseline that leaves nothing to choose; `facts` go beside its choice."""
        self.tuned(name, [{}], lambda _: prediction)
        self.choices[name] |= facts

    def fitted(self, name: str, settings: Sequence[dict], features: np.ndarray, make: Callable) -> None:
        """Tune a scikit-learn regressor, `make(setting)`, on features of all rows."""
        settings = tqdm(settings, desc=name, unit="fit", leave=False)
        self.tuned(
            name, settings, lambda setting: make(setting).fit(features[self.train], self.y).predict(features[self.held])
        )


def fit_places(fits: Fits) -> None:
    """Baselines that know when and where, and nothing of the tile."""
    rows, train, held, budget = fits.rows, fits.train, fits.held, fits.budget
    fits.fixed("mean", np.full(held.sum(), fits.y.mean()))
    if rows.year.nunique() > 1:
        year = rows.year.to_numpy()
        fits.fixed("year_mean", regression.year_means(fits.y, year[train], year[held]))
    fits.fitted(
        "province_year",
        spread(budget, penalty=(0.1, 100)),  # labels of a province that weigh as much as the mean of all
        rows[["province", "year"]].astype(str).to_numpy(),
        # A province or year that training lacks gets no effect.
        lambda setting: make_pipeline(
            OneHotEncoder(handle_unknown="ignore", sparse_output=False), Ridge(setting["penalty"])
        ),
    )
    if not np.isfinite(rows[["lat", "lon"]].to_numpy(np.float64)).all():
        fits.choices["latlon"] = fits.choices["gp"] = {"left_out": "a place has no coordinates"}
        return
    where = regression.unit_vectors(rows.lat.to_numpy(), rows.lon.to_numpy())
    neighbours = whole(spread(budget, neighbours=(1, min(100, train.sum()))))
    fits.fitted("latlon", neighbours, where, lambda setting: KNeighborsRegressor(setting["neighbours"]))
    points = len(np.unique(where[train], axis=0))
    if points > PLACES_OF_A_PROCESS:
        fits.choices["gp"] = {"left_out": f"{points} training places, at most {PLACES_OF_A_PROCESS} fit into memory"}
        return
    fits.tuned(
        "gp",
        spread(budget, length=(0.01, 0.5), noise=(0.1, 3)),  # 1 is 57 degrees, and the variance of the labels
        lambda setting: regression.gaussian_process(where[train], fits.y, where[held], **setting),
    )


def fit_pasts(fits: Fits, rows: pd.DataFrame, facts: dict) -> None:
    """Baselines on the place's own labels, those dated `horizon` steps before the row or more and before the origin."""
    known = rows[rows.role.isin(["train", "validation", "buffer"])]
    held = fits.rows[fits.held]
    limit = np.minimum(held.year - (facts["horizon"] - 1) * facts["step_years"], facts["origin"])
    past = regression.past_forecasts(known, held, limit.to_numpy())
    alone = int((past.labels == 0).sum())
    for name in ("previous_year", "place_mean", "place_trend"):
        fits.fixed(name, past[name].fillna(fits.y.mean()).to_numpy(), rows_without_past=alone)
    fits.choices["place_trend"]["rows_without_trend"] = int((past.labels == 1).sum())


def fit_ridges(fits: Fits, features: dict[str, np.ndarray], draws: int) -> dict[str, np.ndarray]:
    """Ridge, and the same on permuted labels, tuned anew in each draw -> draw -> (M,) predictions."""
    paths = {name: RidgePath(values[fits.train]) for name, values in features.items()}
    # Half of the budget on band means, half on all statistics.
    settings = [
        setting | {"features": tuple(features)[number % 2]}
        for number, setting in enumerate(spread(fits.budget, penalty=PENALTY))
    ]

    def predict(setting: dict, y: np.ndarray) -> np.ndarray:
        ridge = paths[setting["features"]].solve(y, setting["penalty"] * len(y))
        return ridge.predict(features[setting["features"]][fits.held])

    fits.tuned("ridge", settings, lambda setting: predict(setting, fits.y))
    null = {}
    for draw in tqdm(range(draws), desc="permutations", unit="draw", leave=False):
        labels = permutation.permute_roles(fits.rows, fits.seed, draw)
        y, checks = labels[fits.train], labels[fits.held]
        null[str(draw)], _ = tune(settings, lambda setting, y=y: predict(setting, y), checks)
    return null


def fit_covariates(fits: Fits, covariates: np.ndarray) -> None:
    """Ridge on the covariates of all rows alone."""
    path = RidgePath(covariates[fits.train])
    fits.tuned(
        "covariates",
        spread(fits.budget, penalty=PENALTY),
        lambda setting: path.solve(fits.y, setting["penalty"] * len(fits.y)).predict(covariates[fits.held]),
    )


def cross_fit_ridge(fits: Fits, features: dict[str, np.ndarray]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The chosen ridge without each fold of training places, for CV+ prediction intervals.

    Returns:
        sample, place, fold, residual of the training rows; and sample with a column for each fold's predictions of
        the held rows.
    """
    setting = fits.choices["ridge"]["setting"]
    values, rows = features[setting["features"]], fits.rows[fits.train].reset_index(drop=True)
    residual, fold, predictions = conformal.cross_fit(
        make_pipeline(StandardScaler(), Ridge(setting["penalty"] * len(rows))),
        values[fits.train],
        fits.y,
        rows.place.to_numpy(),
        values[fits.held],
        min(CV_FOLDS, rows.place.nunique()),
        fits.seed,
    )
    left_out = rows[["sample", "place"]].assign(fold=fold, residual=residual.round(DECIMALS))
    held = fits.rows.loc[fits.held, ["sample"]].reset_index(drop=True)
    return left_out, held.join(pd.DataFrame(predictions.T.round(DECIMALS)).rename(columns=str))


def fit_regressors(fits: Fits, features: np.ndarray) -> None:
    """Partial least squares, random forest (Breiman 2001) and gradient boosting on all statistics of the tile."""
    budget, seed = fits.budget, fits.seed
    most = min(20, *features.shape, fits.train.sum() - 1)
    fits.fitted("pls", whole(spread(budget, components=(1, most))), features, lambda s: PLSRegression(s["components"]))
    fits.fitted(
        "forest",
        whole(spread(budget, min_samples_leaf=(1, 20), max_features=(0.05, 0.5)), "min_samples_leaf"),
        features,
        # One job: with more, the trees' predictions are summed in the order in which threads finish.
        lambda setting: RandomForestRegressor(TREES, random_state=seed, n_jobs=1, **setting),
    )
    fits.fitted(
        "boosting",
        whole(spread(budget, learning_rate=(0.02, 0.2), max_leaf_nodes=(3, 31)), "max_leaf_nodes"),
        features,
        lambda setting: HistGradientBoostingRegressor(early_stopping=False, random_state=seed, **setting),
    )


def whole(settings: list[dict], *names: str) -> list[dict]:
    """`settings` with the numbers `names`, or all, rounded; those that become equal are tried once."""
    rounded = [
        {name: round(value) if name in (names or setting) else value for name, value in setting.items()}
        for setting in settings
    ]
    return [setting for number, setting in enumerate(rounded) if setting not in rounded[:number]]
