"""What the groups of metrics/species.json are called, and the tables of the report."""

from collections.abc import Iterator

from src.core.report import Table, cell, cell_interval

MEANING = {
    "language": "network on language",
    "vision": "network on vision",
    "both": "network on both (late fusion)",
    "crossmodal": "network on the shared space",
    "crossmodal_logistic": "logistic regression on the shared space",
    "crossmodal_knn": "nearest neighbours in the shared space",
    "pca": "network on principal components of both",
    "pca_logistic": "logistic regression on components of both",
    "pca_knn": "nearest neighbours in components of both",
    "logistic_language": "logistic regression on language",
    "logistic_vision": "logistic regression on vision",
    "logistic": "logistic regression on both",
    "knn_language": "nearest neighbours in language",
    "knn_vision": "nearest neighbours in vision",
    "knn": "nearest neighbours in both",
    "location_season": "place and season alone",
    "location": "place alone",
    "majority": "frequencies of training",
}
MAIN = ("both", "language", "vision", "crossmodal", "location", "majority")
"""Those with figures of their own, the first one there is also with maps and confusion."""

KIND = {
    "temporal": "known places, new year (temporal)",
    "spatial": "new places, known years (spatial)",
    "both": "new places, new year (both)",
    "all": "all test records",
}
SCORE = {
    "top1": "top-1",
    "top5": "top-5",
    "macro_f1": "macro-F1",
    "log_loss": "log loss (nats)",
    "calibration_error": "calibration error",
}


def accuracy_table(scores: dict) -> Table:
    """Top-1 of every group, a column per kind."""
    names = [name for name in MEANING if name in scores]
    kinds = [kind for kind in KIND if any(kind in scores[name] for name in names)]
    rows = [
        [name, MEANING[name], *(cell_interval(scores[name][kind], "top1") for kind in kinds if kind in scores[name])]
        for name in names
    ]
    n = {kind: scores[names[0]][kind] for kind in kinds}
    header = ["group", "what", *(f"{KIND[kind]}, n = {n[kind]['n']}" for kind in kinds)]
    strong = frozenset(row for row, name in enumerate(names) if name in ("language", "vision", "both", "crossmodal"))
    return Table("Top-1 accuracy [95 % interval]", header, rows, strong=strong, words=2)


def detail_tables(scores: dict) -> list[Table]:
    """All five scores of every group, a table per kind."""
    names = [name for name in MEANING if name in scores]
    tables = []
    for kind, title in KIND.items():
        rows = [
            [name, *(cell_interval(scores[name][kind], score) for score in SCORE)]
            for name in names
            if kind in scores[name]
        ]
        if rows:
            facts = scores[names[0]][kind]
            caption = (
                f"{title}: {facts['n']} records, {facts['n_unknown']} of species without a training record; intervals "
                f"of {names[0]}: {facts['method']}"
            )
            tables.append(Table(caption, ["group", *SCORE.values()], rows))
    return tables


def paired_table(paired: dict) -> Table:
    """Differences of top-1, a row per pair."""
    kinds = [kind for kind in KIND if any(kind in found for found in paired.values())]
    rows = [
        [name.replace("-", " minus "), *(cell_interval(found[kind], "top1") for kind in kinds if kind in found)]
        for name, found in paired.items()
    ]
    return Table("Difference of top-1 accuracy on the same records", ["", *(KIND[kind] for kind in kinds)], rows)


def validation_table(validation: dict) -> Table:
    """What was chosen by: top-1 and log loss on validation."""
    rows = [[name, cell(found["top1"]), cell(found["log_loss"])] for name, found in validation.items()]
    return Table("Validation, by which settings and epochs were chosen", ["group", "top-1", "log loss (nats)"], rows)


def flat_table(caption: str, values: dict) -> Table:
    """Nested JSON as rows: names joined by " · ", lists of numbers in one cell."""
    return Table(caption, ["", "found"], list(_flatten(values)))


def _flatten(values: dict, prefix: str = "") -> Iterator[list[str]]:
    for key, value in values.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(value, dict):
            yield from _flatten(value, f"{name} · ")
        elif isinstance(value, list):
            yield [name, ", ".join(map(_plain, value))]
        else:
            yield [name, _plain(value)]


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)
