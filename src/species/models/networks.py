"""The networks of train and crossmodal, and the folders that hold them: model.safetensors and config.json.

They take embeddings as the store holds them (float16, not standardised) and standardise them by buffers of their own,
so that a saved model needs no other file.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional

from src.core.stage import files
from src.core.stage.errors import DataError

Moments = dict[str, tuple[np.ndarray, np.ndarray]]  # input -> (D,) mean and (D,) sd of the training rows
WEIGHTS, CONFIG = "model.safetensors", "config.json"
HIGHEST_SCALE = 100.0  # of similarities in the contrastive term, as in CLIP: beyond it training is unstable


class Standardise(nn.Module):
    """(B, D) of any float type -> float32 with mean 0 and sd 1 over the training rows."""

    def __init__(self, mean: np.ndarray, sd: np.ndarray):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("sd", torch.tensor(sd, dtype=torch.float32))

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        return (embeddings.float() - self.mean) / self.sd


class SpeciesClassifier(nn.Module):
    """Species from one embedding or from several (late fusion).

    A trunk D-H-H (ReLU, dropout after each hidden layer) for every input; their features stand side by side, zeros
    where an observation lacks an embedding, before one linear layer. H is `hidden`; the C `classes` are in the order of
    the answers, and each counts in the loss by its weight (C,), 1 on average over training rows.
    """

    def __init__(
        self,
        statistics: Moments,
        dropout: dict[str, float],
        hidden: int,
        classes: Sequence[str],
        weights: np.ndarray | None = None,
    ):
        super().__init__()
        self.classes = [str(name) for name in classes]
        self.settings = {"hidden": hidden, "dropout": dropout, "id2label": dict(enumerate(self.classes))}
        self.standardise = nn.ModuleDict({name: Standardise(*moments) for name, moments in statistics.items()})
        self.trunks = nn.ModuleDict(
            {name: trunk(len(mean), hidden, dropout[name]) for name, (mean, _) in statistics.items()}
        )
        self.head = nn.Linear(hidden * len(statistics), len(self.classes))
        # Used in training only, so it is not saved.
        self.register_buffer(
            "weights", None if weights is None else torch.tensor(weights, dtype=torch.float32), persistent=False
        )

    def forward(self, present: torch.Tensor, target: torch.Tensor | None = None, **inputs: torch.Tensor) -> dict:
        """Loss (with a target) and logits (B, C) float32.

        The loss is the mean cross entropy; in training each row counts by its class's weight. The mean is over rows,
        not over weights, so that it does not matter which rows share a batch. Inputs are (B, D), `present` is
        (B, inputs) bool in the order of `statistics`, `target` (B,) int64.
        """
        features = [
            self.trunks[name](self.standardise[name](inputs[name])) * present[:, [column]]
            for column, name in enumerate(self.trunks)
        ]
        logits = self.head(torch.cat(features, dim=1))
        if target is None:
            return {"logits": logits}
        loss = functional.cross_entropy(logits, target, self.weights if self.training else None, reduction="none")
        return {"loss": loss.mean(), "logits": logits}


class CrossModalAutoencoder(nn.Module):
    """Predicts each of two embeddings of an observation from the other one, through a space that both share.

    A masked autoencoder whose patches are the two modalities (He et al. 2022): each in turn is masked and predicted
    from the visible one. An InfoNCE term in both directions (Radford et al. 2021, CLIP) holds the two shared vectors
    of an observation together; `contrastive` is its weight, and the `temperature` of its softmax is learned.
    """

    def __init__(self, statistics: Moments, dim: int, contrastive: float, temperature: float):
        super().__init__()
        self.dim, self.contrastive = dim, contrastive
        self.settings = {"dim": dim, "contrastive": contrastive}
        widths = {name: len(mean) for name, (mean, _) in statistics.items()}
        self.other = dict(zip(widths, reversed(widths), strict=True))
        self.standardise = nn.ModuleDict({name: Standardise(*moments) for name, moments in statistics.items()})
        self.encoders = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(width, dim), nn.LayerNorm(dim), nn.ReLU()) for name, width in widths.items()}
        )
        # Keys are the modalities that they predict.
        self.predictors = nn.ModuleDict({name: nn.Linear(dim, width) for name, width in widths.items()})
        self.log_scale = nn.Parameter(-torch.tensor(float(temperature)).log())

    def forward(self, **inputs: torch.Tensor) -> dict:
        """Loss, and its terms per row: contrastive (B,) and for each modality `<name>_error` (B,). Inputs are (B, D)
        of both modalities, none missing."""
        values = {name: self.standardise[name](embeddings) for name, embeddings in inputs.items()}
        encoded = {name: self.encoders[name](standardised) for name, standardised in values.items()}
        errors = {
            f"{name}_error": functional.mse_loss(
                self.predictors[name](encoded[self.other[name]]), values[name], reduction="none"
            ).mean(1)
            for name in self.predictors
        }
        contrastive = self.forward_contrastive(*(encoded[name] for name in self.encoders))
        loss = sum(errors.values()) + self.contrastive * contrastive
        return {"loss": loss.mean(), "contrastive": contrastive, **errors}

    def forward_contrastive(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """(B,) symmetric InfoNCE of (B, dim) vectors whose rows belong together; the others of the batch do not."""
        scale = self.log_scale.exp().clamp(max=HIGHEST_SCALE)
        logits = scale * functional.normalize(one, dim=1) @ functional.normalize(other, dim=1).T
        target = torch.arange(len(one), device=one.device)
        return sum(functional.cross_entropy(each, target, reduction="none") for each in (logits, logits.T)) / 2

    def encode(self, modality: str, embeddings: torch.Tensor) -> torch.Tensor:
        """(B, dim) float32 shared vectors of length 1."""
        return functional.normalize(self.encoders[modality](self.standardise[modality](embeddings)), dim=1)

    def predict(self, modality: str, embeddings: torch.Tensor) -> torch.Tensor:
        """(B, D) float32 of the other modality, standardised."""
        encoded = self.encoders[modality](self.standardise[modality](embeddings))
        return self.predictors[self.other[modality]](encoded)


def trunk(width: int, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout),
    )  # fmt: skip


def balanced_weights(target: np.ndarray, classes: int) -> np.ndarray:
    """(C,) float64 weights with which every class that `target` (n,) holds counts alike in the loss (King and Zeng
    2001); a class that it does not hold gets 0."""
    held, weights = np.unique(target), np.zeros(classes)
    weights[held] = compute_class_weight("balanced", classes=held, y=target)
    return weights


def save(model: SpeciesClassifier | CrossModalAutoencoder, folder: Path) -> None:
    """Write the model in Hugging Face layout; `folder` exists already or is made."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    (folder / WEIGHTS).write_bytes(safetensors.torch.save(weights, metadata={"format": "pt"}))
    inputs = {name: len(layer.mean) for name, layer in model.standardise.items()}
    config = {"architectures": [type(model).__name__], "inputs": inputs} | model.settings
    files.write_json(folder / CONFIG, config)


def load(folder: Path) -> SpeciesClassifier | CrossModalAutoencoder:
    """A saved model, ready to answer.

    Raises:
        StorageError: a file is missing.
        DataError: a file is broken, or the weights are not those of the config.
    """
    config = files.read_json(folder / CONFIG)
    kind = (config.get("architectures") or [None])[0]
    # The weights bring the statistics.
    blank = {name: (np.zeros(width), np.ones(width)) for name, width in config.get("inputs", {}).items()}
    if kind == SpeciesClassifier.__name__:
        model = SpeciesClassifier(blank, config["dropout"], config["hidden"], list(config["id2label"].values()))
    elif kind == CrossModalAutoencoder.__name__:
        model = CrossModalAutoencoder(blank, config["dim"], config["contrastive"], 1.0)
    else:
        raise DataError(
            f"{folder / CONFIG}: architectures: found {kind!r}, expected {SpeciesClassifier.__name__} or "
            f"{CrossModalAutoencoder.__name__}; is it another model's folder?"
        )
    weights = files.read_arrays(folder / WEIGHTS)
    try:
        model.load_state_dict({name: torch.from_numpy(values) for name, values in weights.items()})
    except RuntimeError as error:
        raise DataError(
            f"{folder / WEIGHTS}: does not hold the weights of {CONFIG} ({error}); write it again"
        ) from error
    return model.eval()
