"""Params sections of pipelines that train a Qwen-VL model. What each key is for stands in their params.yaml."""

import re
from typing import Any, Generic, Literal, TypeVar

from pydantic import ValidationInfo, field_validator

from src.core.stage.params import Positive, Section, Share, Text

TINY = "tiny"  # the backbone that is built from params, with random weights, and not read
Fresh = TypeVar("Fresh")
Published = TypeVar("Published")


class Tiny(Section):
    """Sizes of a tiny backbone."""

    patch_size: Positive
    vision_depth: Positive
    vision_width: Positive
    vision_heads: Positive
    text_depth: Positive
    text_width: Positive
    text_heads: Positive

    def sizes(self) -> dict[str, Any]:
        """Arguments of `core.models.qwen_vl.tiny_config`."""
        return {
            "patch_size": self.patch_size,
            "vision": (self.vision_depth, self.vision_width, self.vision_heads),
            "text": (self.text_depth, self.text_width, self.text_heads),
        }


class Backbone(Section):
    """Model that a training starts from; `family` is that of a tiny one."""

    backbone: Text
    family: Literal["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]


class ByBackbone(Section, Generic[Fresh, Published]):
    """Learning rates of a model from random weights, and of one that goes on from published ones."""

    tiny: Fresh
    pretrained: Published


class Steps(Section):
    """Samples of a training step, computed in `accumulate` parts one after the other, and the schedule of steps."""

    batch_size: Positive
    accumulate: Positive
    warmup_ratio: Share
    save_steps: Positive

    @field_validator("accumulate")  # of one key: an error of the section would show every value in it
    @classmethod
    def _parts_are_equal(cls, accumulate: int, known: ValidationInfo) -> int:
        size = known.data.get("batch_size", accumulate)  # absent where it is wrong itself
        if size % accumulate:
            raise ValueError(f"batch_size {size} is no multiple of accumulate {accumulate}")
        return accumulate


class Lora(Section):
    """LoRA on the modules whose whole name `targets` matches, see `core.models.lora.config`."""

    rank: Positive
    alpha: Positive
    dropout: Share
    targets: Text

    @field_validator("targets")
    @classmethod
    def _targets_are_a_pattern(cls, targets: str) -> str:
        try:
            re.compile(targets)
        except re.error as error:
            raise ValueError(f"targets is no regular expression: {error}") from error
        return targets
