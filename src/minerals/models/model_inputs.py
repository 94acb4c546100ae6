"""Tiles for models to read, from the outputs of the stages, an opened cube, or a PNG."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import safetensors.numpy
from PIL import Image, UnidentifiedImageError

from src.core.stage import files
from src.core.stage.errors import DataError, StorageError
from src.minerals.data import band_table, cube_store, tile_table
from src.minerals.data.cube_files import Cube
from src.minerals.data.cube_store import CubeStore
from src.minerals.data.samples import TileImages
from src.minerals.data.tile_reader import TileReader, relative
from src.minerals.params import Params


class StageTiles:
    """Tiles that the stage `tiles` cut, by name: pictures in `folder`, bands from the store."""

    def __init__(self, folder: Path, names: list[str], reader: TileReader):
        self.folder, self.reader = Path(folder), reader
        self.number = {name: number for number, name in enumerate(names)}

    def picture(self, tile: str) -> np.ndarray:
        """(side, side, 3) uint8."""
        with Image.open(self.folder / f"{tile}.png") as picture:
            return np.asarray(picture)

    def relative(self, tile: str) -> tuple[np.ndarray, np.ndarray]:
        """(C, side, side) float32 and (side, side) bool valid, as `TileReader.relative`."""
        return self.reader.relative(self.number[tile])


class CubeTiles:
    """Tiles of an opened cube by (top, left), with the values that a store would hold.

    The lines of the last tile stay in memory: tiles are best asked for from the first line on.

    Args:
        filled: (B,) bool, bands that hold values.
        bands: positions of those that the model reads, or of red, green and blue.
        stretch: (3, 2) reflectance shown as 0 and as 255, for a picture.
    """

    def __init__(self, cube: Cube, filled: np.ndarray, bands: list[int], side: int, stretch: np.ndarray):
        self.cube, self.filled, self.bands, self.side, self.stretch = cube, filled, bands, side, stretch
        self.lines = lru_cache(1)(self._lines)

    def _lines(self, top: int) -> np.ndarray:
        """(side, samples, C) int16."""
        blocks = cube_store.stored_blocks(self.cube, self.filled, top, top + self.side)
        return np.concatenate([stored[..., self.bands] for _, stored in blocks])

    def reflectance(self, tile: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """(C, side, side) float32, NaN without data, and (side, side) bool valid."""
        top, left = tile
        values, valid = cube_store.reflectance(self.lines(top)[:, left : left + self.side])
        return np.moveaxis(values, -1, 0), valid

    def picture(self, tile: tuple[int, int]) -> np.ndarray:
        """(side, side, 3) uint8, as the stage `tiles` draws it."""
        return band_table.to_bytes(np.moveaxis(self.reflectance(tile)[0], 0, -1), self.stretch)

    def relative(self, tile: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """(C, side, side) float32 and (side, side) bool valid, as `TileReader.relative`."""
        values, valid = self.reflectance(tile)
        return relative(values), valid


class PngTile:
    """One tile, a PNG with `side` px; whatever tile is asked for, it is this one.

    Raises:
        StorageError: the file cannot be read.
        DataError: it is no such PNG.
    """

    def __init__(self, path: Path, side: int):
        expected = f"expected a PNG of {side} x {side} px in RGB, such as the tiles stage writes"
        try:
            with Image.open(path, formats=["PNG"]) as picture:
                if picture.mode != "RGB" or picture.size != (side, side):
                    raise DataError(
                        f"{path}: found {picture.width} x {picture.height} px in {picture.mode}, {expected}; cut or "
                        "convert it"
                    )
                self.pixels = np.array(picture)
        except UnidentifiedImageError as error:
            raise DataError(f"{path}: found no PNG, {expected}; give that") from error
        except (OSError, SyntaxError) as error:  # Pillow's word for a damaged chunk is SyntaxError
            if getattr(error, "errno", None):
                raise StorageError(f"{path}: cannot read: {error.strerror}; correct `png`") from error
            raise DataError(f"{path}: found a damaged PNG ({error}), {expected}; copy it again") from error

    def picture(self, tile: object) -> np.ndarray:
        """(side, side, 3) uint8."""
        return self.pixels


def tile_images(kind: str, inputs, params: Params, model_px: int) -> TileImages:
    """All tiles of the `tiles` stage as the input `kind`, at `model_px`; `inputs` names store, bands and tiles."""
    store, table = CubeStore.open(inputs.store), tile_table.read(inputs.tiles)
    side = files.read_json(inputs.tiles / "settings.json")["tile_px"]
    reader = TileReader(store, table, band_table.read_kept(inputs.bands, store), side)
    statistics = safetensors.numpy.load_file(inputs.tiles / "statistics.safetensors")
    source = StageTiles(inputs.tiles / "images" / params.annotate.composite, table["tile"].tolist(), reader)
    return TileImages(kind, source, statistics, model_px)
