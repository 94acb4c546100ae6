"""Small networks on tiles as baselines: an MLP on their statistics, a small CNN, a ResNet-18, none pretrained.

All are trained in the same way. Nothing is saved, so an interrupted training starts again.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm
from transformers import (
    PrinterCallback,
    ResNetConfig,
    ResNetModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from src.core.data.augment import ORIENT, generator, orient
from src.core.data.band_statistics import standardise
from src.core.data.crop import centre_crop
from src.core.data.tile_store import Store
from src.core.training.global_batches import GlobalBatchMixin, ReadyBatches, ready
from src.core.training.trainer_arguments import Plan, arguments, cosine_schedule

BATCH = 32
SIDE = 128  # px; larger tiles are averaged down to it
IMAGE_BYTES = 2**32  # of all images, which are held in memory: every epoch of every setting reads them
PATIENCE = 5  # epochs without a lower squared error on validation
WARMUP = 0.1
WIDTH = 64


def tile_images(store: Store, tiles: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> torch.Tensor:
    """Standardised centre squares of the tiles, masked pixels 0, averaged over valid pixels down to SIDE px or less.

    Returns:
        (N, C, S, S) float16, where S is such that all of them take at most IMAGE_BYTES.
    """
    square = min(store.height, store.width)
    fits = int((IMAGE_BYTES / (2 * len(tiles) * store.bands)) ** 0.5)
    side = max(1, min(square, SIDE, fits))
    images = torch.empty(len(tiles), store.bands, side, side, dtype=torch.float16)
    for row, tile in enumerate(tqdm(tiles, desc="images", unit="tile", leave=False)):
        pixels, valid = (centre_crop(array, square, square) for array in (store.view(tile), store.valid([tile])[0]))
        values = torch.from_numpy(standardise(pixels, valid, store.quantisation, mean, sd))
        if side < square:
            share = functional.adaptive_avg_pool2d(torch.from_numpy(valid)[None].float(), side)
            values = functional.adaptive_avg_pool2d(values, side) / share.clamp_min(1e-6)
        images[row] = values
    return images


class TileRows(ReadyBatches):
    """Ready batches of label rows.

    Args:
        sample: (N,) numbers of the rows.
        columns, target: (N, F) and (N,), standardised.
        images: (T, C, S, S) of `tile_images` and (N,) which of them is each row's; None: columns alone.
        seed: with it each image is turned by one of the 8 flips and rotations, a function of (seed, epoch, sample).
    """

    def __init__(self, sample, columns, target, images=None, seed: int | None = None):
        self.sample, self.images, self.seed = sample, images, seed
        self.columns, self.target = (torch.as_tensor(value, dtype=torch.float32) for value in (columns, target))

    def __len__(self) -> int:
        return len(self.sample)

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        batch = {"columns": self.columns[indices], "target": self.target[indices]}
        if self.images:
            pixels, of_row = self.images
            batch["tiles"] = pixels[of_row[indices]].float()
            if self.seed is not None:
                samples = self.sample[indices]
                turns = [generator(self.seed, self.epoch, int(sample), ORIENT).integers(8) for sample in samples]
                batch["tiles"] = orient(batch["tiles"], torch.tensor(turns))
        return batch


class TileNetwork(nn.Module):
    """A body on the image, where there is one; its features and the columns meet in the head."""

    def __init__(self, kind: str, bands: int, columns: int):
        super().__init__()
        self.body, last = None, nn.Linear(WIDTH, 1)
        if kind == "mlp":
            self.head = nn.Sequential(nn.Linear(columns, WIDTH), nn.GELU(), nn.Dropout(0.1), last)
        elif kind == "cnn":
            self.body = nn.Sequential(
                *_convolution(bands, WIDTH // 2), nn.MaxPool2d(2, ceil_mode=True), *_convolution(WIDTH // 2, WIDTH)
            )
            self.head = last = nn.Linear(WIDTH + columns, 1)
        else:
            self.body = ResNetModel(resnet18_config(bands))
            self.head = last = nn.Linear(self.body.config.hidden_sizes[-1] + columns, 1)
        # Predictions start at the training mean: with few labels they should not move far from it.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, columns: torch.Tensor, target: torch.Tensor, tiles: torch.Tensor | None = None) -> dict:
        features = columns
        if self.body is not None:
            features = self.body(tiles)
            features = getattr(features, "last_hidden_state", features).mean((2, 3))
            features = torch.cat([features, columns], dim=1)
        prediction = self.head(features).squeeze(1)
        return {"loss": functional.mse_loss(prediction, target), "prediction": prediction}


def resnet18_config(bands: int) -> ResNetConfig:
    """ResNet-18 (He et al. 2016, table 1) for images of `bands`."""
    widths, depths = [64, 128, 256, 512], [2, 2, 2, 2]
    return ResNetConfig(num_channels=bands, embedding_size=64, hidden_sizes=widths, depths=depths, layer_type="basic")


def train_network(
    kind: str, setting: dict, train: TileRows, validation: TileRows, held: TileRows, *, seed: int, epochs: int
) -> tuple[np.ndarray, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Train one network and predict `held` with its best epoch.

    Args:
        kind: mlp | cnn | resnet18.
        setting: lr and weight_decay of AdamW.
        epochs: of the cosine schedule; training ends PATIENCE epochs after the best one.

    Returns:
        (M,) float64 predictions of standardised labels; train and validation -> (epoch, squared error).
    """
    set_seed(seed)
    network = TileNetwork(kind, train.images[0].shape[1] if train.images else 0, train.columns.shape[1])
    with TemporaryDirectory() as scratch:
        plan = Plan(seed=seed, epochs=epochs, batch_size=batch_size(len(train)), warmup_ratio=WARMUP)
        more = {"save_strategy": "no", "label_names": ["target"], "disable_tqdm": True}
        optimizer = torch.optim.AdamW(network.parameters(), fused=True, **setting)
        trainer = NetworkTrainer(
            model=network,
            args=TrainingArguments(**arguments(plan, Path(scratch), **more)),
            train_dataset=train,
            eval_dataset=validation,
            data_collator=ready,
            optimizers=(optimizer, cosine_schedule(optimizer, plan, len(train))),
        )
        trainer.remove_callback(PrinterCallback)
        best = BestEpoch(trainer)
        trainer.add_callback(best)
        trainer.train()
        network.load_state_dict(best.weights)
        prediction = trainer.predict(held).predictions.astype(np.float64)
    history = trainer.state.log_history
    lines = {"train": "loss", "validation": "eval_loss"}
    curves = {name: [(entry["epoch"], entry[key]) for entry in history if key in entry] for name, key in lines.items()}
    return prediction, {name: tuple(np.array(line, dtype=np.float64).T) for name, line in curves.items()}


class NetworkTrainer(GlobalBatchMixin, Trainer):
    """A Trainer whose order of samples is a function of (seed, epoch)."""


class BestEpoch(TrainerCallback):
    """Keeps in memory the weights of the epoch with the least validation loss; stops PATIENCE epochs after it."""

    def __init__(self, trainer: Trainer):
        self.trainer, self.weights, self.least, self.since = trainer, None, np.inf, 0

    def on_epoch_begin(self, args, state, control, **kwargs):
        for drawn in (self.trainer.train_dataset, self.trainer.batches):
            drawn.set_epoch(round(state.epoch))

    def on_evaluate(self, args, state, control, metrics=None, model=None, **kwargs):
        self.since += 1
        if self.weights is None or metrics["eval_loss"] < self.least:
            self.least, self.since = metrics["eval_loss"], 0
            self.weights = {name: value.clone() for name, value in model.state_dict().items()}
        control.should_training_stop |= self.since >= PATIENCE


def batch_size(rows: int) -> int:
    """Largest size up to BATCH for which no batch is a single row, which batch normalisation cannot use."""
    return next(size for size in range(BATCH, 1, -1) if rows % size != 1)


def _convolution(channels: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
