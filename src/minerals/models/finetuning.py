"""Parts of the fine-tuning of one input: images, model, samples, settings, curves."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase, set_seed

from src.core.models.patches import tokens_per_sample, usable_side
from src.core.report import figures
from src.core.stage import files
from src.core.stage.errors import ParamsError
from src.core.stage.model_params import TINY
from src.core.training.parameter_groups import ParameterGroups
from src.core.training.trainer_arguments import Plan
from src.minerals.data.samples import Conversations, TileImages
from src.minerals.models import starting_model
from src.minerals.models.mineral_model import MineralModel
from src.minerals.models.model_folder import Settings
from src.minerals.models.model_inputs import tile_images
from src.minerals.params import Params

UNIT = 32  # px of a token of Qwen3-VL: patches of 16, merged 2 x 2; a tiny model has its own


class Prepared(NamedTuple):
    """Parts of a training of one input."""

    model: MineralModel
    groups: ParameterGroups
    tokenizer: PreTrainedTokenizerBase
    settings: Settings
    train: Conversations
    validation: Conversations

    def describe(self) -> str:
        """Numbers of conversations, channels and tokens, and what trains, to print."""
        images = self.train.images
        tokens = tokens_per_sample(images.model_px, self.model.vlm.config.vision_config)[1]
        return (
            f"{len(self.train)} training and {len(self.validation)} validation conversations, "
            f"{images.channels} channels, {images.groups} x {tokens} image tokens; {self.groups.describe()}"
        )


def plan(params: Params) -> Plan:
    """The plan of every training of the stage."""
    section = params.sft
    shared = {"epochs", "batch_size", "accumulate", "save_steps", "warmup_ratio", "patience", "precision"}
    return Plan(
        **section.model_dump(include=shared),
        seed=params.seed,
        best="eval_loss",
        checkpointing=params.model.backbone != TINY,
        report_to=params.report_to,
    )


def prepare(kind: str, inputs, params: Params, items: dict[str, list[dict]], meta: bool) -> Prepared:
    """Everything for the input `kind`; the seed is set, so that it depends on no other input. `meta`: shapes alone."""
    set_seed(params.seed)
    about = files.read_json(inputs.tiles / "settings.json")
    side = model_side(about["tile_px"], params)
    images = tile_images(kind, inputs, params, side)
    corpus = [turn["value"] for item in items["train"] for turn in item["conversations"]]
    vlm, tokenizer = starting_model.start(params, images.channels, side, corpus, meta)
    model = MineralModel(vlm)
    groups = starting_model.groups(model, params, kind)
    tokens = tokens_per_sample(side, vlm.config.vision_config)[1]
    return Prepared(
        model,
        groups,
        tokenizer,
        settings(kind, images, params, about, side),
        Conversations(items["train"], images, tokenizer, tokens, params.seed, params.sft.augment),
        Conversations(items["val"], images, tokenizer, tokens, params.seed, augment=False),
    )


def model_side(tile_px: int, params: Params) -> int:
    """Side of the image that the model sees: a multiple of a token's, with sft.min_pixels to sft.max_pixels.

    Raises:
        ParamsError: no such side.
    """
    section, tiny = params.sft, params.model.tiny
    unit = 2 * tiny.patch_size if params.model.backbone == TINY else UNIT
    side = usable_side(int(min(tile_px, section.max_pixels**0.5)), unit // 2)
    if side**2 < section.min_pixels:
        side = -(-int(np.ceil(section.min_pixels**0.5)) // unit) * unit
    if side == 0 or side**2 > section.max_pixels:
        raise ParamsError(
            f"sft.max_pixels: found {section.max_pixels} beside min_pixels {section.min_pixels} and tiles of "
            f"{tile_px} px, expected a square of a multiple of {unit} px between them; raise it"
        )
    return side


def settings(kind: str, images: TileImages, params: Params, about: dict, side: int) -> Settings:
    """Contents of minerals.json: everything but weights that is needed to get from a scene to an answer."""
    reader, read = images.source.reader, params.annotate
    return Settings(
        input=kind,
        composite=read.composite,
        wavelengths=reader.store.wavelengths[reader.kept].tolist(),
        mean=images.mean.ravel().astype(float).tolist(),
        sd=images.sd.ravel().astype(float).tolist(),
        stretch=about["stretch"][read.composite],
        tile_px=about["tile_px"],
        model_px=side,
        languages=list(read.languages),
        altered=about["altered"],
        present=read.present,
        pretrained=params.model.backbone != TINY,
        simulated=reader.store.manifest["about"]["simulated"],
        scenes=list(reader.store.scenes),
    )


def draw_curves(path: Path, kind: str, history: list[dict]) -> None:
    """curves.png: loss of training and validation by epoch."""
    log = pd.DataFrame(history)
    lines = {}
    for name, column in (("train", "loss"), ("validation", "eval_loss")):
        rows = log.dropna(subset=column)
        lines[name] = rows["epoch"].to_numpy(), rows[column].to_numpy()
    figures.curves(path, {kind: [figures.Curve("cross-entropy", "nats per token", lines)]})
