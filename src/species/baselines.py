"""Fit the baselines of species: majority, place, place and season, neighbours and logistic regression.

    python -m src.species.baselines --params pipelines/species/params.yaml --store data/species/store \\
        --split data/species/split --out data/species/baselines

Writes predictions.safetensors (log-probabilities of every species for validation and test rows, a group per baseline)
and choices.json (per baseline the setting with the least balanced log loss on validation, or why it is left out).
Everything is fitted to training rows. Rows without an embedding get no answer from a baseline that needs it. Records
whose dates are wider than 31 days have no season: location_season answers as location does.
"""

from collections.abc import Container

import numpy as np

from src.core.evaluation import regression_scores
from src.core.stage import files, run
from src.core.stage.errors import DataError
from src.species.data import task
from src.species.data.task import Task
from src.species.evaluation import classifiers, predictions, predictors
from src.species.evaluation.classifiers import Fits
from src.species.models import features
from src.species.params import Params


def main(params, inputs, out, dry_run=False):
    run.set_threads(params.threads)
    study = task.read(inputs.store, inputs.split)
    if len(study.classes) < 2:
        raise DataError(
            f"{inputs.split}/split.parquet: role: found {len(study.train)} training rows of {len(study.classes)} "
            "species, expected two species at least; bring more records or choose another split"
        )
    blocks = embedding_blocks(study.store.modalities)
    print(
        f"baselines: {len(study.train)} training rows of {len(study.classes)} species, {len(study.held_out)} held out; "
        f"embeddings: {', '.join(study.store.modalities) or 'none'}"
    )
    if dry_run:
        most = max((features.matrix_bytes(study, needed) for needed in blocks), default=0)
        print(
            f"baselines: would fit majority, place and season, and {2 * len(blocks)} groups on embeddings; the largest "
            f"matrix in memory takes {most / 1e9:.2g} GB"
        )
        return

    found = Fits(study)
    fit_places(found, study, params)
    for needed, names in blocks.items():
        fit_embeddings(found, study, needed, names, params)
    with files.complete_folder(out.out) as folder:
        predictions.write(folder, study, found.groups)
        files.write_json(folder / "choices.json", regression_scores.rounded(found.choices))
    for name, choice in found.choices.items():
        print(f"baselines: {name}: {describe(choice)}")


def embedding_blocks(stored: Container[str]) -> dict[tuple[str, ...], dict[str, str]]:
    """Modalities, all of them `stored` -> method -> name of the predictor that is fitted to them."""
    blocks: dict[tuple[str, ...], dict[str, str]] = {}
    for one in predictors.PREDICTORS:
        if one.stage == "baselines" and one.needs and all(name in stored for name in one.needs):
            blocks.setdefault(one.needs, {})[one.fit] = one.name
    return blocks


def describe(choice: dict) -> str:
    if "left_out" in choice:
        return f"left out: {choice['left_out']}"
    loss, top1 = choice["validation_balanced_log_loss"], choice["validation_top1"]
    return f"balanced validation log loss {loss:.3f}, validation top-1 {top1:.3f}, {choice['setting']}"


def fit_places(found: Fits, study: Task, params: Params) -> None:
    """Fit the baselines that read no embedding: majority, place, place and season."""
    degrees, season = study.observations[["lat", "lon"]].to_numpy(np.float64), classifiers.season(study.observations)
    section = params.baselines
    grid = {"neighbours": section.neighbours, "leaf": section.leaves, "seed": params.seed, "threads": params.threads}

    def known(values: np.ndarray, train: np.ndarray) -> classifiers.Examples:
        return classifiers.Examples(values[train], study.targets(train), found.classes)

    every, query = known(degrees, study.train), degrees[study.held_out]
    found.choose("majority", classifiers.majority(every, query), len(study.train))
    found.choose("location", classifiers.places(every, query, **grid), len(study.train))
    dated = np.isfinite(season).all(axis=1)
    train, answered = study.train[dated[study.train]], dated[study.held_out]
    if 2 * len(train) < len(study.train):
        rows = f"{len(train)} of {len(study.train)} training rows"
        reason = f"{rows} have a date known to {classifiers.WIDEST_DAYS} days, expected half of them"
        found.choices["location_season"] = {"left_out": reason}
        return
    both = np.hstack([degrees, season])
    seasonal = classifiers.places(known(both, train), both[study.held_out[answered]], **grid)
    found.choose("location_season", seasonal, len(train), answered)
    if "location_season" in found.groups:
        found.groups["location_season"][~answered] = found.groups["location"][~answered]
        found.choices["location_season"]["rows_without_season"] = int((~answered).sum())


def fit_embeddings(found: Fits, study: Task, needed: tuple[str, ...], names: dict[str, str], params: Params) -> None:
    """Neighbours and logistic regression, called `names`, on principal components of the embeddings `needed`."""
    present = np.logical_and.reduce([study.store.present(modality) for modality in needed])
    train, answered = study.train[present[study.train]], present[study.held_out]
    if len(train) < 2 or not answered.any():
        reason = f"{len(train)} training rows and {answered.sum()} held-out rows have {list(needed)}"
        found.choices |= {name: {"left_out": reason} for name in names.values()}
        return
    section = params.baselines
    ours, theirs = features.components(study, needed, train, study.held_out[answered], section.components, params.seed)
    known = classifiers.Examples(ours, study.targets(train), found.classes)
    like = classifiers.like_neighbours(known, theirs, section.neighbours)
    found.choose(names["neighbours"], like, len(train), answered)
    regressions = classifiers.logistic(known, theirs, section.inverse_penalties)
    found.choose(names["logistic"], regressions, len(train), answered)


if __name__ == "__main__":
    inputs = {"store": "ingest", "split": "split"}
    outputs = {"out": "folder for predictions and choices"}
    run.stage(main, Params, name="species.baselines", doc=__doc__, inputs=inputs, outputs=outputs)
