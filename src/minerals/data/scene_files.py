"""Files that the pipeline writes beside its stores: ENVI cubes, maps of classes with colours and names, other maps."""

import csv
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import rasterio.shutil
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetWriter, MemoryFile
from spectral.io import envi

from src.minerals.mapping.map_classes import CLASSES, COLOURS, NO_DATA, both_languages

SCALE = 10_000  # stored integer of a reflectance of 1
NODATA = -9999  # of cubes


class Place(NamedTuple):
    """Position of a raster: CRS as text ("" where unknown) and the six numbers of the affine transform, north-up."""

    crs: str
    transform: tuple[float, float, float, float, float, float]


def write_envi(path: Path, cube: np.ndarray, wavelengths: np.ndarray, fwhm: np.ndarray, place: Place) -> None:
    """Write (H, W, B) reflectance, NaN without data, as int16 times `SCALE`: `path` (.hdr) and .img beside it."""
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
        writer.writerows(enumerate(CLASSES))


def write_classes_map(path: Path, classes: np.ndarray, place: Place) -> None:
    """Write (H, W) uint8 classes as cloud-optimised GeoTIFF with the colour table of `map_classes`.

    The names of the classes stand in tags, and in the .aux.xml beside it that QGIS and GDAL read.
    """
    with _cog(path, classes[..., None], "uint8", NO_DATA, place, photometric="palette") as dataset:
        colours = {number: (*COLOURS[name], 255) for number, name in enumerate(CLASSES)}
        dataset.write_colormap(1, colours)  # before pixels
        dataset.write(classes, 1)
        dataset.set_band_description(1, "dominant mineral")
        dataset.update_tags(1, **{f"class_{number}": name for number, name in enumerate(both_languages())})
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    categories = ElementTree.SubElement(band, "CategoryNames")
    for name in both_languages():
        ElementTree.SubElement(categories, "Category").text = name
    Path(f"{path}.aux.xml").write_bytes(ElementTree.tostring(root, encoding="utf-8") + b"\n")


def write_bands(path: Path, values: np.ndarray, names: list[str], place: Place) -> None:
    """Write (H, W, K) float32, NaN where there is no data, as cloud-optimised GeoTIFF whose bands have `names`."""
    with _cog(path, values, "float32", np.nan, place, predictor=3) as dataset:
        dataset.write(np.moveaxis(values, -1, 0).astype(np.float32))
        dataset.descriptions = names


@contextmanager
def _cog(path: Path, values: np.ndarray, dtype: str, nodata: float, place: Place, **more) -> Iterator[DatasetWriter]:
    """A GeoTIFF in memory to be filled; at the end it is copied to `path` as cloud-optimised GeoTIFF."""
    height, width, count = values.shape
    crs = CRS.from_user_input(place.crs) if place.crs else None
    profile = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": dtype, "nodata": nodata}
    with warnings.catch_warnings(), MemoryFile() as memory:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a cube without CRS has a map without one
        with memory.open(**profile, crs=crs, transform=Affine(*place.transform), **more) as dataset:
            yield dataset
        with memory.open() as dataset:
            options = {"compress": "DEFLATE", "overview_resampling": "nearest"}
            if dtype == "float32":
                options["predictor"] = "FLOATING_POINT"
            rasterio.shutil.copy(dataset, path, driver="COG", **options)
