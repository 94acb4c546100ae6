"""A model folder, complete in itself: Hugging Face weights, head.safetensors, bandwise.json (how to read a tile)."""

from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from src.core.data.quantisation import Quantisation
from src.core.models import qwen_vl
from src.core.models.patches import BandFrontEnd
from src.core.stage import files
from src.core.stage.errors import BandwiseError, DataError
from src.core.stage.params import Section, validate
from src.core.training import saved_model
from src.population.models.growth_model import GrowthModel, RegressionHead, Ridge

SETTINGS, HEAD = "bandwise.json", "head.safetensors"
LABEL_UNIT = "per mille per year"


class Pca(Section):
    weight: list[list[float]]
    bias: list[float]


class Head(Section):
    kind: Literal["mlp", "anchored"]
    width: int
    dropout: float
    ridge: Ridge | None


class Covariates(Section):
    """Columns of the store that the model reads, beside `names` in the label file `lag_years` before the label's
    year; `mean` and `sd` over training rows. All are empty where `use` is none."""

    columns: list[str]
    names: list[str]
    lag_years: int
    use: Literal["none", "prompt", "head", "both"]
    mean: list[float]
    sd: list[float]

    @property
    def of_head(self) -> list[str]:
        """The columns that the regression head reads."""
        return self.columns if self.use in ("head", "both") else []


class Label(Section):
    mean: float
    sd: float
    low: float
    high: float
    unit: str


class Settings(Section):
    """bandwise.json: `low` and `high` of the label are the training range; `side` is the centre crop in px.

    `band_names` and `pixel_size` (in units of the tiles' CRS) are None where the training tiles said neither.
    A label is dated `tile_lag_years` after its tile.
    """

    bands: int
    quantisation: dict
    input: Literal["bands", "pca3"]
    band_names: list[str] | None
    pixel_size: float | None
    band_mean: list[float]
    band_sd: list[float]
    pca: Pca | None
    side: int
    label: Label
    language: Literal["zh", "en"]
    prompt: str
    covariates: Covariates
    tile_lag_years: int
    head: Head
    split_hash: str
    pretrained_on: Literal["train", "all"]

    def front_end(self) -> BandFrontEnd:
        pca = (torch.tensor(self.pca.weight), torch.tensor(self.pca.bias)) if self.pca else None
        mean, sd = torch.tensor(self.band_mean), torch.tensor(self.band_sd)
        return BandFrontEnd(Quantisation(**self.quantisation), mean, sd, self.side, pca)


def read_settings(folder: Path) -> Settings:
    """bandwise.json of a model folder, validated."""
    path = Path(folder) / SETTINGS
    try:
        return validate(files.read_json(path), Settings, where=str(path))
    except BandwiseError as error:
        raise DataError(f"{error}; expected a folder that the sft or dpo stage wrote") from error


def assemble(vlm, settings: Settings, weights: tuple[float, float] = (1.0, 1.0)) -> GrowthModel:
    """`vlm` with front end and a fresh head; `weights` are those of cross-entropy and squared error."""
    head = settings.head
    width = vlm.config.get_text_config().hidden_size
    covariates = len(settings.covariates.of_head)
    regression = RegressionHead(width, head.width, head.dropout, head.ridge, settings.label.sd, covariates)
    return GrowthModel(vlm, settings.front_end(), regression, settings.label.mean, weights)


def save(
    folder: Path,
    model: GrowthModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings,
    base: Path,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a model folder, its weights in `dtype`; with LoRA `adapter/` beside the merged weights, for the model in
    `base`, from which training started."""
    saved_model.save(folder, model.vlm, tokenizer, base, dtype)
    safetensors.torch.save_file(model.head.state_dict(), folder / HEAD, metadata={"format": "pt"})
    files.write_json(folder / SETTINGS, settings.model_dump())


def load_for_use(folder: Path) -> tuple[GrowthModel, PreTrainedTokenizerBase, Settings]:
    """`load`, on the GPU where there is one."""
    model, tokenizer, settings = load(folder)
    if torch.cuda.is_available():
        model.cuda()
    return model, tokenizer, settings


def load(folder: Path, meta: bool = False, **options) -> tuple[GrowthModel, PreTrainedTokenizerBase, Settings]:
    """Read a model folder for inference, or with `options` for `qwen_vl.load` to train on; `meta`: shapes alone.

    Raises:
        DataError: a file is missing, or its contents do not fit one another.
        StorageError: a file cannot be read.
    """
    settings = read_settings(folder)
    front = settings.front_end()
    # As they were written where there is a GPU; CPUs are slow at bfloat16.
    options = {"dtype": "auto" if torch.cuda.is_available() else torch.float32} | options
    if meta:
        vlm = qwen_vl.outline(folder, channels=(front.channels,), **options)
    else:
        vlm = qwen_vl.load(folder, channels=front.channels, **options)
    model = assemble(vlm, settings)
    try:
        model.head.load_state_dict(safetensors.torch.load_file(Path(folder) / HEAD))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise DataError(f"{folder}/{HEAD}: does not fit bandwise.json ({error}); train the stage again") from error
    return model.eval(), AutoTokenizer.from_pretrained(folder), settings
