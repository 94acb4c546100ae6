"""Small cubes in the formats that users have."""

from pathlib import Path

import numpy as np
from spectral.io import envi

from src.minerals.data import simulated_geology, simulated_spectra, spectral_library
from src.minerals.data.simulated_spectra import WAVELENGTHS

LIBRARY = Path("data/sample/usgs_minerals")


def reflectance(lines: int = 6, samples: int = 5, seed: int = 0) -> np.ndarray:
    """(lines, samples, 224) float32 of 0.1 to 0.6, every value its own."""
    return np.random.default_rng(seed).uniform(0.1, 0.6, (lines, samples, len(WAVELENGTHS))).astype(np.float32)


def scene(seed: int) -> np.ndarray:
    """(64, 32, 224) float32 reflectance of altered ground, with no data in one corner."""
    known, generator = spectral_library.read(LIBRARY), np.random.default_rng(seed)
    ground = simulated_geology.draw(generator, 64, False)
    cube = simulated_spectra.measure(ground, simulated_spectra.endmembers(known, generator), 0.3, 200, generator)
    cube = cube[:, :32]
    cube[:7, :9] = -1
    return cube


def write_envi(
    folder: Path, name: str, values: np.ndarray, *, interleave="bil", dtype=np.int16, byteorder=0, **header
) -> Path:
    """`values` as stored, with wavelengths unless `header` says otherwise; a field of None is left out."""
    fields = {"wavelength": [f"{nm:.2f}" for nm in WAVELENGTHS], "wavelength units": "Nanometers"}
    fields |= {"reflectance scale factor": 10000}
    fields |= {key.replace("_", " "): value for key, value in header.items()}
    metadata = {key: value for key, value in fields.items() if value is not None}
    path = Path(folder) / f"{name}.hdr"
    envi.save_image(str(path), values.astype(dtype), dtype=dtype, interleave=interleave, ext=".img",
                    byteorder=byteorder, metadata=metadata)  # fmt: skip
    return path
