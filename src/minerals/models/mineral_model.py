"""A Qwen-VL model that reads tiles of three bands or of all, and answers in words."""

import torch
from torch import nn

from src.core.models import answers, lora
from src.core.models.patches import pixel_values


class MineralModel(nn.Module):
    """`vlm` with pixels in and the cross-entropy of answers out."""

    def __init__(self, vlm: nn.Module):
        super().__init__()
        self.vlm = vlm

    def vision_inputs(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Vision arguments of the model for (B, C, H, W) images, or (B, G, 3, H, W): G images a sample."""
        pixels, grid = pixel_values(images.flatten(0, -4), self.vlm.config.vision_config)
        return {"pixel_values": pixels.to(next(self.vlm.parameters()).dtype), "image_grid_thw": grid}

    def forward(
        self, images, input_ids, attention_mask, mm_token_type_ids, prompt_mask=None, labels=None, answer_share=1.0
    ) -> dict[str, torch.Tensor]:
        """`loss`, the mean over answer tokens, and `cross_entropy` (B,) per answer token.

        Args:
            labels: (B, L) answer ids, -100 elsewhere.
            answer_share: weight of the mean where this is a part of a batch.
        """
        vision = self.vision_inputs(images)
        hidden = answers.hidden_states(self.vlm, input_ids, attention_mask, mm_token_type_ids, **vision)
        losses, per_row = answers.cross_entropy(lora.core(self.vlm).lm_head, hidden, labels)
        return {"loss": losses.mean() * answer_share, "cross_entropy": per_row}
