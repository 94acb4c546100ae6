"""Supervised fine-tuning of a whole Qwen-VL model: a growth rate in words and through a regression head.

    python -m src.population.sft --tiles data/population/tiles --split data/population/split \
        --pca data/population/pca --pretrain models/population/pretrain \
        --out models/population/sft --plots plots/population/sft

Writes a model folder (weights, head.safetensors, bandwise.json) and curves.
"""

from src.core import run

CLI = {
    "name": "population.sft",
    "doc": __doc__,
    "inputs": {
        "tiles": "output of preprocess",
        "split": "output of split",
        "pca": "output of pca",
        "pretrain": "output of pretrain",
    },
    "outputs": {"out": "model folder to write", "plots": "folder for curves"},
}
if __name__ == "__main__":
    run.command_line(**CLI).parse_args()  # --help ends here, before seconds of imports

import logging
import math
from pathlib import Path

import numpy as np
import pandas as pd
from peft import get_peft_model
from sklearn.metrics import mean_absolute_error, r2_score
from transformers import AutoTokenizer, EarlyStoppingCallback, Trainer, TrainingArguments, set_seed

from src.core import backbone, baselines, checkpoints, files
from src.core.live import LiveLog
from src.core.store import Store
from src.core.trainable import ParameterGroups
from src.core.training import arguments, cosine_schedule, rehearse, to
from src.population import model as model_folder
from src.population import prompts
from src.population.heads import GrowthModel
from src.population.inference import Reader, parsed
from src.population.inputs import Split, front_end, read_pca, read_split
from src.population.model import Settings
from src.population.params import Params, Sft
from src.population.samples import GrowthSamples, Prompter, identity

logger = logging.getLogger(__name__)
FORMED = 0.99  # share of answers that must parse before a growth rate in them counts


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    run.set_threads(params.threads)
    set_seed(params.seed)
    store = Store.open(inputs.tiles)
    split = read_split(inputs.split, store)
    front = front_end(store, split, inputs.pca, params.model)
    vlm = backbone.load(inputs.pretrain, channels=front.channels)
    tokenizer = AutoTokenizer.from_pretrained(inputs.pretrain)
    if params.model.backbone != "tiny":
        vlm = get_peft_model(vlm, model_folder.lora_config(params.sft))
    settings = make_settings(params, store, split, inputs.pca, vlm.config.vision_config)
    model = model_folder.assemble(vlm, settings, (params.sft.ce_weight, params.sft.mse_weight))
    groups = parameter_groups(model, params.sft)

    prompter = Prompter(tokenizer, settings, vlm.config.vision_config)
    train = GrowthSamples(store, split.rows("train"), prompter, params.seed, params.sft.augment)
    validation = GrowthSamples(store, split.rows("validation"), prompter, params.seed, augment=False)
    logger.info(
        "%d training and %d validation labels, %d image tokens a tile",
        len(train),
        len(validation),
        prompter.image_tokens,
    )
    logger.info(groups.describe())
    if dry_run:
        steps = math.ceil(len(train) / params.sft.batch_size) * params.sft.epochs
        batch = train.__getitems__(list(range(min(params.sft.batch_size, len(train)))))
        logger.info(rehearse(model, groups, steps, lambda device: model(**to(batch, device))["loss"]))
        return

    scratch = checkpoints.folder(
        params.checkpoint_root,
        "sft",
        {"seed": params.seed, "threads": params.threads}
        | {"model": params.model.model_dump(), "sft": params.sft.model_dump()},
        [inputs.tiles / "manifest.json", inputs.split, inputs.pca, inputs.pretrain],
    )
    args = TrainingArguments(
        **arguments(
            scratch,
            seed=params.seed,
            epochs=params.sft.epochs,
            batch_size=params.sft.batch_size,
            report_to=params.report_to,
            best="eval_selection",
            label_names=["target"],
        )
    )
    optimizer = groups.optimizer(params.sft.weight_decay)
    reader = Reader(model, tokenizer, settings, store, batch_size=4 * params.sft.batch_size)
    with files.complete_folder(out.out) as folder, files.complete_folder(out.plots) as plots:
        trainer = SftTrainer(
            model=model,
            args=args,
            train_dataset=train,
            eval_dataset=validation,
            data_collator=identity,
            compute_metrics=lambda predicted: validation_metrics(predicted, reader, validation.rows),
            optimizers=(optimizer, cosine_schedule(optimizer, args, len(train), params.sft.warmup_ratio)),
            callbacks=[groups, LiveLog(plots), EarlyStoppingCallback(params.sft.patience)],
        )
        checkpoints.train(trainer, scratch, params.sft.save_steps)
        groups.assert_moved()
        model_folder.save(folder, model, tokenizer, settings)
    checkpoints.remove(scratch)


class SftTrainer(checkpoints.TrainedWeightsMixin, Trainer):
    """A Trainer whose checkpoints hold trained weights alone."""


def validation_metrics(predicted, reader: Reader, rows: pd.DataFrame) -> dict[str, float]:
    """What every epoch records: head and words in ‰ per year, and `selection`, by which the best epoch is kept.

    One model answers in two ways, so `selection` is the mean of both R² (of those that train). Before 99 % of
    the answers have the asked form it is −10 less their cross-entropy: form comes first, and a run that is
    still learning it is not stopped. (R² counts an answer that cannot be parsed as the training mean.)
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


def make_settings(params: Params, store: Store, split: Split, pca_folder: Path, vision_config) -> Settings:
    """What bandwise.json will hold: everything between a tile and a number that is not a weight."""
    front = front_end(store, split, pca_folder, params.model, vision_config)
    pca = None
    if params.model.input == "pca3":
        weight, bias = read_pca(pca_folder)
        pca = {"weight": weight.double().tolist(), "bias": bias.double().tolist()}
    train, validation = split.rows("train"), split.rows("validation")
    ridge = None
    if params.sft.head == "anchored":
        fitted = baselines.fit_ridge(
            baselines.band_means(store, train.tile.to_numpy(), front.side),
            train.growth_rate.to_numpy(),
            baselines.ALPHAS,
            (baselines.band_means(store, validation.tile.to_numpy(), front.side), validation.growth_rate.to_numpy()),
        )
        ridge = {"weight": fitted.weight.tolist(), "intercept": float(fitted.intercept), "alpha": float(fitted.alpha)}
    label, pixel_size = train.growth_rate, store.tiles.pixel_size.median()
    return Settings.model_validate(
        {
            "bands": store.bands,
            "quantisation": store.quantisation.as_dict(),
            "input": params.model.input,
            "band_names": store.band_names,
            "pixel_size": float(pixel_size) if np.isfinite(pixel_size) else None,
            "band_mean": split.mean.double().tolist(),
            "band_sd": split.sd.double().tolist(),
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
            "prompt": prompts.template(params.sft),
            "covariates": params.sft.covariates,
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


def parameter_groups(model: GrowthModel, sft: Sft) -> ParameterGroups:
    """Language model or its LoRA, merger, head; encoder from `freeze_encoder_epochs` on, at its own rate."""
    lora = hasattr(model.vlm, "get_base_model")
    core = model.vlm.get_base_model() if lora else model.vlm
    visual = backbone.vision_encoder(core)
    mergers = {id(p) for name, p in visual.named_parameters() if "merger" in name}
    encoder = [p for p in visual.parameters() if id(p) not in mergers]
    merger = [p for p in visual.parameters() if id(p) in mergers]
    seen = {id(p) for p in visual.parameters()}
    language = [p for name, p in model.vlm.named_parameters() if id(p) not in seen and (not lora or "lora_" in name)]
    return ParameterGroups(
        {
            # First, because Trainer logs the rate of the first group.
            "lora" if lora else "language": (language, sft.lr, 0),
            "merger": (merger, sft.lr, 0),
            # With mse_weight 0 the words train alone and the head stays as it was drawn.
            "head": (list(model.head.parameters()) if sft.mse_weight else [], sft.lr, 0),
            "encoder": (encoder, sft.encoder_lr, sft.freeze_encoder_epochs),
        }
    )


if __name__ == "__main__":
    run.stage(main, Params, **CLI)
