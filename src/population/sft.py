"""Supervised fine-tuning of a whole Qwen-VL model: a growth rate in words and through a regression head.

    python -m src.population.sft --tiles data/population/tiles --split data/population/split \
        --pca data/population/pca --pretrain models/population/pretrain \
        --out models/population/sft --plots plots/population/sft

Writes a model folder (weights, head.safetensors, bandwise.json) and curves.
"""

from src.core.stage import run

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

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import mean_absolute_error, r2_score
from transformers import AutoTokenizer, EarlyStoppingCallback, Trainer, TrainingArguments, set_seed

from src.core.baselines import regression
from src.core.data.tile_store import Store
from src.core.models import lora, qwen_vl
from src.core.models.patches import BandFrontEnd, tiles_at_once
from src.core.stage import distributed, files
from src.core.training import checkpoints
from src.core.training.dry_run_report import report_on
from src.core.training.dvclive_log import LiveLog
from src.core.training.global_batches import GlobalBatchMixin
from src.core.training.parameter_groups import checkpoint_activations
from src.core.training.precision import compute_dtype, hold_weights
from src.core.training.sharding import ShardingMixin, gather_weights
from src.core.training.trainer_arguments import arguments, cosine_schedule, memory_advice
from src.population.data.permuted_labels import permuted
from src.population.data.samples import GrowthSamples, Prompter, covariate_settings, identity, in_years
from src.population.data.stage_inputs import Split, front_end, read_mean, read_pca, read_split
from src.population.models import model_folder, prompts
from src.population.models.inference import Reader, parsed
from src.population.models.model_folder import Settings
from src.population.models.starting_model import starting_model
from src.population.models.trained_groups import sft_groups
from src.population.params import TINY, Params

logger = logging.getLogger(__name__)
FORMED = 0.99  # share of answers that must parse before a growth rate in them counts


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    run.set_threads(params.threads)
    set_seed(params.seed)
    store = Store.open(inputs.tiles)
    split = permuted(read_split(inputs.split, store), params.seed, params.sft.permutation)
    pca = read_pca(inputs.pca)
    tiny = params.model.backbone == TINY
    precision = compute_dtype(params.memory.precision)
    dtype = torch.float32 if tiny else precision
    if dry_run and not tiny:  # shapes say what fits
        vlm, tokenizer, mean = starting_model(params.model, store, split, pca, params.seed, dtype, meta=True)
    else:
        vlm = qwen_vl.load(
            inputs.pretrain,
            channels=store.bands if params.model.input == "bands" else len(pca[0]),
            dtype=dtype,
            four_bit=params.memory.four_bit,
            attention=params.memory.attention,
        )
        tokenizer, mean = AutoTokenizer.from_pretrained(inputs.pretrain), read_mean(inputs.pretrain)
    if params.memory.checkpoints_gradients(params.model.backbone):
        checkpoint_activations(vlm)
    if not tiny and params.sft.lora.rank:
        vlm = lora.wrap(vlm, lora.config(**params.sft.lora.model_dump()))
    front = front_end(store, mean, split, pca, params.model, vlm.config.vision_config)
    settings = make_settings(params, store, split, front)
    model = model_folder.assemble(vlm, settings, (params.sft.ce_weight, params.sft.mse_weight))
    rates = params.sft.lr.tiny if tiny else params.sft.lr.pretrained
    # With mse_weight 0 the words train alone and the head stays as it was drawn.
    groups = sft_groups(model, rates, params.sft.freeze_encoder_epochs, head=params.sft.mse_weight > 0)
    hold_weights(model, groups.parameters(), dtype)

    prompter = Prompter(tokenizer, settings, vlm.config.vision_config)
    train = GrowthSamples(store, split.rows("train"), prompter, params.seed, params.sft.augment)
    validation = GrowthSamples(store, split.rows("validation"), prompter, params.seed, augment=False)
    logger.info(
        "%d training and %d validation labels, a tile is %d patches of %d px and %d image tokens",
        len(train),
        len(validation),
        prompter.patches,
        vlm.config.vision_config.patch_size,
        prompter.image_tokens,
    )
    logger.info(groups.describe())
    if dry_run:
        logger.info(
            report_on(
                train,
                model,
                groups,
                stage=params.sft,
                settings=params.memory,
                checkpointing=params.memory.checkpoints_gradients(params.model.backbone),
            )
        )
        return

    scratch = checkpoints.folder(
        params.checkpoint_root,
        "sft",
        {"seed": params.seed, "threads": params.threads, "memory": params.memory.model_dump()}
        | {"model": params.model.model_dump(), "sft": params.sft.model_dump()}
        | {"prompt": params.prompt.model_dump(), "covariates": params.data.covariates}
        | {"lags": [params.data.covariate_lag, params.data.tile_lag]},
        [inputs.tiles / "manifest.json", inputs.split, inputs.pca, inputs.pretrain],
    )
    args = TrainingArguments(
        **arguments(
            scratch,
            seed=params.seed,
            epochs=params.sft.epochs,
            batch_size=params.sft.batch_size,
            accumulate=params.sft.accumulate,
            eval_batch=tiles_at_once(params.sft.batch_size // params.sft.accumulate, store.bands, front.side),
            report_to=params.report_to,
            best="eval_selection",
            label_names=["target"],
            dtype=precision,
        )
    )
    optimizer = groups.optimizer(params.sft.weight_decay, eight_bit=params.memory.optimizer_8bit)
    # What is read at once fits where as much is trained on at once.
    reader = Reader(model, tokenizer, settings, store, args.per_device_eval_batch_size)
    advice = memory_advice("sft", "LoRA on the encoder (sft.lora.encoder: true)", "memory.four_bit: true")
    with advice, files.complete_folder(out.out) as folder, files.complete_folder(out.plots) as plots:
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
        gather_weights(trainer.model)
        if distributed.is_main():
            model_folder.save(folder, model, tokenizer, settings, inputs.pretrain, dtype)
    checkpoints.remove(scratch)


class SftTrainer(GlobalBatchMixin, ShardingMixin, checkpoints.TrainedWeightsMixin, Trainer):
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


def make_settings(params: Params, store: Store, split: Split, front: BandFrontEnd) -> Settings:
    """What bandwise.json will hold: everything between a tile and a number that is not a weight."""
    pca = None
    if front.weight is not None:
        pca = {"weight": front.weight.double().tolist(), "bias": front.bias.double().tolist()}
    train, validation = split.rows("train"), split.rows("validation")
    ridge = None
    if params.sft.head == "anchored":
        fitted = regression.fit_ridge(
            regression.band_means(store, train.tile.to_numpy(), front.side),
            train.growth_rate.to_numpy(),
            regression.ALPHAS,
            (regression.band_means(store, validation.tile.to_numpy(), front.side), validation.growth_rate.to_numpy()),
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


if __name__ == "__main__":
    run.stage(main, Params, **CLI)
