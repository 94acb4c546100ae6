"""The page reports/species/index.html: results first, then controls, split, training and data."""

import json
from pathlib import Path

import pandas as pd

from src.core.report import html_page
from src.core.report.html_page import Figure, Section, Table
from src.species.data.task import KINDS, Task
from src.species.report import page_results

SIMULATED = (
    "These observations and embeddings are simulated: they show that the pipeline works and what its tests can see, "
    "and say nothing of real species."
)


def write(path: Path, task: Task, scores: dict, bins: dict, facts: dict, used: dict, plots: Path, curves: Path) -> None:
    """The page, with the figures of `plots` and the trainings' below `curves`."""
    lead = "Which species was observed, told from embeddings on places and years that no model has seen."
    lead = " ".join([lead, *([SIMULATED] if scores["simulated"] else []), *declared_leaks(facts)])
    sections = [
        result_section(scores, plots),
        Section(
            "Rare species, and distance to training",
            ["A bin of fewer than ten regions (or dates) has no interval, one of fewer than ten records no point."],
            page_results.bin_tables(bins),
            [
                Figure(plots / "by_frequency.png", "Top-1 accuracy by the number of training records of the species"),
                Figure(plots / "by_distance.png", "Top-1 accuracy by the distance to the nearest training record"),
            ],
        ),
        Section(
            "Confusion, map and calibration",
            figures=[
                Figure(plots / "confusion.png", "Confusion of the commonest species; last column: any other"),
                Figure(plots / "accuracy_map.png", "Test records named rightly and wrongly, and each held-out square"),
                Figure(plots / "calibration.png", "Stated probability against accuracy; dots as large as their bin"),
            ],
        ),
        Section(
            "Controls: how much a leak would raise the score",
            [
                "Simple models are fitted again under each split: the baseline of place alone, and logistic "
                "regression on principal components of each embedding. Without a buffer, records around the held-out "
                "squares train too; gain is the rise in accuracy that this brings, with its 95 % interval over "
                "squares. With as many rows, as many other training records are left out in return. Random records: "
                "the same number of test records, drawn at random. Shuffled: embeddings permuted among observations; "
                "such a model can only reach the accuracy in the last column, that of guesses independent of the truth."
            ],
            [page_results.controls_table(scores["controls"]["models"])],
            [Figure(plots / "controls.png", "Accuracy of simple models under our split and under splits that leak")],
        ),
        split_section(facts, scores["audit"], plots),
        training_section(scores, curves),
        Section("Data", about_data(task)),
        Section("Parameters", [json.dumps(used, ensure_ascii=False)]),
    ]
    if errors := scores["reconstruction"]:
        unit = "Errors are in units of the training variance: the training mean as a prediction scores 1."
        tables = [page_results.reconstruction_table(errors), page_results.retrieval_table(scores["retrieval"])]
        sections.insert(4, Section("One modality from the other", [unit], tables))
    html_page.write(path, "Species from embeddings, on unseen places and years", lead, sections)


def declared_leaks(facts: dict) -> list[str]:
    """Settings that make scores mean less, for the head of the page; `facts` is split.json."""
    said = []
    if facts["demonstration"]:
        said.append("NO BUFFER (split.buffer_km: 0): training lies at the edges of the squares, no score is a test.")
    if shared := facts["settings"]["shared_embeddings"]:
        said.append(
            f"SHARED EMBEDDINGS (split.shared_embeddings: {', '.join(shared)}): roles may share embeddings that tell "
            "the label, so scores of a group that reads them mean nothing for new records."
        )
    return said


def result_section(scores: dict, plots: Path) -> Section:
    paragraphs = [
        f"Three kinds of test: {'; '.join(f'{kind}: {title}' for kind, title in KINDS.items())}. Around known places "
        "there is no buffer: training records may lie metres away.",
        "Every group is scored on the same records, those with every stored embedding. Intervals come from leaving out "
        "one unit at a time (jackknife, Student's t). A unit is a held-out square; at known places it is a grid cell "
        "or a date, whichever makes the interval wider.",
        f"{scores['classes']} species have a training record. A model cannot name another one: its records count as "
        "wrong, and are left out of log loss and calibration. “If calibrated” is the calibration error that a "
        "perfectly calibrated model would show on as many records; it is never 0.",
    ]
    if scores["incomplete"]:
        found = ", ".join(f"{name} {score['top1']:.2f} of {score['n']}" for name, score in scores["incomplete"].items())
        paragraphs.append(f"Top-1 accuracy on the test records that lack a modality: {found}.")
    tables = [page_results.accuracy_table(scores)]
    tables += [page_results.paired_table(scores["paired"])] if scores["paired"] else []
    return Section(
        "Result",
        paragraphs,
        [*tables, *page_results.detail_tables(scores)],
        [Figure(plots / "scores.png", "Top-1 accuracy of every group on the three kinds of test")],
    )


def split_section(facts: dict, audit: dict, folder: Path) -> Section:
    caption = "Leakage audit; a violation stops the stage unless split.shared_embeddings allows it"
    found = pd.json_normalize(audit, sep=" · ").iloc[0].items()
    rows = [[page_results.words(key), page_results.fact(value)] for key, value in found]
    return Section(
        "Split and audit",
        [
            "Statistics difference: between the mean and deviation in use and those of the training records alone. "
            "Within-label share: the part of an embedding's variance that lies within species; near 0 the embedding is "
            "the name of the species in numbers.",
        ],
        [
            page_results.facts_table("Roles; records may have several images (observations)", facts["statistics"]),
            Table(caption, ["", "found"], rows),
        ],
        [
            Figure(folder / "split_map.png", "Roles, held-out squares and their buffers"),
            Figure(folder / "distances.png", "Distance of test records to the nearest training record"),
        ],
    )


def training_section(scores: dict, folder: Path) -> Section:
    """Scores on validation, and the curves of the stages that trained."""
    stages = {"train": "The classifiers", "crossmodal": "The masked autoencoder and the probe"}
    curves = {folder / stage / "curves.png": f"{title}: loss per epoch" for stage, title in stages.items()}
    return Section(
        "Training",
        tables=[page_results.facts_table("Validation, by which settings and epochs were chosen", scores["validation"])],
        figures=[Figure(path, caption) for path, caption in curves.items() if path.exists()],
    )


def about_data(task: Task) -> list[str]:
    manifest, index = task.store.manifest, task.store.index
    present = {name: int(task.store.present(name).sum()) for name in task.store.modalities}
    return [
        manifest["description"] or "No description (source.json) came with the data.",
        f"{len(index)} observations of {index['species'].nunique()} species, {index['year'].min()} to "
        f"{index['year'].max()}; embeddings: {present}; coordinate uncertainty unknown for "
        f"{int(index['uncertainty_m'].isna().sum())}.",
    ]
