"""Direct preference optimisation of the words (Rafailov et al. 2023) with trl's trainer.

    python -m src.population.dpo --tiles data/population/tiles --split data/population/split \\
        --prefs data/population/prefs --model models/population/sft \\
        --out models/population/dpo --plots plots/population/dpo

The head's weights stay those of the SFT model, so that evaluate can say how far it drifted with the
language model under it. Writes a model folder, curves and `pairs.json` (reward accuracy on validation).
"""

import logging
import shutil
from pathlib import Path

from src.core.stage import distributed, files, run
from src.core.stage.scratch import scratch_folder
from src.population.params import Params

logger = logging.getLogger(__name__)


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    """Store, split, pairs and SFT model -> a model whose words prefer the better answer."""
    if not params.dpo.epochs:
        pass_on(inputs.model, out, dry_run)
        return
    # Imported here: they import torch, transformers and trl, which --help does without.
    from src.core.training import driver
    from src.core.training.dry_run import memory_and_time
    from src.population.data.preference_pairs import PairCollator, read_pairs
    from src.population.data.samples import Prompter
    from src.population.models import model_folder
    from src.population.models import preference_training as preferences
    from src.population.models.training_setup import begin, memory_savings, shapes_alone, training_plan, weights_dtype

    store, split = begin(params, inputs)
    samples = split.samples.set_index("sample", drop=False)
    model, tokenizer, settings = preferences.tuned(inputs.model, params, shapes_alone(params, dry_run))
    pairs = {role: read_pairs(inputs.prefs / f"{role}.jsonl", samples) for role in ("train", "validation")}
    logger.info("%s", {f"{role} pairs": len(part) for role, part in pairs.items()})
    prompter = Prompter(tokenizer, settings, model.vlm.config.vision_config)
    collator = PairCollator(model, prompter, store, samples)
    stop = {"best": "eval_loss", "patience": params.dpo.patience}
    plan = training_plan(params, params.dpo, store.bands, settings.side, **stop)
    if dry_run:
        groups, loss = preferences.without_trainer(params, model)
        logger.info(memory_and_time(plan, model, groups, pairs["train"], loss, collator))
        return

    scratch = scratch_folder(
        params.checkpoint_root,
        "dpo",
        params.model_dump(include={"seed", "threads", "memory", "sft", "dpo"}) | {"backbone": params.model.backbone},
        [inputs.tiles / "manifest.json", inputs.split, inputs.prefs, inputs.model],
    )
    with driver.outputs(out, [scratch], "dpo", memory_savings("dpo", "memory.four_bit: true")) as (folder, plots):
        trainer, groups = preferences.make_trainer(plan, params, model, tokenizer, pairs, collator, scratch, plots)
        driver.finish(trainer, groups, plan)
        if distributed.is_main():
            files.write_json(plots / "pairs.json", preferences.reward_accuracy(trainer, samples))
            model.vlm = trainer.model
            model_folder.save(folder, model, tokenizer, settings, inputs.model, weights_dtype(params))


def pass_on(model: Path, out, dry_run: bool) -> None:
    """Copy the SFT model: without DPO, evaluate scores it as `dpo` too, and no pair is needed."""
    logger.info("dpo.epochs is 0: %s is passed on as it is", model)
    if dry_run:
        return
    with files.complete_folder(out.out) as folder, files.complete_folder(out.plots) as plots:
        if distributed.is_main():
            shutil.copytree(model, folder, dirs_exist_ok=True)
            files.write_json(plots / "pairs.json", {"train_pairs": 0, "validation_pairs": 0})


if __name__ == "__main__":
    run.stage(
        main,
        Params,
        name="population.dpo",
        doc=__doc__,
        inputs={"tiles": "preprocess", "split": "split", "prefs": "prefs", "model": "sft"},
        outputs={"out": "model folder to write", "plots": "folder for curves"},
    )
