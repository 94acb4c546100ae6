"""The model that the first training stage starts from: built small, or read from a folder or the hub and widened."""

from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from src.core.data.tile_store import Store, differing_band
from src.core.models import chat, qwen_vl
from src.core.models.more_bands import RGB, shifted_mean, widen
from src.core.models.patches import BandFrontEnd
from src.core.stage.errors import ParamsError
from src.core.stage.model_params import TINY
from src.population.data.stage_inputs import Split, front_end
from src.population.models import prompts
from src.population.models.model_folder import SETTINGS, read_settings
from src.population.models.training_setup import weights_dtype
from src.population.params import Model, Params


class Start(NamedTuple):
    """A model before training, with how it reads tiles."""

    vlm: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    front: BandFrontEnd


def starting_model(
    params: Params, store: Store, split: Split, pca: tuple[torch.Tensor, torch.Tensor], meta: bool = False
) -> Start:
    """The backbone with a patch embedding for the tiles' bands (Route A) or for three components (Route B).

    Its front end standardises with the band means of the training tiles, or with such as hide the PCA's offset in them.
    `pca` is weight (3, C) and bias (3,) of the pca stage; `meta`: shapes alone, without reading any weights.
    """
    model, mean = params.model, split.mean
    channels = store.bands if model.input == "bands" else RGB
    if model.backbone == TINY:
        vlm, tokenizer = tiny_model(model, store, params.seed, channels)
    else:
        known = {"channels": (RGB, channels), "dtype": weights_dtype(params)}
        if meta:
            vlm = qwen_vl.outline(model.backbone, **known)
        else:
            vlm = qwen_vl.load(model.backbone, **known, attention=params.memory.attention)
        tokenizer = qwen_vl.read_tokenizer(model.backbone, vlm)
        if vlm.config.vision_config.in_channels == channels:
            check_band_names(Path(model.backbone), store)
        else:
            by_pca = model.init == "pca"
            widen(vlm, channels, model.init, params.seed, pca[0].to(vlm.device) if by_pca else None)
            mean = shifted_mean(split.mean, split.sd, *pca) if by_pca else mean
    return Start(vlm, tokenizer, front_end(store, mean, split, pca, model, vlm.config.vision_config))


def check_band_names(folder: Path, store: Store) -> None:
    """Raise ParamsError where the backbone is a model of this project that read its bands in another order."""
    if not (folder / SETTINGS).is_file():
        return
    if differs := differing_band(store.band_names, read_settings(folder).band_names):
        raise ParamsError(
            f"{folder}: {differs} in the tiles, as the model was trained; export the bands in that order, or set "
            "another model.backbone"
        )


def tiny_model(params: Model, store: Store, seed: int, channels: int):
    """A model of a few million weights drawn from `seed`, and a tokenizer trained on all prompts and answers."""
    values = [sign * (number + number / 100) for number in range(100) for sign in (1, -1)]  # all pairs of decimals
    numbers = [prompts.answer(value, language) for value in values for language in prompts.PROMPTS]
    tokenizer = chat.tiny_tokenizer([*prompts.PROMPTS.values(), *numbers])
    known = {"channels": channels, "side": min(store.height, store.width), "tokenizer": tokenizer}
    config = qwen_vl.tiny_config(params.family, **params.tiny.sizes(), **known)
    return qwen_vl.build(config, seed), tokenizer
