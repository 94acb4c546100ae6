"""Setup that the stages with a model share: seed, store and split, plan and precision of a training."""

import torch
from transformers import set_seed

from src.core.data.tile_store import Store
from src.core.models.patches import tiles_at_once
from src.core.stage import run
from src.core.stage.model_params import TINY, Steps
from src.core.training import precision
from src.core.training.trainer_arguments import Plan
from src.population.data.stage_inputs import Split, read_split
from src.population.params import Params


def begin(params: Params, inputs) -> tuple[Store, Split]:
    """Set threads and seeds, then open the stage's inputs `tiles` and `split`; raises as `read_split` does."""
    run.set_threads(params.threads)
    set_seed(params.seed)
    store = Store.open(inputs.tiles)
    return store, read_split(inputs.split, store)


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
    """Precision of the weights that do not train."""
    return precision.weights_dtype(params.model.backbone, params.memory.precision)


def shapes_alone(params: Params, dry_run: bool) -> bool:
    """True in a dry run with a pretrained backbone: shapes without weights tell what fits into memory."""
    return dry_run and params.model.backbone != TINY


def memory_savings(section: str, *more: str) -> list[str]:
    """Changes of params that free memory of the GPU, cheapest first; `section` is the training's section."""
    first = [f"raise {section}.accumulate", "memory.gradient_checkpointing: always", "memory.optimizer_8bit: true"]
    return [*first, *more, "fewer pixels (data.tile_px)", "a smaller model.backbone"]
