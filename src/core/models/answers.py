"""Hidden states of a Qwen-VL model, and the loss of its answers, where the prompt does not count."""

import torch
from torch import nn
from torch.nn import functional

from src.core.models import lora


def hidden_states(
    vlm: nn.Module,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    mm_token_type_ids: torch.Tensor,
    **vision: torch.Tensor,
) -> torch.Tensor:
    """Last hidden states (B, L, width) of ids (B, L), without any logits; `vision` is empty where there is no image."""
    found = lora.core(vlm).model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        mm_token_type_ids=mm_token_type_ids,
        use_cache=False,
        **vision,
    )
    return found.last_hidden_state


def cross_entropy(lm_head: nn.Module, hidden: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of every answer token (T,), and its mean over the tokens of each answer (B,).

    `hidden` is (B, L, width); `labels` (B, L) holds the ids of the answer and -100 elsewhere, where no logits are made.
    """
    answered = labels[:, 1:] != -100
    logits = lm_head(hidden[:, :-1][answered])  # position t predicts token t + 1
    losses = functional.cross_entropy(logits.float(), labels[:, 1:][answered], reduction="none")
    per_row = torch.zeros(len(labels), device=losses.device).index_add(0, answered.nonzero()[:, 0], losses)
    return losses, per_row / answered.sum(1)
