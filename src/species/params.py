"""The sections of pipelines/species/params.yaml. What each key is for stands there beside it."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from src.core.params import Section

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Above = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]
Modality = Literal["language", "vision_pooled", "vision"]


class Strengths(Section):
    species: Weight
    habitat: Weight
    place: Weight
    noise: Weight


class Simulate(Section):
    seed: Count
    observations: Positive
    species: Annotated[int, Field(ge=2, le=1200)]  # as many names as simulate can invent
    sites: Positive
    missing: Share
    full_vision: Count
    language: Strengths
    vision: Strengths

    @model_validator(mode="after")
    def _species_have_records(self) -> "Simulate":
        if self.observations < 10 * self.species:
            raise ValueError(
                f"observations {self.observations}: expected at least 10 for each of {self.species} species"
            )
        return self

    @model_validator(mode="after")
    def _full_vision_is_not_missing(self) -> "Simulate":
        whole = self.observations - round(self.missing * self.observations)
        if self.full_vision > whole:
            raise ValueError(f"full_vision {self.full_vision}: expected at most the {whole} that miss nothing")
        return self


class Data(Section):
    root: Text
    id: Text | None
    modalities: list[Modality]
    max_refused: Share
    minimum_records: Positive


class Split(Section):
    seed: Count
    train_from: int
    test_from: int
    gap_days: Count
    squares: Positive
    validation_squares: Positive
    side_km: Above
    apart_km: Weight
    buffer_km: Weight
    minimum: Positive
    maximum_share: Rate
    spread: Rate
    max_uncertainty_m: Above
    shared_embeddings: list[Modality]

    @model_validator(mode="after")
    def _buffers_and_years(self) -> "Split":
        if self.buffer_km > self.apart_km:
            raise ValueError(
                f"buffer_km {self.buffer_km:g} reaches beyond apart_km {self.apart_km:g}: a square would lie in the "
                "buffer of another one; lower buffer_km or raise apart_km"
            )
        if self.test_from - self.train_from < 2:
            raise ValueError(
                f"test_from {self.test_from}: expected at least two years after train_from {self.train_from}, one to "
                "train and one to validate"
            )
        return self


class Baselines(Section):
    neighbours: Annotated[list[Positive], Field(min_length=1)]
    inverse_penalties: Annotated[list[Above], Field(min_length=1)]
    leaves: Annotated[list[Positive], Field(min_length=1)]
    components: Positive


class Training(Section):
    """What both trainings have."""

    epochs: Positive
    patience: Positive
    batch_size: Annotated[int, Field(ge=2)]
    lr: Rate
    weight_decay: Weight
    warmup_ratio: Share
    save_steps: Positive


class Dropout(Section):
    language: Share
    vision: Share


class Train(Training):
    models: list[Literal["language", "vision", "both"]]
    hidden: Positive
    dropout: Dropout
    imbalance: Literal["none", "balanced"]


class Crossmodal(Training):
    dim: Positive
    contrastive: Weight
    temperature: Above


class Controls(Section):
    draws: Positive


class Evaluate(Section):
    frequency: list[Positive]
    distance_km: list[Above]
    calibration_bins: Annotated[int, Field(ge=2)]
    commonest: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def _edges_ascend(self) -> "Evaluate":
        for name in ("frequency", "distance_km"):
            edges = getattr(self, name)
            if any(one >= other for one, other in pairwise(edges)):
                raise ValueError(f"{name} {edges}: expected ascending numbers")
        return self


class Params(Section):
    seed: Count
    threads: Positive
    report_to: Literal["none", "tensorboard", "wandb"]
    checkpoint_root: Text
    simulate: Simulate
    data: Data
    split: Split
    baselines: Baselines
    train: Train
    crossmodal: Crossmodal
    controls: Controls
    evaluate: Evaluate
