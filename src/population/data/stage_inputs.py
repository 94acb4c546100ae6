"""Inputs of training stages beside the store: the split, its statistics, the PCA, and how the encoder reads bands."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from src.core.data import band_statistics
from src.core.data.tile_store import Store
from src.core.evaluation.permutation import permute_roles
from src.core.models.patches import BandFrontEnd, usable_side
from src.core.stage import files
from src.core.stage.errors import DataError
from src.population.data import prediction_tasks
from src.population.params import Model

MEAN = "band_mean.safetensors"


@dataclass(frozen=True)
class Split:
    """`tiles`: one row per tile with its role; `samples`: labels with role, block, target; `facts`: split.json."""

    tiles: pd.DataFrame
    samples: pd.DataFrame
    facts: dict
    mean: torch.Tensor
    sd: torch.Tensor

    def rows(self, role: str) -> pd.DataFrame:
        """Label rows of one role, in the store's order."""
        return self.samples[self.samples.role == role].reset_index(drop=True)

    def tile_rows(self, role: str) -> list[int]:
        """Store rows of the tiles of one role."""
        return sorted(self.tiles.tile[self.tiles.role == role])

    def permuted(self, seed: int, draw: int) -> "Split":
        """The null of the model: growth rates of training and validation rows moved between places; draw 0 moves none.

        It is the permutation that ridge is fitted on. `facts` keep mean and standard deviation of the true labels.
        """
        if not draw:
            return self
        columns = (self.samples[name].to_numpy() for name in ("growth_rate", "place", "year", "role"))
        return replace(self, samples=self.samples.assign(growth_rate=permute_roles(*columns, seed, draw)))


def read_split(folder: Path, store: Store) -> Split:
    """The split stage's output; DataError if it was drawn for another store."""
    samples = prediction_tasks.read_samples(folder, store.tiles.tile_id)
    tiles = files.read_table(folder / "split.parquet")
    mean, sd = map(torch.from_numpy, band_statistics.read_statistics(folder / "statistics.safetensors"))
    return Split(tiles, samples, files.read_json(folder / "split.json"), mean, sd)


def stored_tiles(store: Store, rows: Sequence[int]) -> dict[str, torch.Tensor]:
    """`tiles` (N, C, H, W) as stored and `valid` (N, H, W) bool of these rows of the store."""
    rows = list(rows)
    return {"tiles": torch.from_numpy(store.read(rows)), "valid": torch.from_numpy(store.valid(rows))}


def read_pca(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (3, C) and bias (3,) of the projection of standardised bands."""
    arrays = files.read_arrays(folder / "pca.safetensors")
    return torch.from_numpy(arrays["weight"]), torch.from_numpy(arrays["bias"])


def front_end(store: Store, mean: torch.Tensor, split: Split, pca, model: Model, vision_config) -> BandFrontEnd:
    """Standardisation with `mean` (C,) and projection; cropped to merge units, DataError where 2 x 2 do not fit."""
    side = usable_side(min(store.height, store.width), vision_config.patch_size, vision_config.spatial_merge_size)
    unit = vision_config.patch_size * vision_config.spatial_merge_size
    if side < 2 * unit:
        raise DataError(
            f"{store.folder}: tiles are {store.height} x {store.width} px, expected at least {2 * unit} "
            f"(2 x 2 units of {unit} px); use larger tiles or a smaller patch (model.tiny.patch_size)"
        )
    return BandFrontEnd(store.quantisation, mean, split.sd, side, pca if model.input == "pca3" else None)


def read_mean(folder: Path) -> torch.Tensor:
    """(C,) band means that a pretrained encoder was trained with."""
    return torch.from_numpy(files.read_arrays(folder / MEAN)["mean"])
