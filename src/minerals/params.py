"""The sections of pipelines/minerals/params.yaml. What each key is for stands there beside it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from src.core.stage.model_params import Backbone, ByBackbone, Lora, Steps, Tiny
from src.core.stage.params import Above, Count, Fraction, Positive, Rate, Section, Share, Text, Weight

Wavelengths = Annotated[list[Weight], Field(min_length=2, max_length=2)]


class Simulate(Section):
    seed: Count
    scenes: Annotated[int, Field(ge=3)]
    side_px: Annotated[int, Field(ge=32)]
    pixel_m: Above
    snr: Above
    intimate: Annotated[float, Field(ge=0, le=1)]
    barren: Share


class Data(Section):
    root: Text
    library: Text
    truth: Text | None
    wavelengths: Text | None
    scale: Above | None
    nodata: float | None


class Bands(Section):
    water_nm: list[Wavelengths]
    noisy_nm: list[Wavelengths]
    stretch: Annotated[list[float], Field(min_length=2, max_length=2)]


class Split(Section):
    seed: Count
    block_px: Count
    gap_px: Count
    validation: Fraction
    test: Fraction


class Map(Section):
    threshold: Above


class Tiles(Section):
    tile_px: Annotated[int, Field(ge=32)]
    stride: Positive
    min_valid_ratio: Rate
    altered: Fraction


class Annotate(Section):
    composite: Literal["clay", "iron", "natural"]
    languages: Annotated[list[Literal["en", "zh"]], Field(min_length=1)]
    present: Fraction


class Model(Backbone):
    inputs: list[Literal["rgb", "bands", "rgb_groups"]]
    init: Literal["copy", "normal", "zero"]
    tiny: Tiny


class PretrainedRates(Section):
    lora: Weight
    merger: Weight
    patch_embed: Weight


class Sft(Steps):
    epochs: Positive
    patience: Positive
    lr: ByBackbone[Rate, PretrainedRates]
    weight_decay: Weight
    augment: bool
    lora: Lora
    min_pixels: Positive
    max_pixels: Positive
    precision: Literal["auto", "float32", "bfloat16"]


class Params(Section):
    seed: Count
    threads: Positive
    report_to: Literal["none", "tensorboard", "wandb"]
    checkpoint_root: Text
    simulate: Simulate
    data: Data
    bands: Bands
    split: Split
    map: Map
    tiles: Tiles
    annotate: Annotate
    model: Model
    sft: Sft

    @model_validator(mode="after")
    def _rules_between_keys(self) -> "Params":
        """Rules are here and not in their sections, of which an error would show every value."""
        for name in ("water_nm", "noisy_nm"):
            for low, high in getattr(self.bands, name):
                if low >= high:
                    raise ValueError(f"bands.{name}: found [{low:g}, {high:g}], expected the smaller first; swap them")
        low, high = self.bands.stretch
        if not 0 <= low < high <= 100:
            raise ValueError(f"bands.stretch: found {self.bands.stretch}, expected two ascending percentiles, 0 to 100")
        if self.split.validation + self.split.test >= 1:
            raise ValueError(
                f"split.test: found {self.split.test:g} beside validation {self.split.validation:g}, expected a sum "
                "below 1, so that training has blocks; lower one"
            )
        if self.split.gap_px < self.tiles.tile_px and self.split.block_px:
            raise ValueError(
                f"split.gap_px: found {self.split.gap_px}, expected at least tiles.tile_px {self.tiles.tile_px}; "
                "raise it"
            )
        if self.split.block_px and self.split.block_px < self.split.gap_px + self.tiles.tile_px:
            raise ValueError(
                f"split.block_px: found {self.split.block_px}, expected at least the sum of split.gap_px "
                f"{self.split.gap_px} and tiles.tile_px {self.tiles.tile_px}, or 0; a block between others has no tile"
            )
        return self
