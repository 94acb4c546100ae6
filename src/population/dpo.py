"""Direct preference optimisation of the words (Rafailov et al. 2023) with trl's trainer.

    python -m src.population.dpo --tiles data/population/tiles --split data/population/split \
        --prefs data/population/prefs --model models/population/sft \
        --out models/population/dpo --plots plots/population/dpo

The head's weights stay those of the SFT model, so that evaluate can say how far it drifted with the
language model under it. Writes a model folder, curves and `pairs.json` (reward accuracy on validation).
"""

from src.core import run

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

import json
import logging
import math
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

from src.core import chat, checkpoints, files, lora, metrics
from src.core.errors import DataError
from src.core.live import LiveLog
from src.core.precision import compute_dtype, trainer_arguments
from src.core.store import Store
from src.core.trainable import ParameterGroups
from src.core.training import arguments, memory_advice, rehearse, to
from src.population import model as model_folder
from src.population.heads import GrowthModel
from src.population.inputs import read_split
from src.population.params import TINY, Params
from src.population.samples import Prompter

logger = logging.getLogger(__name__)
REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")
RESAMPLES = 2000


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    run.set_threads(params.threads)
    set_seed(params.seed)
    disable_datasets_bars()
    # trl asks for the deprecated name at every step.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
    store = Store.open(inputs.tiles)
    split = read_split(inputs.split, store)
    half = compute_dtype(params.memory.precision)
    adapted = params.model.backbone != TINY and params.sft.lora.rank > 0
    dtype = torch.float32 if params.model.backbone == TINY else half
    model, tokenizer, settings = model_folder.load(
        inputs.model, dtype=dtype, four_bit=params.memory.four_bit, attention=params.memory.attention
    )
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

        def loss(device):
            chosen, rejected = answer_log_probs(vlm, to(collator(examples), device)).chunk(2)
            return (rejected - chosen).mean()

        logger.info(rehearse(model, groups, steps, loss))
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
            **trainer_arguments(half),
        )
    )
    trainer_class = DPOTrainer if adapted else WordsTrainer
    with files.complete_folder(out.out) as folder, files.complete_folder(out.plots) as plots:
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
        groups = ParameterGroups({"words": (trained, params.dpo.lr, 0)})
        trainer.add_callback(groups)
        trainer.create_optimizer()  # now: a resume asks it what trains before Trainer would make it
        logger.info(groups.describe())
        with memory_advice("dpo"):
            checkpoints.train(trainer, scratch, params.dpo.save_steps)
        groups.assert_moved()
        files.write_json(plots / "pairs.json", reward_accuracy(trainer, samples, params.seed))
        model.vlm = trainer.model
        model_folder.save(folder, model, tokenizer, settings, inputs.model, dtype)
    checkpoints.remove(scratch)


class WordsTrainer(checkpoints.TrainedWeightsMixin, DPOTrainer):
    """A DPOTrainer of all weights. Qwen's `save_pretrained` writes other names than `load_state_dict` reads, so
    Trainer's own checkpoints come back as the language head alone, without an error."""


class PairCollator:
    """Pairs -> a DPOTrainer batch: all chosen rows first, then all rejected, each with its own pixels.

    Prompts and answers are encoded as sft encoded them, not as trl does, which would let control tokens
    in covariates through.
    """

    def __init__(self, model: GrowthModel, prompter: Prompter, store: Store, samples: pd.DataFrame):
        self.model, self.prompter, self.store, self.samples = model, prompter, store, samples

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor]:
        rows = self.samples.loc[[example["sample"] for example in examples]]
        asked = self.prompter.prompts(rows) * 2
        said = [example[side] for side in ("chosen_text", "rejected_text") for example in examples]
        answers = [chat.encode_answer(self.prompter.tokenizer, text) for text in said]
        batch = chat.pad_batch(asked, answers, self.prompter.tokenizer)
        tiles = rows.tile.tolist()
        device = self.model.front.mean.device
        stored = (
            torch.from_numpy(self.store.read(tiles)).to(device),
            torch.from_numpy(self.store.valid(tiles)).to(device),
        )
        vision, _ = self.model.vision_inputs(*stored)
        batch |= {name: torch.cat([value, value]) for name, value in vision.items()}
        batch["completion_mask"] = (batch.pop("labels") != -100).long()
        del batch["prompt_mask"]
        for name in REFERENCE:
            if name in examples[0]:
                batch[name] = torch.tensor([example[name] for example in examples])
        return batch


def read_pairs(path: Path, samples: pd.DataFrame) -> pd.DataFrame:
    """JSONL of the prefs stage -> sample, chosen_text, rejected_text, and the columns that trl wants to see.

    Raises:
        DataError: a line is not a pair, or names a sample that the split does not have.
    """
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            pair = json.loads(line)
            pairs.append({"sample": pair["sample"], "chosen_text": pair["chosen"], "rejected_text": pair["rejected"]})
        except (ValueError, KeyError) as error:
            raise DataError(f"{path}: line {number} is not a pair ({error!r}); run the prefs stage again") from error
        if pair["sample"] not in samples.index:
            raise DataError(f"{path}: line {number} names sample {pair['sample']}, which the split does not have")
    if not pairs:
        raise DataError(f"{path}: no pair; raise prefs.num_samples or lower prefs.min_margin")
    frame = pd.DataFrame(pairs)
    return frame.assign(prompt="", chosen=frame.chosen_text, rejected=frame.rejected_text)


def answer_log_probs(vlm, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Log-probability of each row's answer given its prompt and tile, (B,); token t is predicted at t - 1."""
    inputs = {name: value for name, value in batch.items() if name not in ("completion_mask", *REFERENCE)}
    core = lora.core(vlm)
    hidden = core.model(**inputs, use_cache=False).last_hidden_state
    log_probs = core.lm_head(hidden[:, :-1]).float().log_softmax(-1)
    taken = log_probs.gather(2, inputs["input_ids"][:, 1:, None])[..., 0]
    return (taken * batch["completion_mask"][:, 1:]).sum(1)


@torch.no_grad()
def reward_accuracy(trainer: DPOTrainer, samples: pd.DataFrame, seed: int) -> dict:
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
    blocks = samples.loc[dataset["sample"]].block.to_numpy()
    interval = metrics.mean_interval(hits, blocks, RESAMPLES, seed)
    how = f"{RESAMPLES} draws of whole blocks"
    if interval["_low"] is None:
        exact = binomtest(int(hits.sum()), len(hits)).proportion_ci()
        interval |= {"_low": exact.low, "_high": exact.high}
        how = f"binomial over pairs: {len(set(blocks))} blocks are too few to draw from, so it is too narrow"
    facts = {"train_pairs": len(trainer.train_dataset), "validation_pairs": len(hits)}
    facts |= {f"reward_accuracy{part}": value for part, value in interval.items()}
    return metrics.rounded(facts | {"reward_accuracy_interval": how})


if __name__ == "__main__":
    run.stage(main, Params, **CLI)
