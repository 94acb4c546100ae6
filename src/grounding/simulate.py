"""Simulate pairs of radar and optical images of landscapes that do not exist.

    python -m src.grounding.simulate --params pipelines/grounding/params.yaml --out data/grounding/simulated

Writes <scene>_s1.tif (gamma0 in dB, VV and VH), <scene>_s2.tif (reflectance times 10,000, B02 B03 B04 B08), both on
the same UTM grid of 10 m, source.json (that and how it is simulated) and overview.png. Ground, light and radar are
said in data/simulated_landscape.py, data/simulated_optics.py and data/simulated_radar.py.
"""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from tqdm import tqdm

from src.core.stage import files, run
from src.grounding.data import simulated_landscape, simulated_optics, simulated_radar
from src.grounding.data.sensors import OPTICAL_BANDS, SAR_BANDS
from src.grounding.params import Params, Simulate
from src.grounding.report.pair_pictures import contact_sheet

SHOWN = 10  # scenes in overview.png
PIXEL_M = 10
CRS = "EPSG:32632"
ORIGIN = 500_000, 5_400_000  # m, south-west corner of the first block
BLOCK_M, BLOCKS_A_ROW = 5_000, 8  # every scene lies in the middle of a square of its own, as split.block_km
FIRST_DAY = datetime(2025, 6, 10)


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    run.set_threads(params.threads)
    settings = params.simulate
    side = settings.side_px
    print(f"simulate: {settings.scenes} pairs of {side} x {side} px, {settings.looks} looks")
    if dry_run:
        return
    shown = {}
    with files.complete_folder(out.out) as folder:
        for number in tqdm(range(settings.scenes), desc="simulate", unit="scene"):
            sar, optical = scene(settings.seed, number, side, settings.looks)
            name = f"scene_{number + 1:02d}"
            write(folder, name, number, sar, optical)
            if number < SHOWN:
                shown[name] = sar, optical
        files.write_json(folder / "source.json", describe(settings))
        contact_sheet(shown, "simulated scenes: natural colour, and radar as VV, VH and their ratio",
                      folder / "overview.png")  # fmt: skip
    print(f"simulate: wrote {out.out}")


def scene(seed: int, number: int, side_px: int, looks: int) -> tuple[np.ndarray, np.ndarray]:
    """Radar (2, H, W) in dB and optical (4, H, W) reflectance of one scene, the same whatever the number of scenes."""
    of_ground, of_light, of_radar = (np.random.default_rng([seed, number, part]) for part in range(3))
    ground = simulated_landscape.draw(of_ground, side_px)
    return simulated_radar.sar(ground, looks, of_radar), simulated_optics.optical(ground, of_light)


def write(folder: Path, name: str, number: int, sar: np.ndarray, optical: np.ndarray) -> None:
    """Write one pair of GeoTIFFs."""
    side = sar.shape[-1]
    apart = BLOCK_M * -(-(PIXEL_M * side + BLOCK_M // 2) // BLOCK_M)  # larger scenes take more blocks
    blocks = number % BLOCKS_A_ROW, number // BLOCKS_A_ROW
    west, south = (
        start + apart * block + (apart - PIXEL_M * side) / 2 for start, block in zip(ORIGIN, blocks, strict=True)
    )
    grid = {"crs": CRS, "transform": Affine(PIXEL_M, 0, west, 0, -PIXEL_M, south + PIXEL_M * side)}
    day = FIRST_DAY + timedelta(days=number % 10)
    stored = np.rint(optical * 10_000).astype(np.int16)
    for path, values, bands, when, predictor in (
        (folder / f"{name}_s1.tif", sar, SAR_BANDS, day.replace(hour=17), 3),
        (folder / f"{name}_s2.tif", stored, OPTICAL_BANDS, day.replace(hour=10) + timedelta(days=number % 3), 2),
    ):
        options = {"dtype": values.dtype, "compress": "deflate", "predictor": predictor, **grid}
        with rasterio.open(path, "w", "GTiff", side, side, len(bands), **options) as dataset:
            dataset.write(values)
            dataset.descriptions = bands
            dataset.update_tags(datetime=when.isoformat(), source="simulated")


def describe(settings: Simulate) -> dict:
    """source.json: that it is simulated, and with which settings."""
    return {
        "simulated": True,
        "description": f"{settings.scenes} landscapes that do not exist, as Sentinel-1 and Sentinel-2 would see them "
        "(src/grounding/simulate.py)",
        "settings": settings.model_dump(),
        "sar": "gamma0 in dB, VV and VH, after radiometric terrain correction; the radar looks east",
        "optical": "surface reflectance times 10,000: B02, B03, B04, B08",
    }


if __name__ == "__main__":
    outputs = {"out": "folder of pairs (data.root)"}
    run.stage(main, Params, name="grounding.simulate", doc=__doc__, inputs={}, outputs=outputs)
