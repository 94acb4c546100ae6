"""The page reports/minerals/index.html: verdict, words, map, controls, data."""

import json
from pathlib import Path

import pandas as pd

from src.core.evaluation.jackknife import MINIMUM_UNITS
from src.core.report import html_page
from src.core.report.html_page import Figure, Section, Table, cell, cell_interval
from src.minerals.data.blocks import ROLES
from src.minerals.evaluation import one_sample
from src.minerals.evaluation.predictors import CONTROLS, INPUTS, NAMED_BEFOREHAND, PREDICTORS, TITLES, key_end
from src.minerals.mapping.minerals import NAMES
from src.minerals.params import Annotate, Params
from src.minerals.report.score_figures import example_rows

SIMULATED = (
    "The scenes are simulated from USGS spectra: they show what the pipeline can see, and say nothing of real ground."
)
EXAMPLES = 8
AUDIT = {
    "blocks": "spatial blocks", "pixels_in_two_roles": "pixels in two roles",
    "least_gap_px": "least gap between blocks of a scene, px",
    "pairs_of_roles_that_share_pixels": "pairs of tiles of two roles that share a pixel", "tiles": "tiles",
    "tiles_without_overlap": "tiles that share no pixel with each other",
}  # fmt: skip
WORD_SCORES = {"balanced_accuracy": "balanced accuracy", "accuracy": "accuracy", "f1": "F1"}
LIST_SCORES = {"micro_f1": "micro-F1", "macro_f1": "macro-F1", "hallucinated": "named but not there"}


def verdict(scores: dict) -> str:
    """One to three plain sentences on map and words."""
    parts, words = [], scores.get(NAMED_BEFOREHAND)
    if "feature_fit" in scores:
        fit, others = scores["feature_fit"]["map"], [key for key in TITLES if "map" in scores.get(key, {})][1:]
        best = max(others, key=lambda key: scores[key]["map"]["macro_f1"])
        parts.append(
            f"Map: macro-F1 {cell(fit['macro_f1'])} of the dominant mineral by absorption features; the best "
            f"other method ({TITLES[best]}) reaches {cell(scores[best]['map']['macro_f1'])}."
        )
    if words is None:
        return " ".join([*parts, f"Words: no verdict, for the {TITLES[NAMED_BEFOREHAND]} was not trained."])
    said = words["alteration" + key_end(scores["scored_against"])]
    if said["balanced_accuracy"] is None:
        return " ".join([*parts, f"Words: no score, {said['parse_rate']:.0%} of the answers have the asked form."])
    pairs = [scores["paired"][f"{NAMED_BEFOREHAND}-{NAMED_BEFOREHAND}_{control}"] for control in CONTROLS]
    sees = all(pair["low"] is not None and pair["low"] > 0 for pair in pairs)
    against = "truth" if scores["scored_against"] == "truth" else "the map (no truth is known)"
    parts.append(
        f"Words: balanced accuracy {cell(said['balanced_accuracy'])} of “altered?” against {against}; "
        + ("better than with a blank or another tile's image, so the model reads its image."
           if sees else "not shown to be better than with a blank or another tile's image.")
    )  # fmt: skip
    linear = scores["paired"].get(f"{NAMED_BEFOREHAND}-logistic")
    if linear and (linear["low"] is None or linear["low"] <= 0):
        parts.append("It is not shown to be better than logistic regression on the tile's mean spectrum.")
    return " ".join(parts)


def write(
    path: Path,
    scores: dict,
    answers: dict[str, pd.DataFrame],
    tested: pd.DataFrame,
    params: Params,
    plots: Path,
    inputs,
) -> None:
    """The page with the figures of `plots` and the trainings' below `inputs.curves`."""
    lead = " ".join([verdict(scores), *([SIMULATED] if scores["simulated"] else [])])
    sections = [words_section(scores, plots, params.tiles.altered)]
    if "feature_fit" in scores:
        sections.append(map_section(scores, plots))
    sections += [
        Section(
            "What was mapped",
            figures=[
                Figure(plots / "maps.png", "Test scenes"),
                Figure(
                    plots / "spectra.png", "Mean spectra of the pixels of each mineral, and the library's references"
                ),
            ],
        ),
        Section(
            f"Answers beside {scores['scored_against']}", tables=[examples(scores, answers, tested, params.annotate)]
        ),
        library_section(scores, plots, one_sample.read(inputs.sensitivity)),
        split_section(scores, plots),
        training_section(inputs.curves),
        Section(
            "Parameters", [json.dumps(params.model_dump(exclude={"report_to", "checkpoint_root"}), ensure_ascii=False)]
        ),
    ]
    html_page.write(path, "Alteration minerals: the map and the words", lead, sections)


def words_section(scores: dict, plots: Path, altered: float) -> Section:
    """Yes or no, lists, and differences."""
    end = key_end(scores["scored_against"])
    alteration, minerals = f"alteration{end}", f"minerals{end}"
    found = [one for one in PREDICTORS if alteration in scores.get(one.name, {})]
    yes = [
        [one.title, *(_cells(scores[one.name][alteration], WORD_SCORES)),
         cell(scores[one.name][alteration]["parse_rate"]),
         *([] if end else [cell(scores[one.name]["alteration_map"]["balanced_accuracy"])])]
        for one in found
    ]  # fmt: skip
    lists = [
        [one.title, *_cells(scores[one.name][minerals], LIST_SCORES),
         *([] if end else [cell(scores[one.name]["minerals_map"]["micro_f1"])])]
        for one in found
        if minerals in scores[one.name]
    ]  # fmt: skip
    last = [] if end else ["against the map"]
    pairs = [
        [f"{TITLES[name.partition('-')[0]]} minus {TITLES[name.partition('-')[2]]}",
         cell_interval({"d": pair["balanced_accuracy"], "d_low": pair["low"], "d_high": pair["high"]}, "d")]
        for name, pair in scores["paired"].items()
    ]  # fmt: skip
    return Section(
        "Words",
        [words_lead(scores, altered)],
        [
            Table("Is the tile altered?", ["", *WORD_SCORES.values(), "parsed", *last], yes),
            Table("Which minerals does it hold?", ["", *LIST_SCORES.values(), *last], lists),
            Table("Difference in balanced accuracy on the same tiles", ["", "difference [95 % interval]"], pairs),
        ],
        [Figure(plots / "words.png", "Balanced accuracy of “altered?”; dashed: chance")],
    )


def words_lead(scores: dict, altered: float) -> str:
    """Sentences above the scores of words: what is counted, and against what."""
    if scores["scored_against"] == "truth":
        source = (
            "Training answers come from the map; the last column compares balanced accuracy (of lists micro-F1) "
            "with it instead of the truth, and the difference is the price of such labels."
        )
    else:
        source = (
            "No truth is known for these scenes. All figures compare with the map, from which the training answers "
            "come: they say how well a model repeats the map, not whether the map is right."
        )
    return (
        f"{scores['tiles']} test tiles that share no pixel, in {scores['blocks']} blocks that no training tile "
        f"touches. Altered: minerals that copper deposits bring cover more than {altered:.0%} of a "
        f"tile. An answer of another form than the asked one counts as wrong (a list: as naming nothing); with more "
        f"than one in ten there is no score. {source} Balanced accuracy is the mean of the share of altered tiles "
        "and of the share of other tiles that are told right: 0.5 is chance. F1 is the harmonic mean of how much "
        "of what is named is there and how much of what is there is named." + no_interval(scores["blocks"])
    )


def no_interval(blocks: int) -> str:
    """Sentence about scores of so few test blocks that they have no interval, or ""."""
    if blocks >= MINIMUM_UNITS:
        return ""
    return (
        f" Scores stand without an interval: it needs {MINIMUM_UNITS} test blocks, and there "
        f"{'is' if blocks == 1 else 'are'} {blocks}. Smaller blocks (split.block_px) or more scenes give it."
    )


def map_section(scores: dict, plots: Path) -> Section:
    """Every mapping method against truth."""
    found = [one for one in PREDICTORS if "map" in scores.get(one.name, {})]
    names = {"macro_f1": "macro-F1", "overall_accuracy": "overall accuracy", "alteration_f1": "F1 of altered tiles",
             "abundance_error": "error of a tile's shares"}  # fmt: skip
    rows = [[one.title, *_cells(scores[one.name]["map"], names)] for one in found]
    each = [[one.title, *(cell(scores[one.name]["map"][f"f1_{name}"]) for name in NAMES)] for one in found]
    lead = (
        "Each method names the mineral with the highest score where it reaches a threshold, chosen for each mineral on "
        "training blocks, and background elsewhere." + no_interval(scores["feature_fit"]["map"]["n_units"])
    )
    if scores["simulated"]:
        lead += (
            " A pixel's truth is its most abundant mineral, from a share of 0.2 on. References are samples that built "
            "no scene where a mineral has two; of buddingtonite, calcite and epidote there is one."
        )
    return Section(
        "Map",
        [lead],
        [
            Table("Scores over test blocks [95 % interval over blocks]", ["", *names.values()], rows),
            Table("F1 of each mineral", ["", *NAMES], each),
        ],
        [
            Figure(plots / "methods.png", "Macro-F1 of the dominant mineral"),
            Figure(plots / "confusion.png", "Where the pixels of each known class go, by absorption features"),
        ],
    )


def examples(scores: dict, answers: dict[str, pd.DataFrame], tested: pd.DataFrame, asked: Annotate) -> Table:
    """Some tiles: truth, and each model's detailed answer."""
    models = {name: found for name, found in answers.items() if name in INPUTS}
    rows = example_rows(models, tested, scores["scored_against"], EXAMPLES, asked)
    return Table(
        "Detailed answers", ["tile", scores["scored_against"], *(TITLES[name] for name in models)], rows, words=9
    )


def library_section(scores: dict, plots: Path, alone: pd.DataFrame) -> Section:
    """Samples of the library that are no references, the sweeps, and apart from them minerals of one sample."""
    found = scores["library"]
    rows = []
    for (mineral, kind), levels in alone.groupby(["mineral", "kind"], sort=False):
        worst, names = levels.loc[levels["right"].idxmin()], levels.loc[levels["other"].idxmax()]
        rows.append([
            mineral, one_sample.TITLES[kind], cell(levels["right"].mean()), cell(worst["right"]),
            f"{worst['level']:g}", cell(worst["none"]), names["most_other"] or "–",
        ])  # fmt: skip
    return Section(
        "Noise, mixing and library samples",
        [
            f"Of {found['held_out_samples']} samples of minerals with two or more, {found['named_right']:.0%} are "
            f"named right by the others; of {found['other_materials']} materials that the map does not know, "
            f"{found['named_none']:.0%} are “none”. The rules of the map were written with this library in view: a new "
            "sample may do worse.",
            "Apart from these are minerals of which the library has one sample. None can be held out, so each is named "
            "by itself, at other grain sizes, noise and shares of a pixel beside rock, playa and plants, with the "
            "thresholds of the map. A sample from elsewhere may do worse.",
        ],
        [
            Table(
                "Minerals of one sample: share named right, over the levels of what is changed and at the worst one",
                ["", "changed", "right, mean", "right, worst", "worst at", "none there", "commonest other name"],
                rows,
                words=2,
            )
        ],
        [
            Figure(plots / "sweeps.png", "F1 by signal-to-noise ratio and by share of intimate mixing"),
            Figure(plots / "one_sample.png", "Minerals of one sample: share named right"),
        ],
    )


def split_section(scores: dict, plots: Path) -> Section:
    """Audit and map of roles."""

    def said(value: dict | int | None) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{value.get(role, 0)} {role}" for role in ROLES)
        return "no scene has two blocks" if value is None else str(value)

    rows = [[AUDIT[key], said(value)] for key, value in scores["audit"].items()]
    return Section(
        "Split and audit",
        tables=[Table("No tile of one role shares a pixel with a tile of another", ["", "found"], rows)],
        figures=[Figure(plots / "blocks.png", "Roles of spatial blocks")],
    )


def training_section(folder: Path) -> Section:
    """Curves of every training below `folder`."""
    curves = sorted(Path(folder).glob("*/curves.png"))
    return Section("Training", figures=[Figure(path, f"{path.parent.name}: loss per epoch") for path in curves])


def _cells(score: dict, names: dict[str, str]) -> list[str]:
    bounds = {f"{name}_{end}": score.get(f"{name}_{end}") for name in names for end in ("low", "high")}
    return [cell_interval(score | bounds, name) for name in names]
