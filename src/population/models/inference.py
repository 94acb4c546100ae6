"""Predictions of a model folder: head value, greedy words, sampled words, expectation over answers.

A sampled token depends on (seed, sample, draw, token) and not on the batch: Gumbel noise keyed on them is added to the
filtered logits, and the largest sum is a draw from their softmax (Gumbel-max).
"""

import logging
from copy import deepcopy
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase
from transformers.generation.logits_process import TopPLogitsWarper

from src.core.data.tile_store import Store
from src.core.models import chat, lora
from src.core.models.patches import tiles_at_once
from src.core.training.precision import autocast
from src.population.data.samples import Prompter
from src.population.data.stage_inputs import stored_tiles
from src.population.models import prompts
from src.population.models.growth_model import GrowthModel
from src.population.models.model_folder import Settings, load_for_use
from src.population.params import Evaluate, Prefs

logger = logging.getLogger(__name__)
NEVER_ANSWERED = [token for token in chat.SPECIAL_TOKENS if token != chat.IM_END]


class Reader:
    """A model with its tokenizer and settings, reading rows of label tables through a store.

    `rows` everywhere is a DataFrame with the columns tile (row of the store), sample (for draws), the fields that
    the prompt names and the covariates. With image "blank" every pixel is masked, so that the model sees the
    training mean; with "none" prompts hold no image.
    """

    def __init__(
        self,
        model: GrowthModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: Settings,
        store: Store,
        batch_size: int,
        image: Literal["tile", "blank", "none"] = "tile",
    ):
        self.model, self.tokenizer, self.settings = model.eval(), tokenizer, settings
        self.store, self.batch_size = store, tiles_at_once(batch_size, settings.bands, settings.side)
        self.image = image
        self.prompter = Prompter(tokenizer, settings, model.vlm.config.vision_config, image=image != "none")

    def batches(self, rows: pd.DataFrame, what: str):
        """Yield (rows, prompts padded on the left with tiles, all on the model's device)."""
        device = next(self.model.parameters()).device
        starts = range(0, len(rows), self.batch_size)
        for start in tqdm(starts, desc=what, unit="batch", leave=False, disable=len(starts) < 2):
            part = rows.iloc[start : start + self.batch_size]
            batch = chat.pad_batch(self.prompter.prompts(part), None, self.tokenizer)
            batch |= self._tiles(part) | {"covariates": self.prompter.covariates(part)}
            yield part, {name: value if value is None else value.to(device) for name, value in batch.items()}

    def _tiles(self, part: pd.DataFrame) -> dict[str, torch.Tensor | None]:
        if self.image == "none":
            return {"tiles": None, "valid": None}
        stored = stored_tiles(self.store, part.tile)
        return stored | {"valid": stored["valid"] & (self.image == "tile")}

    @torch.no_grad()
    def head(self, rows: pd.DataFrame) -> np.ndarray:
        """Growth rate of the regression head, (N,) ‰ per year."""
        with autocast(self.model):
            values = [
                self.model(**batch)["prediction"].float().cpu().numpy() for _, batch in self.batches(rows, "head")
            ]
        return np.concatenate(values).astype(np.float64) * self.settings.label.sd + self.settings.label.mean

    def greedy(self, rows: pd.DataFrame) -> list[str]:
        """The most probable answer, token by token."""
        return self._generate(rows, "greedy answers", None)

    def sampled(self, rows: pd.DataFrame, count: int, temperature: float, top_p: float, seed: int) -> list[list[str]]:
        """`count` answers per row."""
        repeated = rows.loc[rows.index.repeat(count)]
        draws = np.tile(np.arange(count), len(rows))
        keys = list(zip(repeated["sample"], draws, strict=True))
        texts = self._generate(repeated, "sampled answers", (seed, keys, temperature, top_p))
        return [texts[start : start + count] for start in range(0, len(texts), count)]

    def _inputs(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        vision = {} if self.image == "none" else self.model.vision_inputs(batch["tiles"], batch["valid"])[0]
        return {name: batch[name] for name in ("input_ids", "attention_mask", "mm_token_type_ids")} | vision

    @torch.no_grad()
    def _generate(self, rows: pd.DataFrame, what: str, sampling: tuple | None) -> list[str]:
        longest = max(len(ids) for ids in self.prompter.answers([-9999.99, 9999.99]))
        suppressed = self.tokenizer.convert_tokens_to_ids(NEVER_ANSWERED)
        texts, done = [], 0
        for part, batch in self.batches(rows, what):
            processors = LogitsProcessorList()
            if sampling:
                seed, keys, temperature, top_p = sampling
                processors.append(KeyedSampling(seed, keys[done : done + len(part)], temperature, top_p))
            done += len(part)
            with autocast(self.model):
                ids = self.model.vlm.generate(
                    **self._inputs(batch),
                    max_new_tokens=longest,
                    do_sample=False,
                    suppress_tokens=suppressed,
                    # Hub folders penalise repetition, which tells on the digits of a number.
                    repetition_penalty=1.0,
                    no_repeat_ngram_size=0,
                    num_beams=1,
                    logits_processor=processors,
                )
            answers = ids[:, batch["input_ids"].shape[1] :]
            texts += self.tokenizer.batch_decode(answers, skip_special_tokens=True)
        return texts

    @torch.no_grad()
    def expectation(self, rows: pd.DataFrame, grid: np.ndarray) -> np.ndarray:
        """Mean of `grid` (‰ per year) weighted by the probability of each value's answer, (N,).

        The prompt is read once and its keys and values shared by all candidate answers.
        """
        core = lora.core(self.model.vlm)
        device = next(self.model.parameters()).device
        answers = chat.pad_batch([[]] * len(grid), self.prompter.answers(grid), self.tokenizer)
        tokens, present = answers["input_ids"].to(device), answers["attention_mask"].to(device)  # (G, A)
        results = []
        for part, batch in self.batches(rows, "expectation"):
            with autocast(self.model):
                read = core.model(**self._inputs(batch), use_cache=True)
                first = core.lm_head(read.last_hidden_state[:, -1]).float().log_softmax(-1)  # (B, V)
                deltas = core.model.rope_deltas
                # Each candidate has its own copy of the keys and values: as many as there are rows in a whole batch.
                share = max(self.batch_size // len(part), 1)
                totals = []
                for ids, there in zip(tokens.split(share), present.split(share), strict=True):
                    count, choices = len(part), len(ids)
                    cache = deepcopy(read.past_key_values)
                    cache.batch_repeat_interleave(choices)
                    ids, there = ids.repeat(count, 1), there.repeat(count, 1)  # (B * choices, A)
                    seen = batch["attention_mask"].repeat_interleave(choices, 0)
                    start = seen.sum(1, keepdim=True) + deltas.repeat_interleave(choices, 0)
                    hidden = core.model(
                        input_ids=ids,
                        attention_mask=torch.cat([seen, there], dim=1),
                        position_ids=(start + torch.arange(ids.shape[1], device=device)).expand(3, -1, -1),
                        past_key_values=cache,
                        use_cache=True,
                    ).last_hidden_state
                    following = core.lm_head(hidden[:, :-1]).float().log_softmax(-1)
                    later = following.gather(2, ids[:, 1:, None])[..., 0] * there[:, 1:]
                    total = first.repeat_interleave(choices, 0).gather(1, ids[:, :1])[:, 0] + later.sum(1)
                    totals.append(total.view(count, choices))
            weight = torch.cat(totals, dim=1).double().softmax(1).cpu().numpy()
            results.append(weight @ grid)
        return np.concatenate(results)


class KeyedSampling(LogitsProcessor):
    """Temperature, nucleus filter and Gumbel noise keyed on (seed, token, draw, sample) of each row."""

    def __init__(self, seed: int, keys: list[tuple[int, int]], temperature: float, top_p: float):
        self.seed, self.keys, self.temperature = seed, keys, temperature
        self.nucleus = TopPLogitsWarper(top_p)
        self.token = 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        scores = self.nucleus(input_ids, scores.float() / self.temperature)
        draws = (np.random.default_rng([self.seed, self.token, int(draw), int(sample)]) for sample, draw in self.keys)
        noise = np.stack([generator.gumbel(size=scores.shape[1]) for generator in draws])
        self.token += 1
        return scores + torch.from_numpy(noise).to(scores)


def parsed(texts: list[str], language: str) -> np.ndarray:
    """(N,) growth rates, NaN where an answer is not of the asked form."""
    return np.array([np.nan if (value := prompts.parse(text, language)) is None else value for text in texts])


def mean_of_parsed(samples: list[list[str]], language: str) -> np.ndarray:
    """(N,) mean over the answers of each row that can be parsed, NaN where none can."""
    values = np.array([parsed(texts, language) for texts in samples])
    counts = np.isfinite(values).sum(1)
    return np.where(counts > 0, np.nansum(values, axis=1) / np.maximum(counts, 1), np.nan)


def group_predictions(
    sft: Path, dpo: Path, store: Store, samples: pd.DataFrame, evaluate: Evaluate, prefs: Prefs, seed: int
) -> pd.DataFrame:
    """Predictions of both models for each row of `samples`, in its order; answers are sampled as `prefs` says.

    Returns:
        Columns head, head_after_dpo, text, dpo, text_sampled, dpo_sampled, text_expectation and
        dpo_expectation (‰ per year, NaN where unparsable), answer_text and answer_dpo (strings), text_samples
        and dpo_samples (of each row a list of `evaluate.text_samples` numbers, NaN where unparsable).
    """
    found = {}
    for folder, head, words in ((sft, "head", "text"), (dpo, "head_after_dpo", "dpo")):
        model, tokenizer, settings = load_for_use(folder)
        reader = Reader(model, tokenizer, settings, store, evaluate.batch_size)
        answers = reader.greedy(samples)
        drawn = reader.sampled(samples, evaluate.text_samples, prefs.temperature, prefs.top_p, seed)
        grid = np.linspace(settings.label.low, settings.label.high, evaluate.grid_points)
        found |= {
            head: reader.head(samples),
            f"answer_{words}": answers,
            words: parsed(answers, settings.language),
            f"{words}_samples": [parsed(texts, settings.language).tolist() for texts in drawn],
            f"{words}_sampled": mean_of_parsed(drawn, settings.language),
            f"{words}_expectation": reader.expectation(samples, grid),
        }
        del model, reader  # before the next one is read
    return pd.DataFrame(found)
