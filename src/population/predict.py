"""Growth rates of new tiles from a model folder and nothing else.

    python -m src.population.predict --model models/population/sft --tiles data/raw/new --out predictions.csv

Tiles are named as in training, `<province>/<city>/<year>_<city>.tif`; a folder or a .zip. Writes one row
a tile: tile_id, province, city, year, head (‰ per year), text (the answer), text_value (empty where the
answer is not of the asked form).
"""

import argparse
from pathlib import Path

PARSER = argparse.ArgumentParser(prog="python -m src.population.predict", description=__doc__)
PARSER.add_argument("--model", type=Path, required=True, help="folder that sft or dpo wrote")
PARSER.add_argument("--tiles", type=Path, required=True, help="folder or .zip of tiles")
PARSER.add_argument("--out", type=Path, required=True, help="CSV file to write")
PARSER.add_argument("--covariates", type=Path, help=".csv or .xlsx with province, city, year and what the prompt names")
PARSER.add_argument("--batch-size", type=int, default=16)
if __name__ == "__main__":
    PARSER.parse_args()  # --help ends here, before seconds of imports

import math
import sys
import tempfile

import numpy as np
import pandas as pd
import torch

from src.core import archive, files, run, tiles
from src.core.errors import DataError
from src.core.raster import Header
from src.core.sensors import Quantisation
from src.core.store import Store, Writer
from src.population import labels
from src.population.inference import Reader, parsed
from src.population.model import Settings, load


def main(model: Path, root: Path, out: Path, covariates: Path | None = None, batch_size: int = 16) -> None:
    """Predict every tile below `root` with the model folder `model`, into the CSV file `out`."""
    network, tokenizer, settings = load(model)
    if torch.cuda.is_available():
        network.cuda()
    with tempfile.TemporaryDirectory() as scratch:
        store = read_tiles(root, Path(scratch), settings)
        network.front.quantisation = store.quantisation  # another linear scale is another unit of the same values
        rows = store.tiles.assign(sample=store.tiles.tile)
        rows = with_covariates(rows, settings, covariates)
        reader = Reader(network, tokenizer, settings, store, batch_size)
        table = rows[["tile_id", "province", "city", "year"]].assign(head=reader.head(rows), text=reader.greedy(rows))
    table["text_value"] = parsed(table.text.tolist(), settings.language)
    with files.complete_file(out) as aside:
        table.to_csv(aside, index=False, float_format="%.4f")


def read_tiles(root: Path, folder: Path, settings: Settings) -> Store:
    """The tiles below `root` as a store in `folder`, checked as preprocess checks them."""
    trained = Quantisation.from_dict(settings.quantisation)
    with archive.opened(root) as opened:
        names = archive.find_tiles(opened, root)
        headers = tiles.read_headers(names, settings.bands)
        undeclared = all(header.quantisation is None for header in headers)
        param = (trained.kind, trained.scale) if undeclared else ("tags", None)
        quantisation = tiles.agreed_quantisation(headers, *param)
        if quantisation.kind != trained.kind:
            raise DataError(f"{root}: quantisation is {quantisation}, the model was trained on {trained}; convert them")
        tiles.check_pixel_sizes(headers)
        tiles.check_band_names(headers)
        check_like_training(headers, settings)
        size = tiles.common_size(headers, None)
        if size < settings.side:
            raise DataError(
                f"{root}: the smallest tile has {size} px, the model reads {settings.side}; use larger ones"
            )
        writer = Writer(folder, len(headers), (settings.bands, size, size), tiles.stored_dtype(headers))
        index = tiles.table(names, headers, size)
        index = index.assign(**tiles.read_pixels(headers, writer, size, nan_is_nodata=False))
        writer.finish(index, pd.DataFrame(), quantisation)
    store = Store.open(folder)
    edge = (size - settings.side) // 2
    crop = np.s_[edge : edge + settings.side, edge : edge + settings.side]
    blank = [name for tile, name in enumerate(store.tiles.tile_id) if not store.valid([tile])[0][crop].any()]
    if blank:
        raise DataError(
            f"{root}: {blank[0]}: found no valid pixel in the centre {settings.side} px ({len(blank)} such tiles), "
            "expected some; remove them"
        )
    return store


def check_like_training(headers: list[Header], settings: Settings) -> None:
    """Raise DataError where band names or pixel sizes are not those of the tiles the model was trained on."""
    for header in headers:
        names, size = header.band_names, header.pixel_size[0]
        if names and settings.band_names and list(names) != settings.band_names:
            band = next(n for n, pair in enumerate(zip(names, settings.band_names, strict=True)) if len(set(pair)) > 1)
            raise DataError(
                f"{header.name}: band {band + 1}: found {names[band]!r}, expected {settings.band_names[band]!r} as in "
                "training; export the bands in that order"
            )
        if settings.pixel_size and not math.isnan(size):
            ratio = max(size, settings.pixel_size) / min(size, settings.pixel_size)
            if ratio > tiles.MAX_PIXEL_RATIO:
                raise DataError(
                    f"{header.name}: pixel size: found {size:g} ({header.crs}), expected {settings.pixel_size:g} as in "
                    "training, within 1 %; resample the tile"
                )


def with_covariates(rows: pd.DataFrame, settings: Settings, path: Path | None) -> pd.DataFrame:
    """`rows` with the columns that the model's prompt names, from a .csv or .xlsx keyed by province, city, year."""
    if not settings.covariates:
        return rows
    if path is None:
        raise DataError(f"the model's prompt names {settings.covariates}; give a file of them with --covariates")
    table = labels.read_covariates(path, settings.covariates)
    joined = rows.merge(table, on=["province", "city", "year"], how="left", validate="one_to_one")
    empty = joined[joined[settings.covariates].isna().any(axis=1)]
    if len(empty):
        raise DataError(
            f"{path}: no row or a blank for {empty.tile_id.iloc[0]} ({len(empty)} such tiles), expected "
            f"{', '.join(settings.covariates)} of every tile; add them"
        )
    return joined


if __name__ == "__main__":
    given = PARSER.parse_args()
    code, _ = run.outcome(
        lambda: main(given.model, given.tiles, given.out, given.covariates, given.batch_size), "population.predict"
    )
    sys.exit(code)
