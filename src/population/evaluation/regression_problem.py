"""The regression problem that every baseline solves: labels of a split, and features of their tiles."""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import pandas as pd
from tqdm import tqdm

from src.core.baselines import regression
from src.core.baselines.regression import RidgePath, tune
from src.core.data.tile_store import Store
from src.population.params import Params

HELD = ("validation", "test", "locked")
Predicted = tuple[np.ndarray | None, dict]
"""(M,) predictions of the held-out rows, None where the baseline is left out, and the choice for choices.json."""


class Problem:
    """Labels of a split, and what may be known of their rows.

    Args:
        labels: every label row; growth_rate is NaN where it must not be known, in test and locked rows.
        statistics: (C,) mean and standard deviation of the bands of training tiles.

    Attributes:
        rows: all labels but the buffer's; masks `train` and `held` (N,).
        y, checks: numbers of the training and of the held-out rows; of the latter only validation has any.
        features: `means`, (N, C) band means, and `all`, (N, F) band statistics, both with the columns of `context`;
            `covariates`, (N, K), where there are some.
        context: (N, K) the year, where there are several, and covariates.
        curves: kind of network -> its settings with the lines of its training; filled by `fit_network`.
    """

    def __init__(self, labels: pd.DataFrame, store: Store, statistics: tuple, facts: dict, params: Params):
        self.labels, self.store, self.statistics, self.facts, self.params = labels, store, statistics, facts, params
        self.budget, self.seed = params.baselines.budget, params.seed
        self.rows = rows = labels[labels.role != "buffer"].reset_index(drop=True)
        self.train, self.held = (rows.role == "train").to_numpy(), rows.role.isin(HELD).to_numpy()
        numbers = rows.growth_rate.to_numpy(np.float64)
        self.y, self.checks = numbers[self.train], numbers[self.held]
        covariates = params.data.covariate_columns
        self.context = rows[["year"] * (rows.year.nunique() > 1) + covariates].to_numpy(np.float64)
        summaries = regression.band_summaries(store, rows.tile.to_numpy(), min(store.height, store.width))
        self.features = {
            "means": np.hstack([summaries[:, 0], self.context]),
            "all": np.hstack([summaries.reshape(len(rows), -1), self.context]),
        }
        if covariates:
            self.features["covariates"] = rows[covariates].to_numpy(np.float64)
        self.curves: dict[str, list[dict]] = {}

    @cached_property
    def lacks(self) -> dict[str, str]:
        """Each need of a predictor that this problem does not meet, with the reason."""
        located = np.isfinite(self.rows[["lat", "lon"]].to_numpy(np.float64)).all()
        met = {
            "several years": (self.rows.year.nunique() > 1, "all labels are of one year"),
            "past labels": (self.facts["task"] == "next_year", "only split.task next_year knows a place's past"),
            "coordinates": (located, "a place has no coordinates"),
            "covariates": ("covariates" in self.features, "data.covariates is empty"),
        }
        return {need: reason for need, (there, reason) in met.items() if not there}

    @cached_property
    def past(self) -> pd.DataFrame:
        """`past_forecasts` of the held-out rows, from labels before the origin and at least `horizon` steps older."""
        names = {"year": "time", "growth_rate": "target"}
        known = self.labels[self.labels.role.isin(["train", "validation", "buffer"])].rename(columns=names)
        held = self.rows[self.held].rename(columns=names)
        limit = held.time - (self.facts["horizon"] - 1) * self.facts["step_years"]
        return regression.past_forecasts(known, held, np.minimum(limit, self.facts["origin"]).to_numpy())

    @cached_property
    def where(self) -> np.ndarray:
        """(N, 3) positions of the rows on the unit sphere."""
        return regression.unit_vectors(self.rows.lat.to_numpy(), self.rows.lon.to_numpy())

    @cached_property
    def paths(self) -> dict[str, RidgePath]:
        """The decomposition of each of `features` over training rows."""
        return {name: RidgePath(values[self.train]) for name, values in self.features.items()}

    @cached_property
    def images(self) -> tuple:
        """Images of the distinct tiles, and which of them is each row's (N,)."""
        from src.core.baselines.tile_networks import tile_images

        tiles, of_row = np.unique(self.rows.tile, return_inverse=True)
        return tile_images(self.store, tiles, *self.statistics), of_row

    def fixed(self, prediction: np.ndarray, **facts) -> Predicted:
        """A baseline that leaves nothing to choose; `facts` go beside its choice."""
        prediction, choice = tune([{}], lambda _: prediction, self.checks)
        return prediction, choice | facts

    def tuned(self, settings: Sequence[dict], features: np.ndarray, make: Callable) -> Predicted:
        """The best of the scikit-learn regressors `make(setting)` on `features` of all rows."""

        def predict(setting: dict) -> np.ndarray:
            return make(setting).fit(features[self.train], self.y).predict(features[self.held])

        return tune(tqdm(settings, desc="settings", unit="fit", leave=False), predict, self.checks)
