"""Tables of the report."""

from collections.abc import Iterable

from src.core.report.html_page import Table, cell, cell_interval
from src.species.data.task import KINDS
from src.species.evaluation.predictors import PREDICTORS, TITLES
from src.species.report.controls_figure import SETTINGS

TESTS = KINDS | {"all": "all test records"}
SCORE = {
    "top1": "top-1",
    "top5": "top-5",
    "macro_f1": "macro-F1",
    "log_loss": "log loss (nats)",
    "calibration_error": "calibration error",
}


def accuracy_table(scores: dict) -> Table:
    found = [one for one in PREDICTORS if one.name in scores]
    kinds = scores[found[0].name]  # the same of all
    rows = [[one.name, one.title, *_top1(scores[one.name].values())] for one in found]
    header = ["group", "model", *(f"{kind} (n = {score['n']})" for kind, score in kinds.items())]
    strong = frozenset(row for row, one in enumerate(found) if one.kind == "trained")
    return Table("Top-1 accuracy [95 % interval]", header, rows, strong=strong, words=2)


def detail_tables(scores: dict) -> list[Table]:
    groups = {name: scores[name] for name in TITLES if name in scores}
    first = next(iter(groups))
    tables = []
    for kind, facts in groups[first].items():
        found = {name: group[kind] for name, group in groups.items()}
        expected = {name: cell(score["calibration_error_if_calibrated"]) for name, score in found.items()}
        rows = [[name, *(cell_interval(found[name], key) for key in SCORE), expected[name]] for name in found]
        caption = (
            f"{kind} ({TESTS[kind]}): {facts['n']} records, {facts['n_unknown']} of species without a training record; "
            f"intervals of {first}: {facts['method']}"
        )
        tables.append(Table(caption, ["group", *SCORE.values(), "if calibrated"], rows))
    return tables


def paired_table(paired: dict) -> Table:
    rows = [[f"“{name.replace('-', '” minus “')}”", *_top1(found.values())] for name, found in paired.items()]
    return Table("Difference of top-1 accuracy on the same records", ["", *next(iter(paired.values()))], rows)


def bin_tables(bins: dict) -> list[Table]:
    captions = {"frequency": "By training records of the species", "distance": "By km to the nearest training record"}
    tables = []
    for name, kinds in bins.items():
        for kind, groups in kinds.items():
            first = next(iter(groups.values()))
            header = ["group", *(f"{bin_['label']} (n = {bin_['n']})" for bin_ in first)]
            rows = [[group, *_top1(found)] for group, found in groups.items()]
            tables.append(Table(f"{captions[name]}: {KINDS[kind]}", header, rows))
    return tables


def facts_table(caption: str, rows: dict[str, dict]) -> Table:
    """A row of facts under each name; the first row's keys are the header, without values that are dicts."""
    header = [key for key, value in next(iter(rows.values()), {}).items() if not isinstance(value, dict)]
    cells = [[words(name), *(fact(found[key]) for key in header)] for name, found in rows.items()]
    return Table(caption, ["", *map(words, header)], cells)


def controls_table(models: dict) -> Table:
    """Top-1 of simple models under each of SETTINGS, with the majority class below each."""
    rows = []
    for name, found in models.items():
        shuffled, gain = found.get("shuffled", {}).get("spatial"), found["no_buffer_minus_split"]
        values = found["split"] | found | {"shuffled": shuffled}
        gained = cell_interval({"gain": gain["difference"], "gain_low": gain["low"], "gain_high": gain["high"]}, "gain")
        null = shuffled and shuffled["if_independent"]
        rows.append([words(name), *(_drawn(values.get(key)) for key in SETTINGS), gained, cell(null)])
        majority = [_drawn(found["majority"].get(key)) for key in SETTINGS]
        rows.append([f"{words(name)}: majority class", *majority, "–", "–"])
    header = ["", *(title.replace("\n", " ") for title in SETTINGS.values()), "gain", "independent guesses"]
    return Table("Top-1 accuracy under each split; of draws the mean (least to greatest)", header, rows)


def reconstruction_table(found: dict) -> Table:
    rows = {
        f"{modality}, {kind}": errors
        for modality, kinds in found.items()
        for kind, errors in kinds.items()
        if kind in KINDS
    }
    return facts_table("Squared error of the masked modality, predicted from the other", rows)


def retrieval_table(found: dict) -> Table:
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


def words(name: str) -> str:
    return name.replace("_", " ")


def fact(value: object) -> str:
    """A value of JSON for a table; – where there is none."""
    if isinstance(value, list):
        return "–".join(map(str, value))
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _top1(scores: Iterable[dict]) -> list[str]:
    return [cell_interval(score, "top1") for score in scores]


def _drawn(value: float | dict | None) -> str:
    if isinstance(value, dict):
        return f"{cell(value['mean'])} ({cell(value['least'])} to {cell(value['greatest'])})"
    return cell(value)
