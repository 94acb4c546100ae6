"""Inputs for plain transformers, which have no processor for tiles; docs/backbones.md shows their use.

The regression head is not part of such a model; `predict` and `inference.Reader` use both.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import AutoConfig, AutoTokenizer

from src.core.data.quantisation import NODATA
from src.core.models import chat
from src.core.models.patches import pixel_values
from src.core.stage.errors import DataError
from src.population.data.samples import Prompter
from src.population.models import prompts
from src.population.models.model_folder import read_settings


def plain_inputs(folder: Path, tiles: np.ndarray, fields: list[dict] | None = None) -> dict[str, torch.Tensor]:
    """Arguments of `model.generate` and `model.forward` of the model in `folder` for `tiles`, with prompts.

    Args:
        tiles: (B, C, H, W), int8 with -128 as no data, or float with NaN; quantised as in training.
        fields: for each tile what the prompt names (city, province, year, columns of covariates); None where it
            names nothing.

    Returns:
        `input_ids`, `attention_mask`, `mm_token_type_ids` (B, L), padded on the left, `pixel_values` and
        `image_grid_thw`, on the CPU.

    Raises DataError where tiles have another number of bands or are too small, or a field is missing.
    """
    settings = read_settings(folder)
    config = AutoConfig.from_pretrained(folder).vision_config
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tiles.ndim != 4 or tiles.shape[1] != settings.bands or min(tiles.shape[2:]) < settings.side:
        raise DataError(
            f"tiles: shape: found {tiles.shape}, expected (tiles, {settings.bands}, H, W) with sides of at least "
            f"{settings.side} px, as {folder} was trained on"
        )
    rows, needed = pd.DataFrame(fields or [{}] * len(tiles)), prompts.named(settings.prompt)
    if len(rows) != len(tiles) or rows.reindex(columns=needed).isna().any(axis=None):
        raise DataError(
            f"fields: found {len(rows)} with {list(rows.columns)}, expected {len(tiles)} (a tile each) with {needed}: "
            "the prompt names them"
        )
    whole = tiles != NODATA if tiles.dtype == np.int8 else np.isfinite(tiles)
    valid = torch.from_numpy(whole.all(axis=1))
    images = settings.front_end()(torch.from_numpy(np.where(valid.numpy()[:, None], tiles, 0)), valid)
    pixels, grid = pixel_values(images, config)
    batch = chat.pad_batch(Prompter(tokenizer, settings, config).prompts(rows), None, tokenizer)
    del batch["prompt_mask"]
    return batch | {"pixel_values": pixels, "image_grid_thw": grid}
