"""Masked views of tiles for pretraining, as ready batches and as the module that turns them into a loss."""

import numpy as np
import torch

from src.core.data.augment import MASK, VIEW, draw_box, generator
from src.core.data.tile_store import Store
from src.core.training.global_batches import ReadyBatches


class TileViews(ReadyBatches):
    """`samples_per_file` views of each tile of `rows`; every draw is a function of (seed, epoch, index).

    With `scales` None the views are the tiles themselves, unturned, and the masks the same in every
    epoch: for validation.
    """

    def __init__(
        self,
        store: Store,
        rows: list[int],
        *,
        side: int,
        units: int,
        seed: int,
        samples_per_file: int = 1,
        scales: list[float] | None = None,
    ):
        self.store, self.rows, self.side, self.units, self.seed = store, rows, side, units, seed
        self.samples_per_file, self.scales = samples_per_file, scales

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader at the start of every epoch."""
        self.epoch = epoch if self.scales else 0

    def __len__(self) -> int:
        return len(self.rows) * self.samples_per_file

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        rows = [self.rows[index // self.samples_per_file] for index in indices]
        noise = [generator(self.seed, self.epoch, index, MASK).random(self.units) for index in indices]
        batch = {
            "tiles": torch.from_numpy(self.store.read(rows)),
            "valid": torch.from_numpy(self.store.valid(rows)),
            "noise": torch.from_numpy(np.stack(noise)).float(),
        }
        if self.scales:
            draws = [generator(self.seed, self.epoch, index, VIEW) for index in indices]
            batch["boxes"] = torch.tensor([draw_box(draw, self.side, self.scales) for draw in draws])
            batch["orientation"] = torch.tensor([int(draw.integers(8)) for draw in draws])
        return batch
