"""Features of a tile for a linear model: its mean relative spectrum and the mean depth of every mineral's features."""

from pathlib import Path

import numpy as np
import pandas as pd
import rasterio

from src.minerals.data import band_table
from src.minerals.data.cube_store import CubeStore
from src.minerals.data.tile_reader import TileReader


def features(store: CubeStore, inputs, table: pd.DataFrame, side: int) -> np.ndarray:
    """(N, C + M) float64 of the tiles of `table`: kept bands, then the map's depths (0 where nothing fits)."""
    reader = TileReader(store, table, band_table.read_kept(inputs.bands, store), side)
    depths = _depths(Path(inputs.map), table, side)
    spectra = []
    for number in range(len(table)):
        values, valid = reader.relative(number)
        spectra.append(values[:, valid].mean(1))
    return np.hstack([np.stack(spectra), depths]).astype(np.float64)


def _depths(folder: Path, table: pd.DataFrame, side: int) -> np.ndarray:
    """(N, M) mean of the depth map in each tile."""
    rows = {}
    for scene, tiles in table.groupby("scene", sort=False):
        with rasterio.open(folder / "depth" / f"{scene}.tif") as dataset:
            depth = dataset.read()
        for number, top, left in zip(tiles.index, tiles["top"], tiles["left"], strict=True):
            rows[number] = np.nanmean(depth[:, top : top + side, left : left + side], axis=(1, 2))
    return np.stack([rows[number] for number in table.index])
