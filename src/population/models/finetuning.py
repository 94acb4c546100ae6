"""Parts of supervised fine-tuning: the model, its settings for bandwise.json, and the metrics of every epoch."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import mean_absolute_error, r2_score
from transformers import AutoTokenizer

from src.core.baselines import regression
from src.core.data.tile_store import Store
from src.core.models import lora, qwen_vl
from src.core.models.patches import BandFrontEnd
from src.core.stage.model_params import TINY
from src.core.training.parameter_groups import ParameterGroups, checkpoint_activations
from src.core.training.precision import hold_weights
from src.population.data.samples import covariate_settings, in_years
from src.population.data.stage_inputs import Split, front_end, read_mean
from src.population.models import model_folder, prompts, starting_model
from src.population.models.growth_model import GrowthModel
from src.population.models.inference import Reader, parsed
from src.population.models.model_folder import Settings
from src.population.models.starting_model import Start
from src.population.models.trained_groups import sft_groups
from src.population.models.training_setup import weights_dtype
from src.population.params import Params

FORMED = 0.99  # share of answers that must parse before a growth rate in them counts


def pretrained(
    folder: Path, params: Params, store: Store, split: Split, pca: tuple[torch.Tensor, torch.Tensor], meta: bool
) -> Start:
    """The model that the pretrain stage left in `folder`, with LoRA where a pretrained backbone gets it.

    `meta`: shapes alone, which are those of the model that pretraining starts from.
    """
    if meta:
        vlm, tokenizer, front = starting_model.starting_model(params, store, split, pca, meta)
    else:
        vlm = qwen_vl.load(
            folder,
            channels=store.bands if params.model.input == "bands" else len(pca[0]),
            dtype=weights_dtype(params),
            four_bit=params.memory.four_bit,
            attention=params.memory.attention,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder)
        front = front_end(store, read_mean(folder), split, pca, params.model, vlm.config.vision_config)
    if params.memory.checkpoints_gradients(params.model.backbone):
        checkpoint_activations(vlm)
    if params.model.backbone != TINY and params.sft.lora.rank:
        vlm = lora.wrap(vlm, lora.config(**params.sft.lora.model_dump()))
    return Start(vlm, tokenizer, front)


def assemble(params: Params, settings: Settings, start: Start) -> tuple[GrowthModel, ParameterGroups]:
    """`start` with a fresh regression head, and the parameters of both that train."""
    section = params.sft
    model = model_folder.assemble(start.vlm, settings, (section.ce_weight, section.mse_weight))
    rates = section.lr.tiny if params.model.backbone == TINY else section.lr.pretrained
    # With mse_weight 0 the words train alone and the head stays as it was drawn.
    groups = sft_groups(model, rates, section.freeze_encoder_epochs, head=section.mse_weight > 0)
    hold_weights(model, groups.parameters(), weights_dtype(params))
    return model, groups


def validation_metrics(predicted, reader: Reader, rows: pd.DataFrame) -> dict[str, float]:
    """Metrics of an epoch: head and words in ‰ per year, and `selection`, by which the best epoch is kept.

    `selection` is the mean R² of head and words, of those that train. While fewer than 99 % of the answers have the
    asked form, it is −10 − cross-entropy, so that a run that still learns the form is not stopped. R² counts an answer
    that cannot be parsed as the training mean.
    """
    prediction, network, cross_entropy = predicted.predictions
    label = reader.settings.label
    truth, head = rows.growth_rate.to_numpy(), prediction * label.sd + label.mean
    words = parsed(reader.greedy(rows), reader.settings.language)
    said = np.where(np.isfinite(words), words, label.mean)
    values = {
        "r2": r2_score(truth, head),
        "mae": mean_absolute_error(truth, head),
        "network_sd": network.std() * label.sd,
        "cross_entropy": cross_entropy.mean(),
        "text_r2": r2_score(truth, said),
        "text_mae": mean_absolute_error(truth, said),
        "parse_rate": np.isfinite(words).mean(),
    }
    trained = [values["r2"]] * bool(reader.model.mse_weight) + [values["text_r2"]] * bool(reader.model.ce_weight)
    formed = values["parse_rate"] >= FORMED or not reader.model.ce_weight
    values["selection"] = max(np.mean(trained), -10) if formed else -10 - values["cross_entropy"]
    return {name: float(value) for name, value in values.items()}


def make_settings(params: Params, store: Store, split: Split, front: BandFrontEnd) -> Settings:
    """Settings for bandwise.json: everything but weights that is needed to get from a tile to a number."""
    train, pca, ridge = split.rows("train"), None, None
    if front.weight is not None:
        pca = {"weight": front.weight.double().tolist(), "bias": front.bias.double().tolist()}
    if params.sft.head == "anchored":
        learnt, checked = (
            (regression.band_summaries(store, rows.tile.to_numpy(), front.side)[:, 0], rows.growth_rate.to_numpy())
            for rows in (train, split.rows("validation"))
        )
        fitted = regression.fit_ridge(*learnt, checked)
        ridge = {"weight": fitted.weight.tolist(), "intercept": float(fitted.intercept), "alpha": float(fitted.alpha)}
    label, pixel_size = train.growth_rate, store.tiles.pixel_size.median()
    return Settings.model_validate(
        {
            "bands": store.bands,
            "quantisation": store.quantisation.as_dict(),
            "input": params.model.input,
            "band_names": store.band_names,
            "pixel_size": float(pixel_size) if np.isfinite(pixel_size) else None,
            "band_mean": front.mean.double().tolist(),
            "band_sd": front.sd.double().tolist(),
            "pca": pca,
            "side": front.side,
            "label": {
                "mean": split.facts["label_mean"],
                "sd": split.facts["label_sd"],
                "low": float(label.min()),
                "high": float(label.max()),
                "unit": model_folder.LABEL_UNIT,
            },
            "language": params.sft.language,
            "prompt": prompts.template(params),
            "covariates": covariate_settings(params, split).model_dump(),
            "tile_lag_years": in_years(params.data.tile_lag, split, "data.tile_lag"),
            "head": {
                "kind": params.sft.head,
                "width": params.sft.head_width,
                "dropout": float(params.sft.head_dropout),
                "ridge": ridge,
            },
            "split_hash": split.facts["hash"],
            "pretrained_on": params.pretrain.tiles,
        }
    )
