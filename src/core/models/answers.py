"""Loss of a language model's answers, where the prompt does not count."""

import torch
from torch import nn
from torch.nn import functional


def cross_entropy(lm_head: nn.Module, hidden: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of every answer token (T,), and its mean over the tokens of each answer (B,).

    `hidden` is (B, L, width); `labels` (B, L) holds the ids of the answer and -100 elsewhere, where no logits are made.
    """
    answered = labels[:, 1:] != -100
    logits = lm_head(hidden[:, :-1][answered])  # position t predicts token t + 1
    losses = functional.cross_entropy(logits.float(), labels[:, 1:][answered], reduction="none")
    per_row = torch.zeros(len(labels), device=losses.device).index_add(0, answered.nonzero()[:, 0], losses)
    return losses, per_row / answered.sum(1)
