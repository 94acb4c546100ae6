"""The results as tables: the report page shows them as HTML, the model card as Markdown, commands as text."""

from pathlib import Path

import pandas as pd

from src.core.report.html_page import Figure, Section, Table, cell, cell_interval
from src.population.evaluation.predictors import CONTROLS, MODEL, scored

UNIT = "‰ per year"
PANEL = {"r2_within_year": "within year", "r2_between_place": "between places", "r2_change": "change", "r2_oos": "oos"}


def result_sections(scores: dict, facts: dict, plots: Path) -> list[Section]:
    """Sections of the page: the task, the scores, permuted labels and controls, and uncertainty."""
    return [_about(scores, facts), _results(scores, plots), _without_tile(scores), _trust(scores, plots)]


def said_of_intervals(units: dict) -> str:
    """The method of the intervals, or the reason why there are none."""
    return units["method"] + (f" ({units['label']})" if units["label"] else "")


def text_of(value: object) -> str:
    """A value of params.yaml, of a count or of the audit as a reader sees it; – where there is none."""
    if value is None:
        return "–"
    if isinstance(value, list):
        return ", ".join(map(text_of, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def named(values: dict) -> list[list[str]]:
    """Rows of a name without underscores and its value."""
    return [[name.replace("_", " "), text_of(value)] for name, value in values.items()]


def score_lines(rows: dict[str, dict], numbers: dict[str, str]) -> str:
    """A line for each name with R² and MAE in intervals and the `numbers`, a key of its score -> the heading."""
    cells = [
        [name, cell_interval(score, "r2", 3), cell_interval(score, "mae", 3)]
        + [cell(score.get(key), 0 if key == "n" else 3) for key in numbers]
        for name, score in rows.items()
    ]
    return pd.DataFrame(cells, columns=["", "R² [95 %]", "MAE [95 %]", *numbers.values()]).to_string(index=False)


def score_table(scores: dict) -> Table:
    """A row for every predictor; those of the model stand out."""
    panel = {name: title for name, title in PANEL.items() if scores["head"][name] is not None}
    if scores["head"]["r2_between_place"] == scores["head"]["r2"]:  # one label for each place
        panel.pop("r2_between_place", None)
    header = ["group", "what it is", "kind", "R² [95 %]", "MAE [95 %]"]
    numbers = {"rmse": "RMSE", "pearson_r": "Pearson r", "spearman_r": "Spearman ρ", "bias": "bias"}
    header += [*numbers.values(), "parsed"]
    groups = scored(scores)
    rows = []
    for group in groups:
        score = scores[group.name]
        row = [group.name, group.title, "model" if group in MODEL else "baseline"]
        row += [cell_interval(score, "r2"), cell_interval(score, "mae"), *(cell(score[key]) for key in numbers)]
        row += [f"{score['parse_rate']:.1%}" if group.parsed else ""]
        rows.append(row + [cell_interval(score, key) for key in panel])
    strong = frozenset(number for number, group in enumerate(groups) if group in MODEL)
    caption = f"{'Locked' if scores['final'] else 'Test'}, n = {scores['head']['n']}, {UNIT}{_note(scores)}"
    return Table(caption, header + [f"R² {title}" for title in panel.values()], rows, strong, words=3)


def paired_table(scores: dict) -> Table:
    """Differences between two predictors on the same rows."""
    rows = []
    for name, pair in scores["paired"].items():
        title = name.replace("_minus_", " − ").replace("_", " ")
        rows.append([title, cell_interval(pair, "r2"), cell_interval(pair, "mae"), cell(pair["sd"])])
    unit = scores["units"]["unit"]
    caption = f"Paired differences on the same {unit}s; better is R² above 0, MAE below 0{_note(scores)}"
    return Table(caption, ["difference", "R² [95 %]", "MAE [95 %]", "standard deviation of the difference"], rows)


def null_table(scores: dict) -> Table:
    """Ridge as trained and on permuted labels."""
    null = scores["null"]["ridge"]
    rows = [["ridge, as trained", cell(null["r2"]), ""]]
    if null["r2"] is not None:
        mean, most = cell(null["r2_null_mean"], 3), cell(null["r2_null_max"], 3)
        label = f"ridge, labels permuted between places ({null['draws']} draws)"
        rows.append([label, f"{mean} (largest {most})", f"p = {null['p_value']:.3f}"])
    return Table(
        "Permutation test: labels are moved between places, each place's years together", ["", "R²", "p"], rows
    )


def controls_table(scores: dict) -> Table:
    """The model on its own tiles and on inputs that say nothing of the place."""
    rows = [[f"{part}, as it is", cell(scores[part]["r2"]), cell(scores[part]["mae"])] for part in ("head", "text")]
    rows += [
        [f"{part}, {CONTROLS[control]}", *([cell(values["r2"]), cell(values["mae"])] if values else ["–", "–"])]
        for control, parts in scores["controls"].items()
        for part, values in parts.items()
    ]
    return Table("The model on other inputs", ["input", "R²", "MAE"], rows)


def interval_table(scores: dict) -> Table:
    """Prediction intervals of each group, or why there are none."""
    known = scores["prediction_intervals"]
    rows = []
    for name, part in known["groups"].items():
        said = ["none", "none", part.get("refused")]
        if "refused" not in part:
            said = [cell(part["mean_width"]), cell_interval(part, "coverage"), part["guarantee"]]
        rows.append([name, str(part["calibration_places"]), *said])
    header = ["group", "calibration places", "mean width", "labels inside [95 %]", "guarantee"]
    return Table(f"Prediction intervals of {known['level']:.0%}", header, rows)


def _about(scores: dict, facts: dict) -> Section:
    units, drawn = scores["units"], scores["head"]["r2_low"] is not None
    paragraphs = [
        f"A vision-language model reads a multi-band tile of a place and predicts its growth rate in {UNIT}, "
        "with a regression head and in words, before and after preference optimisation (DPO). "
        + (
            "The scores are those of the locked provinces, opened once."
            if scores["final"]
            else "Nothing was fitted or chosen on the test fold. Cross-validated scores are exploratory all the same: "
            "whoever tries many settings and looks at the test scores chooses by them. The locked provinces "
            "(evaluate --final) are for the final test."
        ),
        "R² is 1 − SSE/SST about the mean of the scored labels, MAE the mean absolute error. R² within year takes SST "
        "about the mean of each year, so predicting each year's mean scores 0. R² between places compares the means of "
        "places; R² change compares deviations from them. R² oos (out of sample) takes SST about the training mean, so "
        "predicting the training mean scores 0. An answer that cannot be parsed counts as the training mean; the "
        "column parsed says how many could be.",
        f"Intervals: {said_of_intervals(units)}; {units['n_units']} {units['unit']}s. "
        + (f"Neighbouring {units['unit']}s are alike, so the true intervals are wider. " if drawn else "")
        + "One fold says little: experiments/folds.sh pools all of them.",
    ]
    if facts["method"] == "place" and facts["task"] != "next_year":
        paragraphs.append("The split is by place without a buffer: places near each other may be on both sides.")
    if facts["origin"] is not None:
        paragraphs.append(
            "All test labels are of one year, so intervals over places or blocks say nothing of other years. Run "
            "several origins (split.origin) to see how much years differ."
        )
    if scores["retrospective"]:
        paragraphs.append(
            "split.retrospective_tiles: some tiles were made in or after the year that is predicted, so no score here "
            "is that of a forecast."
        )
    if scores["permutation"]:
        paragraphs.append("sft.permutation: the model was trained on permuted labels. Its scores are a null.")
    return Section("What this is", paragraphs)


def _results(scores: dict, plots: Path) -> Section:
    rows = [
        [name, cell(score["r2"]), cell(score["mae"]), str(score["n"])] for name, score in scores["validation"].items()
    ]
    validation = Table(f"Validation, on which choices are made{_note(scores)}", ["group", "R²", "MAE", "n"], rows)
    best = scores["best_baseline_on_validation"]
    return Section(
        "Result",
        [f"Rows of the model are shaded. The baseline to beat, the best on validation, is {best}."],
        [score_table(scores), paired_table(scores), validation],
        [Figure(plots / "score_intervals.png", f"R² of every group{_note(scores)}.")],
    )


def _without_tile(scores: dict) -> Section:
    fields = scores["prompt_fields"]
    said = "The prompt names neither city, province nor year."
    if fields:
        said = f"The prompt names {', '.join(fields)}: the rows without an image show the score of the prompt alone."
    return Section(
        "Baselines on permuted labels, and controls",
        [
            f"A score that remains when the input says nothing of the place does not come from the tile. {said}",
            "experiments/permuted.sh trains the model itself on permuted labels.",
        ],
        [null_table(scores), controls_table(scores)],
    )


def _trust(scores: dict, plots: Path) -> Section:
    header = ["group", "units", "Moran's I of residuals", "p", "ICC by place", "ICC by block", "effective size"]
    keys = ("n_units", "morans_i", "morans_i_p", "icc_place", "icc_block", "n_effective")
    rows = [
        [name, *(str(value) if isinstance(value := scores[name][key], int) else cell(value, 3) for key in keys)]
        for name in ("head", "text", "ridge", "mean")
    ]
    caption = "Dependence of residuals: where they are correlated, the effective sample size is below the rows' number"
    tables = [Table(caption, header, rows), interval_table(scores)]
    regions = [
        [name, region, str(values["n_places"]), cell_interval(values, "coverage")]
        for name, part in scores["prediction_intervals"]["groups"].items()
        for region, values in part.get("regions", {}).items()
    ]
    if regions:
        caption = "Coverage in provinces with 20 places or more; places are taken as independent"
        tables.append(Table(caption, ["group", "province", "places", "coverage"], regions, words=2))
    drawn = plots / "reliability.png"
    caption = (
        "Share of labels inside the prediction interval against its level. Bars take test places as independent; "
        "all levels are calibrated on the same places, so their errors go together."
    )
    return Section("How far to trust it", [], tables, [Figure(drawn, caption)] if drawn.exists() else [])


def _note(scores: dict) -> str:
    return "; transductive: pretraining saw the test tiles" if scores["transductive"] else ""
