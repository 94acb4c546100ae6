"""The sections of pipelines/species/params.yaml. What each key is for stands there beside it."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from src.core.stage.params import Above, Count, Positive, Rate, Section, Share, Text, Weight

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


class Baselines(Section):
    neighbours: Annotated[list[Positive], Field(min_length=1)]
    inverse_penalties: Annotated[list[Above], Field(min_length=1)]
    leaves: Annotated[list[Positive], Field(min_length=1)]
    components: Positive


class Training(Section):
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

    @model_validator(mode="after")
    def _rules_between_keys(self) -> "Params":
        """Rules are here and not in their sections, of which an error would show every value."""
        simulate, split = self.simulate, self.split
        if simulate.observations < 10 * simulate.species:
            raise ValueError(
                f"simulate.observations: found {simulate.observations}, expected at least 10 for each of "
                f"{simulate.species} species; raise it or lower simulate.species"
            )
        whole = simulate.observations - round(simulate.missing * simulate.observations)
        if simulate.full_vision > whole:
            raise ValueError(
                f"simulate.full_vision {simulate.full_vision}: expected at most the {whole} observations that miss "
                "nothing; lower it"
            )
        if split.buffer_km > split.apart_km:
            raise ValueError(
                f"split.buffer_km: found {split.buffer_km:g}, which reaches beyond apart_km {split.apart_km:g}: a "
                "square would lie in the buffer of another one; lower buffer_km or raise apart_km"
            )
        least = 2 * split.max_uncertainty_m / 1000
        if 0 < split.buffer_km < least:
            raise ValueError(
                f"split.buffer_km: found {split.buffer_km:g}, expected at least {least:g}, for two records may each be "
                f"wrong by split.max_uncertainty_m = {split.max_uncertainty_m:g}; raise it or lower that, or set 0 to "
                "show what a missing buffer does"
            )
        if split.test_from - split.train_from < 2:
            raise ValueError(
                f"split.test_from: found {split.test_from}, expected at least two years after train_from "
                f"{split.train_from}, one to train and one to validate; raise it or lower train_from"
            )
        for name in ("frequency", "distance_km"):
            edges = getattr(self.evaluate, name)
            if any(one >= other for one, other in pairwise(edges)):
                raise ValueError(f"evaluate.{name}: found {edges}, expected ascending numbers; sort them, each once")
        return self
