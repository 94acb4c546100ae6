"""Score every model and baseline on unseen places and years, draw, and write the report.

    python -m src.species.evaluate --params pipelines/species/params.yaml --store data/species/store \\
        --split data/species/split --baselines data/species/baselines --controls data/species/controls \\
        --train models/species/train --crossmodal models/species/crossmodal --curves plots/species \\
        --metrics metrics/species.json --out reports/species --plots plots/species/evaluate

Writes metrics/species.json (group -> kind of test -> scores with intervals), figures, and index.html with
predictions.parquet (the named species of every held-out record, a column per group) beside it. All groups are scored
on the same rows: test records that have every stored embedding.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from src.core.evaluation import classification_scores, regression_scores
from src.core.stage import files, run
from src.species.data import task
from src.species.evaluation import group_scores, predictions
from src.species.evaluation.group_scores import Groups, Held
from src.species.evaluation.predictors import MAIN, TITLES, require_complete
from src.species.params import Evaluate, Params
from src.species.report import page, score_figures


def main(params, inputs, out, dry_run=False):
    study = task.read(inputs.store, inputs.split)
    facts = files.read_json(inputs.split / "split.json")
    held, found = Held(study, params.evaluate.calibration_bins), {}
    for folder in (inputs.baselines, inputs.train, inputs.crossmodal):
        answers = predictions.read(folder, study)
        group_scores.require_answers(held, answers, str(folder / predictions.NAME))
        found |= answers
    require_complete(found, study.store.modalities, params.train.models)
    groups = {name: found[name] for name in TITLES if name in found}
    counts = {kind: int(rows.sum()) for kind, rows in held.tests.items()}
    print(f"evaluate: test records with every embedding {counts}, {len(study.classes)} species, groups {list(groups)}")
    if dry_run:
        return

    settings, main_groups = params.evaluate, {name: groups[name] for name in MAIN if name in groups}
    scores = regression_scores.rounded(all_scores(held, groups, facts, inputs))
    divisions = {
        "frequency": (held.frequency, settings.frequency),
        "distance": (held.distance_km, settings.distance_km),
    }
    bins = {
        name: regression_scores.rounded(group_scores.score_bins(held, main_groups, *by))
        for name, by in divisions.items()
    }
    with files.complete_folder(out.plots) as plots, files.complete_folder(out.out) as report:
        predicted_table(held, groups).to_parquet(report / "predictions.parquet", index=False)
        files.write_json(report / "bins.json", bins)
        draw(plots, held, groups, scores, bins, facts, settings)
        # into git, where a reader of the README finds them
        for folder, name in (inputs.split, "split_map"), (inputs.split, "distances"), (inputs.controls, "controls"):
            shutil.copyfile(folder / f"{name}.png", plots / f"{name}.png")
        used = params.model_dump(exclude={"report_to", "checkpoint_root", "simulate"})
        page.write(report / "index.html", study, scores, bins, facts, used, plots, inputs.curves)
    files.write_json(out.metrics, scores)
    for name in groups:
        line = "  ".join(f"{kind} {score['top1']:.3f}" for kind, score in scores[name].items())
        print(f"{name:<20} top-1: {line}")
    print(f"report: {out.out}/index.html")


def all_scores(held: Held, groups: Groups, facts: dict, inputs) -> dict:
    """Contents of metrics/species.json."""
    study = held.task
    return {
        "simulated": study.store.manifest["simulated"],
        "classes": len(study.classes),
        "records": {name: found["observations"] for name, found in facts["statistics"].items()},
        "audit": files.read_json(inputs.split / "audit.json"),
        **group_scores.score_groups(held, groups),
        "incomplete": group_scores.score_points(held, groups, held.rows("test", complete=False), ("top1", "n")),
        "paired": group_scores.score_pairs(held, groups),
        "validation": group_scores.score_points(held, groups, held.rows("validation"), ("top1", "log_loss", "n")),
        "controls": files.read_json(inputs.controls / "controls.json"),
        "retrieval": files.read_json(inputs.crossmodal / "retrieval.json"),
        "reconstruction": files.read_json(inputs.crossmodal / "reconstruction.json"),
    }


def predicted_table(held: Held, groups: Groups) -> pd.DataFrame:
    """id, role, kind, species of every held-out record, and the species each group names; None without an answer."""
    study = held.task
    table = study.observations.iloc[study.held_out][["id", "role", "kind", "species"]].reset_index(drop=True)
    for name, values in groups.items():
        answered = np.isfinite(values).all(axis=1)
        named = study.classes[np.where(answered[:, None], values, 0).argmax(axis=1)].astype(object)
        table[name] = np.where(answered, named, None)
    return table.assign(complete=held.complete)


def draw(folder: Path, held: Held, groups: Groups, scores: dict, bins: dict, facts: dict, settings: Evaluate) -> None:
    study = held.task
    note = "simulated records; " if scores["simulated"] else ""
    title = f"Which species? ({note}{len(study.classes)} species train)\nlines: 95 % intervals"
    score_figures.draw_scores(folder / "scores.png", {TITLES[name]: scores[name] for name in groups}, title)
    score_figures.draw_bins(folder / "by_frequency.png", bins["frequency"], "training records of the species")
    score_figures.draw_bins(folder / "by_distance.png", bins["distance"], "km to the nearest training record")

    rows, best = held.tests["all"], next(name for name in MAIN if name in groups)
    named = study.classes[groups[best][rows].argmax(axis=1)]
    common = study.observations["species"].iloc[study.train].value_counts(sort=False).sort_index()
    names = list(common.sort_values(ascending=False, kind="stable").index[: settings.commonest])
    title = f"The {len(names)} commonest species, {TITLES[best]}, all test records"
    score_figures.draw_confusion(folder / "confusion.png", held.species[rows], named, names, title)

    # the majority class has one confidence for all records
    shown = [name for name in MAIN if name in groups and name != "majority"]
    tables = {name: classification_scores.reliability_table(held.answers(groups[name], rows)) for name in shown}
    errors = {name: f"calibration error {scores[name]['all']['calibration_error']:.3f}" for name in shown}
    score_figures.draw_calibration(folder / "calibration.png", tables, errors)

    tested = study.observations.iloc[study.held_out[rows]].assign(right=named == held.species[rows])
    trained, title = study.observations.iloc[study.train], f"Where {TITLES[best]} names the species"
    title += f" ({note}per square: share of its test records)"
    score_figures.draw_accuracy_map(folder / "accuracy_map.png", tested, trained, facts["squares"], title)


if __name__ == "__main__":
    stages = ("split", "baselines", "controls", "train", "crossmodal")
    inputs = {"store": "ingest"} | {stage: stage for stage in stages}
    sources = {"curves": "folder with the curves of train and crossmodal"}
    outputs = {"metrics": "JSON of scores", "out": "folder of the report", "plots": "folder of figures"}
    run.stage(main, Params, name="species.evaluate", doc=__doc__, inputs=inputs, sources=sources, outputs=outputs)
