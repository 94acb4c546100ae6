"""Batches of tiles with prompts, answers and targets, read straight from the store."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from src.core import chat
from src.core.augment import ORIENT, generator
from src.core.errors import DataError
from src.core.patches import tokens_per_sample
from src.core.store import Store
from src.population import prompts
from src.population.model import Settings


class Prompter:
    """Turns label rows into prompt ids."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: Settings, vision_config):
        self.tokenizer = tokenizer
        self.settings = settings
        self.patches, self.image_tokens = tokens_per_sample(settings.side, vision_config)

    def prompts(self, rows: pd.DataFrame) -> list[list[int]]:
        """One prompt per row, its image tokens included."""
        missing = [name for name in self.settings.covariates if name not in rows]
        if missing:
            raise DataError(
                f"labels: no column {missing[0]!r}, which sft.covariates names; found {', '.join(rows.columns)}"
            )
        blank = rows[rows[self.settings.covariates].isna().any(axis=1)]
        if len(blank):
            name = next(name for name in self.settings.covariates if blank[name].isna().iloc[0])
            where = "/".join(str(blank[key].iloc[0]) for key in ("province", "city", "year"))
            raise DataError(
                f"{where}: {name}: found a blank ({len(blank)} such rows), expected a value, because the prompt "
                "names it; fill it in the labels file or take it out of sft.covariates and sft.template"
            )
        fields = rows[["year", *self.settings.covariates]].to_dict("records")
        return [
            chat.encode_prompt(self.tokenizer, prompts.fill(self.settings.prompt, field), self.image_tokens)
            for field in fields
        ]

    def answers(self, values: Sequence[float]) -> list[list[int]]:
        """One answer per growth rate, with the end of turn."""
        texts = [prompts.answer(value, self.settings.language) for value in values]
        return [chat.encode_answer(self.tokenizer, text) for text in texts]


class GrowthSamples(Dataset):
    """Rows of `store.samples` as ready batches (`__getitems__`), for a Trainer with an identity collator.

    With `augment`, each tile is turned by one of the 8 flips and rotations, a function of
    (seed, epoch, sample).
    """

    def __init__(self, store: Store, rows: pd.DataFrame, prompter: Prompter, seed: int, augment: bool):
        self.store, self.rows, self.seed, self.augment = store, rows.reset_index(drop=True), seed, augment
        self.tokenizer = prompter.tokenizer
        self.prompts = prompter.prompts(rows)
        self.answers = prompter.answers(rows.growth_rate)
        label = prompter.settings.label
        self.targets = torch.tensor(((rows.growth_rate - label.mean) / label.sd).to_numpy(), dtype=torch.float32)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        tiles = self.rows.tile.iloc[indices].tolist()
        batch = chat.pad_batch([self.prompts[i] for i in indices], [self.answers[i] for i in indices], self.tokenizer)
        batch["tiles"] = torch.from_numpy(self.store.read(tiles))
        batch["valid"] = torch.from_numpy(self.store.valid(tiles))
        batch["tile"] = torch.tensor(tiles)
        batch["target"] = self.targets[indices]
        if self.augment:
            samples = self.rows["sample"].iloc[indices]
            turns = [generator(self.seed, self.epoch, int(sample), ORIENT).integers(8) for sample in samples]
            batch["orientation"] = torch.from_numpy(np.asarray(turns))
        return batch


def identity(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The dataset has made the batch already."""
    return batch
