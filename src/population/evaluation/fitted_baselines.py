"""All baselines: fitted on training labels, tuned on validation, predicting every row that is held out."""

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
from src.core.baselines.regression import spread, tune
from src.core.evaluation import conformal, permutation
from src.core.stage import run
from src.population.evaluation.regression_problem import Predicted, Problem

TREES = 300
PLACES_OF_A_PROCESS = 5000  # of a Gaussian process, whose memory grows with their square
PENALTY = (1e-3, 1e2)  # of ridge, a row: from next to none to all weights near zero
DECIMALS = 6  # of predictions
CV_FOLDS = 10  # of training places, for CV+


def fit_mean(problem: Problem) -> Predicted:
    """The mean training label."""
    return problem.fixed(np.full(problem.held.sum(), problem.y.mean()))


def fit_year_mean(problem: Problem) -> Predicted:
    """The mean training label of the row's year; of all years where training has none of it."""
    year = problem.rows.year
    by_year = {value: problem.y[year[problem.train] == value].mean() for value in year[problem.train].unique()}
    return problem.fixed(year[problem.held].map(by_year).fillna(problem.y.mean()).to_numpy())


def fit_past(column: str, problem: Problem) -> Predicted:
    """A column of `Problem.past`, or the training mean where a place has no past."""
    past = problem.past
    facts = {"rows_without_past": int((past.labels == 0).sum())}
    if column == "trend":
        facts["rows_without_trend"] = int((past.labels == 1).sum())
    return problem.fixed(past[column].fillna(problem.y.mean()).to_numpy(), **facts)


def fit_province_year(problem: Problem) -> Predicted:
    """Effects of province and year, shrunk; a province or year that training lacks gets none."""
    return problem.tuned(
        spread(problem.budget, penalty=(0.1, 100)),  # labels of a province that weigh as much as the mean of all
        problem.rows[["province", "year"]].astype(str).to_numpy(),
        lambda setting: make_pipeline(
            OneHotEncoder(handle_unknown="ignore", sparse_output=False), Ridge(setting["penalty"])
        ),
    )


def fit_neighbours(problem: Problem) -> Predicted:
    """The mean of the nearest training labels."""
    settings = spread(problem.budget, neighbours=(1, min(100, len(problem.y))))
    return problem.tuned(settings, problem.where, lambda setting: KNeighborsRegressor(setting["neighbours"]))


def fit_gaussian_process(problem: Problem) -> Predicted:
    """A Gaussian process over positions (kriging); left out where there are too many for memory."""
    train, held = problem.where[problem.train], problem.where[problem.held]
    points = len(np.unique(train, axis=0))
    if points > PLACES_OF_A_PROCESS:
        return None, {"left_out": f"{points} training places, at most {PLACES_OF_A_PROCESS} fit into memory"}
    return tune(
        spread(problem.budget, length=(0.01, 0.5), noise=(0.1, 3)),  # 1 is 57 degrees, and the variance of the labels
        lambda setting: regression.gaussian_process(train, problem.y, held, **setting),
        problem.checks,
    )


def fit_ridge(
    problem: Problem, features: tuple[str, ...] = ("means", "all"), labels: np.ndarray | None = None
) -> Predicted:
    """Ridge on each of `features` in turn, with equal parts of the budget; `labels` (N,) replace the problem's own."""
    y, checks = (problem.y, problem.checks) if labels is None else (labels[problem.train], labels[problem.held])
    settings = spread(problem.budget, penalty=PENALTY)
    for number, setting in enumerate(settings):
        setting["features"] = features[number % len(features)]

    def predict(setting: dict) -> np.ndarray:
        ridge = problem.paths[setting["features"]].solve(y, setting["penalty"] * len(y))
        return ridge.predict(problem.features[setting["features"]][problem.held])

    return tune(settings, predict, checks)


def ridge_null(problem: Problem) -> pd.DataFrame:
    """Ridge on permuted labels, tuned anew in each draw: a column of held-out predictions for each."""
    rows, null = problem.rows, {}
    for draw in tqdm(range(problem.params.baselines.permutations), desc="permutations", unit="draw", leave=False):
        columns = (rows[name].to_numpy() for name in ("growth_rate", "place", "year", "role"))
        labels = permutation.permute_roles(*columns, problem.seed, draw)
        null[str(draw)], _ = fit_ridge(problem, labels=labels)
    return pd.DataFrame(null)


def cross_fit_ridge(problem: Problem, setting: dict) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ridge of `setting` without each fold of training places, for CV+ prediction intervals.

    Returns:
        sample, place, fold and residual of the training rows; a column of held-out predictions for each fold.
    """
    values, rows = problem.features[setting["features"]], problem.rows[problem.train].reset_index(drop=True)
    residual, fold, predictions = conformal.cross_fit(
        make_pipeline(StandardScaler(), Ridge(setting["penalty"] * len(rows))),
        values[problem.train],
        problem.y,
        rows.place.to_numpy(),
        values[problem.held],
        min(CV_FOLDS, rows.place.nunique()),
        problem.seed,
    )
    left_out = rows[["sample", "place"]].assign(fold=fold, residual=residual.round(DECIMALS))
    return left_out, pd.DataFrame(predictions.T).rename(columns=str)


def fit_pls(problem: Problem) -> Predicted:
    """Partial least squares."""
    features = problem.features["all"]
    settings = spread(problem.budget, components=(1, min(20, *features.shape, len(problem.y) - 1)))
    return problem.tuned(settings, features, lambda setting: PLSRegression(setting["components"]))


def fit_forest(problem: Problem) -> Predicted:
    """Random forest (Breiman 2001)."""
    return problem.tuned(
        spread(problem.budget, min_samples_leaf=(1, 20), max_features=(0.05, 0.5)),
        problem.features["all"],
        # One job: with more, the trees' predictions are summed in the order in which threads finish.
        lambda setting: RandomForestRegressor(TREES, random_state=problem.seed, n_jobs=1, **setting),
    )


def fit_boosting(problem: Problem) -> Predicted:
    """Gradient boosting of trees on binned features."""
    return problem.tuned(
        spread(problem.budget, learning_rate=(0.02, 0.2), max_leaf_nodes=(3, 31)),
        problem.features["all"],
        lambda setting: HistGradientBoostingRegressor(early_stopping=False, random_state=problem.seed, **setting),
    )


def fit_network(kind: str, problem: Problem) -> Predicted:
    """A network: `mlp` on band statistics, the others on tiles; both also see the columns of `context`."""
    # Imported here: it imports torch, which --help and --dry-run do without.
    from src.core.baselines.tile_networks import TileRows, train_network

    run.set_threads(problem.params.threads)
    rows, mean, sd = problem.rows, problem.y.mean(), problem.y.std()
    sample, target = rows["sample"].to_numpy(), (rows.growth_rate.to_numpy(np.float64) - mean) / sd
    columns = standardised(problem.features["all"] if kind == "mlp" else problem.context, problem.train)
    images, of_row = (None, None) if kind == "mlp" else problem.images
    parts = {"train": problem.train, "validation": (rows.role == "validation").to_numpy(), "held": problem.held}
    sets = {}
    for name, part in parts.items():
        shown = None if images is None else (images, of_row[part])
        seed = problem.seed if name == "train" else None
        sets[name] = TileRows(sample[part], columns[part], target[part], images=shown, seed=seed)
    curves = problem.curves[kind] = []

    def predict(setting: dict) -> np.ndarray:
        epochs = problem.params.baselines.epochs
        prediction, lines = train_network(kind, setting, **sets, seed=problem.seed, epochs=epochs)
        curves.append({"setting": setting, "lines": lines})
        return prediction * sd + mean

    settings = spread(problem.budget, lr=(1e-4, 1e-2), weight_decay=(1e-3, 1))
    return tune(tqdm(settings, desc=kind, unit="training", leave=False), predict, problem.checks)


def standardised(columns: np.ndarray, train: np.ndarray) -> np.ndarray:
    """(N, F) with mean 0 and standard deviation 1 over training rows; 0 where those are constant."""
    mean, sd = columns[train].mean(axis=0), columns[train].std(axis=0)
    return (columns - mean) / np.where(sd > 1e-12 * np.abs(mean), sd, np.inf)
