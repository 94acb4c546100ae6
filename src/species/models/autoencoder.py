"""The training of the cross-modal autoencoder, and classifiers of species on its features beside as many components."""

from functools import partial
from pathlib import Path

import numpy as np
from transformers import EvalPrediction

from src.core.training.parameter_groups import ParameterGroups
from src.species.data.task import EMBEDDINGS, Task
from src.species.evaluation import classifiers
from src.species.evaluation.classifiers import Fits
from src.species.evaluation.predictors import PROBES
from src.species.models import features, reconstruction, training
from src.species.models.networks import HIGHEST_SCALE, CrossModalAutoencoder
from src.species.models.training import Split, Trained
from src.species.params import Crossmodal, Params


def build(task: Task, section: Crossmodal) -> tuple[CrossModalAutoencoder, ParameterGroups]:
    """A new autoencoder and its parameter groups, all at one rate; no temperature without the contrastive term."""
    model = CrossModalAutoencoder(
        training.moments(task, EMBEDDINGS), section.dim, section.contrastive, section.temperature
    )
    model.log_scale.requires_grad_(model.contrastive > 0)
    parts = {
        "encoders": list(model.encoders.parameters()),
        "predictors": list(model.predictors.parameters()),
        "temperature": [model.log_scale] if model.contrastive else [],
    }
    return model, ParameterGroups({name: (parameters, section.lr, 0) for name, parameters in parts.items()})


def fit(
    model: CrossModalAutoencoder,
    groups: ParameterGroups,
    task: Task,
    pairs: Split,
    params: Params,
    scratch: Path,
    plots: Path,
) -> Trained:
    """Train on (training, validation) rows with both modalities, and no label."""
    section, read = params.crossmodal, training.embedding_reader(task, EMBEDDINGS)

    def both(rows: np.ndarray) -> dict:
        batch = read(rows)
        return {name: batch[name] for name in EMBEDDINGS}

    trained = training.fit(
        model, groups, both, pairs, section, params,
        label=EMBEDDINGS[1],
        measure=partial(measure, task.balance(pairs[1]), section.contrastive),
        eval_batch=section.batch_size,  # the contrastive term compares within a batch
        scratch=scratch,
        plots=plots / "autoencoder",
    )  # fmt: skip
    trained.summary["temperature"] = 1 / min(model.log_scale.exp().item(), HIGHEST_SCALE)
    return trained


def measure(weights: np.ndarray, contrastive: float, predicted: EvalPrediction) -> dict[str, float]:
    """Means over validation of the terms of the loss, as `CrossModalAutoencoder.forward` orders them, and the
    weighted loss."""
    names = ("contrastive", *(f"{name}_error" for name in EMBEDDINGS))
    parts = dict(zip(names, predicted.predictions, strict=True))
    losses = contrastive * parts["contrastive"] + sum(parts[f"{name}_error"] for name in EMBEDDINGS)
    means = {name: float(values.mean()) for name, values in parts.items()}
    return {"balanced_loss": float(np.mean(weights * losses)), **means}


def probe(
    model: CrossModalAutoencoder, task: Task, params: Params, scratch: dict[str, Path], plots: Path
) -> tuple[dict[str, Trained], Fits]:
    """Species from the autoencoder's shared features and from as many principal components.

    Returns:
        The classifier's training in each space, and the answers of all three kinds of classifiers there.
    """
    labelled, probes, trained = training.learnable(task, EMBEDDINGS), Fits(task), {}
    answered = np.any([task.store.present(modality, task.held_out) for modality in EMBEDDINGS], axis=0)
    for space, vectors in spaces(model, task, labelled[0], params.crossmodal.dim, params.seed).items():
        known = classifiers.Examples(vectors[labelled[0]], task.targets(labelled[0]), probes.classes)
        query, names, rows = vectors[task.held_out[answered]], PROBES[space], len(labelled[0])
        like = classifiers.like_neighbours(known, query, params.baselines.neighbours)
        probes.choose(names["neighbours"], like, rows, answered)
        regressions = classifiers.logistic(known, query, params.baselines.inverse_penalties)
        probes.choose(names["logistic"], regressions, rows, answered)
        name, width = names["network"], vectors.shape[1]
        ready = {"features": (np.zeros(width), np.ones(width))}  # standardised already
        dropout = {"features": params.train.dropout.language}
        built = training.build_classifier(ready, dropout, labelled[0], task, params)
        read = training.feature_reader(task, vectors, EMBEDDINGS)
        trained[name], probes.groups[name] = training.fit_classifier(
            *built, read, labelled, task, params, scratch[name], plots / name
        )
    return trained, probes


def spaces(model: CrossModalAutoencoder, task: Task, train: np.ndarray, dim: int, seed: int) -> dict[str, np.ndarray]:
    """Features of every row (N, D) float32, standardised over `train`: the autoencoder's, and as many components.

    All are scaled together to a mean variance of 1: angles stay, and a penalty means the same in both spaces.
    """
    rows = np.arange(len(task.store))
    shared = reconstruction.shared_features(model, task, rows)
    mean, variance = shared[train].mean(axis=0), shared[train].var(axis=0).mean()
    shared = (shared - mean) / np.sqrt(variance if variance > 0 else 1, dtype=np.float32)
    return {"shared": shared, "pca": features.components(task, EMBEDDINGS, train, rows, dim, seed)[1]}
