"""Parts of masked autoencoding: the model, its views of tiles, its validation errors, and its folder."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import nn
from transformers.vision_utils import get_vision_position_ids

from src.core.data.augment import MASK, VIEW, draw_box, generator, orient, resized_crop
from src.core.data.tile_store import Store
from src.core.models.mae import MaskedAutoencoder
from src.core.models.mae_figure import reconstruction_grid
from src.core.models.mae_nulls import masked_errors
from src.core.models.patches import BandFrontEnd, tokens_per_sample, unpatchify
from src.core.report import fonts
from src.core.stage import files
from src.core.stage.model_params import TINY
from src.core.training.global_batches import ReadyBatches
from src.core.training.parameter_groups import ParameterGroups, checkpoint_activations
from src.core.training.precision import autocast, hold_weights
from src.core.training.trainer_arguments import to
from src.population.data.stage_inputs import MEAN, Split, stored_tiles
from src.population.models.starting_model import Start
from src.population.models.trained_groups import pretrain_groups
from src.population.models.training_setup import weights_dtype
from src.population.params import Params

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class TileViews(ReadyBatches):
    """`samples_per_file` views of each tile of `rows`; every draw is a function of (seed, epoch, index).

    With `scales` None the views are the tiles themselves, unturned, and the masks the same in every
    epoch: for validation.
    """

    store: Store
    rows: list[int]
    side: int
    units: int
    seed: int
    samples_per_file: int = 1
    scales: list[float] | None = None

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch if self.scales else 0

    def __len__(self) -> int:
        return len(self.rows) * self.samples_per_file

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        rows = [self.rows[index // self.samples_per_file] for index in indices]
        noise = [generator(self.seed, self.epoch, index, MASK).random(self.units) for index in indices]
        batch = stored_tiles(self.store, rows) | {"noise": torch.from_numpy(np.stack(noise)).float()}
        if self.scales:
            draws = [generator(self.seed, self.epoch, index, VIEW) for index in indices]
            batch["boxes"] = torch.tensor([draw_box(draw, self.side, self.scales) for draw in draws])
            batch["orientation"] = torch.tensor([int(draw.integers(8)) for draw in draws])
        return batch


class Pretraining(nn.Module):
    """Front end and masked autoencoder: stored tiles in, loss out."""

    def __init__(self, front: BandFrontEnd, mae: MaskedAutoencoder, mask_ratio: float):
        super().__init__()
        self.front, self.mae, self.mask_ratio = front, mae, mask_ratio

    def images(self, tiles, valid, boxes=None, orientation=None) -> tuple[torch.Tensor, torch.Tensor]:
        """Standardised images and their valid pixels; crops are resized as dequantised vectors."""
        values, valid = self.front.dequantise(tiles, valid)
        if boxes is not None:
            unit_norm = self.front.quantisation.kind == "alphaearth"
            values, valid = resized_crop(values, valid, boxes, unit_norm=unit_norm)
            values, valid = orient(values, orientation), orient(valid, orientation)
        return self.front.images(values, valid), valid

    def forward(self, tiles, valid, noise, boxes=None, orientation=None) -> dict[str, torch.Tensor]:
        images, valid = self.images(tiles, valid, boxes, orientation)
        return {"loss": self.mae(images, valid, noise, self.mask_ratio)["loss"]}


def assemble(params: Params, start: Start) -> tuple[Pretraining, ParameterGroups]:
    """The vision encoder of `start` with a fresh decoder, and the parameters that train."""
    section = params.pretrain
    decoder = (section.decoder.depth, section.decoder.width, section.decoder.heads)
    visual = start.vlm.model.visual
    mae = MaskedAutoencoder(visual, start.front.side, section.encoder, decoder, section.norm_pix_loss)
    groups = pretrain_groups(mae, section.lr.tiny if params.model.backbone == TINY else section.lr.pretrained)
    hold_weights(mae, groups.parameters(), weights_dtype(params))
    if params.memory.checkpoints_gradients(params.model.backbone):
        checkpoint_activations(start.vlm)
    return Pretraining(start.front, mae, section.mask_ratio), groups


def views(params: Params, store: Store, split: Split, model: Pretraining) -> tuple[TileViews, TileViews]:
    """Augmented views of the tiles to train on, and the validation tiles as they are."""
    section, visual = params.pretrain, model.mae.visual
    patches, units = tokens_per_sample(model.front.side, visual.config)
    common = {"side": model.front.side, "units": units, "seed": params.seed}
    known = sorted(split.tiles.tile[split.tiles.role != "locked"])
    chosen = split.tile_rows("train") if section.tiles == "train" else known
    train = TileViews(store, chosen, samples_per_file=section.samples_per_file, scales=section.scales, **common)
    # Where labels share tiles over time no tile is one of validation: then those of the validation labels.
    held_out = split.tile_rows("validation") or sorted(set(split.rows("validation").tile))
    validation = TileViews(store, held_out, **common)
    logger.info(
        "%d views of %d tiles, validation on %d, %d patches of %d px a tile in %d units of which %.0f %% masked",
        len(train), len(chosen), len(validation), patches, visual.config.patch_size, units, 100 * section.mask_ratio,
    )  # fmt: skip
    return train, validation


@torch.no_grad()
def measure(model: Pretraining, validation: TileViews, batch_size: int, plots: Path) -> None:
    """Write mean squared errors on masked patches of all validation tiles, the model's beside its nulls, as
    masked_mse.json into `plots`, and reconstruction.png."""
    mae = model.mae
    positions = get_vision_position_ids(torch.tensor([[1, mae.grid, mae.grid]]), mae.merge_size)
    positions = positions.to(mae.mask_token.device)
    sums: dict[str, float] = {}
    values = 0.0
    # Parts of equal size, two tiles at least: a single one would have no other context to swap with.
    for part in torch.arange(len(validation)).tensor_split(math.ceil(len(validation) / max(batch_size, 2))):
        batch = to(validation.__getitems__(part.tolist()), positions.device)
        images, valid = model.images(batch["tiles"], batch["valid"])
        with autocast(mae):
            found, count = masked_errors(mae, images, valid, batch["noise"], model.mask_ratio, positions)
        sums = {name: sums.get(name, 0.0) + value for name, value in found.items()}
        values += count
    errors = {name: round(total / values, 6) for name, total in sums.items()}
    files.write_json(plots / "masked_mse.json", errors)
    logger.info("masked MSE on validation: %s", {name: round(value, 4) for name, value in errors.items()})
    draw_reconstructions(plots / "reconstruction.png", model, validation)


def save(folder: Path, start: Start, params: Params) -> None:
    """Write the whole model, with the band means that it was trained with."""
    hold_weights(start.vlm, [], weights_dtype(params))
    start.vlm.save_pretrained(folder)
    safetensors.torch.save_file({"mean": start.front.mean.cpu()}, folder / MEAN)
    start.tokenizer.save_pretrained(folder)


@torch.no_grad()
def draw_reconstructions(path: Path, model: Pretraining, held_out: TileViews) -> None:
    """Original, visible part and reconstruction of the first three validation tiles."""
    mae = model.mae
    batch = to(held_out.__getitems__(list(range(min(3, len(held_out))))), mae.mask_token.device)
    images, valid = model.images(batch["tiles"], batch["valid"])
    with autocast(mae):
        out = mae(images, valid, batch["noise"], model.mask_ratio)
    mask = out["mask"][:, :, None, None, None].expand_as(out["prediction"])
    side = images.shape[-1]
    mask = unpatchify(mask, side, side)[:, :1]
    mended = torch.where(mask, unpatchify(mae.reconstruct(images, valid, out["prediction"]), side, side), images)
    places = ((row, held_out.store.tiles.tile_id[row].rsplit("/", 1)[0]) for row in held_out.rows[: len(images)])
    names = [fonts.drawable(place, f"tile {row}") for row, place in places]
    reconstruction_grid(
        path, images[:, :3].cpu().numpy(), mask[:, 0].cpu().numpy(), mended[:, :3].float().cpu().numpy(), names
    )
