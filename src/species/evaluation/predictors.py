"""Every predictor of species that is scored: its name, what it needs and how it is fitted.

Stages, tables, figures and CI read this one list; its order is the order of the report.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from src.core.stage.errors import DataError
from src.species.data.task import EMBEDDINGS as BOTH


@dataclass(frozen=True)
class Predictor:
    """One row of the result.

    Attributes:
        name: key of predictions.safetensors and metrics/species.json.
        title: name for readers.
        kind: "trained" (a network that starts from random weights), "fitted" (neighbours or regression on features
            that rounding moves between machines) or "closed form" (equal on all machines but for rounding).
        stage: the stage that fits it and writes its predictions.
        fit: network, logistic, neighbours, places (neighbours or forest, chosen on validation) or frequencies.
        needs: modalities of the store, "place" and "date" that it reads.
    """

    name: str
    title: str
    kind: str
    stage: str
    fit: str
    needs: tuple[str, ...]


PREDICTORS = (
    Predictor("language", "network on language", "trained", "train", "network", ("language",)),
    Predictor("vision", "network on vision", "trained", "train", "network", ("vision_pooled",)),
    Predictor("both", "network on both (late fusion)", "trained", "train", "network", BOTH),
    Predictor("crossmodal", "network on the shared space", "trained", "crossmodal", "network", BOTH),
    Predictor(
        "crossmodal_logistic", "logistic regression on the shared space", "fitted", "crossmodal", "logistic", BOTH
    ),
    Predictor("crossmodal_knn", "nearest neighbours in the shared space", "fitted", "crossmodal", "neighbours", BOTH),
    Predictor("pca", "network on principal components of both", "trained", "crossmodal", "network", BOTH),
    Predictor("pca_logistic", "logistic regression on components of both", "fitted", "crossmodal", "logistic", BOTH),
    Predictor("pca_knn", "nearest neighbours in components of both", "fitted", "crossmodal", "neighbours", BOTH),
    Predictor("logistic_language", "logistic regression on language", "fitted", "baselines", "logistic", ("language",)),
    Predictor(
        "logistic_vision", "logistic regression on vision", "fitted", "baselines", "logistic", ("vision_pooled",)
    ),
    Predictor("logistic", "logistic regression on both", "fitted", "baselines", "logistic", BOTH),
    Predictor("knn_language", "nearest neighbours in language", "fitted", "baselines", "neighbours", ("language",)),
    Predictor("knn_vision", "nearest neighbours in vision", "fitted", "baselines", "neighbours", ("vision_pooled",)),
    Predictor("knn", "nearest neighbours in both", "fitted", "baselines", "neighbours", BOTH),
    Predictor("location_season", "place and season alone", "closed form", "baselines", "places", ("place", "date")),
    Predictor("location", "place alone", "closed form", "baselines", "places", ("place",)),
    Predictor("majority", "frequencies of training", "closed form", "baselines", "frequencies", ()),
)
TITLES = {one.name: one.title for one in PREDICTORS}
INPUTS = {one.name: one.needs for one in PREDICTORS if one.stage == "train"}
MAIN = ("both", "language", "vision", "crossmodal", "location", "majority")
"""Those with figures of their own. The first that was fitted is the one of the map and the confusions."""

PAIRS = (
    ("language", "location"),
    ("vision", "location"),
    ("both", "location"),
    ("both", "language"),
    ("both", "vision"),
    ("both", "logistic"),
    ("crossmodal", "pca"),
    ("crossmodal", "both"),
)
"""Differences that are given: what a modality adds to the place, one modality to the other, a network to a linear
model, and the shared space to principal components."""


def require_listed(names: Iterable[str], where: str) -> None:
    """Raise DataError for a name that is not in PREDICTORS: tables and figures would leave it out in silence."""
    if unknown := sorted(set(names) - set(TITLES)):
        raise DataError(
            f"{where}: found predictions of {', '.join(unknown)}, expected names that "
            "src/species/evaluation/predictors.py lists; add an entry there, or run the stage that wrote them again"
        )
