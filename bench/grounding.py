"""Refining a raster in 10 steps by the grounding pipeline's generator, beside its bare forward passes; and its memory.

    python -m bench.grounding --json

The bar of time is a ratio: `whole_scene.refine_rows` (noise, radar tokens, sampler, blending) to ten forward passes of
the same windows in the same batches, which no sampler of ten steps can do without. The generator is that of the params,
with random weights. Memory is the peak of `src.grounding.infer` in a process of its own, for a raster and for one of
`TIMES` as many rows, with a small generator, one step and a small cache of GDAL, none of which grows with the rows;
most of it is torch.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine

from bench.timing import Benchmark
from src.core.stage import params as params_file
from src.core.stage import run
from src.grounding.data.sensors import OPTICAL_BANDS, SAR_BANDS
from src.grounding.models import denoiser, whole_scene
from src.grounding.models.denoiser import Denoiser, Scaling
from src.grounding.models.whole_scene import Strip
from src.grounding.params import Params

PARAMS = Path("pipelines/grounding/params.yaml")
SCALING = Scaling([0.1] * 4, [0.05] * 4, [-12.0, -18.0], [4.0, 4.0], [0.05] * 4)
STEPS = 10
WINDOWS = 2, 16  # rows and columns of them, for time
ROWS, COLUMNS, TIMES = 256, 512, 8  # px, for memory
CACHE_MB = 16


def main() -> None:
    benchmark = Benchmark("grounding")
    params = params_file.read(PARAMS, Params)
    run.set_threads(params.threads)
    model = denoiser.build(params.model, params.tiles.tile_px, SCALING, sees_sar=True).eval()
    speed(benchmark, model, params.infer.overlap_px)
    small = params.model.model_copy(update={"width": 16, "heads": 2, "depth": 1})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model", denoiser.build(small, params.tiles.tile_px, SCALING, sees_sar=True))
        peaks = [peak_mb(folder, rows) for rows in (ROWS, TIMES * ROWS)]
    print(f"  peak {peaks[0]:.0f} MB for {ROWS} x {COLUMNS} px, {peaks[1]:.0f} MB for {TIMES * ROWS} rows", flush=True)
    benchmark.record(f"peak MB, {TIMES} times the rows/once", peaks[1] / peaks[0], at_most=1.1)
    benchmark.finish()


def speed(benchmark: Benchmark, model: Denoiser, overlap: int) -> None:
    """Record the ratio, print megapixels a second."""
    side, stride = model.tile_px, model.tile_px - overlap
    height, width = (side + stride * (count - 1) for count in WINDOWS)
    raster = arrays(height, width)
    grid, refine = whole_scene.grid(height, width, side, overlap), whole_scene.refiner(model, STEPS)

    def refined() -> None:
        for _ in whole_scene.refine_rows(
            lambda top, rows: Strip(*(a[..., top : top + rows, :] for a in raster)), grid, refine, 1, 0
        ):
            pass

    count = len(grid.lefts)
    noisy, time_step = torch.randn(count, 4, side, side), torch.full((count,), 500)
    images = torch.rand(count, 4, side, side), torch.zeros(count, side, side, dtype=torch.bool)
    condition = model.condition(*images, torch.randn(count, 2, side, side))

    def passes() -> None:
        with torch.no_grad():
            for _ in range(STEPS * len(grid.tops)):
                model(noisy, time_step, condition)

    benchmark.compare(f"{STEPS} steps/{STEPS} forward passes", refined, passes, at_most=1.15)
    start = time.perf_counter()
    refined()
    megapixels = height * width / 1e6 / (time.perf_counter() - start)
    print(f"  {megapixels:.4f} megapixels/s a sample, windows of {side} px overlapping by {overlap}", flush=True)


def arrays(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Radar image in dB, first guess, and no holes."""
    random = np.random.default_rng(0)
    sar = random.normal([[[-12]], [[-18]]], 3, (2, height, width)).astype(np.float32)
    return sar, random.uniform(0.02, 0.3, (4, height, width)).astype(np.float32), np.zeros((height, width), bool)


def write_model(folder: Path, model: Denoiser) -> None:
    sar = {"product": "RTC", "coefficient": "gamma0", "clip_db": [-30, 5]}
    folder.mkdir()
    denoiser.save(folder, model, {"sar": sar, "opt_v2": "given", "simulated": False, "steps": 1})


def peak_mb(folder: Path, rows: int) -> float:
    """Peak resident MB of any process so far that refined a raster; call it with growing `rows`."""
    sar, optical, _ = arrays(ROWS, COLUMNS)
    files = {"sar": (sar, SAR_BANDS), "optical": (np.rint(optical * 10_000).astype(np.int16), OPTICAL_BANDS)}
    command = [sys.executable, "-m", "src.grounding.infer", "--params", PARAMS, "--model", folder / "model"]
    for name, (values, bands) in files.items():
        profile = {"count": len(bands), "height": rows, "width": COLUMNS, "dtype": values.dtype, "crs": "EPSG:32630"}
        profile["transform"] = Affine(10, 0, 500_000, 0, -10, 5_000_000)
        with rasterio.open(folder / f"{name}.tif", "w", driver="GTiff", **profile) as dataset:
            dataset.descriptions = bands
            for top in range(0, rows, ROWS):
                dataset.write(values, window=rasterio.windows.Window(0, top, COLUMNS, ROWS))
        command += [f"--{name}", folder / f"{name}.tif"]
    command += ["--samples", "2", "--out", folder / f"refined{rows}"]
    settings = os.environ | {"GDAL_CACHEMAX": str(CACHE_MB)}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=settings)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


if __name__ == "__main__":
    main()
