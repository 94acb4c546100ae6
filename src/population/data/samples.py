"""Batches of tiles with prompts, answers and targets, read straight from the store."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from pandas.api.types import is_numeric_dtype
from transformers import PreTrainedTokenizerBase

from src.core.data.augment import ORIENT, generator
from src.core.data.tile_store import Store
from src.core.models import chat
from src.core.models.patches import tokens_per_sample
from src.core.stage.errors import DataError
from src.core.training.global_batches import ReadyBatches
from src.population.data.stage_inputs import Split, stored_tiles
from src.population.models import prompts
from src.population.models.model_folder import Covariates, Settings
from src.population.params import Params


class Prompter:
    """Prompt ids, answers and the head's covariates of label rows; with `image` False the prompt holds no image."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: Settings, vision_config, image: bool = True):
        self.tokenizer = tokenizer
        self.settings = settings
        self.image = image
        self.patches, self.image_tokens = tokens_per_sample(settings.side, vision_config)
        self.patch_size = vision_config.patch_size

    def describe(self) -> str:
        """Number of patches and image tokens of a tile, to print."""
        return f"a tile is {self.patches} patches of {self.patch_size} px and {self.image_tokens} image tokens"

    def read(self, rows: pd.DataFrame) -> list[str]:
        """The columns of `rows` that the model reads; DataError if one is missing or has a blank."""
        columns = list(dict.fromkeys([*prompts.named(self.settings.prompt), *self.settings.covariates.of_head]))
        missing = [name for name in columns if name not in rows]
        if missing:
            raise DataError(
                f"labels: no column {missing[0]!r}, which the model reads (data.covariates, prompt.fields); found "
                f"{', '.join(rows.columns)}"
            )
        blank = rows[rows[columns].isna().any(axis=1)]
        if len(blank):
            name = next(name for name in columns if blank[name].isna().iloc[0])
            where = "/".join(str(blank[key].iloc[0]) for key in ("province", "city", "year") if key in blank)
            raise DataError(
                f"{where}: {name}: found a blank ({len(blank)} such rows), expected a value, because the model reads "
                "it; fill it in the labels file or take it out of data.covariates"
            )
        return columns

    def prompts(self, rows: pd.DataFrame) -> list[list[int]]:
        """One prompt per row, its image tokens included."""
        self.read(rows)
        fields = rows[prompts.named(self.settings.prompt)].to_dict("records")
        return [self._encoded(prompts.fill(self.settings.prompt, field)) for field in fields]

    def covariates(self, rows: pd.DataFrame) -> torch.Tensor | None:
        """(N, K) float32 standardised as over the training rows; None where the head reads none."""
        given = self.settings.covariates
        if not given.of_head:
            return None
        self.read(rows)
        values = rows[given.of_head].to_numpy(np.float64)
        return torch.tensor((values - given.mean) / given.sd, dtype=torch.float32)

    def _encoded(self, text: str) -> list[int]:
        if self.image:
            return chat.encode_prompt(self.tokenizer, text, self.image_tokens)
        markers = self.tokenizer.convert_tokens_to_ids([chat.VISION_START, chat.VISION_END])
        return [token for token in chat.encode_prompt(self.tokenizer, text, 0) if token not in markers]

    def answers(self, values: Sequence[float]) -> list[list[int]]:
        """One answer per growth rate, with the end of turn."""
        texts = [prompts.answer(value, self.settings.language) for value in values]
        return [chat.encode_answer(self.tokenizer, text) for text in texts]


class GrowthSamples(ReadyBatches):
    """Label rows as batches; `augment` flips and rotates each tile in one of 8 ways, drawn for each epoch."""

    def __init__(self, store: Store, rows: pd.DataFrame, prompter: Prompter, seed: int, augment: bool):
        self.store, self.rows, self.seed, self.augment = store, rows.reset_index(drop=True), seed, augment
        self.tokenizer = prompter.tokenizer
        self.prompts = prompter.prompts(rows)
        self.answers = prompter.answers(rows.growth_rate)
        self.covariates = prompter.covariates(rows)
        label = prompter.settings.label
        self.targets = torch.tensor(((rows.growth_rate - label.mean) / label.sd).to_numpy(), dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        batch = chat.pad_batch([self.prompts[i] for i in indices], [self.answers[i] for i in indices], self.tokenizer)
        batch |= stored_tiles(self.store, self.rows.tile.iloc[indices]) | {"target": self.targets[indices]}
        if self.covariates is not None:
            batch["covariates"] = self.covariates[indices]
        if self.augment:
            samples = self.rows["sample"].iloc[indices]
            turns = [generator(self.seed, self.epoch, int(sample), ORIENT).integers(8) for sample in samples]
            batch["orientation"] = torch.from_numpy(np.asarray(turns))
        return batch


def covariate_settings(params: Params, split: Split) -> Covariates:
    """Settings, for bandwise.json, of the covariates that `sft.covariates` lets the model read.

    Raises DataError if a column is missing, holds text or one value alone, or its lag is in steps of a single year.
    """
    use = params.sft.covariates
    if use == "none":
        return Covariates(columns=[], names=[], lag_years=0, use=use, mean=[], sd=[])
    names, columns, train = params.data.covariates, params.data.covariate_columns, split.rows("train")
    for column, name in zip(columns, names, strict=True):
        if column not in train:
            raise DataError(
                f"labels: no column {column!r}, expected that of {name!r} in data.covariates; found "
                f"{', '.join(train.columns)}; run preprocess again with these params"
            )
        if not is_numeric_dtype(train[column]):
            raise DataError(f"labels: {column}: found {train[column].iloc[0]!r}, expected numbers; see data.covariates")
        if train[column].nunique(dropna=False) == 1:
            raise DataError(
                f"labels: {column}: found {train[column].iloc[0]} in all {len(train)} training rows, expected values "
                "that differ; take it out of data.covariates"
            )
    values = train[columns].to_numpy(np.float64)
    return Covariates(
        columns=columns,
        names=names,
        lag_years=in_years(params.data.covariate_lag, split, "data.covariate_lag"),
        use=use,
        mean=values.mean(axis=0).tolist(),
        sd=values.std(axis=0).tolist(),
    )


def in_years(steps: int, split: Split, key: str) -> int:
    """`steps` of the panel in years; raises DataError where there is a lag and a single year."""
    step = split.facts["step_years"] if steps else 0
    if step is None:
        raise DataError(f"split.json: step_years: found none, because all labels are of one year; set {key}: 0")
    return steps * step
