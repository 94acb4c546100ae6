"""Train a cross-modal masked autoencoder on language and pooled vision embeddings, and measure what it learned.

    python -m src.species.crossmodal --params pipelines/species/params.yaml --store data/species/store \\
        --split data/species/split --out models/species/crossmodal --plots plots/species/crossmodal

It learns from training rows with both modalities and from no label. Writes model.safetensors and config.json;
reconstruction.json, errors on test rows beside a linear map, the training mean and shuffled pairs; retrieval.json,
each modality found by the other one; predictions.safetensors, species from its shared features and from as many
principal components of the concatenated embeddings, by the same three classifiers; summary.json and curves. Of data
with fewer than both modalities there is nothing to learn: it says so, and what it writes is empty.
"""

from src.core.stage import run

CLI = {
    "name": "species.crossmodal",
    "doc": __doc__,
    "inputs": {"store": "output of ingest", "split": "output of split"},
    "outputs": {"out": "folder for model, measurements and predictions", "plots": "folder for curves"},
}
if __name__ == "__main__":
    run.command_line(**CLI).parse_args()  # --help ends here, before seconds of imports

import logging
from functools import partial

import numpy as np
from transformers import EvalPrediction, set_seed

from src.core.evaluation.regression_scores import rounded
from src.core.stage import files
from src.core.training import checkpoints
from src.core.training.parameter_groups import ParameterGroups
from src.species.data import task as tasks
from src.species.data.task import Task
from src.species.evaluation import predictions
from src.species.evaluation.classifiers import Fits
from src.species.models import features, networks, reconstruction, training
from src.species.models.networks import HIGHEST_SCALE, CrossModalAutoencoder
from src.species.models.reconstruction import PAIR
from src.species.params import Params

logger = logging.getLogger(__name__)


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    """Store and split -> the autoencoder, what it reconstructs and finds, and species from its features."""
    run.set_threads(params.threads)
    training.require_one_process("crossmodal")
    task = tasks.read(inputs.store, inputs.split)
    if missing := [name for name in PAIR if name not in task.store.modalities]:
        leave_out(task, missing, out, dry_run)
        return
    pairs = training.learnable(task, PAIR, every=True)
    section, seed = params.crossmodal, params.seed
    set_seed(seed)
    model = CrossModalAutoencoder(training.moments(task, PAIR), section.dim, section.contrastive, section.temperature)
    groups = parameter_groups(model, section.lr)
    logger.info("%d training and %d validation pairs; %s", *map(len, pairs), groups.describe())
    if dry_run:
        return

    settings = {"crossmodal": section.model_dump()}
    scratch = {"autoencoder": training.scratch(params, "crossmodal", settings, inputs)}
    settings["train"] = params.train.model_dump(exclude={"models"})
    for name in ("crossmodal", "pca"):
        scratch[name] = training.scratch(params, f"crossmodal-{name}", settings, inputs)
    with files.complete_folder(out.out) as folder, files.complete_folder(out.plots) as plots:
        history = training.fit(
            model,
            groups,
            *(training.Rows(pair_reader(task), rows) for rows in pairs),
            section,
            params,
            label=PAIR[1],
            measure=partial(measure, task.balance(pairs[1]), section.contrastive),
            checkpoint=scratch["autoencoder"],
            plots=plots / "autoencoder",
            eval_batch=section.batch_size,  # the contrastive term compares within a batch
        )
        networks.save(model, folder)
        errors, found = reconstruction.measure(model, task, pairs, params.baselines.components, seed)
        files.write_json(folder / "reconstruction.json", rounded(errors))
        files.write_json(folder / "retrieval.json", rounded(found))

        histories = {"autoencoder": history}
        summaries = {"autoencoder": training.summary(history, groups, pairs)}
        summaries["autoencoder"]["temperature"] = 1 / min(model.log_scale.exp().item(), HIGHEST_SCALE)

        labelled = training.learnable(task, PAIR)
        probes = Fits(task)
        answered = np.any([task.store.present(modality, task.held_out) for modality in PAIR], axis=0)
        for name, vectors in spaces(model, task, labelled[0], section.dim, seed).items():
            names = f"{name}_knn", f"{name}_logistic"
            data = vectors[labelled[0]], task.targets(labelled[0]), vectors[task.held_out[answered]]
            probes.choose_on_features(names, *data, params.baselines, answered)
            set_seed(seed)
            ready = {"features": (np.zeros(vectors.shape[1]), np.ones(vectors.shape[1]))}  # standardised already
            dropout = {"features": params.train.dropout.language}
            classifier, groups = training.build_classifier(ready, dropout, labelled[0], task, params)
            read = training.feature_reader(task, vectors, PAIR)
            histories[name] = training.fit_classifier(
                classifier, groups, read, labelled, task, params, scratch[name], plots / name
            )
            summaries[name] = training.summary(histories[name], groups, labelled)
            probes.groups[name] = training.log_probabilities(classifier, read, task.held_out)
        predictions.write(folder, task, probes.groups)
        files.write_json(folder / "summary.json", rounded(summaries | probes.choices))
        training.write_curves(plots / "curves.png", histories)
    for name, facts in summaries.items():
        logger.info("%s: epoch %d of %d: %s", name, facts["best_epoch"], facts["epochs"], facts["validation"])
    for finished in scratch.values():
        checkpoints.remove(finished)


def leave_out(task: Task, missing: list[str], out, dry_run: bool) -> None:
    """Outputs without content, so that what can be scored of one modality is."""
    reason = f"left out: {task.store.folder} holds no {' and no '.join(missing)}, and it takes both modalities"
    logger.warning("crossmodal: %s", reason)
    if not dry_run:
        with files.complete_folder(out.out) as folder, files.complete_folder(out.plots):
            predictions.write(folder, task, {})
            for name, content in {"reconstruction": {}, "retrieval": {}, "summary": {"left_out": reason}}.items():
                files.write_json(folder / f"{name}.json", content)


def parameter_groups(model: CrossModalAutoencoder, rate: float) -> ParameterGroups:
    """Encoders, predictors and temperature, each at `rate`; without the contrastive term nothing moves the last."""
    model.log_scale.requires_grad_(model.contrastive > 0)
    parts = {
        "encoders": list(model.encoders.parameters()),
        "predictors": list(model.predictors.parameters()),
        "temperature": [model.log_scale] if model.contrastive else [],
    }
    return ParameterGroups({name: (parameters, rate, 0) for name, parameters in parts.items()})


def pair_reader(task: Task) -> training.Reader:
    """Reads the arguments of a `CrossModalAutoencoder`: both modalities and no label."""
    read = training.embedding_reader(task, PAIR)

    def both(rows: np.ndarray) -> dict:
        batch = read(rows)
        return {name: batch[name] for name in PAIR}

    return both


def measure(weights: np.ndarray, contrastive: float, predicted: EvalPrediction) -> dict[str, float]:
    """Means over validation of what the loss is made of, in the order of `CrossModalAutoencoder.forward`, and the loss
    with the rows' weights."""
    names = ("contrastive", *(f"{name}_error" for name in PAIR))
    parts = dict(zip(names, predicted.predictions, strict=True))
    losses = contrastive * parts["contrastive"] + sum(parts[f"{name}_error"] for name in PAIR)
    means = {name: float(values.mean()) for name, values in parts.items()}
    return {"balanced_loss": float(np.mean(weights * losses)), **means}


def spaces(model: CrossModalAutoencoder, task: Task, train: np.ndarray, dim: int, seed: int) -> dict[str, np.ndarray]:
    """Features of every row (N, D) float32, standardised over `train`: the autoencoder's, and as many components."""
    rows = np.arange(len(task.store))
    return {
        "crossmodal": scaled(reconstruction.shared_features(model, task, rows), train),
        "pca": features.components(task, PAIR, train, rows, dim, seed)[1],
    }


def scaled(vectors: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Vectors with mean 0, and a mean variance of 1 over the rows `train`.

    All are scaled together, as `features.components` does: angles stay, and a penalty means the same in both spaces.
    """
    mean, variance = vectors[train].mean(axis=0), vectors[train].var(axis=0).mean()
    return (vectors - mean) / np.sqrt(variance if variance > 0 else 1, dtype=np.float32)


if __name__ == "__main__":
    run.stage(main, Params, **CLI)
