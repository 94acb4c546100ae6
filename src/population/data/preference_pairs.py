"""Preference pairs: made of sampled answers, read again, and collated as batches for trl's DPOTrainer."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset

from src.core.data.tile_store import Store
from src.core.models import chat
from src.core.stage import files
from src.core.stage.errors import DataError
from src.core.training.trainer_arguments import to
from src.population.data.samples import Prompter
from src.population.data.stage_inputs import stored_tiles
from src.population.models import prompts
from src.population.models.growth_model import GrowthModel
from src.population.params import Prefs

REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")


def make_pairs(
    rows: pd.DataFrame, answers: list[list[str]], prefs: Prefs, language: str
) -> tuple[list[dict], dict[str, int]]:
    """One pair at most per label row from its sampled `answers`, and how many were dropped for which reason."""
    pairs = []
    counts = dict.fromkeys(("rows", "pairs", "unparsable_answers", "too_few_answers", "ties", "small_margin"), 0)
    counts["rows"] = len(rows)
    for row, texts in zip(rows.itertuples(index=False), answers, strict=True):
        values = [prompts.parse(text, language) for text in texts]
        counts["unparsable_answers"] += values.count(None)
        errors = {i: abs(value - row.growth_rate) for i, value in enumerate(values) if value is not None}
        if len(errors) < 2:
            counts["too_few_answers"] += 1
            continue
        chosen, rejected = min(errors, key=errors.get), max(errors, key=errors.get)
        margin = errors[rejected] - errors[chosen]
        found = "ties" if margin == 0 else "small_margin" if margin < prefs.min_margin else "pairs"
        counts[found] += 1
        if found == "pairs":
            pairs.append(
                {
                    "sample": int(row.sample),
                    "tile_id": row.tile_id,
                    "truth": float(row.growth_rate),
                    "chosen": texts[chosen],
                    "rejected": texts[rejected],
                    "chosen_value": values[chosen],
                    "rejected_value": values[rejected],
                    "chosen_error": float(np.round(errors[chosen], 6)),
                    "rejected_error": float(np.round(errors[rejected], 6)),
                }
            )
    return pairs, counts


def advice(counts: dict[str, int]) -> str:
    """Change of params that makes pairs of rows of which none was made, by the `counts` of `make_pairs`."""
    if counts["too_few_answers"] > counts["rows"] / 2:
        return "most answers lack the asked form, the model needs more steps: raise sft.epochs"
    return "raise prefs.num_samples or prefs.temperature, or lower prefs.min_margin"


class PairCollator:
    """Pairs -> a DPOTrainer batch: all chosen rows first, then all rejected, each with its own pixels.

    Texts are encoded as sft encodes them; trl would let control tokens in covariates through.
    """

    def __init__(self, model: GrowthModel, prompter: Prompter, store: Store, samples: pd.DataFrame):
        self.model, self.prompter, self.store, self.samples = model, prompter, store, samples

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor]:
        rows = self.samples.loc[[example["sample"] for example in examples]]
        asked = self.prompter.prompts(rows) * 2
        said = [example[side] for side in ("chosen_text", "rejected_text") for example in examples]
        answers = [chat.encode_answer(self.prompter.tokenizer, text) for text in said]
        batch = chat.pad_batch(asked, answers, self.prompter.tokenizer)
        vision, _ = self.model.vision_inputs(**to(stored_tiles(self.store, rows.tile), self.model.front.mean.device))
        batch |= {name: torch.cat([value, value]) for name, value in vision.items()}
        batch["completion_mask"] = (batch.pop("labels") != -100).long()
        del batch["prompt_mask"]
        given = [name for name in REFERENCE if name in examples[0]]
        return batch | {name: torch.tensor([example[name] for example in examples]) for name in given}


def read_pairs(path: Path, samples: pd.DataFrame) -> Dataset:
    """JSONL of the prefs stage -> sample, both texts and the columns trl wants; DataError if a line is no pair."""
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
        counts = files.read_json(path.parent / "counts.json")[path.stem]
        raise DataError(f"{path}: no pair; {advice(counts)}, or go without (dpo.epochs: 0)")
    frame = pd.DataFrame(pairs)
    frame = frame.assign(prompt="", chosen=frame.chosen_text, rejected=frame.rejected_text)
    return Dataset.from_pandas(frame, preserve_index=False)
