"""reports/population/index.html: what evaluate found, in the order in which a reviewer asks."""

from pathlib import Path

import numpy as np
import pandas as pd

from src.core import figures, report
from src.core.baselines import PERMUTATIONS
from src.core.report import Figure, Section, Table, cell, cell_interval
from src.population.scoring import NETWORK, PARSED, WORDS

UNIT = "‰ per year"
STAGES = ("pretrain", "sft", "dpo")
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
    "year": "training mean of the year",
    "latlon": "nearest training places",
    "ridge": "ridge on band means",
    "forest": "random forest on band means",
    "shuffled": "ridge on shuffled labels (null)",
}
PAIR_MEANING = {
    "head_minus_ridge": "head − ridge",
    "head_after_dpo_minus_head": "head after DPO − head",
    "text_minus_ridge": "text − ridge",
    "dpo_minus_text": "dpo − text",
}
MOST_ROWS, MOST_PLACES = 20, 200


def read_curves(folder: Path) -> dict[str, list[figures.Curve]]:
    """The dvclive series below <folder>/<stage>/plots/metrics as panels; a stage without any is left out.

    Files are <train or validation>/<name>.tsv, their last column is the value; both kinds share a panel.
    """
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


def draw(folder: Path, table: pd.DataFrame, rows: pd.DataFrame, scores: dict, curves: dict, train_mean: float) -> None:
    """The PNGs of plots/population/evaluate from predictions (`table`), all label rows and the metrics."""
    test = table[table.split == "test"]
    y = test.y.to_numpy()
    panels = {
        group: (test[group].fillna(train_mean).to_numpy(), scores[group])
        for group in ("head", "text_expectation", "ridge")
    }
    figures.predicted_vs_actual(folder / "predicted_vs_actual.png", y, panels, UNIT)
    groups = {name: scores[name] for name in MEANING if name in scores}
    units = scores["units"]
    figures.score_intervals(
        folder / "score_intervals.png",
        groups,
        (*NETWORK, *WORDS),
        f"R² over {units['n_units']} test {units['unit']}s"
        + (" with 95 % interval" if scores["mean"]["r2_low"] is not None else ", too few for intervals")
        + " (model in colour)",
    )
    if np.isfinite(rows[["lat", "lon"]].to_numpy(np.float64)).all():
        others = rows[rows.role != "test"]
        figures.residual_map(
            folder / "residual_map.png",
            test.lat.to_numpy(),
            test.lon.to_numpy(),
            (test["head"] - test.y).to_numpy(),
            (others.lat.to_numpy(), others.lon.to_numpy()),
            "Where the regression head is wrong (one dot per test label)",
            UNIT,
        )
    if curves:
        figures.curves(folder / "curves.png", curves)


def write(path: Path, facts: dict, sections: list[Section]) -> None:
    """The page of `sections`; `facts` is split.json."""
    lead = (
        f"Fold {facts['fold'] + 1} of {facts['folds']}: what a Qwen-VL model predicts on places it never saw, "
        "beside baselines and a null."
    )
    report.write(path, "Population growth from embedding tiles", lead, sections)


def result_sections(scores: dict, facts: dict, plots: Path) -> list[Section]:
    """What was asked and what came out."""
    return [_about(scores, facts), _results(scores, plots)]


def _about(scores: dict, facts: dict) -> Section:
    units, drawn = scores["units"], scores["mean"]["r2_low"] is not None
    paragraphs = [
        f"A vision-language model looks at a multi-band tile of a place and predicts its growth rate in {UNIT}, "
        "by a regression head and in words, before and after preference optimisation (DPO). "
        "All scores are on the test fold, which nothing was tuned on.",
        "R² is 1 − SSE/SST about the test mean, MAE the mean absolute error. An answer that could not be parsed "
        "scores as the training mean; the parse rate says how often. Residual and bias are predicted minus actual.",
        f"Intervals: {units['intervals']}. "
        + (f"Neighbouring {units['unit']}s are still alike, so the true ones are wider. " if drawn else "")
        + "One fold says little: experiments/folds.sh pools all of them.",
    ]
    if facts["unit"] == "place":
        paragraphs.append("The split is by place without a buffer: places near each other may be on both sides.")
    return Section("What this is", paragraphs)


def _results(scores: dict, plots: Path) -> Section:
    within = "r2_within_year" in scores["mean"]
    header = ["group", "what it is", "R²", "MAE", "RMSE", "Pearson r", "Spearman ρ", "bias", "parsed"]
    header += ["R² within year"] if within else []
    rows, strong = [], set()
    for name in (name for name in MEANING if name in scores):
        score = scores[name]
        if name in (*NETWORK, *WORDS):
            strong.add(len(rows))
        parsed = f"{score['parse_rate']:.1%}" if name in PARSED else ""
        numbers = [cell_interval(score, "r2"), cell_interval(score, "mae")]
        numbers += [cell(score[key]) for key in ("rmse", "pearson_r", "spearman_r", "bias")]
        rows.append([name, MEANING[name], *numbers, parsed])
        if within:
            rows[-1].append(cell_interval(score, "r2_within_year"))
    note = _note(scores)
    mean_null = next(value for key, value in scores["shuffled"].items() if key.startswith("r2_mean_of_"))
    pairs = [
        [PAIR_MEANING[name], cell_interval(pair, "r2"), cell_interval(pair, "mae"), cell(pair["sd"])]
        for name, pair in scores["paired"].items()
    ]
    validation = [
        [name, cell(score["r2"]), cell(score["mae"]), str(score["n"])] for name, score in scores["validation"].items()
    ]
    return Section(
        "Result",
        [
            f"Model rows are shaded, baselines and the null are not. The row `shuffled` is one shuffle of the training "
            f"labels; the mean R² of {PERMUTATIONS} of them is {cell(mean_null)}.",
        ],
        [
            Table(f"Test, n = {scores['head']['n']}, {UNIT}{note}", header, rows, frozenset(strong), words=2),
            Table(
                f"Paired differences on the same drawn {scores['units']['unit']}s; "
                f"better is R² above 0, MAE below 0{note}",
                ["difference", "R²", "MAE", "sd between the two"],
                pairs,
            ),
            Table(f"Validation, on which choices are made{note}", ["group", "R²", "MAE", "n"], validation),
        ],
        [Figure(plots / "score_intervals.png", f"R² of every group{note}.")],
    )


def _note(scores: dict) -> str:
    return "; transductive: pretraining saw the test tiles" if scores["transductive"] else ""


def split_section(facts: dict, audit: dict, drawn: Path) -> Section:
    """Roles, audit and the map that the split stage drew."""
    counts = facts["counts"].items()
    rows = [[name.replace("_", " "), _plain(value)] for name, value in audit.items()]
    return Section(
        "Split and audit",
        [
            f"Method {facts['method']}, split seed {facts['seed']}, fold {facts['fold'] + 1} of {facts['folds']}: "
            + ", ".join(f"{count} {role}" for role, count in counts)
            + " tiles."
        ],
        [Table("Leakage audit; a violation stops the split stage", ["check", "found"], rows)],
        [Figure(drawn, "Tiles by role.")] if drawn.exists() else [],
    )


def picture_sections(plots: Path, quicklook: Path) -> list[Section]:
    """Predictions, curves and false colour, each where it was drawn."""
    captions = {
        plots / "predicted_vs_actual.png": "Test labels against predictions: the regression head, the "
        "probability-weighted answer of the SFT model, ridge.",
        plots / "residual_map.png": "Residuals of the regression head on the map.",
    }
    drawn = [Figure(path, caption) for path, caption in captions.items() if path.exists()]
    sections = [Section("Predictions", figures=drawn)]
    if (plots / "curves.png").exists():
        curves = Figure(plots / "curves.png", "Every figure that training logged, once an epoch.")
        sections.append(Section("Training", figures=[curves]))
    if quicklook.exists():
        colours = Figure(quicklook, "Nine training tiles in three principal components, stretched for the eye only.")
        sections.append(Section("False colour", figures=[colours]))
    return sections


def data_section(matching: dict) -> Section:
    """What preprocess matched, and the place x year matrix of a panel; `matching` is matching.json."""
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
            tables.append(_listed(caption, header, [[_plain(v) for v in row.values()] for row in matching[key]]))
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


def run_section(settings: dict, card: str) -> Section:
    """The settings of the stages whose outputs were read; long lists (one number per band) are left out.

    `card` is the file beside the page that says the rest.
    """
    rows = [list(row) for row in _flat(settings, "")]
    beside = f"{card}, beside this page, says what the model reads, under which licences it stands and what limits it."
    return Section("Parameters", [beside], [Table("params.yaml and bandwise.json", ["key", "value"], rows, words=2)])


def training_section(scores: dict) -> Section:
    """What pretraining and preferences came to, each beside what it must beat."""
    tables = []
    if masked := scores["pretrain"]["masked_mse"]:
        rows = [[name.replace("_", " "), cell(value)] for name, value in masked.items()]
        caption = "Pretraining: squared error on masked patches of validation tiles, standardised bands"
        tables.append(Table(caption, ["guess", "error"], rows))
    facts = {name: value for name, value in scores["dpo"].items() if "pairs" in name or "reward" in name}
    rows = [[name.replace("_", " "), str(value)] for name, value in facts.items()]
    tables.append(Table("Preferences (reward accuracy is on validation pairs)", ["", ""], rows, words=2))
    return Section("Pretraining and preferences", tables=tables)


def _matrix(places: dict, years: list[int]) -> Table:
    """Label and tile of every place and year: ● both, ○ a tile alone, + a label alone."""
    marks = {(True, True): "●", (True, False): "○", (False, True): "+", (False, False): ""}
    rows = [
        [name, *(marks[year in place["tiles"], year in place["labels"]] for year in years)]
        for name, place in places.items()
    ]
    legend = "Places and years (● tile and label, ○ tile alone, + label alone)"
    return _listed(legend, ["place", *map(str, years)], rows, MOST_PLACES)


def _flat(values: dict, prefix: str) -> list[tuple[str, str]]:
    flat = []
    for name, value in values.items():
        key = f"{prefix}.{name}".lstrip(".")
        if isinstance(value, dict):
            flat += _flat(value, key)
        elif not (isinstance(value, list) and len(value) > 12):
            flat.append((key, _plain(value)))
    return flat


def _listed(caption: str, header: list[str], rows: list[list[str]], most: int = MOST_ROWS) -> Table:
    shown = f"{caption}: {len(rows)}"
    return Table(shown if len(rows) <= most else f"{shown}, the first {most}", header, rows[:most])


def _plain(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) if value else "none"
    return str(value)


def _curve_unit(name: str) -> str:
    if "mae" in name or "rmse" in name:
        return UNIT
    if "r2" in name:
        return "R²"
    if "accurac" in name or "parse_rate" in name:
        return "share"
    if "learning_rate" in name:
        return "rate per step"
    return "loss" if "loss" in name or "mse" in name else name.replace("_", " ")
