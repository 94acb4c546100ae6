"""Masked autoencoding of tiles with the vision encoder of a Qwen-VL model, on visible tokens only.

    python -m src.population.pretrain --tiles data/population/tiles --split data/population/split \\
        --pca data/population/pca --out models/population/pretrain --plots plots/population/pretrain

Writes the whole model (encoder trained, the rest as it was) in Hugging Face layout, curves, a grid of
original, masked and reconstructed tiles, and `masked_mse.json`: errors on validation tiles beside nulls.
"""

import logging

from src.core.stage import distributed, run
from src.core.stage.scratch import scratch_folder
from src.population.params import Params

logger = logging.getLogger(__name__)


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    """Store, split and PCA -> the whole model, its vision encoder trained."""
    # Imported here: they import torch and transformers, which --help does without.
    from src.core.models import hub
    from src.core.training import driver
    from src.core.training.dry_run import memory_and_time
    from src.population.data.stage_inputs import read_pca
    from src.population.models import pretraining, starting_model
    from src.population.models.training_setup import begin, memory_savings, shapes_alone, training_plan

    store, split = begin(params, inputs)
    start = starting_model.starting_model(params, store, split, read_pca(inputs.pca), shapes_alone(params, dry_run))
    model, groups = pretraining.assemble(params, start)
    train, validation = pretraining.views(params, store, split, model)
    plan = training_plan(params, params.pretrain, store.bands, start.front.side)
    logger.info(groups.describe())
    if dry_run:
        logger.info(memory_and_time(plan, model, groups, train))
        return

    scratch = scratch_folder(
        params.checkpoint_root,
        "pretrain",
        params.model_dump(include={"seed", "threads", "memory", "model", "pretrain"}),
        [inputs.tiles / "manifest.json", inputs.split, inputs.pca, *hub.files_of(params.model.backbone)],
    )
    with driver.outputs(out, [scratch], "pretrain", memory_savings("pretrain")) as (folder, plots):
        if params.pretrain.epochs:
            optimizer = groups.optimizer(params.pretrain.weight_decay, (0.9, 0.95), params.memory.optimizer_8bit)
            driver.fit(plan, model, groups, optimizer, train, validation, label="noise", scratch=scratch, plots=plots)
            if distributed.is_main():
                pretraining.measure(model, validation, plan.eval_batch, plots)
        if distributed.is_main():
            pretraining.save(folder, start, params)


if __name__ == "__main__":
    run.stage(
        main,
        Params,
        name="population.pretrain",
        doc=__doc__,
        inputs={"tiles": "preprocess", "split": "split", "pca": "pca"},
        outputs={"out": "model folder to write", "plots": "folder for curves and pictures"},
    )
