"""reports/population/index.html: results, audit, figures and parameters of a run, and the PNGs it shows."""

from pathlib import Path

import numpy as np
import pandas as pd

from src.core.evaluation import interval_coverage
from src.core.report import figures, html_page
from src.core.report.html_page import Figure, Section, Table
from src.core.stage import files
from src.population.evaluation.predictors import MODEL, scored
from src.population.report.page_results import UNIT, named, result_sections, text_of

CARD = "model_card.md"
STAGES = ("pretrain", "sft", "dpo")
KNOWN = {
    "new_place": "on places it never saw",
    "next_year": "of years to come, on places it knows",
    "new_place_and_year": "of years to come, on places it never saw",
    "change": "of each year's deviation from its place's mean, on places it never saw",
}
MOST_ROWS, MOST_PLACES = 20, 200
CURVE_UNITS = {  # part of a curve's name -> unit; the first that fits
    "mae": UNIT, "rmse": UNIT, "r2": "R²", "accurac": "share", "parse_rate": "share",
    "learning_rate": "rate per step", "loss": "loss", "mse": "loss",
}  # fmt: skip


def read_curves(folder: Path) -> dict[str, list[figures.Curve]]:
    """dvclive's <folder>/<stage>/plots/metrics/<train or validation>/<name>.tsv as panels, one for each name."""
    stages = {}
    for stage in STAGES:
        root = folder / stage / "plots" / "metrics"
        panels: dict[str, dict] = {}
        for file in sorted(root.rglob("*.tsv")):
            series = pd.read_csv(file, sep="\t")
            line = series["step"].to_numpy(), series.iloc[:, -1].to_numpy(np.float64)
            # train/rewards/chosen.tsv and train/logps/chosen.tsv are two panels.
            group, _, name = file.relative_to(root).with_suffix("").as_posix().partition("/")
            panels.setdefault(name, {})[group] = line
        if panels:
            stages[stage] = [
                figures.Curve(name.replace("_", " "), _curve_unit(name), lines) for name, lines in panels.items()
            ]
    return stages


def draw(
    folder: Path, table: pd.DataFrame, rows: pd.DataFrame, scores: dict, curves: dict, facts: dict, tables: dict
) -> None:
    """The PNGs of plots/population/evaluate; `tables`: coverage of prediction intervals at many levels, by group."""
    test = table[table.split != "validation"]
    y = test.y.to_numpy()
    panels = {
        group: (test[group].fillna(facts["label_mean"]).to_numpy(), scores[group])
        for group in ("head", "text_expectation", "ridge")
    }
    figures.predicted_vs_actual(folder / "predicted_vs_actual.png", y, panels, UNIT)
    groups = {group.name: scores[group.name] for group in scored(scores)}
    units, bounded = scores["units"], scores["head"]["r2_low"] is not None
    title = f"R² over {units['n_units']} test {units['unit']}s"
    title += f"{' with 95 % interval' if bounded else ', too few for intervals'} (model in colour)"
    figures.score_intervals(folder / "score_intervals.png", groups, [group.name for group in MODEL], title)
    if np.isfinite(rows[["lat", "lon"]].to_numpy(np.float64)).all():
        others = rows[rows.role.isin(["train", "validation"])]
        where, elsewhere = ((part.lat.to_numpy(), part.lon.to_numpy()) for part in (test, others))
        residual = (test["head"] - test.y).to_numpy()
        title = "Where the regression head is wrong (one dot per test label)"
        figures.residual_map(folder / "residual_map.png", *where, residual, elsewhere, title, UNIT)
    if tables:
        interval_coverage.draw_reliability(folder / "reliability.png", tables, "calibrated for each level anew")
    if curves:
        figures.curves(folder / "curves.png", curves)


def write(path: Path, inputs, plots: Path, facts: dict, audit: dict, scores: dict, settings: dict) -> None:
    """Write the page, with figures and facts from evaluate's `inputs` and from `plots`, which `draw` filled.

    `settings`: params and bandwise.json by section.
    """
    part = f"Fold {facts['fold'] + 1} of {facts['folds']}, exploratory"
    if opened := scores["final"]:
        part = f"The locked provinces, opened on {opened['date']} after {opened['attempts']} attempts"
    lead = f"{part}: predictions of a Qwen-VL model {KNOWN[facts['task']]}, beside baselines and controls."
    flat = pd.json_normalize(settings).to_dict("records")[0]
    # Long lists, one number for each band, are left out.
    rows = [[key, text_of(value)] for key, value in flat.items() if not (isinstance(value, list) and len(value) > 12)]
    sections = [
        *result_sections(scores, facts, plots),
        split_section(facts, audit, inputs.split),
        *picture_sections(plots, inputs),
        data_section(files.read_json(inputs.tiles / "matching.json")),
        training_section(scores),
        Section(
            "Parameters",
            [f"{CARD}, beside this page, holds what the model reads, the licences and the limits."],
            [Table("params.yaml and bandwise.json", ["key", "value"], rows, words=2)],
        ),
    ]
    html_page.write(path, "Population growth from embedding tiles", lead, sections)


def split_section(facts: dict, audit: dict, folder: Path) -> Section:
    """Roles, audit, and the map and distances that the split stage drew."""
    counts = ", ".join(f"{count} {role}" for role, count in facts["samples"].items())
    fold = f"split seed {facts['seed']}, fold {facts['fold'] + 1} of {facts['folds']}"
    said = f"Method {facts['method']}, {fold}: {counts} labels."
    if facts["origin"] is not None:
        years = [", ".join(map(str, facts["years"][role])) or "none" for role in ("train", "validation", "test")]
        said += " Nothing dated in or after {} is known: trained on {}, validated on {}, tested on {}.".format(
            facts["origin"], *years
        )
    if locked := facts["locked"]["places"]:
        said += f" Locked until evaluate --final: {locked} places in {', '.join(facts['locked']['provinces'])}."
    else:
        said += " No province is locked, so no test set is left that nobody has looked at."
    return Section(
        "Split and audit",
        [said],
        [Table(f"Leakage audit of {facts['task']}; a violation stops the stage", ["check", "found"], named(audit))],
        [Figure(folder / name, caption) for name, caption in PICTURES.items() if (folder / name).exists()],
    )


PICTURES = {
    "split_map.png": "Places by role.",
    "distances.png": "Distances from test and validation places to the nearest training place, beside those of the "
    "places of the intended use (split.use; else of the data's places to each other). Where the curves differ, the "
    "scores are those of an easier or harder task than the intended one.",
}


def picture_sections(plots: Path, inputs) -> list[Section]:
    """Predictions, curves and false colour, each where it was drawn."""
    found = [
        ("Predictions", plots / "predicted_vs_actual.png", "Test labels against predictions: the regression head, the "
         "probability-weighted answer of the SFT model, ridge."),
        ("Predictions", plots / "residual_map.png", "Residuals of the regression head on the map."),
        ("Training", plots / "curves.png", "Every number that training logged, once an epoch."),
        ("Training of the baselines", inputs.curves / "baselines" / "networks.png", "The networks among the baselines; "
         "a panel for each setting tried."),
        ("False colour", inputs.pca / "quicklook.png", "Nine training tiles in three principal components, stretched "
         "for the eye only."),
    ]  # fmt: skip
    sections: dict[str, Section] = {}
    for heading, path, caption in found:
        if path.exists():
            sections.setdefault(heading, Section(heading)).figures.append(Figure(path, caption))
    return list(sections.values())


def data_section(matching: dict) -> Section:
    """Counts of matched tiles and labels, and the place x year matrix of a panel; `matching` is matching.json."""
    places = matching["places"]
    per_year = [
        [str(year), *(str(sum(year in place[kind] for place in places.values())) for kind in ("tiles", "labels"))]
        for year in matching["years"]
    ]
    tables = [Table(f"Of {len(places)} places", ["year", "with a tile", "with a label"], per_year)]
    if len(matching["years"]) > 1:
        tables.append(_matrix(places, matching["years"]))
    for key, caption in (
        ("nearest", "Labels that take another year's tile"),
        ("unmatched_tiles", "Tiles without a label"),
        ("unmatched_labels", "Labels without a tile"),
    ):
        if matching[key]:
            header = [str(name).replace("_", " ") for name in matching[key][0]]
            tables.append(_listed(caption, header, [[text_of(v) for v in row.values()] for row in matching[key]]))
    crop = matching["crop"]
    return Section(
        "Data",
        [
            f"{matching['tiles']} tiles, {matching['samples']} labels matched, "
            f"{len(matching['unmatched_tiles'])} tiles and {len(matching['unmatched_labels'])} labels left over, "
            f"{len(matching['nearest'])} labels with another year's tile, "
            f"{len(matching['flipped'])} bottom-up tiles flipped.",
            f"Centre crop of {crop['size']} px; sides were {crop['smallest_side']} to {crop['largest_side']} px.",
        ],
        tables,
    )


def training_section(scores: dict) -> Section:
    """The error of pretraining beside simpler guesses, and counts and accuracy of the preferences."""
    tables = []
    if masked := scores["pretrain"]["masked_mse"]:
        caption = "Pretraining: squared error on masked patches of validation tiles, standardised bands"
        tables.append(Table(caption, ["guess", "error"], named(masked)))
    facts = {name: value for name, value in scores["dpo"].items() if "pairs" in name or "reward" in name}
    tables.append(Table("Preferences (reward accuracy is on validation pairs)", ["", ""], named(facts), words=2))
    return Section("Pretraining and preferences", tables=tables)


def _matrix(places: dict, years: list[int]) -> Table:
    marks = {(True, True): "●", (True, False): "○", (False, True): "+", (False, False): ""}
    rows = [
        [name, *(marks[year in place["tiles"], year in place["labels"]] for year in years)]
        for name, place in places.items()
    ]
    legend = "Places and years (● tile and label, ○ tile alone, + label alone)"
    return _listed(legend, ["place", *map(str, years)], rows, MOST_PLACES)


def _listed(caption: str, header: list[str], rows: list[list[str]], most: int = MOST_ROWS) -> Table:
    shown = f"{caption}: {len(rows)}"
    return Table(shown if len(rows) <= most else f"{shown}, the first {most}", header, rows[:most])


def _curve_unit(name: str) -> str:
    return next((unit for part, unit in CURVE_UNITS.items() if part in name), name.replace("_", " "))
