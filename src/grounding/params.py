"""The sections of pipelines/grounding/params.yaml. What each key is for stands there beside it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from src.core.stage.params import Above, Count, Fraction, Positive, Rate, Section, Share, Text, Weight
from src.grounding.data.sensors import OPTICAL_BANDS

COMPACT = "compact"  # the backbone with random weights
DEGRADE = "degrade"  # the first guess that is made from the truth
Range = Annotated[list[Weight], Field(min_length=2, max_length=2)]
Interval = Annotated[list[float], Field(min_length=2, max_length=2)]


class Simulate(Section):
    seed: Count
    scenes: Annotated[int, Field(ge=4)]
    side_px: Annotated[int, Field(ge=64)]
    looks: Positive


class Sar(Section):
    product: Literal["GRD", "RTC"]
    coefficient: Literal["sigma0", "gamma0"]
    looks: Above
    scale: Literal["dB", "linear"]
    clip_db: Interval
    bands: list[Text] | None


class Optical(Section):
    scale: Above
    offset: float
    bands: list[Text] | None


class Data(Section):
    root: Text
    sar: Sar
    optical: Optical
    cloud_mask: Text | None
    first_guess: Text
    max_days: Count | None
    max_shift_px: Weight


class Degradation(Section):
    blur_px: Range
    noise: Range
    haze: Range
    holes: Range


class Degrade(Section):
    seed: Count
    pretrain: Degradation
    ground: Degradation


class Split(Section):
    seed: Count
    block_km: Above
    buffer_km: Weight
    ground: Fraction
    validation: Fraction
    test: Fraction


class Tiles(Section):
    tile_px: Positive
    min_valid_ratio: Rate


class Model(Section):
    backbone: Text
    patch_px: Positive
    depth: Positive
    width: Positive
    heads: Positive
    train_steps: Positive
    steps: Positive
    prediction: Literal["sample", "v_prediction"]


class Training(Section):
    epochs: Positive
    windows: Positive
    batch_size: Positive
    accumulate: Positive
    lr: Rate
    weight_decay: Weight
    warmup_ratio: Share
    precision: Literal["auto", "float32", "bfloat16"]
    save_steps: Positive


class Lora(Section):
    rank: Positive
    alpha: Positive
    dropout: Share
    targets: Text


class LossWeights(Section):
    sar: Weight
    cycle: Weight
    identity: Weight
    lpips: Weight
    spectral: Weight


class Stop(Section):
    measure: Literal["agreement", "seed_agreement"]
    patience: Positive
    delta: Weight


class Ground(Training):
    max_samples: Positive | None
    lora: Lora
    weights: LossWeights
    lpips_weights: Text | None
    stop: Stop


class Evaluate(Section):
    samples: Positive
    spread_samples: Annotated[int, Field(ge=4)]


class Infer(Section):
    overlap_px: Count


class Params(Section):
    seed: Count
    threads: Positive
    report_to: Literal["none", "tensorboard", "wandb"]
    checkpoint_root: Text
    simulate: Simulate
    data: Data
    degrade: Degrade
    split: Split
    tiles: Tiles
    model: Model
    pretrain: Training
    ground: Ground
    evaluate: Evaluate
    infer: Infer

    @model_validator(mode="after")
    def _rules_between_keys(self) -> "Params":
        """Rules are here and not in their sections, of which an error would show every value."""
        for role in ("pretrain", "ground"):
            for name, (low, high) in getattr(self.degrade, role):
                if low > high:
                    raise ValueError(
                        f"degrade.{role}.{name}: found [{low:g}, {high:g}], expected the smaller first; swap them"
                    )
                if name in ("haze", "holes") and high >= 1:
                    raise ValueError(f"degrade.{role}.{name}: found {high:g}, expected a share below 1; lower it")
        low, high = self.data.sar.clip_db
        if low >= high:
            raise ValueError(f"data.sar.clip_db: found [{low:g}, {high:g}], expected the smaller first; swap them")
        if missing := set(OPTICAL_BANDS) - set(self.data.optical.bands or OPTICAL_BANDS):
            raise ValueError(f"data.optical.bands: found no {min(missing)}, expected all of {', '.join(OPTICAL_BANDS)}")
        if self.split.ground + self.split.validation + self.split.test >= 1:
            raise ValueError(
                "split.ground, split.validation, split.test: expected a sum below 1, so that `pretrain` has blocks; "
                "lower one"
            )
        if self.tiles.tile_px % self.model.patch_px:
            raise ValueError(
                f"tiles.tile_px: found {self.tiles.tile_px}, expected a multiple of model.patch_px "
                f"{self.model.patch_px}"
            )
        if self.infer.overlap_px >= self.tiles.tile_px:
            raise ValueError(
                f"infer.overlap_px: found {self.infer.overlap_px}, expected less than tiles.tile_px "
                f"{self.tiles.tile_px}"
            )
        if self.model.width % self.model.heads:
            raise ValueError(
                f"model.width: found {self.model.width}, expected a multiple of model.heads {self.model.heads}"
            )
        for stage in ("pretrain", "ground"):
            section = getattr(self, stage)
            if section.batch_size % section.accumulate:
                raise ValueError(
                    f"{stage}.batch_size: found {section.batch_size}, expected a multiple of {stage}.accumulate "
                    f"{section.accumulate}"
                )
        return self
