"""Files that the pipeline writes beside its stores: ENVI cubes, maps of classes with colours and names, other maps."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from spectral.io import envi

from src.minerals.mapping.minerals import MINERALS, NAMES

SCALE = 10_000  # stored integer of a reflectance of 1
NODATA = -9999  # of cubes
COLOURS = {
    "background": (217, 217, 217), "alunite": (215, 48, 39), "kaolinite": (69, 117, 180), "muscovite": (255, 217, 47),
    "montmorillonite": (166, 86, 40), "buddingtonite": (231, 41, 138), "calcite": (128, 205, 193),
    "chlorite": (27, 120, 55), "epidote": (166, 217, 106),
}  # fmt: skip


class Place(NamedTuple):
    """Where a raster lies: CRS as text ("" where unknown) and the six numbers of the affine transform, north-up."""

    crs: str
    transform: tuple[float, float, float, float, float, float]


def write_envi(path: Path, cube: np.ndarray, wavelengths: np.ndarray, fwhm: np.ndarray, place: Place) -> None:
    """Write (H, W, B) reflectance, NaN where there is none, as int16 times `SCALE`: `path` (.hdr) and .img beside it."""
    stored = np.where(np.isnan(cube), NODATA, np.rint(np.clip(cube, -0.9, 3) * SCALE)).astype(np.int16)
    zone = CRS.from_user_input(place.crs).to_epsg() - 32600
    a, _, c, _, e, f = place.transform
    metadata = {
        "description": "simulated reflectance",
        "wavelength units": "Nanometers",
        "wavelength": [f"{value:.2f}" for value in wavelengths],
        "fwhm": [f"{value:.2f}" for value in fwhm],
        "reflectance scale factor": SCALE,
        "data ignore value": NODATA,
        "map info": ["UTM", 1, 1, c, f, a, -e, zone, "North", "WGS-84"],
    }
    envi.save_image(str(path), stored, dtype=np.int16, interleave="bil", ext=".img", metadata=metadata)


def write_classes(path: Path) -> None:
    """classes.csv: value of the raster and mineral, as `data.truth` is read."""
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["value", "mineral"])
        writer.writerows(enumerate(("background", *NAMES)))


def write_classes_map(path: Path, classes: np.ndarray, place: Place) -> None:
    """Write (H, W) uint8 classes as cloud-optimised GeoTIFF with colour table and category names; 255 is no data."""
    names = ("background", *NAMES)
    profile = _profile(classes.shape, place) | {"count": 1, "dtype": "uint8", "nodata": 255, "photometric": "palette"}
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write_colormap(1, {number: (*COLOURS[name], 255) for number, name in enumerate(names)})  # before pixels
        dataset.write(classes, 1)
        dataset.set_band_description(1, "dominant mineral")
        chinese = ("背景", *(mineral.chinese for mineral in MINERALS))
        dataset.update_tags(1, **{f"class_{n}": f"{a} {b}" for n, (a, b) in enumerate(zip(names, chinese, strict=True))})


def write_bands(path: Path, values: np.ndarray, names: list[str], place: Place) -> None:
    """Write (H, W, K) float32, NaN where there is no data, as GeoTIFF whose bands have `names`."""
    profile = _profile(values.shape[:2], place) | {"count": values.shape[2], "dtype": "float32", "nodata": np.nan}
    with rasterio.open(path, "w", **profile, predictor=3) as dataset:
        dataset.write(np.moveaxis(values, -1, 0).astype(np.float32))
        dataset.descriptions = names


def _profile(shape: tuple[int, int], place: Place) -> dict:
    crs = CRS.from_user_input(place.crs) if place.crs else None
    return {
        "driver": "GTiff", "height": shape[0], "width": shape[1], "crs": crs, "transform": Affine(*place.transform),
        "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate",
    }  # fmt: skip
