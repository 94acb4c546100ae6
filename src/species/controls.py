"""Measure how much each leak raises the score: cheap models on our split, without its buffer, on random splits.

    python -m src.species.controls --params pipelines/species/params.yaml --store data/species/store \\
        --split data/species/split --out data/species/controls

Writes controls.json (top-1 accuracies) and controls.png. The models are the baseline `location`, neighbours in km or a
forest on coordinates, and for each stored modality logistic regression on principal components. Settings are chosen
once, on validation of our split, and components are those of our training rows, so that only the rows that
train and test change:

- split: as it is.
- no_buffer: rows in the buffer around the squares, of the years that train, train too. Spatial test rows are the same.
- no_buffer_same_size: as many random training rows are taken away again, so that the difference that is left comes
  from nearness and not from the number of rows.
- random: as many records as the spatial test has, drawn from it and from training, test; the others train.
- shuffled: embeddings permuted among training and test rows, so that nothing can be learned. `if_independent` is the
  score to expect of such guesses: the sum over species of share of guesses times share of test rows.

All but the first two are drawn `controls.draws` times: mean, least and greatest. `majority` is the score of the
commonest training species, under each of them.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from src.core.evaluation import jackknife, regression_scores
from src.core.stage import files, run
from src.species.data import task
from src.species.data.task import EMBEDDINGS, KINDS, Task
from src.species.evaluation import classifiers
from src.species.evaluation.classifiers import Fits
from src.species.models import features
from src.species.params import Params
from src.species.report import controls_figure

PURPOSES = ("no_buffer_same_size", "random", "shuffled")  # of draws, each with random numbers of its own


@dataclass(frozen=True)
class Model:
    """Candidates on `vectors`, (N, F) of all store rows; rows that are not `present` (N,) have none.

    `species` (N,) is the truth. `grid` maps a setting to the values to choose among, or to a list of the chosen one.
    """

    species: np.ndarray
    vectors: np.ndarray
    present: np.ndarray
    candidates: Callable[..., classifiers.Candidates]
    grid: dict[str, Sequence]

    def named(self, train: np.ndarray, query: np.ndarray) -> np.ndarray:
        """(Q,) species that the chosen setting, fitted to rows of `train`, names for rows of `query`."""
        names, codes = np.unique(self.species[train], return_inverse=True)
        known = classifiers.Examples(self.vectors[train], codes, len(names))
        ((_, values),) = self.candidates(known, self.vectors[query], **self.grid)
        return names[np.argmax(values, axis=1)]

    def hits(self, train: np.ndarray, query: np.ndarray) -> np.ndarray:
        return self.named(train, query) == self.species[query]


def main(params, inputs, out, dry_run=False):
    run.set_threads(params.threads)
    study = task.read(inputs.store, inputs.split)
    returned = buffer_rows(study)
    embeddings = [name for name in EMBEDDINGS if name in study.store.modalities]
    draws = params.controls.draws
    print(
        f"controls: {len(study.train)} training rows, {len(returned)} more without a buffer, "
        f"{len(study.rows('test', 'spatial'))} spatial test rows, {draws} draws; "
        f"models of {', '.join(['location', *embeddings])}"
    )
    if dry_run:
        most = max((features.matrix_bytes(study, [name]) for name in embeddings), default=0)
        print(f"controls: the largest matrix in memory takes {most / 1e9:.2g} GB")
        return

    models = {"location": location_model(study, params)}
    models |= {name: embedding_model(study, name, returned, params) for name in embeddings}
    result = {"draws": draws, "returned_rows": len(returned), "models": {}}
    for name, model in models.items():
        if model is not None:
            chosen = choose(Fits(study), study, name, model)
            setting = {key: value for key, (value,) in chosen.grid.items()}
            result["models"][name] = setting | accuracies(
                study, chosen, returned, draws, params.seed, shuffled=name != "location"
            )
    with files.complete_folder(out.out) as folder:
        result = regression_scores.rounded(result)
        files.write_json(folder / "controls.json", result)
        controls_figure.draw_controls(folder / "controls.png", result["models"])
    for name, scores in result["models"].items():
        top1 = {key: controls_figure.top1(scores, key) for key in controls_figure.SETTINGS}
        line = "  ".join(f"{key} {value:.3f}" for key, value in top1.items() if value is not None)
        print(f"controls: {name}, {controls_figure.describe(scores)}: {line}")


def buffer_rows(study: Task) -> np.ndarray:
    """Rows that would train without a buffer: in it, outside the squares, within the dates of the training rows."""
    rows = study.observations
    train = rows.iloc[study.train]
    in_time = (rows["first_day"] >= train["first_day"].min()) & (rows["last_day"] <= train["last_day"].max())
    return np.flatnonzero((rows["role"] == "buffer") & (rows["square"] < 0) & in_time)


def location_model(study: Task, params: Params) -> Model:
    """The baseline `location`: neighbours and forests that know the place alone."""
    degrees = study.observations[["lat", "lon"]].to_numpy(np.float64)
    candidates = partial(classifiers.places, seed=params.seed, threads=params.threads)
    grid = {"neighbours": params.baselines.neighbours, "leaf": params.baselines.leaves}
    return Model(study.species, degrees, np.ones(len(degrees), bool), candidates, grid)


def embedding_model(study: Task, modality: str, returned: np.ndarray, params: Params) -> Model | None:
    """Logistic regression on principal components; None, with a printed reason, if too few rows have the modality."""
    present = study.store.present(modality)
    train = study.train[present[study.train]]
    others = np.concatenate([study.held_out, returned])
    others = others[present[others]]
    kinds = {kind: int(present[study.rows("test", kind)].sum()) for kind in ("temporal", "spatial")}
    if len(train) < 2 or not all(kinds.values()) or not present[study.rows("validation")].any():
        print(f"controls: {modality}: left out, {len(train)} training rows and test rows {kinds} have it")
        return None
    ours, theirs = features.components(study, [modality], train, others, params.baselines.components, params.seed)
    vectors = np.zeros((len(present), ours.shape[1]), np.float32)
    vectors[train], vectors[others] = ours, theirs
    grid = {"inverse_penalty": params.baselines.inverse_penalties}
    return Model(study.species, vectors, present, classifiers.logistic, grid)


def choose(found: Fits, study: Task, name: str, model: Model) -> Model:
    """The model with the setting that has the least balanced log loss on validation of our split."""
    train, answered = study.train[model.present[study.train]], model.present[study.held_out]
    known = classifiers.Examples(model.vectors[train], study.targets(train), found.classes)
    query = model.vectors[study.held_out[answered]]
    found.choose(name, model.candidates(known, query, **model.grid), len(train), answered)
    setting = found.choices[name]["setting"]
    return replace(model, grid={key: [value] for key, value in setting.items() if key != "converged"})


def accuracies(study: Task, model: Model, returned: np.ndarray, draws: int, seed: int, *, shuffled: bool) -> dict:
    train, *tests = (rows[model.present[rows]] for rows in (study.train, *(study.rows("test", one) for one in KINDS)))
    tests = {kind: rows for kind, rows in zip(KINDS, tests, strict=True) if len(rows)}
    more, spatial = returned[model.present[returned]], tests["spatial"]
    without = np.concatenate([train, more])
    hits = {kind: model.hits(train, rows) for kind, rows in tests.items()}
    leaky = model.hits(without, spatial)
    squares = study.observations["square"].to_numpy()[spatial]
    gain = jackknife.mean_interval(leaky.astype(np.float64) - hits["spatial"], squares)
    gain = {"difference": gain[""], "low": gain["_low"], "high": gain["_high"], "method": gain["method"]}
    result = {
        "split": {kind: float(right.mean()) for kind, right in hits.items()},
        "n": {"train": len(train)} | {kind: len(rows) for kind, rows in tests.items()},
        "no_buffer": float(leaky.mean()),
        "no_buffer_minus_split": gain,
    }
    majority = replace(model, candidates=classifiers.majority, grid={})
    nulls = {kind: float(majority.hits(train, rows).mean()) for kind, rows in tests.items()}
    nulls["no_buffer"] = float(majority.hits(without, spatial).mean())

    def same_size(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        # none is kept where more lie in the buffer than outside
        kept = generator.choice(train, max(0, len(train) - len(more)), replace=False)
        return np.concatenate([np.sort(kept), more]), spatial

    def random(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        pool = np.sort(np.concatenate([train, spatial]))
        tested = draw_records(study.observations["gbif_id"].to_numpy()[pool], len(spatial), generator)
        return pool[~tested], pool[tested]

    for name, draw in {"no_buffer_same_size": same_size, "random": random}.items():
        splits = [draw(generator) for generator in _generators(seed, name, draws)]
        result[name] = _drawn([model.hits(*rows).mean() for rows in splits])
        nulls[name] = _drawn([majority.hits(*rows).mean() for rows in splits])
    if shuffled:
        result["shuffled"] = shuffled_accuracies(model, train, tests, draws, seed)
    return result | {"majority": nulls}


def shuffled_accuracies(model: Model, train: np.ndarray, tests: dict, draws: int, seed: int) -> dict:
    """Kind -> top-1 with vectors permuted among all rows, and `if_independent`, the mean over draws."""
    pool, top1, expected = np.concatenate([train, *tests.values()]), defaultdict(list), defaultdict(list)
    for generator in _generators(seed, "shuffled", draws):
        vectors = model.vectors.copy()
        vectors[pool] = vectors[generator.permutation(pool)]
        for kind, rows in tests.items():
            names, truth = replace(model, vectors=vectors).named(train, rows), model.species[rows]
            top1[kind].append((names == truth).mean())
            expected[kind].append(if_independent(names, truth))
    return {kind: _drawn(top1[kind]) | {"if_independent": float(np.mean(expected[kind]))} for kind in tests}


def draw_records(record: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """(N,) bool: whole records, drawn at random until `count` rows are; images of one record stay together."""
    names, size = np.unique(record, return_counts=True)
    order = generator.permutation(len(names))
    before = np.cumsum(size[order]) - size[order]
    return np.isin(record, names[order[before < count]])


def if_independent(named: np.ndarray, truth: np.ndarray) -> float:
    """Expected accuracy of the names (n,) if they were dealt to the rows at random."""
    guesses, shares = (pd.Series(part).value_counts(normalize=True) for part in (named, truth))
    return float((guesses * shares).sum())  # which skips species that only one of them holds


def _generators(seed: int, purpose: str, draws: int) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, PURPOSES.index(purpose), draw]) for draw in range(draws)]


def _drawn(values: Sequence[float]) -> dict:
    values = [float(value) for value in values]
    return {"mean": float(np.mean(values)), "least": min(values), "greatest": max(values), "draws": values}


if __name__ == "__main__":
    inputs = {"store": "ingest", "split": "split"}
    outputs = {"out": "folder for accuracies and figure"}
    run.stage(main, Params, name="species.controls", doc=__doc__, inputs=inputs, outputs=outputs)
