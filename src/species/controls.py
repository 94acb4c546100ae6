"""What leaks are worth: cheap models under our split, without its buffer, on random rows, with shuffled embeddings.

    python -m src.species.controls --params pipelines/species/params.yaml --store data/species/store \\
        --split data/species/split --out data/species/controls

Writes controls.json (top-1 accuracies) and controls.png. The models are k nearest neighbours, in place and, for each
stored modality, by angle between principal components; k is chosen once, on validation of our split, and components are
those of our training rows, so that only the rows that train and test change:

- split: as it is.
- no_buffer: rows in the buffer around the squares, of the years that train, train too. Spatial test rows are the same.
- no_buffer_same_size: as many random training rows are taken away again, so that what is left of the difference is
  nearness and not number.
- random: as many records as the spatial test has, drawn from it and from training, test; the others train.
- shuffled: embeddings permuted among training and test rows, which tells nothing; `chance` says what that scores.

All but the first two are drawn `controls.draws` times: mean, least and greatest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from src.core import files, geo, intervals, metrics, run
from src.core.figures import ACCENT, DPI, FAINT, INK, SECOND, STYLE
from src.species import fits, task
from src.species.fits import Fits
from src.species.params import Params
from src.species.task import Task

SETTINGS = {
    "temporal": "our split:\nnew year",
    "spatial": "our split:\nnew places",
    "no_buffer": "new places,\nno buffer",
    "no_buffer_same_size": "no buffer,\nas many rows",
    "random": "random\nrecords",
    "shuffled": "new places,\nshuffled",
}
PURPOSES = ("same size", "random", "shuffled")  # of a draw: the same number for two would draw the same rows


@dataclass(frozen=True)
class Model:
    """Nearest neighbours among `vectors`, (N, F) of all store rows; rows that are not `present` (N,) have none."""

    vectors: np.ndarray
    present: np.ndarray
    neighbours: Callable

    def right(self, study: Task, train: np.ndarray, query: np.ndarray, setting: dict) -> np.ndarray:
        """(Q,) whether each row of `query` is named rightly; both have vectors."""
        names, codes = np.unique(study.observations["species"].to_numpy(dtype=str), return_inverse=True)
        prior = fits.class_prior(codes[train], len(names))
        count, share = [setting["neighbours"]], [setting["prior_share"]]
        vectors = self.vectors
        ((_, values),) = self.neighbours(vectors[train], codes[train], vectors[query], count, prior, share)
        return np.argmax(values, axis=1) == codes[query]


def main(params, inputs, out, dry_run=False):
    """Store and split -> accuracies under each split, and their figure."""
    run.set_threads(params.threads)
    study = task.read(inputs.store, inputs.split)
    returned = buffer_rows(study)
    embeddings = [name for name in ("language", "vision_pooled") if name in study.store.modalities]
    draws = params.controls.draws
    print(
        f"controls: {len(study.train)} training rows, {len(returned)} more without a buffer, "
        f"{len(study.rows('test', 'spatial'))} spatial test rows, {draws} draws; "
        f"models of {', '.join(['location', *embeddings])}"
    )
    if dry_run:
        return

    found, models = Fits(study), {"location": location_model(study)}
    for name in embeddings:
        if (model := embedding_model(study, name, returned, params.baselines.components, params.seed)) is not None:
            models[name] = model
    result = {"draws": draws, "returned_rows": len(returned), "models": {}}
    for name, model in models.items():
        setting = choose(found, study, name, model, params.baselines.neighbours)
        result["models"][name] = setting | accuracies(
            study, model, setting, returned, draws, params.seed, shuffled=name != "location"
        )
    with files.complete_folder(out.out) as folder:
        result = metrics.rounded(result)
        files.write_json(folder / "controls.json", result)
        draw_controls(folder / "controls.png", result["models"])
    for name, scores in result["models"].items():
        top1 = {key: value for key in SETTINGS if (value := _top1(scores, key)) is not None}
        print(
            f"controls: {name}: " + "  ".join(f"{key} {value:.3f}" for key, value in top1.items() if value is not None)
        )


def buffer_rows(study: Task) -> np.ndarray:
    """Rows outside of the squares that would train if there were no buffer: of the days in which training rows lie."""
    rows = study.observations
    train = rows.iloc[study.train]
    in_time = (rows["first_day"] >= train["first_day"].min()) & (rows["last_day"] <= train["last_day"].max())
    return np.flatnonzero((rows["role"] == "buffer") & (rows["square"] < 0) & in_time)


def location_model(study: Task) -> Model:
    """Neighbours in place."""
    points = geo.to_cartesian(*study.observations[["lat", "lon"]].to_numpy(np.float64).T)
    return Model(points, np.ones(len(points), bool), fits.near_neighbours)


def embedding_model(study: Task, modality: str, returned: np.ndarray, count: int, seed: int) -> Model | None:
    """Neighbours in principal components; None, aloud, where too few rows have the modality."""
    present = study.store.present(modality)
    train = study.train[present[study.train]]
    others = np.concatenate([study.held_out, returned])
    others = others[present[others]]
    kinds = {kind: int(present[study.rows("test", kind)].sum()) for kind in ("temporal", "spatial")}
    if len(train) < 2 or not all(kinds.values()) or not present[study.rows("validation")].any():
        print(f"controls: {modality}: left out, {len(train)} training rows and test rows {kinds} have it")
        return None
    ours, theirs = fits.components(study, [modality], train, others, count, seed)
    vectors = np.zeros((len(present), ours.shape[1]), np.float32)
    vectors[train], vectors[others] = ours, theirs
    return Model(vectors, present, fits.like_neighbours)


def choose(found: Fits, study: Task, name: str, model: Model, neighbours: list[int]) -> dict:
    """k, and share of the prior, with the least log loss on validation of our split."""
    train, answered = _with(model, study.train), model.present[study.held_out]
    codes = study.targets(train)
    prior, query = fits.class_prior(codes, found.classes), study.held_out[answered]
    candidates = model.neighbours(model.vectors[train], codes, model.vectors[query], neighbours, prior)
    found.choose(name, candidates, len(train), answered)
    return found.choices[name]["setting"]


def accuracies(
    study: Task, model: Model, setting: dict, returned: np.ndarray, draws: int, seed: int, *, shuffled: bool
) -> dict:
    """Top-1 under every split, the numbers of rows, and what the majority class and chance score."""
    train, more = _with(model, study.train), _with(model, returned)
    tests = {kind: _with(model, study.rows("test", kind)) for kind in task.KINDS}
    tests = {kind: rows for kind, rows in tests.items() if len(rows)}
    spatial = tests["spatial"]
    ours = {kind: model.right(study, train, rows, setting) for kind, rows in tests.items()}
    leaky = model.right(study, np.concatenate([train, more]), spatial, setting)
    difference = leaky.astype(np.float64) - ours["spatial"]
    result = {
        "split": {kind: float(right.mean()) for kind, right in ours.items()},
        "n": {"train": len(train)} | {kind: len(rows) for kind, rows in tests.items()},
        "no_buffer": float(leaky.mean()),
        "no_buffer_minus_split": _renamed(
            intervals.mean_interval(difference, study.observations["square"].to_numpy()[spatial])
        ),
    }

    def same_size(generator: np.random.Generator) -> float:
        # more than there are where nearly all lie in the buffer
        kept = generator.choice(train, max(0, len(train) - len(more)), replace=False)
        return model.right(study, np.concatenate([np.sort(kept), more]), spatial, setting).mean()

    def random(generator: np.random.Generator) -> float:
        pool = np.sort(np.concatenate([train, spatial]))
        tested = draw_records(study.observations["gbif_id"].to_numpy()[pool], len(spatial), generator)
        return model.right(study, pool[~tested], pool[tested], setting).mean()

    result["no_buffer_same_size"] = _drawn(same_size, draws, seed, "same size")
    result["random"] = _drawn(random, draws, seed, "random")
    if shuffled:
        pool = np.concatenate([train, *tests.values()])
        for kind in tests:

            def permuted(generator: np.random.Generator, kind=kind) -> float:
                vectors = model.vectors.copy()
                vectors[pool] = vectors[generator.permutation(pool)]
                return Model(vectors, model.present, model.neighbours).right(study, train, tests[kind], setting).mean()

            result.setdefault("shuffled", {})[kind] = _drawn(permuted, draws, seed, "shuffled")
    nulls = {kind: chance(study, train, rows) for kind, rows in tests.items()}
    return result | {name: {kind: nulls[kind][name] for kind in nulls} for name in ("majority", "chance")}


def draw_records(record: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """(N,) bool: whole records, drawn at random until `count` rows are. Two images of a record are one observation."""
    names, index, size = np.unique(record, return_inverse=True, return_counts=True)
    order = generator.permutation(len(names))
    before = np.cumsum(size[order]) - size[order]
    drawn = np.zeros(len(names), bool)
    drawn[order[before < count]] = True
    return drawn[index]


def chance(study: Task, train: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    """Accuracy of always naming the commonest training species, and of naming a random training row's."""
    species = study.observations["species"].to_numpy(dtype=str)
    names, codes = np.unique(species, return_inverse=True)
    share = np.bincount(codes[train], minlength=len(names)) / len(train)
    return {"majority": float((codes[rows] == np.argmax(share)).mean()), "chance": float(share[codes[rows]].mean())}


def draw_controls(path: Path, models: dict[str, dict]) -> None:
    """Accuracy under each split, a panel per model; small points are single draws, the dashes the majority class."""
    with matplotlib.rc_context(STYLE | {"font.size": 9}):
        figure = Figure(figsize=(7.5, 2.9 * len(models)), layout="constrained")
        panels = figure.subplots(len(models), 1, squeeze=False)[:, 0]
        for axes, (name, scores) in zip(panels, models.items(), strict=True):
            keys = [key for key in SETTINGS if _top1(scores, key) is not None]
            for place, key in enumerate(keys):
                value = _top1(scores, key)
                axes.bar(place, value, width=0.6, color=ACCENT if key in ("temporal", "spatial") else FAINT)
                drawn = scores["shuffled"]["spatial"] if key == "shuffled" else scores.get(key)
                points = drawn["draws"] if isinstance(drawn, dict) else []
                axes.plot([place] * len(points), points, "o", color=SECOND, markersize=3.5)
                top = place, max([value, *points])
                axes.annotate(f"{value:.3f}", top, (0, 4), textcoords="offset points", ha="center")
            axes.axhline(scores["majority"]["spatial"], color=INK, linewidth=0.9, linestyle="--")
            axes.set_xticks(range(len(keys)), [SETTINGS[key] for key in keys])
            axes.set(ylim=(0, 1.15 * max(_top1(scores, key) for key in keys) + 0.01), ylabel="top-1 accuracy")
            axes.set_title(f"{name.replace('_', ' ')}: {scores['neighbours']} nearest neighbours", fontsize=10)
        figure.supxlabel(
            "grey: what a leak is worth, or nothing to learn from; points: single draws; dashes: majority class at new "
            "places",
            fontsize=8,
        )
        with files.complete_file(path) as aside:
            figure.savefig(aside, format="png", dpi=DPI, metadata={"Software": None})


def _with(model: Model, rows: np.ndarray) -> np.ndarray:
    return rows[model.present[rows]]


def _drawn(score: Callable, draws: int, seed: int, purpose: str) -> dict:
    values = [float(score(np.random.default_rng([seed, PURPOSES.index(purpose), draw]))) for draw in range(draws)]
    return {"mean": float(np.mean(values)), "least": min(values), "greatest": max(values), "draws": values}


def _renamed(mean: dict) -> dict:
    return {"difference": mean[""], "low": mean["_low"], "high": mean["_high"], "method": mean["method"]}


def _top1(scores: dict, key: str) -> float | None:
    if key in ("temporal", "spatial"):
        return scores["split"].get(key)
    if key == "shuffled":
        return scores["shuffled"]["spatial"]["mean"] if "shuffled" in scores else None
    return scores[key]["mean"] if isinstance(scores[key], dict) else scores[key]


if __name__ == "__main__":
    run.stage(
        main,
        Params,
        name="species.controls",
        doc=__doc__,
        inputs={"store": "store that ingest wrote", "split": "folder that the split stage wrote"},
        outputs={"out": "folder for accuracies and figure"},
    )
