"""The trainings of species: rows as batches, classifiers of species, summaries and curves."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.special import log_softmax
from transformers import EvalPrediction

from src.core.report import figures
from src.core.stage import distributed
from src.core.stage.errors import DataError, ParamsError
from src.core.training import driver
from src.core.training.parameter_groups import ParameterGroups
from src.core.training.trainer_arguments import Plan, to
from src.species.data.batches import Loader, Observations
from src.species.data.task import Task
from src.species.models.networks import SpeciesClassifier, balanced_weights
from src.species.params import Params, Training

logger = logging.getLogger(__name__)
Reader = Callable[[np.ndarray], dict[str, torch.Tensor]]
AT_ONCE = 1024  # rows a forward pass, where nothing is learned


@dataclass(frozen=True)
class Trained:
    """Record of a training beside its weights: Trainer's log, and the entry of summary.json."""

    history: list[dict]
    summary: dict


def require_one_process(stage: str) -> None:
    """Raise ParamsError if several processes were launched: networks that train in a minute gain nothing by it."""
    if distributed.count() > 1:
        raise ParamsError(
            f"{stage}: found {distributed.count()} processes, expected one; run python -m src.species.{stage} without "
            "accelerate launch"
        )


def require_modalities(task: Task, modalities: tuple[str, ...], wanted_by: str) -> None:
    """Raise ParamsError where the store lacks a modality that `wanted_by`, a key of params.yaml, needs."""
    for name in modalities:
        if name not in task.store.modalities:
            raise ParamsError(
                f"{wanted_by} needs the modality {name!r}: found {sorted(task.store.modalities)} in {task.store.folder}"
                f" (data.modalities); add it there and run ingest again, or change {wanted_by}"
            )


def moments(task: Task, modalities: tuple[str, ...]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Modality -> ((D,) mean, (D,) sd) of the training rows."""
    return {name: (task.statistics[f"{name}_mean"], task.statistics[f"{name}_sd"]) for name in modalities}


def embedding_reader(task: Task, modalities: tuple[str, ...]) -> Reader:
    """Reads the arguments of a `SpeciesClassifier` on `modalities` from the memory map, batch by batch."""
    loader = Loader(task.store, task.classes)

    def read(rows: np.ndarray) -> dict[str, torch.Tensor]:
        batch = loader.read(rows, modalities)
        present = torch.stack([batch[f"{name}_present"] for name in modalities], dim=1)
        return {"present": present, "target": batch["species"]} | {name: batch[name] for name in modalities}

    return read


def feature_reader(task: Task, features: np.ndarray, modalities: tuple[str, ...]) -> Reader:
    """Reads the arguments of a `SpeciesClassifier` on `features` (N, D), made of whichever modalities a row has."""
    present = np.any([task.store.present(name) for name in modalities], axis=0)
    targets = task.targets(np.arange(len(task.store)))

    def read(rows: np.ndarray) -> dict[str, torch.Tensor]:
        batch = {"present": present[rows, None], "target": targets[rows], "features": features[rows]}
        return {name: torch.from_numpy(values) for name, values in batch.items()}

    return read


def learnable(task: Task, modalities: tuple[str, ...], every: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation rows with at least one of the modalities and of a species that trains.

    Args:
        every: take rows with all of the modalities and of any species, for a model that learns without labels.

    Raises:
        DataError: there is no such row.
    """
    chosen = []
    for role in ("train", "validation"):
        rows = task.rows(role)
        present = np.array([task.store.present(name, rows) for name in modalities])
        known = task.targets(rows) >= 0
        chosen.append(rows[present.all(axis=0) if every else present.any(axis=0) & known])
        if not len(chosen[-1]):
            raise DataError(
                f"split.parquet: role: found no {role} row with {(' and ' if every else ' or ').join(modalities)}"
                f"{'' if every else ' and a species that trains'}, expected some; bring more embeddings, or change "
                "split"
            )
    return chosen[0], chosen[1]


def files_read(inputs) -> list[Path]:
    """The inputs that a training depends on; the manifest holds the hashes of the embeddings."""
    return [inputs.store / "manifest.json", inputs.split / "split.parquet", inputs.split / "statistics.safetensors"]


def fit(
    model: torch.nn.Module,
    groups: ParameterGroups,
    read: Reader,
    rows: tuple[np.ndarray, np.ndarray],
    section: Training,
    params: Params,
    **how,
) -> Trained:
    """Train `model` on (training, validation) rows until its balanced loss on validation (`Task.balance`) has not
    fallen for `section.patience` epochs; keep the best epoch's weights.

    Args:
        how: label, measure ("balanced_loss" among what it gives), scratch and plots of `driver.fit`, and
            `eval_batch` of `Plan`.
    """
    steps = {"epochs", "patience", "batch_size", "warmup_ratio", "save_steps"}
    plan = Plan(
        **section.model_dump(include=steps),
        seed=params.seed,
        eval_batch=how.pop("eval_batch", AT_ONCE),
        best="eval_balanced_loss",
        report_to=params.report_to,
    )
    optimizer = groups.optimizer(section.weight_decay, fused=True)
    history = driver.fit(plan, model, groups, optimizer, *(Observations(read, part) for part in rows), **how)
    return Trained(history, summary(history, groups, rows))


def build_classifier(
    statistics: dict[str, tuple[np.ndarray, np.ndarray]],
    dropout: dict[str, float],
    train: np.ndarray,
    task: Task,
    params: Params,
) -> tuple[SpeciesClassifier, ParameterGroups]:
    """A new classifier on the inputs of `statistics`, and its parameter groups: the trunk of each input, and the head.

    Args:
        train: the rows it will learn from, whose species weigh as params.train.imbalance says.
    """
    weights = None
    if params.train.imbalance == "balanced":
        weights = balanced_weights(task.targets(train), len(task.classes))
    model = SpeciesClassifier(statistics, dropout, params.train.hidden, task.classes, weights)
    parts = {name: list(layers.parameters()) for name, layers in model.trunks.items()}
    parts["head"] = list(model.head.parameters())
    return model, ParameterGroups({name: (parameters, params.train.lr, 0) for name, parameters in parts.items()})


def fit_classifier(
    model: SpeciesClassifier,
    groups: ParameterGroups,
    read: Reader,
    rows: tuple[np.ndarray, np.ndarray],
    task: Task,
    params: Params,
    scratch: Path,
    plots: Path,
) -> Trained:
    """`fit` with the settings of params.train, on (training, validation) rows."""
    weights = task.balance(rows[1])

    def measure(predicted: EvalPrediction) -> dict[str, float]:
        losses = -log_softmax(predicted.predictions, axis=1)[np.arange(len(weights)), predicted.label_ids]
        right = predicted.predictions.argmax(1) == predicted.label_ids
        return {"balanced_loss": float(np.mean(weights * losses)), "top1": float(right.mean())}

    how = {"label": "target", "measure": measure, "scratch": scratch, "plots": plots}
    return fit(model, groups, read, rows, params.train, params, **how)


@torch.no_grad()
def log_probabilities(model: SpeciesClassifier, read: Reader, rows: np.ndarray) -> np.ndarray:
    """(H, C) float32 log-probabilities of every class; NaN for a row without any of the model's inputs."""
    device = model.head.weight.device
    answers = np.empty((len(rows), len(model.classes)), np.float32)
    for start in range(0, len(rows), AT_ONCE):
        batch = to(read(rows[start : start + AT_ONCE]), device)
        del batch["target"]  # -1 where a species does not train, of which there is no loss
        logits = model(**batch)["logits"].masked_fill(~batch["present"].any(1, keepdim=True), float("nan"))
        answers[start : start + AT_ONCE] = logits.log_softmax(1).cpu()
    return answers


def summary(history: list[dict], groups: ParameterGroups, rows: tuple[np.ndarray, np.ndarray]) -> dict:
    """Entry of summary.json for one training, without times or anything else that differs between two runs."""
    evaluated = [entry for entry in history if "eval_loss" in entry]
    best = min(evaluated, key=lambda entry: entry["eval_balanced_loss"])
    return {
        "epochs": len(evaluated),
        "best_epoch": evaluated.index(best) + 1,
        "validation": {name: best[f"eval_{name}"] for name in ("loss", *_measures(history))},
        "rows": {"train": len(rows[0]), "validation": len(rows[1])},
        "parameters": {name: sum(p.numel() for p in group[0]) for name, group in groups.groups.items()},
    }


def log_best(trained: dict[str, Trained]) -> None:
    """Log the epoch of each training that was kept."""
    for name, each in trained.items():
        facts = each.summary
        logger.info("%s: epoch %d of %d: %s", name, facts["best_epoch"], facts["epochs"], facts["validation"])


def write_curves(path: Path, trained: dict[str, Trained]) -> None:
    """Curves by epoch, a block for each training: its loss, that of validation, and other measures of validation."""

    def curves(history: list[dict]) -> list[figures.Curve]:
        loss = {"train": _line(history, "loss"), "validation": _line(history, "eval_loss")}
        measured = {name: {"validation": _line(history, f"eval_{name}")} for name in _measures(history)}
        return [figures.Curve(name.replace("_", " "), "", lines) for name, lines in ({"loss": loss} | measured).items()]

    figures.curves(path, {name: curves(each.history) for name, each in trained.items()})


def _measures(history: list[dict]) -> list[str]:
    """Names of the measures of validation beside the loss, without times, which differ between two runs."""
    first = next(entry for entry in history if "eval_loss" in entry)
    names = [name.removeprefix("eval_") for name in first if name.startswith("eval_")]
    return sorted(name for name in names if name != "loss" and not name.endswith(("time", "per_second")))


def _line(history: list[dict], key: str) -> tuple[np.ndarray, np.ndarray]:
    points = [(entry["epoch"], entry[key]) for entry in history if key in entry]
    return tuple(np.array(points, np.float64).reshape(-1, 2).T)
