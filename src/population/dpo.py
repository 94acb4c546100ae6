"""Direct preference optimisation of the words (Rafailov et al. 2023) with trl's trainer.

    python -m src.population.dpo --tiles data/population/tiles --split data/population/split \
        --prefs data/population/prefs --model models/population/sft \
        --out models/population/dpo --plots plots/population/dpo

The head's weights stay those of the SFT model, so that evaluate can say how far it drifted with the
language model under it. Writes a model folder, curves and `pairs.json` (reward accuracy on validation).
"""

from src.core.stage import run

CLI = {
    "name": "population.dpo",
    "doc": __doc__,
    "inputs": {
        "tiles": "output of preprocess",
        "split": "output of split",
        "prefs": "output of prefs",
        "model": "model folder of sft",
    },
    "outputs": {"out": "model folder to write", "plots": "folder for curves"},
}
if __name__ == "__main__":
    run.command_line(**CLI).parse_args()  # --help ends here, before seconds of imports

import logging
import math
import shutil
import warnings
from pathlib import Path

import pandas as pd
import torch
from datasets import Dataset
from datasets import disable_progress_bars as disable_datasets_bars
from peft import get_peft_model
from scipy.stats import binomtest
from transformers import EarlyStoppingCallback, set_seed
from trl import DPOConfig, DPOTrainer

from src.core.data.tile_store import Store
from src.core.evaluation import jackknife, regression_scores
from src.core.models import lora
from src.core.models.patches import tiles_at_once
from src.core.stage import distributed, files
from src.core.training import checkpoints
from src.core.training.dry_run_report import report
from src.core.training.dvclive_log import LiveLog
from src.core.training.parameter_groups import ParameterGroups, adamw8bit, checkpoint_activations
from src.core.training.precision import compute_dtype, hold_weights
from src.core.training.sharding import gather_weights
from src.core.training.trainer_arguments import arguments, memory_advice
from src.population.data.preference_pairs import LoraTrainer, PairCollator, WordsTrainer, answer_log_probs, read_pairs
from src.population.data.samples import Prompter
from src.population.data.stage_inputs import read_split
from src.population.models import model_folder
from src.population.params import TINY, Params

logger = logging.getLogger(__name__)


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    run.set_threads(params.threads)
    set_seed(params.seed)
    disable_datasets_bars()
    # trl asks for the deprecated name at every step.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
    if not params.dpo.epochs:
        pass_on(inputs.model, out, dry_run)
        return
    store = Store.open(inputs.tiles)
    split = read_split(inputs.split, store)
    precision = compute_dtype(params.memory.precision)
    adapted = params.model.backbone != TINY and params.sft.lora.rank > 0
    dtype = torch.float32 if params.model.backbone == TINY else precision
    if dry_run and params.model.backbone != TINY:  # shapes say what fits
        model, tokenizer, settings = model_folder.load(inputs.model, meta=True, dtype=dtype)
    else:
        model, tokenizer, settings = model_folder.load(
            inputs.model, dtype=dtype, four_bit=params.memory.four_bit, attention=params.memory.attention
        )
    if params.memory.optimizer_8bit:
        adamw8bit()  # said now, not by trl after hours
    if params.memory.checkpoints_gradients(params.model.backbone):
        checkpoint_activations(model.vlm)  # before trl does, which would do it another way
    samples = split.samples.set_index("sample", drop=False)
    pairs = {role: read_pairs(inputs.prefs / f"{role}.jsonl", samples) for role in ("train", "validation")}
    logger.info("%s", {f"{role} pairs": len(part) for role, part in pairs.items()})
    peft_config = lora.config(**params.sft.lora.model_dump() | {"encoder": False}) if adapted else None
    collator = PairCollator(model, Prompter(tokenizer, settings, model.vlm.config.vision_config), store, samples)
    steps = math.ceil(len(pairs["train"]) / params.dpo.batch_size) * params.dpo.epochs
    if dry_run:
        vlm = get_peft_model(model.vlm, peft_config) if adapted else model.vlm
        groups = ParameterGroups({"words": ([p for p in vlm.parameters() if p.requires_grad], params.dpo.lr, 0)})
        logger.info(groups.describe())
        examples = pairs["train"].head(params.dpo.batch_size).to_dict("records")

        def loss(batch):
            chosen, rejected = answer_log_probs(vlm, batch).chunk(2)
            return (rejected - chosen).mean()

        logger.info(
            report(
                model,
                groups,
                loss,
                lambda count: collator(examples[:count]),
                samples=len(pairs["train"]),
                stage=params.dpo,
                settings=params.memory,
                checkpointing=params.memory.checkpoints_gradients(params.model.backbone),
            )
        )
        return

    scratch = checkpoints.folder(
        params.checkpoint_root,
        "dpo",
        {"seed": params.seed, "threads": params.threads, "backbone": params.model.backbone}
        | {"memory": params.memory.model_dump()}
        | {"sft": params.sft.model_dump(), "dpo": params.dpo.model_dump()},
        [inputs.tiles / "manifest.json", inputs.split, inputs.prefs, inputs.model],
    )
    args = DPOConfig(
        **arguments(
            scratch,
            seed=params.seed,
            epochs=params.dpo.epochs,
            batch_size=params.dpo.batch_size,
            accumulate=params.dpo.accumulate,
            eval_batch=tiles_at_once(params.dpo.batch_size // params.dpo.accumulate, store.bands, settings.side),
            report_to=params.report_to,
            best="eval_loss",
            learning_rate=params.dpo.lr,
            lr_scheduler_type="cosine",
            # The first step of a warm-up has rate 0: of a single step nothing would be left.
            warmup_steps=min(math.ceil(params.dpo.warmup_ratio * steps), steps // 2),
            beta=params.dpo.beta,
            loss_type=[params.dpo.loss],
            precompute_ref_log_probs=True,
            max_length=None,  # truncation could drop image tokens
            gradient_checkpointing=params.memory.checkpoints_gradients(params.model.backbone),
            optim="adamw_8bit" if params.memory.optimizer_8bit else "adamw_torch",
            dtype=precision,
        )
    )
    trainer_class = LoraTrainer if adapted else WordsTrainer
    advice = memory_advice("dpo", "memory.four_bit: true")
    with advice, files.complete_folder(out.out) as folder, files.complete_folder(out.plots) as plots:
        trainer = trainer_class(
            model=model.vlm,
            args=args,
            train_dataset=Dataset.from_pandas(pairs["train"], preserve_index=False),
            eval_dataset=Dataset.from_pandas(pairs["validation"], preserve_index=False),
            data_collator=collator,
            processing_class=tokenizer,
            peft_config=peft_config,
            callbacks=[LiveLog(plots), EarlyStoppingCallback(params.dpo.patience)],
        )
        trained = [p for p in trainer.model.parameters() if p.requires_grad]
        hold_weights(trainer.model, trained, dtype)  # trl casts adapters of a 4-bit model to bfloat16
        groups = ParameterGroups({"words": (trained, params.dpo.lr, 0)})
        trainer.add_callback(groups)
        trainer.create_optimizer()  # now: a resume asks it what trains before Trainer would make it
        logger.info(groups.describe())
        checkpoints.train(trainer, scratch, params.dpo.save_steps)
        groups.assert_moved()
        gather_weights(trainer.model)
        if distributed.is_main():
            files.write_json(plots / "pairs.json", reward_accuracy(trainer, samples))
            model.vlm = trainer.model
            model_folder.save(folder, model, tokenizer, settings, inputs.model, dtype)
    checkpoints.remove(scratch)


def pass_on(model: Path, out, dry_run: bool) -> None:
    """No DPO: the SFT model is what evaluate will call `dpo` too, and no pair is needed."""
    logger.info("dpo.epochs is 0: %s is passed on as it is", model)
    if dry_run:
        return
    with files.complete_folder(out.out) as folder, files.complete_folder(out.plots) as plots:
        if distributed.is_main():
            shutil.copytree(model, folder, dirs_exist_ok=True)
            files.write_json(plots / "pairs.json", {"train_pairs": 0, "validation_pairs": 0})


@torch.no_grad()
def reward_accuracy(trainer: DPOTrainer, samples: pd.DataFrame) -> dict:
    """Share of validation pairs whose chosen answer gained on the rejected one, with its interval over blocks.

    Their loss chose the epoch, so the share is a little too good where epochs were to choose from.
    """
    model = trainer.model.eval()
    dataset, size = trainer.eval_dataset, trainer.args.eval_batch_size
    gained = []
    for start in range(0, len(dataset), size):
        examples = [dataset[i] for i in range(start, min(start + size, len(dataset)))]
        batch = {name: value.to(model.device) for name, value in trainer.data_collator(examples).items()}
        with trainer.accelerator.autocast():  # the precision in which the reference was computed
            chosen, rejected = answer_log_probs(model, batch).cpu().chunk(2)
        reference = batch["ref_chosen_logps"].cpu() - batch["ref_rejected_logps"].cpu()
        gained.append(chosen - rejected > reference)
    hits = torch.cat(gained).double().numpy()
    rows = samples.loc[dataset["sample"]]
    interval = jackknife.mean_interval(hits, (rows.block if rows.block.all() else rows.place).to_numpy())
    how = interval.pop("method")
    if interval["_low"] is None:
        exact = binomtest(int(hits.sum()), len(hits)).proportion_ci()
        interval |= {"_low": exact.low, "_high": exact.high}
        how = f"binomial over pairs, so it is too narrow (over blocks {how})"
    facts = {"train_pairs": len(trainer.train_dataset), "validation_pairs": len(hits)}
    facts |= {f"reward_accuracy{part}": value for part, value in interval.items()}
    return regression_scores.rounded(facts | {"reward_accuracy_interval": how})


if __name__ == "__main__":
    run.stage(main, Params, **CLI)
