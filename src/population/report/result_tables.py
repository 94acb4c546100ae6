"""The tables of the report that say what came out, and what to make of it."""

from pathlib import Path

from src.core.report.html_page import Figure, Section, Table, cell, cell_interval
from src.population.evaluation.group_scores import CONTROLS, NETWORK, PARSED, WORDS

UNIT = "‰ per year"
MEANING = {
    "head": "regression head after SFT",
    "head_after_dpo": "the same head after DPO (drift)",
    "text": "greedy answer after SFT",
    "dpo": "greedy answer after DPO",
    "text_sampled": "mean of sampled answers, SFT",
    "text_expectation": "probability-weighted answer, SFT",
    "dpo_sampled": "mean of sampled answers, DPO",
    "dpo_expectation": "probability-weighted answer, DPO",
    "mean": "training mean",
    "year": "mean of the training places in the same year",
    "previous_year": "the place's last known label",
    "place_mean": "mean of the place's known labels",
    "place_trend": "trend through the place's known labels",
    "province_year": "province and year effects",
    "latlon": "nearest training places",
    "gp": "Gaussian process on the map",
    "covariates": "ridge on the covariates alone",
    "ridge": "ridge on band statistics",
    "pls": "partial least squares on band statistics",
    "forest": "random forest on band statistics",
    "boosting": "gradient boosting on band statistics",
    "mlp": "small network on band statistics",
    "cnn": "small convolutional network on tiles",
    "resnet18": "ResNet-18 on tiles, from random weights",
}
PANEL = {"r2_within_year": "within year", "r2_between_place": "between places", "r2_change": "change", "r2_oos": "oos"}


def result_sections(scores: dict, facts: dict, plots: Path) -> list[Section]:
    """What was asked and what came out."""
    return [_about(scores, facts), _results(scores, plots), _nulls(scores), _trust(scores, plots)]


def said_of_intervals(units: dict) -> str:
    """How intervals were made, or why there are none."""
    if units["label"]:
        return f"{units['method']} ({units['label']})"
    return units["method"]


def _about(scores: dict, facts: dict) -> Section:
    units, drawn = scores["units"], scores["head"]["r2_low"] is not None
    paragraphs = [
        f"A vision-language model looks at a multi-band tile of a place and predicts its growth rate in {UNIT}, "
        "by a regression head and in words, before and after preference optimisation (DPO). "
        + (
            "The scores are those of the locked provinces, opened once."
            if scores["final"]
            else "Nothing was fitted or chosen on the test fold, yet cross-validated scores are exploratory: whoever "
            "tries often, and looks, chooses on them. The locked provinces (evaluate --final) are for the last word."
        ),
        "R² is 1 − SSE/SST about the mean of what is scored, MAE the mean absolute error. R² within year has the mean "
        "of each year in its SST, so that knowing the calendar is worth 0; between places compares place means; change "
        "compares deviations from them; oos has the training mean, so that the training mean is worth exactly 0. "
        "An answer that could not be parsed scores as the training mean; the parse rate says how often.",
        f"Intervals: {said_of_intervals(units)}; {units['n_units']} {units['unit']}s. "
        + (f"Neighbouring {units['unit']}s are still alike, so the true ones are wider. " if drawn else "")
        + "One fold says little: experiments/folds.sh pools all of them.",
    ]
    if facts["method"] == "place" and facts["task"] != "next_year":
        paragraphs.append("The split is by place without a buffer: places near each other may be on both sides.")
    if facts["origin"] is not None:
        paragraphs.append(
            "All test labels are of one year, whose luck they share: intervals over places or blocks say nothing of "
            "other years. Roll the origin (split.origin) to see some."
        )
    if scores["retrospective"]:
        paragraphs.append(
            "split.retrospective_tiles: tiles were made in or after the years they are asked about, so no score here "
            "is that of a forecast."
        )
    if scores["permutation"]:
        paragraphs.append("sft.permutation: the model was trained on permuted labels. Its scores are a null.")
    return Section("What this is", paragraphs)


def _results(scores: dict, plots: Path) -> Section:
    defined = {name: title for name, title in PANEL.items() if scores["head"][name] is not None}
    if scores["head"]["r2_between_place"] == scores["head"]["r2"]:  # one label for each place
        del defined["r2_between_place"]
    header = ["group", "what it is", "R²", "MAE", "RMSE", "Pearson r", "Spearman ρ", "bias", "parsed"]
    header += [f"R² {title}" for title in defined.values()]
    rows, strong = [], set()
    for name in (name for name in MEANING if name in scores):
        score = scores[name]
        if name in (*NETWORK, *WORDS):
            strong.add(len(rows))
        parsed = f"{score['parse_rate']:.1%}" if name in PARSED else ""
        numbers = [cell_interval(score, "r2"), cell_interval(score, "mae")]
        numbers += [cell(score[key]) for key in ("rmse", "pearson_r", "spearman_r", "bias")]
        rows.append([name, MEANING[name], *numbers, parsed])
        rows[-1] += [cell_interval(score, key) for key in defined]
    note = _note(scores)
    pairs = [
        [pair_name(name), cell_interval(pair, "r2"), cell_interval(pair, "mae"), cell(pair["sd"])]
        for name, pair in scores["paired"].items()
    ]
    validation = [
        [name, cell(score["r2"]), cell(score["mae"]), str(score["n"])] for name, score in scores["validation"].items()
    ]
    best = scores["best_baseline_on_validation"]
    return Section(
        "Result",
        [f"Model rows are shaded. The baseline that is best on validation, and so the one to beat, is {best}."],
        [
            Table(
                f"{'Locked' if scores['final'] else 'Test'}, n = {scores['head']['n']}, {UNIT}{note}",
                header,
                rows,
                frozenset(strong),
                words=2,
            ),
            Table(
                f"Paired differences on the same {scores['units']['unit']}s; better is R² above 0, MAE below 0{note}",
                ["difference", "R²", "MAE", "sd between the two"],
                pairs,
            ),
            Table(f"Validation, on which choices are made{note}", ["group", "R²", "MAE", "n"], validation),
        ],
        [Figure(plots / "score_intervals.png", f"R² of every group{note}.")],
    )


def _nulls(scores: dict) -> Section:
    null = scores["null"]["ridge"]
    rows = [["ridge, as trained", cell(null["r2"]), ""]]
    if null["r2"] is not None:
        mean, most = cell(null["r2_null_mean"], 3), cell(null["r2_null_max"], 3)
        rows.append([f"ridge, labels permuted between places ({null['draws']} draws)", f"{mean} (largest {most})",
                     f"p = {null['p_value']:.3f}"])  # fmt: skip
    controls = [
        [f"{part}, {CONTROLS[control]}", *([cell(values["r2"]), cell(values["mae"])] if values else ["–", "–"])]
        for control, parts in scores["controls"].items()
        for part, values in parts.items()
    ]
    for part in ("text", "head"):
        controls.insert(0, [f"{part}, as it is", cell(scores[part]["r2"]), cell(scores[part]["mae"])])
    fields = scores["prompt_fields"]
    return Section(
        "Nulls and controls",
        [
            "What remains of a score when the tile no longer says anything is not owed to the tile. "
            + (
                f"The prompt names {', '.join(fields)}: the rows without an image say what that alone is worth."
                if fields
                else "The prompt names neither city, province nor year."
            ),
            "The model itself, trained on permuted labels, is scored by experiments/permuted.sh.",
        ],
        [
            Table("Whole trajectories of labels permuted between places, years kept", ["", "R²", "p"], rows),
            Table("The model on other inputs", ["", "R²", "MAE"], controls),
        ],
    )


def _trust(scores: dict, plots: Path) -> Section:
    header = ["group", "units", "Moran's I of residuals", "p", "ICC by place", "ICC by block", "effective size"]
    keys = ("n_units", "morans_i", "morans_i_p", "icc_place", "icc_block", "n_effective")
    rows = [
        [name, *(str(value) if isinstance(value := scores[name][key], int) else cell(value, 3) for key in keys)]
        for name in ("head", "text", "ridge", "mean")
    ]
    tables = [Table("How residuals hang together: rows count for less than they number", header, rows)]
    paragraphs = []
    known = scores["prediction_intervals"]
    for name, part in known["groups"].items():
        if "refused" in part:
            paragraphs.append(f"Prediction intervals, {name}: none. {part['refused']}")
    given = {name: part for name, part in known["groups"].items() if "refused" not in part}
    if given:
        rows = [
            [
                name,
                str(part["calibration_places"]),
                cell(part["mean_width"]),
                cell_interval(part, "coverage"),
                part["guarantee"],
            ]
            for name, part in given.items()
        ]
        header = ["", "calibration places", "mean width", "coverage", "promise"]
        tables.append(Table(f"Prediction intervals of {known['level']:.0%}", header, rows))
        regions = [
            [name, region, str(values["n_places"]), cell_interval(values, "coverage")]
            for name, part in given.items()
            for region, values in part["regions"].items()
        ]
        if regions:
            tables.append(
                Table(
                    "Coverage by province, of 20 places or more, as if places were independent",
                    ["", "province", "places", "coverage"],
                    regions,
                    words=2,
                )
            )
    drawn = plots / "reliability.png"
    caption = "Share of labels inside the prediction interval against its level. Bars take test places as independent;"
    pictures = [Figure(drawn, f"{caption} all levels share their calibration places, and stray together.")]
    return Section("How far to trust it", paragraphs, tables, pictures if drawn.exists() else [])


def pair_name(name: str) -> str:
    """head_minus_ridge -> head − ridge"""
    return name.replace("_minus_", " − ").replace("_", " ")


def _note(scores: dict) -> str:
    return "; transductive: pretraining saw the test tiles" if scores["transductive"] else ""
