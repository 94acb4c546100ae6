"""Errors and retrieval of a cross-modal autoencoder, beside a linear map, the training mean and shuffled pairs."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.linear_model import Ridge
from tqdm import tqdm

from src.species.data.task import EMBEDDINGS, KINDS, Task
from src.species.evaluation.retrieval import retrieve
from src.species.models import features
from src.species.models.features import standardised
from src.species.models.networks import CrossModalAutoencoder
from src.species.models.training import AT_ONCE, Split

PENALTIES = tuple(float(value) for value in np.logspace(-4, 2, 7))  # of the linear map, a training row


def measure(model: CrossModalAutoencoder, task: Task, pairs: Split, components: int, seed: int) -> tuple[dict, dict]:
    """Contents of reconstruction.json and retrieval.json: the test rows with both modalities, by kind. The linear map
    learns from `pairs`, training and validation rows with both.

    Returns:
        Of reconstructions: modality -> kind -> mean squared errors of the standardised modality (`model`,
        `linear_map`, `training_mean`, and `shuffled_pairs`: the model's from another row of the kind); None without a
        row.
        Of retrieval: "<query>_to_<gallery>" -> kind -> `model` (by shared vectors) and `linear_map` (by what it
        predicts of the gallery) -> what `retrieve` returns.
    """
    both = np.flatnonzero(np.all([task.store.present(name) for name in EMBEDDINGS], axis=0))
    rows = {kind: np.intersect1d(task.rows("test", kind), both) for kind in KINDS}
    errors, found = {}, {}
    for target, source in model.other.items():
        every = np.concatenate([*rows.values()])
        mapped, penalty = map_linearly(task, (source, target), pairs, every, components, seed)
        ends = np.cumsum([len(chosen) for chosen in rows.values()])
        errors[target], way = {"linear_map_penalty": penalty}, {}
        for (kind, chosen), linear in zip(rows.items(), np.split(mapped, ends[:-1]), strict=True):
            truth = standardised(task, target, chosen)
            predicted = in_batches(model, model.predict, task, source, chosen)
            shuffled = predicted[np.random.default_rng(seed).permutation(len(chosen))]
            errors[target][kind] = {
                "count": len(chosen),
                "model": _squared(predicted, truth),
                "linear_map": _squared(linear, truth),
                "training_mean": _squared(np.zeros_like(truth), truth),
                "shuffled_pairs": _squared(shuffled, truth),
            }
            species = task.species[chosen]
            query, gallery = (in_batches(model, model.encode, task, name, chosen) for name in (source, target))
            way[kind] = {
                "model": retrieve(query, gallery, species, seed),
                "linear_map": retrieve(linear, truth, species, seed),
            }
        found[f"{source}_to_{target}"] = way
    return errors, found


def map_linearly(
    task: Task, ways: tuple[str, str], pairs: Split, rows: np.ndarray, components: int, seed: int
) -> tuple[np.ndarray, float]:
    """Ridge regression of the second of two standardised modalities, `ways`, on principal components of the first.

    Returns:
        (B, D) float32 of `rows`, and the penalty a training row: the one with the least error on validation.
    """
    (source, target), (train, validation) = ways, pairs
    others = np.concatenate([validation, rows])
    scores, others = features.components(task, [source], train, others, components, seed)
    check, query = np.split(others, [len(validation)])
    y, truth = standardised(task, target, train), standardised(task, target, validation)
    tried = tqdm(PENALTIES, desc=f"linear map {source} to {target}", unit="fit", leave=False)
    fits = {penalty: Ridge(penalty * len(train)).fit(scores, y) for penalty in tried}
    best = min(fits, key=lambda penalty: _squared(fits[penalty].predict(check), truth))
    return fits[best].predict(query) if len(query) else np.empty((0, y.shape[1]), np.float32), best


def shared_features(model: CrossModalAutoencoder, task: Task, rows: np.ndarray) -> np.ndarray:
    """(B, dim) float32 mean of a row's shared vectors, of the modalities that it has; zeros where it has none."""
    total, count = np.zeros((len(rows), model.dim), np.float32), np.zeros((len(rows), 1), np.float32)
    for name in EMBEDDINGS:
        here = task.store.present(name, rows)
        total[here] += in_batches(model, model.encode, task, name, rows[here])
        count[here] += 1
    return total / np.maximum(count, 1)


@torch.no_grad()
def in_batches(
    model: CrossModalAutoencoder,
    method: Callable[[str, torch.Tensor], torch.Tensor],
    task: Task,
    modality: str,
    rows: np.ndarray,
) -> np.ndarray:
    """`model.encode` or `model.predict` of the embeddings of `rows`, AT_ONCE at a time, on the model's device."""
    # one part without rows where there are none
    parts = np.split(rows, np.arange(AT_ONCE, len(rows), AT_ONCE))
    tensors = (torch.from_numpy(task.store.read(modality, part)).to(model.log_scale.device) for part in parts)
    return np.concatenate([method(modality, part).cpu().numpy() for part in tensors])


def _squared(values: np.ndarray, truth: np.ndarray) -> float | None:
    return float(np.mean((values - truth) ** 2)) if len(truth) else None
