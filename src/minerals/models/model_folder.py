"""A model folder: Hugging Face weights, and minerals.json, which says how a tile becomes the model's input."""

from pathlib import Path
from typing import Literal

import torch
from pydantic import model_validator
from transformers import PreTrainedTokenizerBase

from src.core.models import qwen_vl
from src.core.stage import files
from src.core.stage.errors import BandwiseError, DataError
from src.core.stage.params import Section, validate
from src.core.training import saved_model
from src.minerals.models.mineral_model import MineralModel

SETTINGS = "minerals.json"


class Settings(Section):
    """minerals.json.

    Attributes:
        input: rgb (a composite as PNG), bands (all kept bands) or rgb_groups (these in triples).
        wavelengths, mean, sd: of the kept bands, nm and of relative spectra, for bands and rgb_groups.
        stretch: reflectance shown as 0 and as 255 by each channel of the composite, for rgb.
        tile_px, model_px: side of a tile, and of the image that the model sees of it.
        altered, present: shares from which a tile is altered, and a mineral named.
        pretrained: the backbone was; else the model understands the questions of its training alone.
        simulated, scenes: origin and names of the scenes of its training.
    """

    input: Literal["rgb", "bands", "rgb_groups"]
    composite: str
    wavelengths: list[float]
    mean: list[float]
    sd: list[float]
    stretch: list[list[float]]
    tile_px: int
    model_px: int
    languages: list[str]
    altered: float
    present: float
    pretrained: bool
    simulated: bool
    scenes: list[str]

    @model_validator(mode="after")
    def _lists_fit(self) -> "Settings":
        """Refuse statistics that are not one a band, which numpy might spread over all."""
        found = {name: len(getattr(self, name)) for name in ("wavelengths", "mean", "sd")}
        if len(set(found.values())) > 1 or [len(pair) for pair in self.stretch] != [2, 2, 2]:
            raise ValueError(
                f"wavelengths, mean, sd, stretch: found {found} values and a stretch of {self.stretch}, expected as "
                "many of each, and three pairs; copy the folder again"
            )
        return self


def save(
    folder: Path,
    model: MineralModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings,
    base: Path,
    dtype: torch.dtype,
) -> None:
    """Write a model folder, weights in `dtype`; with LoRA `adapter/` beside them, for the model in `base`."""
    saved_model.save(folder, model.vlm, tokenizer, base, dtype)
    files.write_json(folder / SETTINGS, settings.model_dump())


def load(folder: Path) -> tuple[MineralModel, PreTrainedTokenizerBase, Settings]:
    """Read a model folder for use, on the GPU where there is one.

    Raises:
        DataError: a file is missing, or its contents do not fit one another.
    """
    path = Path(folder) / SETTINGS
    try:
        settings = validate(files.read_json(path), Settings, where=str(path))
    except BandwiseError as error:
        raise DataError(
            f"{error}; expected a folder that the sft stage wrote, such as models/minerals/sft/bands; else "
            "run sft again"
        ) from error
    channels = len(settings.mean) if settings.input == "bands" else 3
    vlm = qwen_vl.load(folder, channels=channels, dtype="auto" if torch.cuda.is_available() else torch.float32)
    tokenizer, model = qwen_vl.read_tokenizer(str(folder), vlm), MineralModel(vlm).eval()
    return model.cuda() if torch.cuda.is_available() else model, tokenizer, settings
