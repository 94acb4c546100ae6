"""All tiles together: headers that must agree, and pixels written into a store.

Every function checks all tiles before it raises, so that one run names every bad file.
"""

import hashlib
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from src.core.data import archive, raster, tile_store
from src.core.data.archive import TileName
from src.core.data.quantisation import Quantisation
from src.core.data.raster import Header
from src.core.stage.errors import DataError

MAX_PIXEL_RATIO = 1.01


def read_headers(names: list[TileName], bands: int) -> list[Header]:
    """The checked header of every tile; raises one DataError that lists all bad ones."""
    tiles = tqdm(names, desc="headers", unit="tile")
    return archive.collect(tiles, lambda name: raster.read_header(name.path, bands, name.name))


def agreed_quantisation(headers: list[Header], param: str, scale: float | None) -> Quantisation:
    """The quantisation that all tiles declare, or the params for them; raises DataError where these disagree."""
    assumed = None if param == "tags" else Quantisation(param, scale)
    problems, kinds = [], Counter()
    for header in headers:
        quantisation = header.quantisation or assumed
        if quantisation is None:
            problems.append(
                f"{header.name}: quantisation: found no tag, expected one; tag the file with quantisation "
                "and scale (a sidecar to .npy) or set `quantisation` to alphaearth, linear or none"
            )
        elif assumed not in (None, quantisation):
            problems.append(
                f"{header.name}: quantisation: found the tag {quantisation}, `quantisation` says "
                f"{assumed}; set `quantisation`: tags, or correct the tag"
            )
        elif header.dtype != "int8" and quantisation.kind != "none":
            problems.append(
                f"{header.name}: quantisation: found {quantisation} for {header.dtype}, expected none; "
                "floats hold values already: set quantisation none"
            )
        kinds[quantisation] += 1
    archive.refuse(problems)
    if len(kinds) > 1:
        counts = ", ".join(f"{kind} in {count} tiles" for kind, count in kinds.most_common())
        raise DataError(f"`root`: quantisation: found {counts}; expected one for all; run them apart")
    return next(iter(kinds))


def stored_dtype(headers: list[Header]) -> str:
    """int8 or float16, the same for every tile."""
    integers = [header.name for header in headers if header.dtype == "int8"]
    floats = [header.name for header in headers if header.dtype != "int8"]
    if integers and floats:
        raise DataError(
            f"`root`: dtype: found int8 ({integers[0]}) and float ({floats[0]}) tiles, "
            "expected one dtype; run them apart"
        )
    return "int8" if integers else "float16"


def check_pixel_sizes(headers: list[Header]) -> None:
    """Raise DataError when pixel widths or heights, in CRS units, differ by more than 1 %."""
    placed = [header for header in headers if header.transform]
    for axis in (0, 1):
        ordered = sorted(placed, key=lambda header: header.pixel_size[axis])
        if ordered and ordered[-1].pixel_size[axis] > MAX_PIXEL_RATIO * ordered[0].pixel_size[axis]:
            low, high = ordered[0], ordered[-1]
            raise DataError(
                f"`root`: pixel size: found {low.pixel_size[axis]:g} in {low.name} ({low.crs}) and "
                f"{high.pixel_size[axis]:g} in {high.name} ({high.crs}), expected a difference of at most "
                "1 %; resample the tiles to one pixel size"
            )


def check_band_names(headers: list[Header]) -> None:
    """Raise DataError when tiles that name their bands name them differently."""
    named = [header for header in headers if header.band_names]
    for header in named:
        if differs := tile_store.differing_band(header.band_names, named[0].band_names):
            raise DataError(f"{header.name}: {differs} as in {named[0].name}; export the bands in one order")


def common_size(headers: list[Header], size: int | None) -> int:
    """Side of the centre crop in px: `size`, or the smallest side of any tile."""
    if size is None:
        return min(min(header.height, header.width) for header in headers)
    if size < raster.MIN_SIDE:
        raise DataError(f"`tile_px`: found {size}, expected at least {raster.MIN_SIDE} px; give a larger one")
    archive.refuse(
        [
            f"{header.name}: size: found {header.height} x {header.width} px, expected at least `tile_px` "
            f"{size}; lower `tile_px` or export a larger tile"
            for header in headers
            if min(header.height, header.width) < size
        ]
    )
    return size


def table(names: list[TileName], headers: list[Header], size: int) -> pd.DataFrame:
    """The store's `tiles` without the columns that need pixels; raises DataError for coordinates off Earth."""
    footprints = archive.collect(headers, lambda header: raster.footprint(header, size))
    rows = [
        (name.region, name.place, name.year, lat, lon, header.crs or "", header.pixel_size[0], half_diagonal_km)
        for name, header, (lat, lon, half_diagonal_km) in zip(names, headers, footprints, strict=True)
    ]
    columns = ["region", "place", "year", "lat", "lon", "crs", "pixel_size", "half_diagonal_km"]
    tiles = pd.DataFrame(rows, columns=columns)
    tiles.insert(0, "tile_id", [f"{name.region}/{name.place}/{name.year}" for name in names])
    return tiles.rename_axis("tile").reset_index()


def read_pixels(
    headers: list[Header], writer: tile_store.Writer, size: int, nan_is_nodata: bool
) -> dict[str, list[Any]]:
    """Decode every tile into the store; its valid fraction and sha256. One DataError lists all bad tiles."""

    def read(numbered: tuple[int, Header]) -> tuple[float, str]:
        row, header = numbered
        pixels, valid = writer.tile(row)
        raster.read_crop(header, size, nan_is_nodata, pixels, valid)
        return float(np.mean(valid)), hashlib.sha256(pixels).hexdigest()

    found = archive.collect(enumerate(tqdm(headers, desc="tiles", unit="tile")), read)
    return {"valid_fraction": [fraction for fraction, _ in found], "sha256": [digest for _, digest in found]}
