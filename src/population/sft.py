"""Supervised fine-tuning of a whole Qwen-VL model: a growth rate in words and through a regression head.

    python -m src.population.sft --tiles data/population/tiles --split data/population/split \\
        --pca data/population/pca --pretrain models/population/pretrain \\
        --out models/population/sft --plots plots/population/sft

Writes a model folder (weights, head.safetensors, bandwise.json) and curves.
"""

import logging
from functools import partial

from src.core.stage import distributed, run
from src.core.stage.scratch import scratch_folder
from src.population.params import Params

logger = logging.getLogger(__name__)


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    """Store, split, PCA and pretrained model -> a model that answers with a growth rate."""
    # Imported here: they import torch and transformers, which --help does without.
    from src.core.training import driver
    from src.core.training.dry_run import memory_and_time
    from src.population.data.samples import GrowthSamples
    from src.population.data.stage_inputs import read_pca
    from src.population.models import finetuning, model_folder
    from src.population.models.inference import Reader
    from src.population.models.training_setup import begin, memory_savings, shapes_alone, training_plan, weights_dtype

    store, split = begin(params, inputs)
    split = split.permuted(params.seed, params.sft.permutation)
    pca = read_pca(inputs.pca)
    start = finetuning.pretrained(inputs.pretrain, params, store, split, pca, shapes_alone(params, dry_run))
    settings = finetuning.make_settings(params, store, split, start.front)
    model, groups = finetuning.assemble(params, settings, start)
    stop = {"best": "eval_selection", "patience": params.sft.patience}
    plan = training_plan(params, params.sft, store.bands, start.front.side, **stop)
    reader = Reader(model, start.tokenizer, settings, store, plan.eval_batch)
    train = GrowthSamples(store, split.rows("train"), reader.prompter, params.seed, params.sft.augment)
    validation = GrowthSamples(store, split.rows("validation"), reader.prompter, params.seed, augment=False)
    logger.info("%d training and %d validation labels, %s", len(train), len(validation), reader.prompter.describe())
    logger.info(groups.describe())
    if dry_run:
        logger.info(memory_and_time(plan, model, groups, train))
        return

    scratch = scratch_folder(
        params.checkpoint_root,
        "sft",
        params.model_dump(include={"seed", "threads", "memory", "model", "sft", "prompt"})
        | {"covariates": params.data.covariates}
        | {"lags": [params.data.covariate_lag, params.data.tile_lag], "pretrained_on": params.pretrain.tiles},
        [inputs.tiles / "manifest.json", inputs.split, inputs.pca, inputs.pretrain],
    )
    more = memory_savings("sft", "LoRA on the encoder (sft.lora.encoder: true)", "memory.four_bit: true")
    with driver.outputs(out, [scratch], "sft", more) as (folder, plots):
        optimizer = groups.optimizer(params.sft.weight_decay, eight_bit=params.memory.optimizer_8bit)
        measure = partial(finetuning.validation_metrics, reader=reader, rows=validation.rows)
        how = {"label": "target", "measure": measure, "scratch": scratch, "plots": plots}
        driver.fit(plan, model, groups, optimizer, train, validation, **how)
        if distributed.is_main():
            model_folder.save(folder, model, start.tokenizer, settings, inputs.pretrain, weights_dtype(params))


if __name__ == "__main__":
    run.stage(
        main,
        Params,
        name="population.sft",
        doc=__doc__,
        inputs={"tiles": "preprocess", "split": "split", "pca": "pca", "pretrain": "pretrain"},
        outputs={"out": "model folder to write", "plots": "folder for curves"},
    )
