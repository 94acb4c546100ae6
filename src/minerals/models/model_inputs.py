"""Tiles as models read them, from the outputs of the stages."""

import safetensors.numpy

from src.core.stage import files
from src.minerals.data import band_table, tile_table
from src.minerals.data.cube_store import CubeStore
from src.minerals.data.samples import TileImages
from src.minerals.data.tile_reader import TileReader
from src.minerals.params import Params


def tile_images(kind: str, inputs, params: Params, model_px: int) -> TileImages:
    """All tiles of the `tiles` stage as the input `kind`, at `model_px`; `inputs` names store, bands and tiles."""
    store, table = CubeStore.open(inputs.store), tile_table.read(inputs.tiles)
    side = files.read_json(inputs.tiles / "settings.json")["tile_px"]
    reader = TileReader(store, table, band_table.read_kept(inputs.bands, store), side)
    statistics = safetensors.numpy.load_file(inputs.tiles / "statistics.safetensors")
    folder = inputs.tiles / "images" / params.annotate.composite
    return TileImages(kind, folder, table["tile"].tolist(), reader, statistics, model_px)
