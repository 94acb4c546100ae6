"""Known minerals of scenes: a class raster for each, with a table that says which value is which mineral."""

from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
from rasterio.errors import RasterioError

from src.core.stage.errors import DataError, StorageError
from src.minerals.mapping.minerals import BACKGROUND, NAMES

UNKNOWN = 255  # class of a pixel whose mineral nobody knows


def read(folder: Path, scene: str, shape: tuple[int, int]) -> np.ndarray:
    """(lines, samples) uint8 classes of <scene>.tif; what the table does not name, or calls unknown, is `UNKNOWN`.

    classes.csv has the columns value and mineral: one of the map's minerals, `background` (anything else that is
    known), or `unknown`.

    Raises:
        StorageError: a file is missing.
        DataError: a column is missing, a value is no number or twice there, a name is not known, or the raster is of
            another size.
    """
    table, raster = Path(folder) / "classes.csv", Path(folder) / f"{scene}.tif"
    for path in (table, raster):
        if not path.is_file():
            raise StorageError(f"{path}: no such file; correct `truth`, or leave it blank where nothing is known")
    named = pd.read_csv(table, keep_default_na=False, dtype=str)
    if missing := {"value", "mineral"} - set(named.columns):
        raise DataError(f"{table}: no column {min(missing)!r}, found {', '.join(named.columns)}; add it")
    codes = {"background": BACKGROUND, "unknown": UNKNOWN} | {name: 1 + number for number, name in enumerate(NAMES)}
    names = named["mineral"].str.strip().str.lower()
    if not (known := names.isin(codes)).all():
        raise DataError(
            f"{table}: mineral: found {names[~known].iloc[0]!r}, expected one of {', '.join(codes)}; call what the map "
            "does not know background"
        )
    numbers = pd.to_numeric(named["value"], errors="coerce")
    wrong = numbers.isna() | numbers.duplicated()
    if wrong.any():
        raise DataError(
            f"{table}: value: found {named['value'][wrong].iloc[0]!r}, expected numbers, each once; correct it"
        )
    try:
        with rasterio.open(raster.absolute(), driver="GTiff") as dataset:
            values, valid = dataset.read(1), dataset.dataset_mask() > 0
    except RasterioError as error:
        raise DataError(f"{raster}: found no GeoTIFF ({error.__cause__ or error}); export it again") from error
    if values.shape != tuple(shape):
        raise DataError(f"{raster}: found {values.shape} px, expected {tuple(shape)}; warp it to the cube's grid")
    classes = np.full(values.shape, UNKNOWN, np.uint8)
    for value, name in zip(numbers, names, strict=True):
        classes[(values == value) & valid] = codes[name]
    return classes


def read_abundance(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """(lines, samples, M + 1) float32 area shares of the minerals and of iron oxide, as `simulate` writes them."""
    with rasterio.open(Path(path).absolute(), driver="GTiff") as dataset:
        if dataset.count != len(NAMES) + 1 or (dataset.height, dataset.width) != tuple(shape):
            found, expected = (dataset.count, dataset.height, dataset.width), (len(NAMES) + 1, *shape)
            raise DataError(f"{path}: found bands, lines, samples {found}, expected {expected}; write the scenes again")
        return np.moveaxis(dataset.read(), 0, -1)
