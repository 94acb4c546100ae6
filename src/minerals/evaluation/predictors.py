"""Every method and model of minerals that is scored: its name, title, how repeatable it is, and what it answers.

Stages, tables, figures and CI read this one list; its order is the order of the report.
"""

from dataclasses import dataclass

from src.core.stage.errors import DataError
from src.minerals.mapping.other_methods import METHODS

INPUTS = {
    "bands": "model on all bands", "rgb": "model on a colour composite", "rgb_groups": "model on bands in triples",
}  # fmt: skip
CONTROLS = {"blank": "blank image", "shuffled": "image of another tile"}
NAMED_BEFOREHAND = "bands"
"""Input whose answers the verdict is about; chosen before any model was trained."""


@dataclass(frozen=True)
class Predictor:
    """One row of the result.

    Attributes:
        name: key of metrics/minerals.json.
        title: name for readers.
        kind: "trained" (from random weights), "fitted" (to features that rounding moves) or "closed form".
        answers: map (a class for each pixel) or words (of a tile: alteration and minerals).
    """

    name: str
    title: str
    kind: str
    answers: str


PREDICTORS = (
    Predictor("feature_fit", "absorption features", "closed form", "map"),
    *(Predictor(name.replace(" ", "_"), name, "closed form", "map") for name in METHODS),
    *(Predictor(name, title, "trained", "words") for name, title in INPUTS.items()),
    *(
        Predictor(f"{name}_{control}", f"{title}, {shown}", "trained", "words")
        for name, title in INPUTS.items()
        for control, shown in CONTROLS.items()
    ),
    Predictor("logistic", "logistic regression on mean spectrum and band depths", "fitted", "words"),
    Predictor("map", "answers computed from the map", "closed form", "words"),
    Predictor("majority", "the commonest answer in training", "closed form", "words"),
)
TITLES = {one.name: one.title for one in PREDICTORS}
WORDS = tuple(one.name for one in PREDICTORS if one.answers == "words")
PAIRS = (
    ("bands", "bands_blank"),
    ("bands", "bands_shuffled"),
    ("bands", "rgb"),
    ("bands", "rgb_groups"),
    ("bands", "logistic"),
    ("rgb", "rgb_blank"),
    ("rgb", "rgb_shuffled"),
    ("rgb", "logistic"),
    ("rgb_groups", "rgb_groups_blank"),
    ("rgb_groups", "rgb_groups_shuffled"),
    ("rgb_groups", "logistic"),
)
"""Pairs whose difference in balanced accuracy is reported with an interval over blocks."""


def key_end(against: str) -> str:
    """End of the keys of scores against truth ("") or against the map."""
    return "" if against == "truth" else "_map"


def require_listed(names, where: str) -> None:
    """Raise DataError for a name that is not in PREDICTORS: tables would leave it out in silence."""
    if unknown := sorted(set(names) - set(TITLES)):
        raise DataError(
            f"{where}: found answers of {', '.join(unknown)}, expected names that "
            "src/minerals/evaluation/predictors.py lists; add an entry there"
        )
