"""The mineral map of a cube of Cuprite's size, 972 x 614 px and 224 bands of int16 in BIL, by `src.minerals.predict`.

    python -m bench.minerals --json

A simulated scene is repeated until it fills the cube. Seconds and peak memory are those of the command in a process of
its own, from its start to its last file. One pass reads every value once and converts it to float32 reflectance, which
no map can do without; reading the file's bytes into a buffer that exists is there for comparison. The loop calls the
same fit for one pixel at a time, for `LOOPED` pixels, scaled to all of them.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from spectral.io import envi

from bench.timing import REPETITIONS, Benchmark
from src.core.stage import params as params_file
from src.core.stage import run
from src.minerals import predict
from src.minerals.data import cube_files, simulated_geology, simulated_spectra, spectral_library
from src.minerals.data.simulated_spectra import BANDS, FWHM, WAVELENGTHS
from src.minerals.data.wavelengths import Bands
from src.minerals.mapping import scene_map
from src.minerals.mapping.minerals import NAMES
from src.minerals.params import Params

LINES, SAMPLES, SIDE = 972, 614, 128
LOOPED = 400
PARAMS = Path("pipelines/minerals/params.yaml")


def main() -> None:
    benchmark = Benchmark("minerals")
    params = params_file.read(PARAMS, Params)
    library = spectral_library.read(Path(params.data.library))
    run.set_threads(params.threads)
    with tempfile.TemporaryDirectory() as name:
        scene = simulated(library)
        path = write_cube(Path(name), scene)
        for label, value, bar in zip(
            ("seconds", "peak MB"), of_command(path, Path(name, "maps")), (60, 2000), strict=True
        ):
            benchmark.record(f"command, {label}", value, at_most=bar)
        cube = cube_files.open_cube(path, None, None, None)
        limits = np.full(len(NAMES), params.map.threshold)

        def mapped():
            predict.map_cube(cube, Path(name, "maps"), params, library, limits)

        def converted():
            for _ in cube_files.scaled_blocks(cube):
                pass

        def read():
            with path.with_suffix(".img").open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

        buffer = bytearray(2**24)
        ours, once, bytes_alone, loop = medians(mapped, converted, read, looped(scene, library))
        print(f"  map {ours:.1f} s, one pass {once:.2f} s, its bytes alone {bytes_alone:.2f} s", flush=True)
        benchmark.record("map/one pass", ours / once)
        benchmark.record("map/bytes alone", ours / bytes_alone)
        benchmark.record("per-pixel loop/map", LINES * SAMPLES / LOOPED * loop / ours, at_least=20)
    benchmark.finish()


def simulated(library: spectral_library.Library) -> np.ndarray:
    """(SIDE, SIDE, B) int16, reflectance times 10000."""
    generator = np.random.default_rng(0)
    ground = simulated_geology.draw(generator, SIDE, False)
    spectra = simulated_spectra.endmembers(library, generator)
    return np.rint(10000 * simulated_spectra.measure(ground, spectra, 0.3, 200, generator)).astype(np.int16)


def write_cube(folder: Path, scene: np.ndarray) -> Path:
    """cube.hdr and .img, written SIDE lines at a time so that this process stays small."""
    across = np.take(scene, np.arange(SAMPLES) % SIDE, axis=1).transpose(0, 2, 1)  # BIL: (lines, bands, samples)
    with (folder / "cube.img").open("wb") as file:
        for first in range(0, LINES, SIDE):
            file.write(np.ascontiguousarray(across[: LINES - first]).tobytes())
    header = {"lines": LINES, "samples": SAMPLES, "bands": BANDS, "data type": 2, "interleave": "bil", "byte order": 0}
    header |= {"reflectance scale factor": 10000, "wavelength units": "Nanometers", "header offset": 0}
    header |= {"wavelength": WAVELENGTHS.round(2).tolist(), "fwhm": FWHM.tolist()}
    envi.write_envi_header(str(folder / "cube.hdr"), header)
    return folder / "cube.hdr"


def of_command(path: Path, out: Path) -> tuple[float, float]:
    """Wall seconds and peak resident MB of the command in a new process."""
    command = [sys.executable, "-m", "src.minerals.predict", "--params", PARAMS, "--cube", path, "--out", out]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    seconds = time.perf_counter() - start
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def medians(*ways: Callable[[], object]) -> list[float]:
    """Median wall seconds of each way, in turn `REPETITIONS` times."""
    times = [[timed(way) for way in ways] for _ in range(REPETITIONS)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def timed(way: Callable[[], object]) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def looped(scene: np.ndarray, library: spectral_library.Library) -> Callable[[], None]:
    """The fit of `LOOPED` pixels, one at a time."""
    pixels = scene.reshape(-1, BANDS)[:: SIDE**2 // LOOPED][:LOOPED].astype(np.float32) / 10000
    bands = Bands(WAVELENGTHS, FWHM, np.ones(BANDS, bool), np.arange(BANDS))
    fit = scene_map.fitter(library, bands, bands.good)

    def loop():
        for pixel in pixels:
            fit(pixel[None])

    return loop


if __name__ == "__main__":
    main()
