"""Preference pairs as batches for trl's DPOTrainer, and that trainer with several processes and our checkpoints."""

import json
from pathlib import Path

import pandas as pd
import torch
from datasets import Dataset
from trl import DPOTrainer

from src.core.data.tile_store import Store
from src.core.models import chat, lora
from src.core.stage import distributed
from src.core.stage.errors import DataError, ParamsError
from src.core.training import checkpoints
from src.core.training.global_batches import GlobalBatchMixin
from src.core.training.sharding import ShardingMixin
from src.core.training.trainer_arguments import to
from src.population.data.samples import Prompter
from src.population.models.growth_model import GrowthModel

REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")


class LoraTrainer(GlobalBatchMixin, ShardingMixin, DPOTrainer):
    """A DPOTrainer for several processes: trl lets each look for a file that only the first has written, and
    gathers rows as if all processes had equally many."""

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        mine = {}
        size = self.args.eval_batch_size
        for start in list(range(0, len(dataset), size))[distributed.rank() :: distributed.count()]:
            examples = [dataset[i] for i in range(start, min(start + size, len(dataset)))]
            found = self.compute_ref_log_probs(self.model, to(self.data_collator(examples), self.args.device))
            mine[start] = [part.float().cpu() for part in found]
        parts = {start: part for share in distributed.gather(mine) for start, part in share.items()}
        for column, values in zip(REFERENCE, zip(*(parts[start] for start in sorted(parts)), strict=True), strict=True):
            dataset = dataset.add_column(column, torch.cat(values).numpy())
        return dataset

    def compute_loss(self, *args, **kwargs):
        gather, self.accelerator.gather = self.accelerator.gather, gather_rows
        try:
            return super().compute_loss(*args, **kwargs)
        finally:
            self.accelerator.gather = gather


def gather_rows(values: torch.Tensor) -> torch.Tensor:
    """Rows of all processes, which may be of different number, on the CPU."""
    return torch.cat(distributed.gather(values.cpu().reshape(-1)))


class WordsTrainer(checkpoints.TrainedWeightsMixin, LoraTrainer):
    """A DPOTrainer of all weights. Qwen's `save_pretrained` writes other names than `load_state_dict` reads, so
    Trainer's own checkpoints come back as the language head alone, without an error."""

    def __init__(self, *args, **kwargs):
        if distributed.sharding():
            # trl computes answers from the language head's weight without calling it: its gradient stays the process's.
            raise ParamsError(
                f"launch: found one that shares out weights ({distributed.sharding()}), expected accelerate/ddp.yaml "
                "or python, because dpo trains all weights here; or train LoRA (a pretrained backbone, sft.lora.rank)"
            )
        super().__init__(*args, **kwargs)


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
        raise DataError(
            f"{path}: no pair; raise prefs.num_samples, lower prefs.min_margin, or go without (dpo.epochs: 0)"
        )
    frame = pd.DataFrame(pairs)
    return frame.assign(prompt="", chosen=frame.chosen_text, rejected=frame.rejected_text)


def answer_log_probs(vlm, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Log-probability of each row's answer given its prompt and tile, (B,); token t is predicted at t - 1."""
    inputs = {name: value for name, value in batch.items() if name not in ("completion_mask", *REFERENCE)}
    core = lora.core(vlm)
    hidden = core.model(**inputs, use_cache=False).last_hidden_state
    answered = batch["completion_mask"][:, 1:].bool()
    # Of the answers alone: with a vocabulary of 150 000, logits of whole prompts would be the largest tensor.
    log_probs = core.lm_head(hidden[:, :-1][answered]).float().log_softmax(-1)
    taken = log_probs.gather(1, inputs["input_ids"][:, 1:][answered][:, None])[:, 0]
    return torch.zeros(len(hidden), device=taken.device).index_add(0, answered.nonzero()[:, 0], taken)
