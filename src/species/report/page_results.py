"""Tables of the report."""

from collections.abc import Iterator

from src.core.report.html_page import Table, cell, cell_interval
from src.species.data.task import KINDS
from src.species.evaluation.predictors import PREDICTORS, TITLES

TESTS = KINDS | {"all": "all test records"}
SCORE = {
    "top1": "top-1",
    "top5": "top-5",
    "macro_f1": "macro-F1",
    "log_loss": "log loss (nats)",
    "calibration_error": "calibration error",
}
EXPECTED = "calibration_error_if_calibrated"
"""Calibration error that a perfectly calibrated model would have on as many independent rows: it is never 0."""


def accuracy_table(scores: dict) -> Table:
    """Top-1 of every group, a column per kind."""
    found = [one for one in PREDICTORS if one.name in scores]
    kinds = scores[found[0].name]  # the same of all
    rows = [[one.name, one.title, *(cell_interval(scores[one.name][kind], "top1") for kind in kinds)] for one in found]
    header = ["group", "what", *(f"{kind} (n = {score['n']})" for kind, score in kinds.items())]
    strong = frozenset(row for row, one in enumerate(found) if one.kind == "trained")
    return Table("Top-1 accuracy [95 % interval]", header, rows, strong=strong, words=2)


def detail_tables(scores: dict) -> list[Table]:
    """All five scores of every group, a table per kind."""
    groups = {name: scores[name] for name in TITLES if name in scores}
    first = next(iter(groups))
    tables = []
    for kind, facts in groups[first].items():
        rows = [
            [name, *(cell_interval(found[kind], score) for score in SCORE), cell(found[kind][EXPECTED])]
            for name, found in groups.items()
        ]
        caption = (
            f"{kind} ({TESTS[kind]}): {facts['n']} records, {facts['n_unknown']} of species without a training record; "
            f"intervals of {first}: {facts['method']}"
        )
        tables.append(Table(caption, ["group", *SCORE.values(), "if calibrated"], rows))
    return tables


def paired_table(paired: dict) -> Table:
    """Differences of top-1, a row per pair."""
    kinds = next(iter(paired.values()))
    rows = [
        [f"“{name.replace('-', '” minus “')}”", *(cell_interval(found[kind], "top1") for kind in kinds)]
        for name, found in paired.items()
    ]
    return Table("Difference of top-1 accuracy on the same records", ["", *kinds], rows)


def facts_table(caption: str, rows: dict[str, dict]) -> Table:
    """A row of facts under each name; the first row's keys are the header, without values that are dicts."""
    header = [key for key, value in next(iter(rows.values()), {}).items() if not isinstance(value, dict)]
    cells = [[_words(name), *(_fact(found[key]) for key in header)] for name, found in rows.items()]
    return Table(caption, ["", *map(_words, header)], cells)


def controls_table(models: dict) -> Table:
    """Top-1 of cheap models under our split and under leaking ones, with the majority class below each."""
    rows = []
    for name, found in models.items():
        gain, shuffled, majority = found["no_buffer_minus_split"], found.get("shuffled"), found["majority"]
        rows.append(
            [
                _words(name),
                cell(found["split"].get("temporal")),
                cell(found["split"]["spatial"]),
                cell(found["no_buffer"]),
                cell_interval({"g": gain["difference"], "g_low": gain["low"], "g_high": gain["high"]}, "g"),
                _drawn(found["no_buffer_same_size"]),
                _drawn(found["random"]),
                _drawn(shuffled["spatial"]) if shuffled else "–",
                cell(shuffled["spatial"]["if_independent"]) if shuffled else "–",
            ]
        )
        nulls = [majority.get("temporal"), majority["spatial"], majority["no_buffer"], None]
        nulls += [majority["no_buffer_same_size"]["mean"], majority["random"]["mean"]]
        rows.append([f"{_words(name)}: majority class", *map(cell, nulls), "–", "–"])
    header = ["", "temporal", "spatial", "no buffer", "gain", "as many rows", "random", "shuffled", "if independent"]
    return Table("Top-1 accuracy under each split; of draws the mean (least to greatest)", header, rows)


def reconstruction_table(found: dict) -> Table:
    """Squared error of the masked modality, a row per modality and kind of test."""
    rows = {
        f"{modality}, {kind}": errors
        for modality, kinds in found.items()
        for kind, errors in kinds.items()
        if kind in KINDS
    }
    return facts_table("Squared error of the masked modality, guessed from the other", rows)


def retrieval_table(found: dict) -> Table:
    """Recall and rank of the other modality's vector of the same observation, a row per direction, kind and model."""
    rows = {}
    for direction, kinds in found.items():
        for kind, models in kinds.items():
            for name, score in models.items():
                if score is not None:
                    within = score["within_species"]
                    rows[f"{direction}, {kind}: {name}"] = score | {"recall_at_1_within_species": within["recall_at_1"]}
                    chance = {"count": score["count"]} | score["chance"]
                    rows[f"{direction}, {kind}: chance"] = chance | {"recall_at_1_within_species": within["chance"]}
    caption = "The other modality's vector of the same observation, among the test records of a kind"
    return facts_table(caption, rows)


def _drawn(drawn: dict) -> str:
    return f"{cell(drawn['mean'])} ({cell(drawn['least'])} to {cell(drawn['greatest'])})"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _fact(value: object) -> str:
    if isinstance(value, list):
        return "–".join(map(str, value))
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def flatten(values: dict, prefix: str = "") -> Iterator[list[str]]:
    """Nested JSON as rows of name and value, names joined by " · "."""
    for key, value in values.items():
        name = f"{prefix}{_words(str(key))}"
        if isinstance(value, dict):
            yield from flatten(value, f"{name} · ")
        else:
            yield [name, _fact(value)]
