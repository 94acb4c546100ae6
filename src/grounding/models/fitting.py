"""Three trainings from store to model: the generator, its grounding by LoRA, the regression network.

`pretrain` and `ground` run the first two; `controls` runs them again without radar, and the third.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import set_seed

from src.core.stage import distributed
from src.core.stage.errors import ParamsError
from src.core.training import driver
from src.core.training.dry_run import memory_and_time
from src.core.training.parameter_groups import ParameterGroups
from src.core.training.trainer_arguments import Plan
from src.grounding.data.scene_store import SceneStore
from src.grounding.models import denoiser, regression, terramind, training
from src.grounding.models.denoiser import Denoiser, Scaling
from src.grounding.models.training_windows import scaling
from src.grounding.params import Params

logger = logging.getLogger(__name__)
REMEDIES = ["a smaller batch_size", "raise accumulate", "a smaller tiles.tile_px", "a smaller model.width"]
REGRESSION_WIDTH = 16  # channels of the regression network at full resolution
BETAS = (0.8, 0.95)  # of AdamW: short trainings come to look at radar sooner than with 0.9 and 0.999 (log, 2026-11-28)


class Prepared(NamedTuple):
    """Parts of one training."""

    name: str
    plan: Plan
    model: nn.Module
    groups: ParameterGroups
    train: Dataset
    validation: Dataset
    measure: Callable | None = None

    def describe(self) -> str:
        """Numbers of scenes and windows, and what trains, to print."""
        scenes = len(self.train.scenes), len(self.validation.scenes)
        return (
            f"{self.name}: {scenes[0]} scenes to learn from, {scenes[1]} for validation ({len(self.validation)} "
            f"windows); {training.share_trained(self.model)}; {self.groups.describe()}"
        )


def generator(store: SceneStore, params: Params, sees_sar: bool) -> Prepared:
    """A generator of random weights, to learn from scenes of role pretrain."""
    train, validation = training.windows(store, ["pretrain"], params, params.pretrain)
    set_seed(params.seed)
    scales = Scaling(**scaling(train.scenes))
    if terramind.is_terramind(params.model.backbone):
        network = terramind.build(params, scales.residual_sd, sees_sar)
    else:
        network = denoiser.build(params.model, params.tiles.tile_px, scales, sees_sar)
    groups = training.everything(network, params.pretrain.lr)
    model = training.DenoisingTraining(network, params.model.steps)
    return Prepared("generator", training.plan(params, params.pretrain), model, groups, train, validation)


def grounding(store: SceneStore, params: Params, network: Denoiser) -> Prepared:
    """A pretrained generator with adapters in its cross-attention, to learn from scenes of role ground.

    A generator without radar learns without the losses that ask for radar, and keeps the last epoch: what it cannot
    see would only mislead it.
    """
    check(network, params)
    train, validation = training.windows(store, ["ground"], params, params.ground)
    train.scenes = train.scenes[: params.ground.max_samples]
    groups = training.add_lora(network, params)
    model = training.DenoisingTraining(network, params.model.steps, training.extra_losses(params, network.sees_sar))
    best = f"eval_{params.ground.stop.measure}" if network.sees_sar else None
    plan = training.plan(params, params.ground, best)
    return Prepared("grounding", plan, model, groups, train, validation, training.measure)


def check(network: Denoiser, params: Params) -> None:
    """Raise ParamsError where a pretrained generator reads other windows, or another noise schedule, than asked."""
    asked = {"tiles.tile_px": params.tiles.tile_px, "model.train_steps": params.model.train_steps}
    found = network.tile_px, network.scheduler.config.num_train_timesteps
    for (key, value), own in zip(asked.items(), found, strict=True):
        if value != own:
            raise ParamsError(f"{key}: found {value}, expected {own} as the generator was pretrained; run pretrain too")


def regression_network(store: SceneStore, params: Params) -> Prepared:
    """A regression network of random weights, to learn from all that the generator and its grounding see."""
    train, validation = training.windows(store, ["pretrain", "ground"], params, params.pretrain)
    set_seed(params.seed)
    network = regression.build(params.tiles.tile_px, REGRESSION_WIDTH, Scaling(**scaling(train.scenes)))
    groups = training.everything(network, params.pretrain.lr)
    model = training.RegressionTraining(network)
    return Prepared("regression", training.plan(params, params.pretrain), model, groups, train, validation)


def fit(part: Prepared, weight_decay: float, scratch: Path, plots: Path) -> None:
    """Train `part`, with its curves in `plots`."""
    logger.info(part.describe())
    history = driver.fit(
        part.plan,
        part.model,
        part.groups,
        part.groups.optimizer(weight_decay, BETAS),
        part.train,
        part.validation,
        label=training.LABEL,
        scratch=scratch,
        plots=plots,
        measure=part.measure,
    )
    if distributed.is_main():
        training.draw_curves(plots / "curves.png", part.name, history)


def explain(part: Prepared) -> None:
    """Print what `--dry-run` says of a training."""
    logger.info(part.describe())
    logger.info(memory_and_time(part.plan, part.model, part.groups, part.train))


def facts(params: Params, store: SceneStore) -> dict:
    """Contents of grounding.json beside scaling: what a model was trained on, for `infer` to compare with."""
    sar = params.data.sar
    return {
        "sar": sar.model_dump(include={"product", "coefficient", "clip_db"}),
        "opt_v2": store.facts["opt_v2"],
        "simulated": store.facts.get("simulated", False),
        "steps": params.model.steps,
    }


def merged(network: Denoiser) -> Denoiser:
    """The generator with its adapters added to the weights."""
    network.set_submodule(network.adapted, network.get_submodule(network.adapted).merge_and_unload())
    return network.requires_grad_(False).to(torch.float32)
