"""Every predictor of species that is scored: its name, its inputs and its method.

Stages, tables, figures and CI read this one list; its order is the order of the report.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from src.core.stage.errors import DataError
from src.species.data.task import EMBEDDINGS as BOTH


@dataclass(frozen=True)
class Predictor:
    """One row of the result.

    Attributes:
        name: key of predictions.safetensors and metrics/species.json.
        title: name for readers.
        stage: the stage that fits it and writes its predictions.
        fit: network, logistic, neighbours, places (neighbours or forest, chosen on validation) or frequencies.
        needs: modalities of the store, "place" and "date" that it reads.
        space: features that the crossmodal stage makes of these: shared (the autoencoder's) or pca (principal).
    """

    name: str
    title: str
    stage: str
    fit: str
    needs: tuple[str, ...]
    space: str = ""

    @property
    def kind(self) -> str:
        """Repeatability of its scores: "trained" (a network that starts from random weights), "fitted" (to features
        that rounding moves between machines) or "closed form" (equal on all machines but for rounding)."""
        fits = {"network": "trained", "logistic": "fitted", "neighbours": "fitted"}
        return (fits | dict.fromkeys(("places", "frequencies"), "closed form"))[self.fit]


_ROWS = (
    ("language", "network on language", "train", "network", ("language",)),
    ("vision", "network on vision", "train", "network", ("vision_pooled",)),
    ("both", "network on both (late fusion)", "train", "network", BOTH),
    ("crossmodal", "network on the shared space", "crossmodal", "network", BOTH, "shared"),
    ("crossmodal_logistic", "logistic regression on the shared space", "crossmodal", "logistic", BOTH, "shared"),
    ("crossmodal_knn", "nearest neighbours in the shared space", "crossmodal", "neighbours", BOTH, "shared"),
    ("pca", "network on principal components of both", "crossmodal", "network", BOTH, "pca"),
    ("pca_logistic", "logistic regression on components of both", "crossmodal", "logistic", BOTH, "pca"),
    ("pca_knn", "nearest neighbours in components of both", "crossmodal", "neighbours", BOTH, "pca"),
    ("logistic_language", "logistic regression on language", "baselines", "logistic", ("language",)),
    ("logistic_vision", "logistic regression on vision", "baselines", "logistic", ("vision_pooled",)),
    ("logistic", "logistic regression on both", "baselines", "logistic", BOTH),
    ("knn_language", "nearest neighbours in language", "baselines", "neighbours", ("language",)),
    ("knn_vision", "nearest neighbours in vision", "baselines", "neighbours", ("vision_pooled",)),
    ("knn", "nearest neighbours in both", "baselines", "neighbours", BOTH),
    ("location_season", "place and season alone", "baselines", "places", ("place", "date")),
    ("location", "place alone", "baselines", "places", ("place",)),
    ("majority", "frequencies of training", "baselines", "frequencies", ()),
)
PREDICTORS = tuple(Predictor(*row) for row in _ROWS)
TITLES = {one.name: one.title for one in PREDICTORS}
INPUTS = {one.name: one.needs for one in PREDICTORS if one.stage == "train"}
PROBES = {space: {one.fit: one.name for one in PREDICTORS if one.space == space} for space in ("shared", "pca")}
"""Space of the crossmodal stage -> fit -> name."""

MAIN = ("both", "language", "vision", "crossmodal", "location", "majority")
"""Predictors in the figures of bins and calibration. Map and confusion matrix show the first that has predictions."""

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
"""Pairs whose difference is reported: a modality and the place, both modalities and one, a network and a linear model,
the shared space and principal components."""


def require_listed(names: Iterable[str], where: str) -> None:
    """Raise DataError for a name that is not in PREDICTORS: tables and figures would leave it out in silence."""
    if unknown := sorted(set(names) - set(TITLES)):
        raise DataError(
            f"{where}: found predictions of {', '.join(unknown)}, expected names that "
            "src/species/evaluation/predictors.py lists; add an entry there, or run the stage that wrote them again"
        )


def require_complete(found: Collection[str], modalities: Collection[str], trained: Collection[str]) -> None:
    """Raise DataError for a predictor that could be fitted and has no predictions: it would vanish from the reports.
    `modalities` are those of the store, `trained` is `train.models`."""
    for one in PREDICTORS:
        possible = {*modalities, "place", "date"}.issuperset(one.needs) and (
            one.stage != "train" or one.name in trained
        )
        if possible and one.name not in found:
            raise DataError(
                f"predictions.safetensors: found none of {one.name!r} ({one.title}), expected those of the stage "
                f"{one.stage}; run it again"
            )
