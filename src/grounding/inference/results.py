"""Files that `infer` writes of one scene: refined image and spread as cloud-optimised GeoTIFF, preview, summary.

Images are float32 reflectance, not uint16 times 10000: the numbers then mean themselves in every program, for a scale
in a tag is overlooked by many, and a spread of a thousandth is not rounded away. No data is NaN.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio.shutil
import safetensors.numpy
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetWriter
from rasterio.windows import Window

from src.grounding.data.pairs import Pair
from src.grounding.data.sensors import OPTICAL_BANDS

REFINED, SPREAD, PREVIEW, SUMMARY = "opt_v3.tif", "spread.tif", "preview.safetensors", "summary.json"
WRITTEN = {REFINED, SPREAD, PREVIEW, SUMMARY}


class Writer:
    """Rows of a GeoTIFF, written from the north on."""

    def __init__(self, dataset: DatasetWriter):
        self.dataset, self.top = dataset, 0

    def write(self, rows: np.ndarray) -> None:
        """Append (4, h, W) float32."""
        height, width = rows.shape[1:]
        self.dataset.write(rows, window=Window(0, self.top, width, height))
        self.top += height


@contextmanager
def cloud_optimised(path: Path, pair: Pair, meaning: str, tags: Mapping[str, object]) -> Iterator[Writer]:
    """A writer of rows; at the end they are copied, block by block, to `path` as cloud-optimised GeoTIFF.

    Args:
        pair: height, width, CRS and transform of the raster.
        meaning: of the numbers, for the tag of that name.
    """
    rows = path.with_name(f"{path.stem}.rows.tif")
    crs = CRS.from_user_input(pair.crs) if pair.crs else None
    profile = {"driver": "GTiff", "height": pair.height, "width": pair.width, "count": len(OPTICAL_BANDS)}
    profile |= {"dtype": "float32", "nodata": np.nan, "crs": crs, "bigtiff": "IF_SAFER"}
    if pair.crs:
        profile["transform"] = Affine(*pair.transform)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # an NPZ tile may have no place
        with rasterio.open(rows, "w", **profile) as dataset:
            dataset.descriptions, dataset.units = OPTICAL_BANDS, ["reflectance"] * len(OPTICAL_BANDS)
            dataset.update_tags(meaning=meaning, scale=1, **tags)
            yield Writer(dataset)
        with rasterio.open(rows) as dataset:
            options = {"compress": "DEFLATE", "predictor": "FLOATING_POINT", "overview_resampling": "average"}
            rasterio.shutil.copy(dataset, path, driver="COG", bigtiff="IF_SAFER", **options)
    rows.unlink()


def write_preview(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Thinned inputs, by which `visualise` draws a scene without its files."""
    (folder / PREVIEW).write_bytes(safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in arrays.items()}))
