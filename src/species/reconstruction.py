"""What a cross-modal autoencoder predicts and finds, beside a linear map, the training mean and shuffled pairs."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from tqdm import tqdm

from src.species.networks import CrossModalAutoencoder
from src.species.retrieval import retrieve
from src.species.task import KINDS, Task

PAIR = ("language", "vision_pooled")
PENALTIES = tuple(float(value) for value in np.logspace(-2, 4, 7))  # of the linear map, a row
AT_ONCE = 1024  # rows


def standardised(task: Task, modality: str, rows: np.ndarray) -> np.ndarray:
    """(B, D) float32 with mean 0 and sd 1 over the training rows; zeros, their mean, where missing."""
    values = task.store.read(modality, rows).astype(np.float32)
    values = (values - task.statistics[f"{modality}_mean"]) / task.statistics[f"{modality}_sd"]
    values[~task.store.present(modality, rows)] = 0
    return values


def fit_linear_map(
    task: Task, source: str, target: str, train: np.ndarray, validation: np.ndarray, components: int, seed: int
) -> tuple[Pipeline, float]:
    """Ridge regression of one standardised modality on `components` principal components of the other one.

    Args:
        train, validation: rows with both. The penalty is the one with the least squared error on validation.

    Returns:
        The map, (B, source) -> (B, target), and its penalty a training row.
    """
    x, y = (standardised(task, name, train) for name in (source, target))
    held_x, held_y = (standardised(task, name, validation) for name in (source, target))
    pca = PCA(min(components, *x.shape), svd_solver="randomized", random_state=seed)
    scores, held_scores = pca.fit_transform(x), pca.transform(held_x)
    fitted = []
    for penalty in tqdm(PENALTIES, desc=f"linear {source} to {target}", unit="fit", leave=False):
        ridge = Ridge(penalty * len(x)).fit(scores, y)
        fitted.append((float(np.mean((ridge.predict(held_scores) - held_y) ** 2)), penalty, ridge))
    _, penalty, ridge = min(fitted, key=lambda entry: entry[:2])
    return make_pipeline(pca, ridge), penalty


def test_pairs(task: Task) -> dict[str, np.ndarray]:
    """Kind -> rows of the test that have all modalities the model takes."""
    pairs = {}
    for kind in KINDS:
        rows = task.rows("test", kind)
        pairs[kind] = rows[np.all([task.store.present(name, rows) for name in PAIR], axis=0)]
    return pairs


def measure(
    model: CrossModalAutoencoder, task: Task, rows: tuple[np.ndarray, np.ndarray], components: int, seed: int
) -> tuple[dict, dict]:
    """Contents of reconstruction.json and retrieval.json.

    Args:
        rows: training and validation rows with both modalities, of the linear map.

    Returns:
        Of reconstructions: modality -> kind -> mean squared errors of the standardised modality on test rows (`model`,
        `linear_map`, `training_mean`, and `shuffled_pairs`, the model's from another row's modality).
        Of retrieval: "<query>_to_<gallery>" -> kind -> model (by shared vectors) and linear_map (by what it predicts of
        the gallery) -> `retrieve`.
    """
    errors, found = {}, {}
    for target, source in model.other.items():
        linear, penalty = fit_linear_map(task, source, target, *rows, components, seed)
        errors[target] = {"linear_map_penalty": penalty}
        found[f"{source}_to_{target}"] = {}
        for kind, chosen in test_pairs(task).items():
            truth, visible = (standardised(task, name, chosen) for name in (target, source))
            predicted = in_batches(lambda part, target=target: model.predict(target, part), task, source, chosen, model)
            mapped = linear.predict(visible) if len(chosen) else truth
            shuffled = np.random.default_rng(seed).permutation(len(chosen))
            errors[target][kind] = {"count": len(chosen)} | {
                name: float(np.mean((values - truth) ** 2)) if len(chosen) else None
                for name, values in {
                    "model": predicted,
                    "linear_map": mapped,
                    "training_mean": np.float32(0),
                    "shuffled_pairs": predicted[shuffled],
                }.items()
            }
            species = task.observations["species"].to_numpy()[chosen]
            query, gallery = (
                in_batches(lambda part, name=name: model.encode(name, part), task, name, chosen, model)
                for name in (source, target)
            )
            found[f"{source}_to_{target}"][kind] = {
                "model": retrieve(query, gallery, species, seed),
                "linear_map": retrieve(mapped, truth, species, seed),
            }
    return errors, found


@torch.no_grad()
def in_batches(
    function: Callable[[torch.Tensor], torch.Tensor],
    task: Task,
    modality: str,
    rows: np.ndarray,
    model: CrossModalAutoencoder,
) -> np.ndarray:
    """(B, ·) float32: `function` of the raw embeddings of `rows`, so many at once, where the model is."""
    device = model.log_scale.device
    parts = [
        function(torch.from_numpy(task.store.read(modality, rows[start : start + AT_ONCE])).to(device)).cpu().numpy()
        for start in range(0, max(len(rows), 1), AT_ONCE)
    ]
    return np.concatenate(parts)


def shared_features(model: CrossModalAutoencoder, task: Task, rows: np.ndarray) -> np.ndarray:
    """(B, dim) float32 mean of a row's shared vectors, of the modalities that it has; zeros where it has none."""
    total, count = np.zeros((len(rows), model.dim), np.float32), np.zeros((len(rows), 1), np.float32)
    for name in model.encoders:
        here = task.store.present(name, rows)
        total[here] += in_batches(lambda part, name=name: model.encode(name, part), task, name, rows[here], model)
        count[here] += 1
    return total / np.maximum(count, 1)


def principal_features(task: Task, train: np.ndarray, rows: np.ndarray, dim: int, seed: int) -> np.ndarray:
    """(B, up to dim) float32 principal components of both standardised modalities side by side, fitted on `train`.

    Each modality is divided by the root of its width, so that the wider one does not decide alone; a missing one is
    zeros.
    """

    def both(chosen: np.ndarray) -> np.ndarray:
        parts = [standardised(task, name, chosen) for name in PAIR]
        return np.hstack([values / np.float32(np.sqrt(values.shape[1])) for values in parts])

    values = both(train)
    pca = PCA(min(dim, *values.shape), svd_solver="randomized", random_state=seed).fit(values)
    return pca.transform(both(rows)).astype(np.float32)
