"""The sections of the flagship's params.yaml. What each key is for stands in params.yaml beside it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from src.core.stage.model_params import TINY, Backbone, ByBackbone, Lora, Steps, Tiny
from src.core.stage.params import Above, Count, Fraction, Positive, Rate, Section, Share, Text, Weight

# How this pipeline calls what core calls region and place: in messages, and as columns of its tables.
WORDS = {"region": "province", "place": "city"}
RateOrFrozen = Annotated[float, Field(ge=0, le=1)]


class Memory(Section):
    precision: Literal["auto", "float32", "bfloat16"]
    attention: Literal["sdpa", "flash_attention_2"]
    gradient_checkpointing: Literal["auto", "always", "never"]
    optimizer_8bit: bool
    four_bit: bool

    def checkpoints_gradients(self, backbone: str) -> bool:
        """True where activations are computed again in the backward pass, which saves memory."""
        return self.gradient_checkpointing == "always" or (self.gradient_checkpointing == "auto" and backbone != TINY)


class Data(Section):
    root: Text
    labels: Text
    aliases: Text
    quantisation: Literal["tags", "alphaearth", "linear", "none"]
    scale: Above | None
    nan_is_nodata: bool
    tile_px: Positive | None
    match_year: Literal["exact", "nearest"]
    max_unmatched: Count
    tile_lag: Count
    covariates: list[Text]
    covariate_lag: Count

    @property
    def covariate_columns(self) -> list[str]:
        """Column of the store for each covariate, named by its lag, for example gdp_lag1."""
        suffix = f"_lag{self.covariate_lag}" if self.covariate_lag else ""
        return [name + suffix for name in self.covariates]

    @model_validator(mode="after")
    def _scale_goes_with_linear_and_covariates_differ(self) -> "Data":
        if (self.quantisation == "linear") != (self.scale is not None):
            raise ValueError("scale is needed with quantisation: linear and with nothing else")
        if len(set(self.covariates)) < len(self.covariates):
            raise ValueError(f"covariates {self.covariates} names a column twice")
        return self


class Split(Section):
    task: Literal["new_place", "next_year", "new_place_and_year", "change"]
    method: Literal["blocks", "provinces", "place"]
    seed: Count
    folds: Annotated[int, Field(ge=2)]
    fold: Count
    block_degrees: Annotated[float, Field(gt=0, le=90)]
    buffer_km: Weight
    horizon: Annotated[int, Field(ge=1, le=3)]
    origin: int | None
    retrospective_tiles: bool
    use: Text | None
    lock: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None

    @model_validator(mode="after")
    def _fold_exists(self) -> "Split":
        if self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} of {self.folds}: expected 0 to {self.folds - 1}")
        return self


class Model(Backbone):
    bands: Positive
    input: Literal["bands", "pca3"]
    init: Literal["pca", "copy", "normal", "zero"]
    tiny: Tiny


class Decoder(Section):
    depth: Positive
    width: Positive
    heads: Positive


class PretrainRates(Section):
    patch_embed: RateOrFrozen
    blocks: RateOrFrozen
    decoder: Rate


class Pretrain(Steps):
    encoder: Literal["full", "patch_embed"]
    tiles: Literal["train", "all"]
    epochs: Count
    samples_per_file: Positive
    lr: ByBackbone[PretrainRates, PretrainRates]
    weight_decay: Weight
    mask_ratio: Fraction
    norm_pix_loss: bool
    scales: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)]
    decoder: Decoder


class Baselines(Section):
    budget: Positive
    networks: list[Literal["mlp", "cnn", "resnet18"]]
    epochs: Positive
    permutations: Positive


class Prompt(Section):
    fields: list[Literal["city", "province", "year"]]


class SftRates(Section):
    language: RateOrFrozen
    merger: RateOrFrozen
    head: RateOrFrozen
    blocks: RateOrFrozen
    patch_embed: RateOrFrozen


class EncoderLora(Lora):
    rank: Count  # 0: no LoRA
    encoder: bool


class Sft(Steps):
    language: Literal["zh", "en"]
    template: Text | None
    covariates: Literal["none", "prompt", "head", "both"]
    permutation: Count
    head: Literal["mlp", "anchored"]
    head_width: Positive
    head_dropout: Share
    ce_weight: Weight
    mse_weight: Weight
    epochs: Positive
    freeze_encoder_epochs: Count
    lr: ByBackbone[SftRates, SftRates]
    weight_decay: Weight
    patience: Positive
    augment: bool
    lora: EncoderLora

    @model_validator(mode="after")
    def _something_to_learn(self) -> "Sft":
        if self.ce_weight == 0 and self.mse_weight == 0:
            raise ValueError("ce_weight and mse_weight are both 0: nothing would train")
        return self


class Prefs(Section):
    num_samples: Annotated[int, Field(ge=2)]
    temperature: Above
    top_p: Annotated[float, Field(gt=0, le=1)]
    min_margin: Weight
    batch_size: Positive


class Dpo(Steps):
    beta: Above
    loss: Literal["sigmoid", "hinge"]
    epochs: Count
    lr: Rate
    patience: Positive


class Evaluate(Section):
    level: Fraction
    text_samples: Positive
    grid_points: Annotated[int, Field(ge=2)]
    batch_size: Positive


class Card(Section):
    data: Text
    licence: Text | None
    attribution: Text | None
    base_licence: Text | None


class Params(Section):
    seed: Count
    threads: Positive
    report_to: Literal["none", "tensorboard", "wandb"]
    checkpoint_root: Text
    launch: Text
    memory: Memory
    data: Data
    split: Split
    model: Model
    pretrain: Pretrain
    baselines: Baselines
    prompt: Prompt
    sft: Sft
    prefs: Prefs
    dpo: Dpo
    evaluate: Evaluate
    card: Card

    @model_validator(mode="after")
    def _sections_agree(self) -> "Params":
        if self.memory.four_bit and (self.model.backbone == TINY or not self.sft.lora.rank):
            raise ValueError("memory.four_bit freezes the language model: it needs a pretrained backbone and sft.lora")
        data, split = self.data, self.split
        if split.task in ("next_year", "new_place_and_year"):
            known = f"split.task {split.task} knows nothing dated at or after the origin: at least split.horizon"
            if data.covariates and data.covariate_lag < split.horizon:
                raise ValueError(f"data.covariate_lag {data.covariate_lag}: {known} {split.horizon} is needed")
            if data.tile_lag < split.horizon and not split.retrospective_tiles:
                raise ValueError(
                    f"data.tile_lag {data.tile_lag}: {known} {split.horizon} is needed, or split.retrospective_tiles: "
                    "true, after which no score is that of a forecast"
                )
        if "growth_rate" in data.covariates and split.task != "next_year":
            raise ValueError(
                f"data.covariates names growth_rate: split.task {split.task} knows no label of a test place; "
                "only next_year does"
            )
        if self.sft.covariates != "none" and not data.covariates:
            raise ValueError(f"sft.covariates {self.sft.covariates}: data.covariates names no column")
        return self
