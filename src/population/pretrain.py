"""Masked autoencoding of tiles with the vision encoder of a Qwen-VL model, on visible tokens only.

    python -m src.population.pretrain --tiles data/population/tiles --split data/population/split \
        --pca data/population/pca --out models/population/pretrain --plots plots/population/pretrain

Writes the whole model (encoder trained, the rest as it was) in Hugging Face layout, curves, a grid of
original, masked and reconstructed tiles, and `masked_mse.json`: errors on validation tiles beside nulls.
"""

from src.core.stage import run

CLI = {
    "name": "population.pretrain",
    "doc": __doc__,
    "inputs": {"tiles": "output of preprocess", "split": "output of split", "pca": "output of pca"},
    "outputs": {"out": "model folder to write", "plots": "folder for curves and pictures"},
}
if __name__ == "__main__":
    run.command_line(**CLI).parse_args()  # --help ends here, before seconds of imports

import logging
import math
from pathlib import Path

import torch
from transformers import Trainer, TrainingArguments, set_seed
from transformers.vision_utils import get_vision_position_ids

from src.core.data.tile_store import Store
from src.core.models import hub, qwen_vl
from src.core.models.mae import MaskedAutoencoder
from src.core.models.mae_figure import reconstruction_grid
from src.core.models.mae_nulls import masked_errors
from src.core.models.patches import tiles_at_once, tokens_per_sample, unpatchify
from src.core.stage import distributed, files
from src.core.training import checkpoints
from src.core.training.dry_run_report import report_on
from src.core.training.dvclive_log import LiveLog
from src.core.training.global_batches import GlobalBatchMixin
from src.core.training.parameter_groups import checkpoint_activations
from src.core.training.precision import autocast, compute_dtype, hold_weights
from src.core.training.sharding import ShardingMixin, gather_weights
from src.core.training.trainer_arguments import arguments, cosine_schedule, memory_advice
from src.population.data.masked_views import Pretraining, TileViews
from src.population.data.samples import identity
from src.population.data.stage_inputs import front_end, read_pca, read_split, write_mean
from src.population.models.starting_model import starting_model
from src.population.models.trained_groups import pretrain_groups
from src.population.params import TINY, Params

logger = logging.getLogger(__name__)


class PretrainTrainer(GlobalBatchMixin, ShardingMixin, checkpoints.TrainedWeightsMixin, Trainer):
    """A Trainer whose checkpoints hold trained weights alone."""


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    run.set_threads(params.threads)
    set_seed(params.seed)
    store = Store.open(inputs.tiles)
    split = read_split(inputs.split, store)
    pca = read_pca(inputs.pca)
    tiny = params.model.backbone == TINY
    precision = compute_dtype(params.memory.precision)
    dtype = torch.float32 if tiny else precision
    meta = dry_run and not tiny  # shapes say what fits
    vlm, tokenizer, mean = starting_model(
        params.model, store, split, pca, params.seed, dtype, params.memory.attention, meta
    )
    visual = qwen_vl.vision_encoder(vlm)
    front = front_end(store, mean, split, pca, params.model, visual.config)

    chosen = split.tile_rows("train") if params.pretrain.tiles == "train" else split.all_tile_rows()
    patches, units = tokens_per_sample(front.side, visual.config)
    common = {"side": front.side, "units": units, "seed": params.seed}
    views = TileViews(
        store,
        chosen,
        samples_per_file=params.pretrain.samples_per_file,
        scales=params.pretrain.scales,
        **common,
    )
    held_out = TileViews(store, split.held_out_tile_rows(), **common)
    decoder = params.pretrain.decoder
    mae = MaskedAutoencoder(
        visual,
        front.side,
        params.pretrain.encoder,
        (decoder.depth, decoder.width, decoder.heads),
        params.pretrain.norm_pix_loss,
    )
    model = Pretraining(front, mae, params.pretrain.mask_ratio)
    rates = params.pretrain.lr.tiny if tiny else params.pretrain.lr.pretrained
    groups = pretrain_groups(mae, rates)
    hold_weights(mae, groups.parameters(), dtype)
    if params.memory.checkpoints_gradients(params.model.backbone):
        checkpoint_activations(vlm)
    logger.info(
        "%d views of %d tiles, validation on %d, %d patches of %d px a tile in %d units of which %.0f %% masked",
        len(views), len(chosen), len(held_out), patches, visual.config.patch_size, units,
        100 * params.pretrain.mask_ratio,
    )  # fmt: skip
    logger.info(groups.describe())
    if dry_run:
        logger.info(
            report_on(
                views,
                model,
                groups,
                stage=params.pretrain,
                settings=params.memory,
                checkpointing=params.memory.checkpoints_gradients(params.model.backbone),
            )
        )
        return

    advice = memory_advice("pretrain")
    with advice, files.complete_folder(out.out) as folder, files.complete_folder(out.plots) as plots:
        if params.pretrain.epochs:
            scratch = checkpoints.folder(
                params.checkpoint_root,
                "pretrain",
                {"seed": params.seed, "threads": params.threads, "memory": params.memory.model_dump()}
                | {"model": params.model.model_dump(), "pretrain": params.pretrain.model_dump()},
                # DVC does not know the backbone, so what it holds is looked at here.
                [inputs.tiles / "manifest.json", inputs.split, inputs.pca]
                + ([] if tiny else [hub.known_folder(params.model.backbone)]),
            )
            args = TrainingArguments(
                **arguments(
                    scratch,
                    seed=params.seed,
                    epochs=params.pretrain.epochs,
                    batch_size=params.pretrain.batch_size,
                    accumulate=params.pretrain.accumulate,
                    eval_batch=tiles_at_once(
                        params.pretrain.batch_size // params.pretrain.accumulate, store.bands, front.side
                    ),
                    report_to=params.report_to,
                    label_names=["noise"],  # what makes Trainer ask for a loss in validation
                    prediction_loss_only=True,
                    dtype=precision,
                )
            )
            optimizer = groups.optimizer(
                params.pretrain.weight_decay, betas=(0.9, 0.95), eight_bit=params.memory.optimizer_8bit
            )
            schedule = cosine_schedule(optimizer, args, len(views), params.pretrain.warmup_ratio)
            trainer = PretrainTrainer(
                model=model,
                args=args,
                train_dataset=views,
                eval_dataset=held_out,
                data_collator=identity,
                optimizers=(optimizer, schedule),
                callbacks=[groups, LiveLog(plots)],
            )
            checkpoints.train(trainer, scratch, params.pretrain.save_steps)
            groups.assert_moved()
            gather_weights(trainer.model)
            model.eval()
            if distributed.is_main():
                errors = validation_errors(model, held_out, args.per_device_eval_batch_size)
                draw_reconstructions(plots / "reconstruction.png", model, held_out)
                files.write_json(plots / "masked_mse.json", errors)
                logger.info("masked MSE on validation: %s", {name: round(value, 4) for name, value in errors.items()})
        if distributed.is_main():
            hold_weights(vlm, [], dtype)
            vlm.save_pretrained(folder)
            write_mean(folder, front)
            tokenizer.save_pretrained(folder)
    if params.pretrain.epochs:
        checkpoints.remove(scratch)


@torch.no_grad()
def validation_errors(model: Pretraining, held_out: TileViews, batch_size: int) -> dict[str, float]:
    """Mean squared errors on masked patches of all validation tiles, the model's beside its nulls."""
    mae = model.mae
    device = mae.mask_token.device
    positions = get_vision_position_ids(torch.tensor([[1, mae.grid, mae.grid]]), mae.merge_size).to(device)
    sums: dict[str, float] = {}
    values = 0.0
    # Parts of equal size, two tiles at least: a single one would have no other context to swap with.
    for part in torch.arange(len(held_out)).tensor_split(math.ceil(len(held_out) / max(batch_size, 2))):
        batch = held_out.__getitems__(part.tolist())
        images, valid = model.images(batch["tiles"].to(device), batch["valid"].to(device))
        with autocast(mae):
            errors, count = masked_errors(mae, images, valid, batch["noise"].to(device), model.mask_ratio, positions)
        sums = {name: sums.get(name, 0.0) + value for name, value in errors.items()}
        values += count
    return {name: round(total / values, 6) for name, total in sums.items()}


@torch.no_grad()
def draw_reconstructions(path: Path, model: Pretraining, held_out: TileViews, count: int = 3) -> None:
    """Original, visible part and reconstruction of the first validation tiles."""
    mae = model.mae
    device = mae.mask_token.device
    batch = held_out.__getitems__(list(range(min(count, len(held_out)))))
    images, valid = model.images(batch["tiles"].to(device), batch["valid"].to(device))
    with autocast(mae):
        out = mae(images, valid, batch["noise"].to(device), model.mask_ratio)
    mask = out["mask"][:, :, None, None, None].expand_as(out["prediction"])
    side = images.shape[-1]
    mask = unpatchify(mask, side, side)[:, :1]
    mended = torch.where(mask, unpatchify(mae.reconstruct(images, valid, out["prediction"]), side, side), images)
    names = [held_out.store.tiles.tile_id[row].rsplit("/", 1)[0] for row in held_out.rows[: len(images)]]
    reconstruction_grid(
        path, images[:, :3].cpu().numpy(), mask[:, 0].cpu().numpy(), mended[:, :3].float().cpu().numpy(), names
    )


if __name__ == "__main__":
    run.stage(main, Params, **CLI)
