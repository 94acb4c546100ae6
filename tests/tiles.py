"""Small tiles, zips and stores for the tests. Pixels are (C, H, W), row 0 north."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
from rasterio.transform import from_origin

from src.core.data import tile_store
from src.core.data.quantisation import Quantisation
from src.core.stage import files

ALPHAEARTH = Quantisation("alphaearth")


def random_pixels(seed: int, bands: int = 4, height: int = 8, width: int | None = None) -> np.ndarray:
    """(bands, height, width) int8 without no data."""
    generator = np.random.default_rng(seed)
    return generator.integers(-127, 128, (bands, height, width or height), dtype=np.int8)


def write_geotiff(
    path: Path,
    pixels: np.ndarray,
    tags: dict[str, Any] | None = None,
    *,
    lat: float = 40.0,
    lon: float = 116.0,
    pixel_size: float = 0.04,
    crs: str | None = "EPSG:4326",
    transform: rasterio.Affine | None = None,
    band_names: list[str] | None = None,
    **options: Any,
) -> Path:
    """A GeoTIFF whose north-west corner lies at (lat, lon), tagged AlphaEarth unless `tags` says else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = pixels.shape
    profile = {"count": bands, "height": height, "width": width, "dtype": pixels.dtype.name} | options
    transform = transform or from_origin(lon, lat, pixel_size, pixel_size)
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **profile) as dataset:
        dataset.update_tags(**({"quantisation": "alphaearth"} if tags is None else tags))
        dataset.write(pixels)
        if band_names:
            dataset.descriptions = band_names
    return path


def write_npy(path: Path, pixels: np.ndarray, sidecar: dict[str, Any] | None = None) -> Path:
    """A `.npy` tile, with `<file>.npy.json` beside it where `sidecar` is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, pixels)
    if sidecar is not None:
        path.with_name(path.name + ".json").write_text(json.dumps(sidecar), encoding="utf-8")
    return path


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    """A deflated .zip of these members, whatever their names are."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def zip_folder(path: Path, folder: Path) -> Path:
    """A .zip of all files below `folder`."""
    found = sorted(file for file in folder.rglob("*") if file.is_file())
    return write_zip(path, {file.relative_to(folder).as_posix(): file.read_bytes() for file in found})


def write_store(
    folder: Path,
    pixels: np.ndarray,
    *,
    valid: np.ndarray | None = None,
    quantisation: Quantisation = ALPHAEARTH,
    **columns: Any,
) -> tile_store.Store:
    """A complete store of `pixels` (N, C, H, W), one place and one label for each tile.

    `columns` replaces or adds columns, in `tiles` or in `samples`, e.g. lat=[...], growth_rate=[...].
    """
    count, *shape = pixels.shape
    number = np.arange(count)
    position = {"lat": 40.0 + number, "lon": 110.0 + number}
    identity = {
        "tile": number,
        "province": [f"province{row}" for row in range(count)],
        "city": [f"city{row}" for row in range(count)],
        "year": np.full(count, 2020),
    }
    facts = {
        "crs": "EPSG:4326",
        "pixel_size": 0.04,
        "half_diagonal_km": 20.0,
        "valid_fraction": 1.0,
        "sha256": [f"{row:064d}" for row in range(count)],
        "path": [f"{row}.tif" for row in range(count)],
    }
    rate = {"growth_rate": np.linspace(-10.0, 30.0, count)}
    common = {key: columns[key] for key in [*identity, *position] if key in columns}
    base = pd.DataFrame(identity | position | common)
    base.insert(1, "tile_id", base.province + "/" + base.city + "/" + base.year.astype(str))
    tiles = base.assign(**facts | {key: value for key, value in columns.items() if key in facts})
    extra = {key: value for key, value in columns.items() if key not in facts and key not in common}
    samples = base.assign(**rate | extra)
    samples.insert(0, "sample", number)
    with files.complete_folder(folder) as aside:
        writer = tile_store.Writer(aside, count, tuple(shape), pixels.dtype)
        for row in range(count):
            target, mask = writer.tile(row)
            target[:] = pixels[row]
            mask[:] = True if valid is None else valid[row]
        writer.finish(tiles, samples, quantisation)
    return tile_store.Store.open(folder)
