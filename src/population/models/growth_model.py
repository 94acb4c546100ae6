"""A Qwen-VL model with a regression head: pixels and prompt in, words and a growth rate out."""

import torch
from torch import nn
from torch.nn import functional

from src.core.data.augment import orient
from src.core.models import answers, lora
from src.core.models.patches import BandFrontEnd, band_means, pixel_values
from src.core.stage.params import Section


class Ridge(Section):
    """Ridge prediction of the label from dequantised band means: `means @ weight + intercept` (‰ per year)."""

    weight: list[float]
    intercept: float
    alpha: float


class RegressionHead(nn.Module):
    """Mean of the hidden states over prompt tokens -> label in standard deviations from the training mean.

    With `ridge` the network's output, zero at first, is added to the ridge prediction from the tile's band means, so
    training starts at the baseline.

    `covariates` standardised numbers join the hidden state after its LayerNorm: before it, they would be divided by
    the spread of hundreds of hidden dimensions, of which a few are very large in pretrained models.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        dropout: float,
        ridge: Ridge | None,
        label_sd: float,
        covariates: int = 0,
    ):
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width + covariates, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )
        self.label_sd, self.covariates = label_sd, covariates
        self.anchored = ridge is not None
        if ridge is not None:
            nn.init.zeros_(self.net[-1].weight)
            nn.init.zeros_(self.net[-1].bias)
            self.register_buffer("ridge_weight", torch.tensor(ridge.weight, dtype=torch.float64), persistent=False)
            self.ridge_intercept = ridge.intercept

    def forward(
        self, hidden, prompt_mask, means, label_mean: float, covariates=None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Prediction and the network's own part, each (B,), in standard deviations from the training mean.

        Args:
            hidden, prompt_mask: (B, L, width) and (B, L). Prompt tokens alone are pooled: the answer's hold the label.
            means: (B, C) dequantised band means; where they are unknown (None, or NaN) ridge says the training mean,
                which is what it predicts of the mean of its training rows.
            covariates: (B, K) standardised.
        """
        weight = prompt_mask[..., None].to(hidden.dtype)
        pooled = (hidden * weight).sum(1) / weight.sum(1)
        dtype = self.net[1].weight.dtype
        seen = self.net[0](pooled.to(dtype))
        if self.covariates:
            seen = torch.cat([seen, covariates.to(seen.dtype)], dim=1)
        network = self.net[1:](seen).squeeze(-1)
        if not self.anchored or means is None:
            return network, network
        ridge = (means.double() @ self.ridge_weight + self.ridge_intercept - label_mean) / self.label_sd
        return network + ridge.masked_fill(ridge.isnan(), 0.0).to(network.dtype), network


class GrowthModel(nn.Module):
    """`front` -> `vlm` -> words, and `head` on its last hidden states."""

    def __init__(
        self,
        vlm: nn.Module,
        front: BandFrontEnd,
        head: RegressionHead,
        label_mean: float,
        weights: tuple = (1.0, 1.0),
    ):
        super().__init__()
        self.vlm = vlm
        self.front = front
        self.head = head
        self.label_mean = label_mean
        self.ce_weight, self.mse_weight = weights

    def vision_inputs(self, tiles, valid, orientation=None) -> tuple[dict, torch.Tensor]:
        """Stored tiles (B, C, H, W), valid (B, H, W) -> vision arguments of the model, and band means (B, C).

        The means are NaN where a tile has no valid pixel.
        """
        values, valid = self.front.dequantise(tiles, valid)
        images = self.front.images(values, valid)
        if orientation is not None:
            images = orient(images, orientation)
        pixels, grid = pixel_values(images, self.vlm.config.vision_config)
        means = band_means(values, valid).masked_fill(~valid.flatten(1).any(1)[:, None], torch.nan)
        dtype = next(self.vlm.parameters()).dtype
        return {"pixel_values": pixels.to(dtype), "image_grid_thw": grid}, means

    def forward(
        self,
        tiles,
        valid,
        input_ids,
        attention_mask,
        mm_token_type_ids,
        prompt_mask,
        labels=None,
        target=None,
        orientation=None,
        answer_share=1.0,
        covariates=None,
    ) -> dict[str, torch.Tensor]:
        """Losses and predictions of a batch.

        Args:
            tiles, valid: as stored, (B, C, H, W) and (B, H, W); None where the prompt holds no image.
            labels: (B, L) answer ids, -100 elsewhere.
            target: (B,) standardised labels.
            orientation: (B,) 0-7, see `core.data.augment.orient`.
            answer_share: weight of the mean over answer tokens where this is a part of a batch.
            covariates: (B, K) standardised.

        Returns:
            `prediction` and `network` (B,) standardised; with labels `cross_entropy` (B,) per answer
            token and `loss`.
        """
        vision, means = ({}, None) if tiles is None else self.vision_inputs(tiles, valid, orientation)
        hidden = answers.hidden_states(self.vlm, input_ids, attention_mask, mm_token_type_ids, **vision)
        prediction, network = self.head(hidden, prompt_mask, means, self.label_mean, covariates)
        out = {"prediction": prediction, "network": network}
        if labels is not None:
            losses, out["cross_entropy"] = answers.cross_entropy(lora.core(self.vlm).lm_head, hidden, labels)
            out["loss"] = self.ce_weight * losses.mean() * answer_share
            out["loss"] = out["loss"] + self.mse_weight * functional.mse_loss(prediction, target.to(prediction.dtype))
        return out
