"""The list of predictors: everything that gives a number for a held-out label.

Every table, figure, model card, fold and CI's comparison reads names, titles and kinds here. To add a baseline, write
its fit in `fitted_baselines.py` and add one entry.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from src.core.stage.errors import DataError
from src.population.evaluation import fitted_baselines as fitted
from src.population.evaluation.regression_problem import Predicted, Problem

Kind = Literal["head", "drift", "answer", "samples", "expectation", "closed form", "iterative", "network"]


@dataclass(frozen=True)
class Predictor:
    """One entry of the list.

    name: its column in predictions.parquet and its key in metrics/population.json.
    kind: of the model `head` (a number from the regression head), `drift` (the same head after a training that leaves
        it alone), `answer` (parsed from the greedy answer), `samples` (from sampled answers), `expectation` (computed
        from the probabilities of answers); of baselines `closed form` (equal on every machine up to rounding),
        `iterative` (fitted in many steps, so that rounding grows) and `network` (likewise, on tiles).
    needs: of a model, the training stage; of a baseline a key of `Problem.lacks`, or None for what every split has.
    fit: Problem -> Predicted; None for the model, which its own stages train.
    """

    name: str
    title: str
    kind: Kind
    needs: str | None = None
    fit: Callable[[Problem], Predicted] | None = None

    @property
    def parsed(self) -> bool:
        """True where its numbers are read from written answers, so that some may be missing."""
        return self.kind in ("answer", "samples")


PREDICTORS = (
    Predictor("head", "regression head after SFT", "head", "sft"),
    Predictor("head_after_dpo", "the same head after DPO (drift)", "drift", "dpo"),
    Predictor("text", "greedy answer after SFT", "answer", "sft"),
    Predictor("dpo", "greedy answer after DPO", "answer", "dpo"),
    Predictor("text_sampled", "mean of sampled answers, SFT", "samples", "sft"),
    Predictor("text_expectation", "probability-weighted answer, SFT", "expectation", "sft"),
    Predictor("dpo_sampled", "mean of sampled answers, DPO", "samples", "dpo"),
    Predictor("dpo_expectation", "probability-weighted answer, DPO", "expectation", "dpo"),
    Predictor("mean", "training mean", "closed form", None, fitted.fit_mean),
    Predictor("year_mean", "mean of the training places in the same year", "closed form", "several years",
              fitted.fit_year_mean),
    Predictor("previous_year", "the place's last known label", "closed form", "past labels",
              partial(fitted.fit_past, "last")),
    Predictor("place_mean", "mean of the place's known labels", "closed form", "past labels",
              partial(fitted.fit_past, "mean")),
    Predictor("place_trend", "trend through the place's known labels", "closed form", "past labels",
              partial(fitted.fit_past, "trend")),
    Predictor("province_year", "province and year effects", "closed form", None, fitted.fit_province_year),
    Predictor("latlon", "nearest training places", "closed form", "coordinates", fitted.fit_neighbours),
    Predictor("gp", "Gaussian process on the map", "closed form", "coordinates", fitted.fit_gaussian_process),
    Predictor("covariates", "ridge on the covariates alone", "closed form", "covariates",
              partial(fitted.fit_ridge, features=("covariates",))),
    Predictor("ridge", "ridge on band statistics", "closed form", None, fitted.fit_ridge),
    Predictor("pls", "partial least squares on band statistics", "closed form", None, fitted.fit_pls),
    Predictor("forest", "random forest on band statistics", "closed form", None, fitted.fit_forest),
    Predictor("boosting", "gradient boosting on band statistics", "iterative", None, fitted.fit_boosting),
    Predictor("mlp", "small network on band statistics", "network", None, partial(fitted.fit_network, "mlp")),
    Predictor("cnn", "small convolutional network on tiles", "network", None, partial(fitted.fit_network, "cnn")),
    Predictor("resnet18", "ResNet-18 on tiles, from random weights", "network", None,
              partial(fitted.fit_network, "resnet18")),
)  # fmt: skip
KEYS = (
    "tile_id", "province", "city", "year", "lat", "lon", "block", "task", "split_seed", "fold", "seed", "unit",
    "n_train", "n_test", "split", "y",
)  # fmt: skip
"""Columns of predictions.parquet that say which label a row is."""

BY_NAME = {predictor.name: predictor for predictor in PREDICTORS}
MODEL = tuple(predictor for predictor in PREDICTORS if predictor.fit is None)
BASELINES = tuple(predictor for predictor in PREDICTORS if predictor.fit is not None)
CHOSEN = tuple(predictor for predictor in MODEL if predictor.kind in ("head", "answer"))
"""Predictors that judge the two trainings: the head and the greedy answers."""

ANSWERS = tuple(predictor.name for predictor in MODEL if predictor.kind == "answer")
WRITTEN = (*(f"answer_{name}" for name in ANSWERS), *(f"{name}_samples" for name in ANSWERS))
"""Columns of predictions.parquet with the greedy answers and with the numbers of all sampled ones."""

PAIRS = {
    "head_minus_ridge": ("head", "ridge"),
    "head_after_dpo_minus_head": ("head_after_dpo", "head"),
    "text_minus_ridge": ("text", "ridge"),
    "dpo_minus_text": ("dpo", "text"),
}
"""Differences that are reported, beside that of the head from the baseline that is best on validation."""

CONTROLS = {
    "swapped": "tiles swapped between places within a year",
    "blank": "every pixel masked",
    "prompt_only": "no image at all",
}
"""Inputs on which the model is asked again; predictions are the columns head_<name> and text_<name>."""

INTERVALS = {"head": "regression head", "text_samples": "sampled answers", "ridge": "ridge (CV+)"}
"""Groups with prediction intervals."""


def listed(names: Iterable[str], where: str) -> list[Predictor]:
    """The predictors of `names` in the list's order; DataError if one is not there, for no table would show it."""
    names = set(names)
    if unknown := sorted(names - BY_NAME.keys()):
        raise DataError(
            f"{where}: found predictions of {unknown[0]!r}, expected names of src/population/evaluation/predictors.py; "
            "add an entry there, or write the file again with this version of the code"
        )
    return [predictor for predictor in PREDICTORS if predictor.name in names]


def in_table(columns: Iterable[str], where: str) -> list[Predictor]:
    """The predictors with a column in a table as predictions.parquet; raises as `listed` does for any other column."""
    beside = {*KEYS, *WRITTEN}
    beside |= {f"{part}_{control}" for part in ("head", "text") for control in CONTROLS}
    beside |= {f"{group}_{end}" for group in INTERVALS for end in ("low", "high")}
    return listed(set(columns) - beside, where)


def left_out(predictor: Predictor, problem: Problem) -> str | None:
    """Reason not to fit a baseline to this problem; None where it is fitted."""
    if predictor.kind == "network" and predictor.name not in problem.params.baselines.networks:
        return "baselines.networks does not name it"
    return problem.lacks.get(predictor.needs)


def scored(scores: dict) -> list[Predictor]:
    """The predictors with an R² in `scores`, which metrics/population.json holds; raises as `listed` does."""
    names = [name for name, score in scores.items() if isinstance(score, dict) and "r2" in score]
    return listed(names, "metrics")
