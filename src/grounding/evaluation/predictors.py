"""Every predictor of grounding that is scored: its name, title, weights and the radar image that it is given.

Stages, tables, figures and CI read this one list; its order is the order of the report.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from src.core.stage.errors import DataError

OWN, SHUFFLED, ZEROED = "own", "another scene's", "zeros"


@dataclass(frozen=True)
class Predictor:
    """One row of the result.

    Attributes:
        name: key of metrics/grounding.json.
        title: name for readers.
        weights: the network: adapted (generator with LoRA), pretrained (the same without), without_radar (a generator
            of equal size), regression; "" where none is needed.
        radar: the radar image that is given to it: the scene's OWN, SHUFFLED, ZEROED, or "" where it takes none.
    """

    name: str
    title: str
    weights: str
    radar: str

    @property
    def kind(self) -> str:
        """Repeatability of its scores: "trained" (from random weights) or "closed form" (equal on all machines but for
        rounding)."""
        return "trained" if self.weights else "closed form"


PREDICTORS = (
    Predictor("opt_v3", "generator with LoRA", "adapted", OWN),
    Predictor("shuffled_sar", "the same, radar image of another scene", "adapted", SHUFFLED),
    Predictor("zeroed_sar", "the same, radar image of zeros", "adapted", ZEROED),
    Predictor("no_lora", "generator without LoRA", "pretrained", OWN),
    Predictor("no_sar_network", "generator of equal size without radar", "without_radar", ""),
    Predictor("regression_unet", "regression U-Net with radar", "regression", OWN),
    Predictor("opt_v2", "first guess", "", ""),
    Predictor("bicubic", "first guess, holes filled by bicubic interpolation", "", ""),
    Predictor("telea", "first guess, holes filled by Telea's method", "", ""),
)
TITLES = {one.name: one.title for one in PREDICTORS}
MAIN = "opt_v3"
"""The predictor that the verdict is about; chosen before any model was trained."""


@dataclass(frozen=True)
class Comparison:
    """A difference in scores, ours - theirs on the same scenes, and what is true where its interval lies above 0.

    Attributes:
        least: difference in PSNR over all pixels that is asked for, in dB; None where the result is said as it is.
    """

    ours: str
    theirs: str
    claim: str
    least: float | None

    @property
    def key(self) -> str:
        """Key in metrics/grounding.json."""
        return f"{self.ours}-{self.theirs}"


COMPARISONS = (
    Comparison(MAIN, "opt_v2", "the generator makes the first guess truer", 3.0),
    Comparison(MAIN, "shuffled_sar", "it uses the radar image of this place", 0.0),
    # Zeros are an input that no training showed, so that this difference alone would prove nothing.
    Comparison(MAIN, "zeroed_sar", "it fails without a radar image", None),
    Comparison(MAIN, "no_sar_network", "radar tells what no network can guess without it", 0.0),
    Comparison(MAIN, "no_lora", "adaptation pays", 0.0),
    Comparison(MAIN, "regression_unet", "diffusion beats regression", None),
    Comparison(MAIN, "bicubic", "it beats interpolation", None),
    Comparison(MAIN, "telea", "it beats inpainting without learning", None),
)
"""Differences that are reported with an interval over scenes, in PSNR above all, over all pixels and degraded ones."""


def require_listed(names: Iterable[str], where: str) -> None:
    """Raise DataError for a name that is not in PREDICTORS, or one of PREDICTORS that is not among `names`: tables
    would leave it out in silence."""
    names = set(names)
    if unknown := sorted(names - set(TITLES)):
        raise DataError(
            f"{where}: found predictions of {', '.join(unknown)}, expected names that "
            "src/grounding/evaluation/predictors.py lists; add an entry there"
        )
    if absent := [name for name in TITLES if name not in names]:
        raise DataError(
            f"{where}: found no predictions of {', '.join(absent)}, expected those of every predictor that "
            "src/grounding/evaluation/predictors.py lists; predict them too"
        )
