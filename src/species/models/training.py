"""The trainings of species: rows as batches, classifiers of species, summaries and curves."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import log_softmax
from sklearn.utils import gen_batches
from transformers import EvalPrediction, set_seed

from src.core.report import figures
from src.core.stage import distributed
from src.core.stage.errors import DataError, ParamsError
from src.core.training import driver
from src.core.training.parameter_groups import ParameterGroups
from src.core.training.trainer_arguments import Plan, to
from src.species.data.batches import Loader, Observations
from src.species.data.task import Task
from src.species.models.networks import Moments, SpeciesClassifier, balanced_weights
from src.species.params import Params, Training

logger = logging.getLogger(__name__)
Reader = Callable[[np.ndarray], dict[str, torch.Tensor]]
Split = tuple[np.ndarray, np.ndarray]  # rows of the store: training, validation
AT_ONCE = 1024  # rows a forward pass, where nothing is learned


@dataclass(frozen=True)
class Trained:
    """Record of a training beside its weights: Trainer's log, an entry a row, and the entry of summary.json."""

    log: pd.DataFrame
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


def moments(task: Task, modalities: tuple[str, ...]) -> Moments:
    """Mean and standard deviation of the training rows."""
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


def learnable(task: Task, modalities: tuple[str, ...], every: bool = False) -> Split:
    """Training and validation rows with at least one of the modalities and of a species that trains, or with `every`
    modality and of any species, for a model that learns without labels.

    Raises:
        DataError: there is no such row.
    """
    chosen = []
    for role in ("train", "validation"):
        rows = task.rows(role)
        present = np.array([task.store.present(name, rows) for name in modalities])
        usable = present.all(axis=0) if every else present.any(axis=0) & (task.targets(rows) >= 0)
        if not usable.any():
            wanted = " and ".join(modalities) if every else f"{' or '.join(modalities)} and a species that trains"
            raise DataError(
                f"split.parquet: role: found no {role} row with {wanted}, expected some; bring more embeddings, or "
                "change split"
            )
        chosen.append(rows[usable])
    return chosen[0], chosen[1]


def files_read(inputs) -> list[Path]:
    """The inputs that a training depends on; the manifest holds the hashes of the embeddings."""
    return [inputs.store / "manifest.json", inputs.split / "split.parquet", inputs.split / "statistics.safetensors"]


def fit(
    model: torch.nn.Module, groups: ParameterGroups, read: Reader, rows: Split, section: Training, params: Params, **how
) -> Trained:
    """Train `model` on (training, validation) rows until its balanced loss on validation (`Task.balance`) has not
    fallen for `section.patience` epochs; keep the best epoch's weights.

    `how` holds label, measure ("balanced_loss" among what it gives), scratch and plots of `driver.fit`, and
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
    log = pd.DataFrame(driver.fit(plan, model, groups, optimizer, *(Observations(read, part) for part in rows), **how))
    # without times, which differ between two runs
    evaluated = log.dropna(subset="eval_loss").filter(regex=r"^eval_(?!runtime|\w+_per_second)")
    evaluated.columns = evaluated.columns.str.removeprefix("eval_")
    best = int(evaluated["balanced_loss"].argmin())
    summary = {
        "epochs": len(evaluated),
        "best_epoch": best + 1,
        "validation": evaluated[["loss", *sorted(evaluated.columns.drop("loss"))]].iloc[best].to_dict(),
        "rows": {"train": len(rows[0]), "validation": len(rows[1])},
        "parameters": {name: sum(p.numel() for p in group[0]) for name, group in groups.groups.items()},
    }
    logger.info("%s: epoch %d of %d: %s", how["plots"].name, best + 1, len(evaluated), summary["validation"])
    return Trained(log, summary)


def build_classifier(
    statistics: Moments, dropout: dict[str, float], train: np.ndarray, task: Task, params: Params
) -> tuple[SpeciesClassifier, ParameterGroups]:
    """A new classifier on the inputs of `statistics`, and its parameter groups: the trunk of each input, and the head.

    Its weights are drawn from params.seed, whatever was drawn before. The species of the rows `train` weigh in the loss
    as params.train.imbalance says.
    """
    set_seed(params.seed)
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
    rows: Split,
    task: Task,
    params: Params,
    scratch: Path,
    plots: Path,
) -> tuple[Trained, np.ndarray]:
    """`fit` with the settings of params.train, on (training, validation) rows, and `log_probabilities` of all that is
    held out."""
    weights = task.balance(rows[1])

    def measure(predicted: EvalPrediction) -> dict[str, float]:
        losses = -log_softmax(predicted.predictions, axis=1)[np.arange(len(weights)), predicted.label_ids]
        right = predicted.predictions.argmax(1) == predicted.label_ids
        return {"balanced_loss": float(np.mean(weights * losses)), "top1": float(right.mean())}

    how = {"label": "target", "measure": measure, "scratch": scratch, "plots": plots}
    trained = fit(model, groups, read, rows, params.train, params, **how)
    return trained, log_probabilities(model, read, task.held_out)


@torch.no_grad()
def log_probabilities(model: SpeciesClassifier, read: Reader, rows: np.ndarray) -> np.ndarray:
    """(H, C) float32 log-probabilities of every class; NaN for a row without any of the model's inputs."""
    device = model.head.weight.device
    answers = np.empty((len(rows), len(model.classes)), np.float32)
    for part in gen_batches(len(rows), AT_ONCE):
        batch = to(read(rows[part]), device)
        del batch["target"]  # -1 where a species does not train, of which there is no loss
        logits = model(**batch)["logits"].masked_fill(~batch["present"].any(1, keepdim=True), float("nan"))
        answers[part] = logits.log_softmax(1).cpu()
    return answers


def write_curves(path: Path, trained: dict[str, Trained]) -> None:
    """Curves by epoch, a block for each training: its loss, that of validation, and other measures of validation."""

    def curve(log: pd.DataFrame, name: str) -> figures.Curve:
        keys = {"train": name, "validation": f"eval_{name}"} if name == "loss" else {"validation": f"eval_{name}"}
        lines = {part: tuple(log[["epoch", key]].dropna().to_numpy(np.float64).T) for part, key in keys.items()}
        return figures.Curve(name.replace("_", " "), "", lines)

    figures.curves(
        path, {stage: [curve(each.log, name) for name in each.summary["validation"]] for stage, each in trained.items()}
    )
