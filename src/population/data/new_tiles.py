"""Tiles and covariates to predict from; an error where they are unlike those that the model was trained on."""

import math
from pathlib import Path

import pandas as pd
from pandas.api.types import is_numeric_dtype

from src.core.data import archive, tiles
from src.core.data.crop import centre_crop
from src.core.data.quantisation import Quantisation
from src.core.data.raster import Header
from src.core.data.tile_store import Store, Writer, differing_band
from src.core.stage.errors import DataError, spelled
from src.population.data import labels
from src.population.models.model_folder import Settings
from src.population.params import WORDS


@spelled(WORDS)
def read_tiles(root: Path, folder: Path, settings: Settings) -> Store:
    """The tiles below `root` as a store in `folder`, checked as preprocess checks them."""
    with archive.opened(root) as opened:
        names = archive.find_tiles(opened, root)
        headers = tiles.read_headers(names, settings.bands)
        quantisation = agreed_with_training(headers, settings, root)
        size = tiles.common_size(headers, None)
        if size < settings.side:
            raise DataError(
                f"{root}: the smallest tile has {size} px, the model reads {settings.side}; use larger ones"
            )
        writer = Writer(folder, len(headers), (settings.bands, size, size), tiles.stored_dtype(headers))
        index = tiles.table(names, headers, size).rename(columns=WORDS)
        index = index.assign(**tiles.read_pixels(headers, writer, size, nan_is_nodata=False))
        writer.finish(index, pd.DataFrame(), quantisation)
    store = Store.open(folder)
    inputs = (centre_crop(store.valid([tile]), settings.side, settings.side) for tile in range(len(store)))
    blank = [name for name, valid in zip(store.tiles.tile_id, inputs, strict=True) if not valid.any()]
    if blank:
        raise DataError(
            f"{root}: {blank[0]}: found no valid pixel in the centre {settings.side} px ({len(blank)} such tiles), "
            "expected some; remove them"
        )
    return store


def agreed_with_training(headers: list[Header], settings: Settings, where: Path) -> Quantisation:
    """The quantisation that all files declare, or that of training where none does.

    Raises DataError if quantisation, band names or pixel sizes differ among them, or from those of training.
    """
    trained = Quantisation(**settings.quantisation)
    undeclared = all(header.quantisation is None for header in headers)
    param = (trained.kind, trained.scale) if undeclared else ("tags", None)
    quantisation = tiles.agreed_quantisation(headers, *param)
    if quantisation.kind != trained.kind:
        raise DataError(f"{where}: quantisation is {quantisation}, the model was trained on {trained}; convert them")
    tiles.check_pixel_sizes(headers)
    tiles.check_band_names(headers)
    for header in headers:
        size = header.pixel_size[0]
        if differs := differing_band(header.band_names, settings.band_names):
            raise DataError(f"{header.name}: {differs} as in training; export the bands in that order")
        if settings.pixel_size and not math.isnan(size):
            ratio = max(size, settings.pixel_size) / min(size, settings.pixel_size)
            if ratio > tiles.MAX_PIXEL_RATIO:
                raise DataError(
                    f"{header.name}: pixel size: found {size:g} ({header.crs}), expected {settings.pixel_size:g} as in "
                    "training, within 1 %; resample the tile"
                )
    return quantisation


def with_covariates(rows: pd.DataFrame, settings: Settings, path: Path | None) -> pd.DataFrame:
    """`rows` with the model's covariates of `lag_years` before their year, from a table keyed by province, city, year.

    Raises DataError if there is no file, no such column or a text in it, or no number for a row.
    """
    given = settings.covariates
    if not given.columns:
        return rows
    if path is None:
        raise DataError(f"the model reads {given.names}; give a file of them with --covariates")
    table = labels.read_covariates(path, given.names)
    for name in given.names:
        if not is_numeric_dtype(table[name]):
            cell = next(cell for cell in table[name] if isinstance(cell, str))
            raise DataError(f"{path}: {name}: found {cell!r}, expected numbers, as in training; correct the cell")
    # The prompt shows a number as it was in training, where all covariates are float64.
    table[given.names] = table[given.names].astype("float64")
    known = table.rename(columns=dict(zip(given.names, given.columns, strict=True)))
    keys = ["province", "city", "year"]
    wanted = rows[keys].assign(year=rows.year - given.lag_years)
    found = wanted.merge(known, on=keys, how="left", validate="many_to_one")
    empty = found[found[given.columns].isna().any(axis=1)]
    if len(empty):
        first = "/".join(map(str, empty[keys].iloc[0]))
        lag = f", {given.lag_years} years before the prediction's" if given.lag_years else ""
        raise DataError(
            f"{path}: no row or a blank for {first} ({len(empty)} such rows), expected {', '.join(given.names)} of "
            f"that year{lag}; add it"
        )
    return rows.assign(**{column: found[column].to_numpy() for column in given.columns})
