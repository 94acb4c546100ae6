"""Cut scenes into tiles within their blocks: a table, and a picture of each for people and for models of three bands.

    python -m src.minerals.tiles --params pipelines/minerals/params.yaml --store data/minerals/store \\
        --bands data/minerals/bands --split data/minerals/split --map data/minerals/map --out data/minerals/tiles

Writes tiles.parquet (src/minerals/data/tile_table.py), images/<composite>/<tile>.png (8 bits, stretched between
percentiles of the training tiles), statistics.safetensors (mean and standard deviation of each kept band over training
pixels), settings.json and audit.json. Models of all bands read their tiles from the store: a copy would take twice its
size, because tiles overlap.
"""

import logging

import numpy as np
import pandas as pd
import rasterio
import safetensors.numpy
from PIL import Image
from tqdm import tqdm

from src.core.stage import files, run
from src.core.stage.errors import DataError, ParamsError
from src.minerals.data import band_table, blocks, tile_table
from src.minerals.data.cube_store import CubeStore
from src.minerals.data.tile_reader import TileReader
from src.minerals.mapping.map_classes import NO_DATA
from src.minerals.params import Params

logger = logging.getLogger(__name__)


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    run.set_threads(params.threads)
    store = CubeStore.open(inputs.store)
    kept, settings = band_table.read_kept(inputs.bands, store), params.tiles
    side = settings.tile_px
    windows = list(blocks.windows(blocks.read(inputs.split, store), side, settings.stride))
    if not windows:
        shapes = {tuple(scene["shape"]) for scene in store.scenes.values()}
        raise ParamsError(f"tiles.tile_px: found {side}, no block of scenes of {shapes} px holds such a tile; lower it")
    table = fill(store, windows, params, inputs.map)
    enough = table["valid"] >= settings.min_valid_ratio
    if not enough.any():
        raise DataError(f"tiles: no tile has {settings.min_valid_ratio:.0%} pixels with data; lower `min_valid_ratio`")
    table = table[enough].reset_index(drop=True)
    if missing := set(blocks.ROLES) - set(table["role"]):
        raise DataError(
            f"tiles: found no tile for {', '.join(sorted(missing))}, expected some; lower `tile_px`, or change "
            "`block_px`"
        )
    audit = tile_table.check(table, side)
    print(f"tiles: {len(table)} of {side} px, {(~enough).sum()} left out for no data; " + counts(table))
    if dry_run:
        return
    with files.complete_folder(out.out) as folder:
        table.to_parquet(folder / tile_table.TABLE)
        reader = TileReader(store, table, kept, side)
        write_statistics(reader, table, folder)
        stretches = write_images(reader, table, params.bands.stretch, folder)
        files.write_json(folder / "settings.json", {"tile_px": side, "altered": settings.altered, "stretch": stretches})
        files.write_json(folder / "audit.json", audit)


def fill(store: CubeStore, windows: list, params: Params, maps) -> pd.DataFrame:
    """The table of all windows, those with too little data too."""
    side, rows, scenes = params.tiles.tile_px, [], {}
    for block, scene, role, top, left in tqdm(windows, desc="tiles", unit="tile"):
        if scene not in scenes:
            with rasterio.open(maps / "minerals" / f"{scene}.tif") as dataset:
                scenes = {scene: {"map": dataset.read(1), "truth": store.truth(scene)}}
        inside = slice(top, top + side), slice(left, left + side)
        known = {name: classes[inside] for name, classes in scenes[scene].items() if classes is not None}
        row = {"tile": f"{scene}_{top:04d}_{left:04d}", "scene": scene, "block": block, "role": role, "top": top}
        row |= {"left": left, "valid": float((known["map"] != NO_DATA).mean())}
        for name, classes in known.items():
            row |= tile_table.columns(name, classes, params.tiles.altered)
        rows.append(row)
    return pd.DataFrame(rows)


def counts(table: pd.DataFrame) -> str:
    """Tiles and share of altered ones by role."""
    column = "truth_altered" if "truth_altered" in table else "map_altered"
    parts = (f"{len(rows)} {role} ({rows[column].mean():.0%} altered)" for role, rows in table.groupby("role"))
    return ", ".join(parts)


def write_statistics(reader: TileReader, table: pd.DataFrame, folder) -> None:
    """statistics.safetensors: float64 mean and sd of the kept bands, of spectra divided by their own mean."""
    count, total, squares = 0, 0.0, 0.0
    for number in tqdm(np.flatnonzero(table["role"] == "train"), desc="statistics", unit="tile"):
        spectra, valid = reader.relative(number)
        values = spectra[:, valid].astype(np.float64)  # (C, n)
        count, total, squares = count + values.shape[1], total + values.sum(1), squares + (values**2).sum(1)
    mean = total / count
    sd = np.sqrt(np.maximum(squares / count - mean**2, 1e-12))
    safetensors.numpy.save_file({"mean": mean, "sd": sd}, folder / "statistics.safetensors")


def write_images(reader: TileReader, table: pd.DataFrame, percentiles: list[float], folder) -> dict[str, list]:
    """images/<composite>/<tile>.png; returns each composite's stretch, (3, 2) reflectance."""
    training, stretches = np.flatnonzero(table["role"] == "train"), {}
    for name in band_table.COMPOSITES:
        try:
            bands = band_table.composite_bands(reader.store.wavelengths, reader.kept, name)
        except DataError as error:
            logger.warning("tiles: not drawn: %s", error)
            continue
        pixels = [values[:, valid].T for values, valid in (reader.reflectance(n, bands) for n in training)]
        stretch = band_table.limits(np.concatenate(pixels), percentiles)
        stretches[name] = stretch.tolist()
        (folder / "images" / name).mkdir(parents=True)
        for number, tile in enumerate(tqdm(table["tile"], desc=name, unit="tile")):
            values = reader.reflectance(number, bands)[0]
            picture = band_table.to_bytes(np.moveaxis(values, 0, -1), stretch)
            Image.fromarray(picture).save(folder / "images" / name / f"{tile}.png")
    return stretches


if __name__ == "__main__":
    inputs = {"store": "ingest", "bands": "bands", "split": "split", "map": "map"}
    outputs = {"out": "folder for tiles"}
    run.stage(main, Params, name="minerals.tiles", doc=__doc__, inputs=inputs, outputs=outputs)
