"""Greedy answers of trained models about tiles, with the tile's own image, none, and another tile's."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from src.core.models import chat
from src.core.models.patches import tokens_per_sample
from src.core.stage import files
from src.core.training.precision import autocast
from src.minerals.data import conversations
from src.minerals.data.samples import TileImages, prompt
from src.minerals.evaluation.predictors import CONTROLS, INPUTS
from src.minerals.models.mineral_model import MineralModel
from src.minerals.models.model_folder import SETTINGS, load

NEVER_ANSWERED = [token for token in chat.SPECIAL_TOKENS if token != chat.IM_END]
BATCH = 48


class Answerer:
    """A model with its tokenizer and images, answering items of the annotations."""

    def __init__(self, model: MineralModel, tokenizer: PreTrainedTokenizerBase, images: TileImages):
        self.model, self.tokenizer, self.images = model.eval(), tokenizer, images
        self.tokens = tokens_per_sample(images.model_px, model.vlm.config.vision_config)[1]

    @torch.no_grad()
    def answer(self, items: list[dict], tiles: list[str] | None, longest: int, what: str) -> list[str]:
        """The most probable answer to each item's question.

        Args:
            tiles: whose image each item is shown; None: a blank one.
            longest: tokens after which an answer ends.
        """
        suppressed = self.tokenizer.convert_tokens_to_ids(NEVER_ANSWERED)
        device, said = next(self.model.parameters()).device, []
        for start in tqdm(range(0, len(items), BATCH), what, leave=False, unit="batch", disable=len(items) <= BATCH):
            part = items[start : start + BATCH]
            prompts = [prompt(self.tokenizer, item, self.tokens, self.images.groups) for item in part]
            batch = chat.pad_batch(prompts, None, self.tokenizer)
            shown = [item["tile"] for item in part] if tiles is None else tiles[start : start + BATCH]
            pixels = self.images.batch(shown)
            if tiles is None:
                pixels = torch.zeros_like(pixels)
            inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask", "mm_token_type_ids")}
            with autocast(self.model):
                ids = self.model.vlm.generate(
                    **inputs,
                    **self.model.vision_inputs(pixels.to(device)),
                    max_new_tokens=longest,
                    do_sample=False,
                    num_beams=1,
                    suppress_tokens=suppressed,
                    repetition_penalty=1.0,
                    no_repeat_ngram_size=0,
                )
            said += self.tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        return said


def find(folder: Path) -> list[str]:
    """Inputs of the models below `folder`, in the order of INPUTS."""
    return [name for name in INPUTS if (Path(folder) / name / SETTINGS).is_file()]


def answer_all(models: list[str], inputs, tested: pd.DataFrame, params) -> dict[str, pd.DataFrame]:
    """Answers of every model about the test tiles: predictor -> item, tile, task, language, text, altered, minerals.

    Every task is asked with the tile's own image; the first one, which is scored, also with a blank image and with that
    of another tile.
    """
    from src.minerals.models.model_inputs import tile_images

    items = [item for item in files.read_json(inputs.annotations / "test.json") if item["tile"] in set(tested["tile"])]
    yes_no = [item for item in items if item["task"] == conversations.TASKS[0]]
    order = np.random.default_rng(params.seed).permutation(len(tested))
    other = dict(zip(tested["tile"].iloc[order], tested["tile"].iloc[np.roll(order, 1)], strict=True))
    found = {}
    for name in models:
        model, tokenizer, settings = load(inputs.sft / name)
        answerer = Answerer(model, tokenizer, tile_images(name, inputs, params, settings.model_px))
        longest = max(len(chat.encode_answer(tokenizer, item["conversations"][1]["value"])) for item in items) + 8
        own = [item["tile"] for item in items]
        found[name] = table(items, answerer.answer(items, own, longest, name))
        for control, tiles in zip(CONTROLS, (None, [other[item["tile"]] for item in yes_no]), strict=True):
            said = answerer.answer(yes_no, tiles, longest, f"{name}, {control}")
            found[f"{name}_{control}"] = table(yes_no, said)
    return found


def table(items: list[dict], texts: list[str]) -> pd.DataFrame:
    """One row an answer, with what it says; None where it does not parse or its task does not ask."""
    said = [conversations.parse(text, item["task"], item["language"]) for item, text in zip(items, texts, strict=True)]
    return pd.DataFrame({
        "item": [item["id"] for item in items], "tile": [item["tile"] for item in items],
        "task": [item["task"] for item in items], "language": [item["language"] for item in items], "text": texts,
        "altered": pd.Series([None if one is None else one.altered for one in said], dtype=object),
        "minerals": pd.Series([None if one is None else one.minerals for one in said], dtype=object),
    })  # fmt: skip
