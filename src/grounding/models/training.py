"""Trainings of the generator and of the regression network, through the one training driver."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from peft import LoraConfig
from torch import nn
from transformers import EvalPrediction, set_seed

from src.core.models import lora
from src.core.report import figures
from src.core.stage.errors import DataError
from src.core.training.parameter_groups import ParameterGroups, train_only
from src.core.training.trainer_arguments import Plan
from src.grounding.data.scene_store import Scene, SceneStore
from src.grounding.evaluation import agreement
from src.grounding.models import losses, perceptual_network
from src.grounding.models.denoiser import Denoiser
from src.grounding.models.losses import mean_over
from src.grounding.models.regression import Regression
from src.grounding.models.training_windows import GridWindows, RandomWindows
from src.grounding.params import Params, Training

logger = logging.getLogger(__name__)
LABEL = "truth"
SCORES = ("agreement", "seed_agreement")
PARTS = ("denoising", "sar", "cycle", "identity", "spectral", "lpips")


class DenoisingTraining(nn.Module):
    """The loss of a generator: mean squared error of its prediction over clear pixels (Ho and others 2020).

    With `extra` the five losses on the predicted image are added. In evaluation it also returns `scores` (B, 8): SCORES
    of the image that it draws, and PARTS of the loss.
    """

    def __init__(self, denoiser: Denoiser, steps: int, extra=None):
        super().__init__()
        self.denoiser, self.steps, self.extra = denoiser, steps, extra

    def forward(
        self,
        sar: torch.Tensor,
        first_guess: torch.Tensor,
        missing: torch.Tensor,
        valid: torch.Tensor,
        truth: torch.Tensor,
        noise: torch.Tensor,
        timestep: torch.Tensor,
        other_sar: torch.Tensor | None = None,
        other_valid: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        model = self.denoiser
        # Under cloud the truth is unknown; a network that saw it in the noisy residual would learn from it.
        residual = model.scaled(torch.where(valid[:, None], truth - first_guess, 0.0))
        noisy = model.noisy(residual, noise, timestep)
        prediction = model(noisy, timestep, model.condition(first_guess, missing, sar))
        velocity = model.scheduler.config.prediction_type == "v_prediction"
        target = model.scheduler.get_velocity(residual, noise, timestep) if velocity else residual
        denoising = mean_over((prediction - target).square(), valid)
        loss, parts = denoising.mean(), {}
        if self.extra is not None:
            refined = model.refined(first_guess, model.residual_from(prediction, noisy, timestep))
            added, parts = self.extra(refined, truth, first_guess, sar, valid, missing)
            loss = loss + added
        if self.training or self.extra is None:
            return {"loss": loss}
        drawn = model.sample(first_guess, missing, sar, noise, self.steps)
        scores = [
            agreement.agreement(drawn, sar, valid, other_sar, other_valid),
            agreement.seed_agreement(drawn, sar, valid),
        ]
        parts = {"denoising": denoising.mean()} | parts
        scores += [parts[name].expand(len(drawn)) for name in PARTS if name in parts]
        return {"loss": loss, "scores": torch.stack(scores, dim=1)}


class RegressionTraining(nn.Module):
    """L1 of the regression network's residual over clear pixels, in units of the residual's standard deviation."""

    def __init__(self, network: Regression):
        super().__init__()
        self.network = network

    def forward(self, sar, first_guess, missing, valid, truth, **_) -> dict[str, torch.Tensor]:
        target = (truth - first_guess) / self.network.residual_sd
        return {"loss": mean_over((self.network(first_guess, missing, sar) - target).abs(), valid).mean()}


def measure(found: EvalPrediction) -> dict[str, float]:
    """Means over the validation windows of what `DenoisingTraining` returns as `scores`, by name."""
    scores = found.predictions[0] if isinstance(found.predictions, tuple) else found.predictions
    names = [*SCORES, *PARTS]
    return {name: float(np.mean(column)) for name, column in zip(names, scores.T, strict=False)}


def plan(params: Params, section: Training, best: str | None = None) -> Plan:
    """The plan of a training; `best` is the score by which an epoch is kept, and None keeps the last."""
    shared = {"epochs", "batch_size", "accumulate", "save_steps", "warmup_ratio", "precision"}
    stop = {"patience": section.stop.patience, "delta": section.stop.delta} if best else {}
    return Plan(**section.model_dump(include=shared), **stop, seed=params.seed, best=best, report_to=params.report_to)


def windows(
    store: SceneStore, roles: Sequence[str], params: Params, section: Training
) -> tuple[RandomWindows, GridWindows]:
    """Training windows of the scenes of `roles`, and the validation windows; no other scene is read.

    Raises DataError where a role has no scene, or a scene is smaller than a window.
    """
    side, least, steps = params.tiles.tile_px, params.tiles.min_valid_ratio, params.model.train_steps
    scenes = [scene for role in roles for scene in read(store, role, side)]
    train = RandomWindows(scenes, side, least, section.windows, params.seed, steps)
    return train, GridWindows(read(store, "validation", side), side, least, params.seed, steps)


def read(store: SceneStore, role: str, side: int) -> list[Scene]:
    """Scenes of a role, of `side` px at least; raises DataError where there is none, or a smaller one."""
    names = store.names(role)
    if not names:
        raise DataError(
            f"{store.folder}: role {role}: found no scene, expected one or more; give scenes that role in their JSON "
            "(`split`), or all of them none, so that roles are drawn"
        )
    for row in store.table[store.table["role"] == role].itertuples():
        if min(row.height, row.width) < side:
            raise DataError(
                f"{store.folder}: scene {row.name}: found {row.height} x {row.width} px, expected at least a window "
                f"of {side} x {side}; lower `tile_px`, or leave it out"
            )
    return [store.read(name) for name in names]


def everything(model: nn.Module, rate: float) -> ParameterGroups:
    """All weights that are not frozen, a group for each part of `model`: radar that reaches nothing is then noticed."""
    parts = {name: [p for p in part.parameters() if p.requires_grad] for name, part in model.named_children()}
    return train_only(model, {name: (part, rate, 0) for name, part in parts.items() if part})


def add_lora(denoiser: Denoiser, params: Params) -> ParameterGroups:
    """Freeze `denoiser`, give its adapted part adapters, and return them as the one group that trains."""
    set_seed(params.seed)
    section = params.ground.lora
    adapters = LoraConfig(
        r=section.rank, lora_alpha=section.alpha, lora_dropout=section.dropout, target_modules=section.targets
    )
    denoiser.set_submodule(denoiser.adapted, lora.wrap(denoiser.get_submodule(denoiser.adapted), adapters))
    trained = [p for name, p in denoiser.named_parameters() if "lora_" in name]
    return train_only(denoiser, {"lora": (trained, params.ground.lr, 0)})


def extra_losses(params: Params, sees_sar: bool):
    """The five losses with their weights, as `DenoisingTraining` calls them; says where LPIPS is off.

    Of a generator that does not see radar those that ask for it are off.
    """
    weights, sar = params.ground.weights.model_dump(), params.data.sar
    if not sees_sar:
        weights |= {"sar": 0.0, "identity": 0.0}
    distance = perceptual_network.read_lpips(params.ground.lpips_weights) if weights["lpips"] else None
    if distance is None:
        why = "its weight is 0" if not weights["lpips"] else "ground.lpips_weights names no file"
        logger.info(f"grounding: LPIPS is off: {why}")

    def total(*images):
        return losses.total(*images, weights=weights, clip_db=tuple(sar.clip_db), looks=sar.looks, distance=distance)

    return total


def share_trained(model: nn.Module) -> str:
    """Number and share of weights that train, to print."""
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    trained, whole = sum(n for n, grad in counts if grad), sum(n for n, _ in counts)
    return f"{trained:,} of {whole:,} weights train ({trained / whole:.1%})"


def draw_curves(path: Path, name: str, history: list[dict]) -> None:
    """curves.png: loss of training and validation by epoch, then in grounding every score and part of the loss."""
    log = pd.DataFrame(history)
    panels = {"loss": {"train": "loss", "validation": "eval_loss"}}
    panels |= {score.replace("_", " "): {"validation": f"eval_{score}"} for score in (*SCORES, *PARTS)}
    curves = []
    for title, columns in panels.items():
        rows = {label: log.dropna(subset=column) for label, column in columns.items() if column in log}
        lines = {label: (part["epoch"].to_numpy(), part[columns[label]].to_numpy()) for label, part in rows.items()}
        if lines:
            curves.append(figures.Curve(title, "agreement" if title.endswith("agreement") else "loss", lines))
    figures.curves(path, {name: curves})
