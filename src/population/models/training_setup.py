"""What pretrain, sft and dpo read from params.yaml alike: how a training goes and in which precision."""

import torch

from src.core.models.patches import tiles_at_once
from src.core.training.precision import compute_dtype
from src.core.training.trainer_arguments import Plan
from src.population.params import TINY, Params, Steps


def training_plan(params: Params, section: Steps, bands: int, side: int, **more) -> Plan:
    """The plan of the training whose params are `section`, on tiles of `bands` and `side` px."""
    steps = {"epochs", "batch_size", "accumulate", "save_steps", "warmup_ratio"}
    return Plan(
        **section.model_dump(include=steps),
        **params.memory.model_dump(include={"precision", "optimizer_8bit", "four_bit"}),
        seed=params.seed,
        eval_batch=tiles_at_once(section.batch_size // section.accumulate, bands, side),
        checkpointing=params.memory.checkpoints_gradients(params.model.backbone),
        report_to=params.report_to,
        **more,
    )


def weights_dtype(params: Params) -> torch.dtype:
    """In which weights that do not train are held."""
    return torch.float32 if params.model.backbone == TINY else compute_dtype(params.memory.precision)


def shapes_alone(params: Params, dry_run: bool) -> bool:
    """Whether a dry run needs no weights: the shapes of a pretrained backbone say what fits."""
    return dry_run and params.model.backbone != TINY


def remedies(section: str, *more: str) -> list[str]:
    """What frees a GPU's memory in a training with the params `section`, cheapest first."""
    first = [f"raise {section}.accumulate", "memory.gradient_checkpointing: always", "memory.optimizer_8bit: true"]
    return [*first, *more, "fewer pixels (data.tile_px)", "a smaller model.backbone"]
