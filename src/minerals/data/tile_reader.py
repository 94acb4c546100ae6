"""Pixels of tiles, read from the store of cubes."""

import numpy as np
import pandas as pd

from src.minerals.data import cube_store
from src.minerals.data.cube_store import CubeStore


class TileReader:
    """Tiles of `table` (scene, top, left) with `side` px, in the bands that `kept` (B,) bool says."""

    def __init__(self, store: CubeStore, table: pd.DataFrame, kept: np.ndarray, side: int):
        self.store, self.kept, self.side = store, kept, side
        self.places = list(table[["scene", "top", "left"]].itertuples(index=False, name=None))
        self.cubes = {scene: store.stored(scene) for scene in dict.fromkeys(table["scene"])}

    def reflectance(self, number: int, bands: list[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(C, side, side) float32 of the chosen bands, NaN without data, and (side, side) bool valid."""
        scene, top, left = self.places[number]
        stored = self.cubes[scene][top : top + self.side, left : left + self.side]
        values, valid = cube_store.reflectance(np.asarray(stored)[..., bands])
        return np.moveaxis(values, -1, 0), valid

    def relative(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """(C, side, side) float32 of the kept bands, each spectrum divided by its mean, and (side, side) bool valid.

        Light and shade scale a whole spectrum. Without them the first thing that varies is colour and not brightness.
        """
        values, valid = self.reflectance(number, self.kept)
        return relative(values), valid


def relative(values: np.ndarray) -> np.ndarray:
    """(C, h, w) reflectance, each spectrum divided by its mean."""
    return values / np.maximum(values.mean(0), 0.01)
