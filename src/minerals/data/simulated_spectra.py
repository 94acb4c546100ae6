"""Reflectance of simulated ground, as an imaging spectrometer like AVIRIS measures it.

Minerals and plants are spectra of the USGS library that the map does not use as references. Many were measured from
1.3 µm on; below, and for rock, playa and iron oxide, the formulas of this file hold. They decide brightness and
colour, and no mineral feature of the map lies there.
"""

import numpy as np

from src.core.stage.errors import DataError
from src.minerals.data.simulated_geology import MATERIALS, Ground
from src.minerals.data.spectral_library import Library
from src.minerals.mapping.minerals import NAMES

BANDS = 224
WAVELENGTHS = np.linspace(365.9, 2496.2, BANDS)  # nm; those of AVIRIS, evenly spaced
FWHM = np.full(BANDS, 10.0)  # nm
GRAINS = (0.75, 1.25)  # exponents of reflectance: coarser grains absorb more (Beer's law)
# Water vapour: wavelength and width (nm) of each band, and how many times it amplifies noise. In the two strong ones
# nothing is left of the ground.
VAPOUR = ((940, 25, 1), (1140, 30, 1.5), (1390, 22, 30), (1880, 42, 40), (2500, 50, 3))
RESIDUE = 0.01  # standard deviation of what the correction of vapour leaves, at the centre of a weak band
PLANTS = {"green vegetation": "Engelmann-Spruce", "dry grass": "Grass_Golden_Dry"}


def endmembers(library: Library, generator: np.random.Generator) -> np.ndarray:
    """(len(MATERIALS), B) reflectance of one scene's materials: samples blended, grains and brightness drawn anew.

    Raises:
        DataError: the library has no spectrum of one of them.
    """
    sensed = library.at(WAVELENGTHS, FWHM)
    spectra = []
    for name in MATERIALS:
        if name in NAMES:
            rows = library.rows(name, "scene")
            if not len(rows):
                raise DataError(
                    f"spectral library: {name}: found no spectrum for use in a scene; add one to materials.csv"
                )
            spectrum = generator.dirichlet(np.ones(len(rows))) @ np.stack([extend(sensed[row]) for row in rows])
            spectrum = spectrum ** generator.uniform(*GRAINS)
        elif name in PLANTS:
            spectrum = extend(sensed[library.row(PLANTS[name])])
        else:
            spectrum = _formula(name)
        spectra.append(spectrum * generator.uniform(0.9, 1.1))
    return np.clip(np.stack(spectra), 0.005, 0.98)


def extend(spectrum: np.ndarray) -> np.ndarray:
    """(B,) with a smooth fall to 55 % at 350 nm where it was not measured, and level where it ends early."""
    known = np.flatnonzero(np.isfinite(spectrum))
    first, last = known[0], known[-1]
    out = np.interp(WAVELENGTHS, WAVELENGTHS[known], spectrum[known])
    away = (WAVELENGTHS[first] - WAVELENGTHS[:first]) / (WAVELENGTHS[first] - 350)
    out[:first] *= 1 - 0.45 * away**2
    out[last:] = spectrum[last]
    return out


def _formula(name: str) -> np.ndarray:
    """Smooth curves: tuff (bright, with a trace of clay), basalt (dark) and playa (brighter, a trace of clay)."""
    rise = 1 - np.exp(-(WAVELENGTHS - 300) / 350)
    clay = np.exp(-(((WAVELENGTHS - 2208) / 35) ** 2))
    fall = np.clip((WAVELENGTHS - 1700) / 800, 0, 1)
    return {
        "tuff": 0.36 * rise - 0.05 * fall - 0.004 * clay,
        "basalt": 0.11 + 0.03 * rise,
        "playa": 0.52 * rise - 0.10 * fall - 0.008 * clay,
    }[name]


def iron_oxide() -> np.ndarray:
    """(B,) factor by which a full coat changes reflectance: the edge of iron oxide at 550 nm, its band at 870 nm."""
    edge = 1 / (1 + np.exp(-(WAVELENGTHS - 560) / 30))
    band = 0.25 * np.exp(-(((WAVELENGTHS - 870) / 70) ** 2))
    return 0.35 + 0.65 * edge - band


def single_scattering(reflectance: np.ndarray) -> np.ndarray:
    """Albedo w of a particle from diffuse reflectance r = (1 - g) / (1 + g), g = sqrt(1 - w) (Hapke 1981, JGR 86)."""
    return 1 - ((1 - reflectance) / (1 + reflectance)) ** 2


def diffuse_reflectance(albedo: np.ndarray) -> np.ndarray:
    """Inverse of `single_scattering`."""
    root = np.sqrt(1 - albedo)
    return (1 - root) / (1 + root)


def measure(
    ground: Ground, spectra: np.ndarray, intimate: float, snr: float, generator: np.random.Generator
) -> np.ndarray:
    """(H, W, B) float32 reflectance after atmospheric correction.

    Args:
        spectra: (len(MATERIALS), B), see `endmembers`.
        intimate: part of the light that meets several materials on its way: 0 mixes areas (reflectance adds up), 1
            mixes grains (albedos of single scattering do).
        snr: signal-to-noise ratio at a reflectance of 0.5.
    """
    areal = ground.abundance @ spectra.astype(np.float32)
    grains = diffuse_reflectance(ground.abundance @ single_scattering(spectra).astype(np.float32))
    cube = (1 - intimate) * areal + intimate * grains
    cube *= 1 + ground.iron[..., None] * (iron_oxide() - 1).astype(np.float32)
    cube *= ground.shade[..., None]
    noise, vapour = np.ones(BANDS), np.zeros(BANDS)
    for centre, width, times in VAPOUR:
        shape = np.exp(-0.5 * ((WAVELENGTHS - centre) / width) ** 2)
        noise += times * shape
        vapour += shape
    opaque = noise > 10
    residue = RESIDUE * generator.standard_normal(cube.shape[:2])[..., None] * np.where(opaque, 0, vapour)
    cube = np.where(opaque, 0, cube * (1 + residue))
    cube += generator.standard_normal(cube.shape, np.float32) * (0.5 / snr * np.minimum(noise, 10))
    return cube.astype(np.float32)
