"""Radar image of a simulated landscape: gamma0 of C band in VV and VH, after radiometric terrain correction.

The radar stands in the west and looks east (an ascending orbit of Sentinel-1), so that layover points to the west
and shadow to the east of whatever rises.
"""

import numpy as np

from src.grounding.data.random_surface import smooth
from src.grounding.data.simulated_landscape import CELL_M, CODE, COVERS, FINE, Landscape

INCIDENCE = np.radians(39)  # in the middle of Sentinel-1's IW swath (29° to 46°)
NOISE_DB = -25.0  # noise-equivalent backscatter of Sentinel-1 IW, specified as below -22 dB
# gamma0 in dB, VV and VH, of a cover, and of crops whose canopy is full: round values of the order that is published
# for C band in general (Ulaby and Dobson 1989, Handbook of Radar Scattering Statistics for Terrain), water (Bioresita
# and others 2018, Remote Sensing 10, 217) and crops (Vreugdenhil and others 2018, Remote Sensing 10, 1396; Khabbazan
# and others 2019, Remote Sensing 11, 1887).
CANOPY_DB = {
    "water": (-22.5, -29), "cereals": (-15, -20.5), "maize": (-9, -14.5), "rapeseed": (-9.5, -14),
    "root crops": (-8, -14.5), "grassland": (-12.5, -19), "bare soil": (-13, -20), "broadleaf": (-8, -13.7),
    "conifer": (-8.6, -14.8), "hedge": (-8.5, -14), "road": (-15, -23), "building": (-3, -10),
    "garden": (-9.5, -15.5), "paved": (-13, -20),
}  # fmt: skip
# Optical depth of a full canopy: the share exp(-2 depth / cos incidence) of soil's backscatter comes through.
DEPTH = {"cereals": 0.9, "maize": 0.5, "rapeseed": 0.9, "root crops": 0.6, "grassland": 0.35, "bare soil": 0.3,
         "garden": 0.8}  # fmt: skip
OPAQUE = 9.0
SOIL_DB, MOIST_DB = -15.5, 8.0  # VV of dry soil, and gain from dry to saturated (Attema and Ulaby 1978)
WALL_DB = 9.0  # VV of ground and wall together, where a wall faces the radar; the 10 m pixel around holds less
FACING = np.radians(14)  # width of directions in which a wall faces the radar
BESIDE = 12  # cells east and west of the scene that are like its border
# Shares of a tree's height: from there on it shades, and that much it leans to the radar, for the surface models that
# terrain correction uses (30 m) hold woods, but no single buildings.
CANOPY_SHADE, CANOPY_LEAN = 0.6, 0.2


def backscatter(ground: Landscape, generator: np.random.Generator) -> np.ndarray:
    """(2, H, W) float64 power gamma0 without speckle, VV and VH, at 10 m.

    Vegetation over soil follows the water cloud model (Attema and Ulaby 1978, Radio Science 13, 357). Structure of a
    canopy and roughness of soil are drawn here for each parcel; they are not seen in the optical image, while leaf
    cover and moisture are in both.
    """
    parcels, side = len(ground.angle), len(ground.cover)
    structure = generator.standard_normal(parcels)[ground.parcel]
    rough = generator.standard_normal(parcels)[ground.parcel]
    within = 0.6 * smooth(generator, side, 10) + 0.5 * smooth(generator, side, 1.5)
    depth = np.array([DEPTH.get(name, OPAQUE) for name in COVERS])[ground.cover]
    grown = np.clip(ground.leaf * (1 + 0.25 * structure), 0.02, 1.3)
    through = np.exp(-2 * depth * np.where(depth < OPAQUE, grown, 1) / np.cos(INCIDENCE))
    soil_db = SOIL_DB + MOIST_DB * ground.moisture + 1.8 * rough
    spread = np.where(np.arange(len(COVERS)) == CODE["building"], 2.5, 0.9)[ground.cover]
    wind = generator.normal(0, 1.5)  # roughens all water of the scene
    images = []
    for band, soil_ratio in enumerate((0, -8.5)):
        canopy_db = np.array([CANOPY_DB[name][band] for name in COVERS])[ground.cover]
        canopy_db = canopy_db + spread * structure + np.where(ground.cover == CODE["water"], wind, 0)
        power = (1 - through) * _power(canopy_db) + through * _power(soil_db + soil_ratio)
        images.append(power * _power(within * (0.5 if band else 1)))
    vv, vh = images
    walls = _walls(ground) * _power(WALL_DB + 1.5 * rough)
    return (
        project(ground, np.stack([vv + walls, vh + 0.15 * walls])) + _power(NOISE_DB + np.array([0, -2]))[:, None, None]
    )


def speckle(power: np.ndarray, looks: int, generator: np.random.Generator) -> np.ndarray:
    """Power multiplied by fully developed speckle: gamma distributed with mean 1 and variance 1 / looks, independent
    in all pixels and bands (Goodman 1976, Journal of the Optical Society of America 66, 1145)."""
    return power * generator.gamma(looks, 1 / looks, power.shape)


def sar(ground: Landscape, looks: int, generator: np.random.Generator) -> np.ndarray:
    """(2, H, W) float32 gamma0 in dB, VV and VH, with speckle."""
    return (10 * np.log10(speckle(backscatter(ground, generator), looks, generator))).astype(np.float32)


def project(ground: Landscape, power: np.ndarray) -> np.ndarray:
    """Image (B, N, N) power of cells as a radar does and correct it for terrain; (B, H, W) at 10 m.

    Cells of equal distance to the radar share a bin of slant range. A bin's power is divided by the area of bare
    terrain in it (Small 2011, IEEE Transactions on Geoscience and Remote Sensing 49, 3081) and given back to the
    terrain at that range. So buildings lean to the radar, and trees a little; slopes steeper than the incidence angle
    mix (layover); what the radar does not reach is dark (shadow).
    """
    bands, side, _ = power.shape
    margin = (0, 0), (BESIDE, BESIDE)  # or the scene's east would be in the shadow of nothing
    power = np.pad(power, ((0, 0), *margin), "edge")
    elevation = np.pad(ground.elevation, margin, "edge")
    building = ground.cover == CODE["building"]
    shade, lean = (
        np.pad(np.where(building, 1, share) * ground.height, margin, "edge") for share in (CANOPY_SHADE, CANOPY_LEAN)
    )
    east = CELL_M * np.arange(power.shape[-1])
    ray = east * np.cos(INCIDENCE) + elevation * np.sin(INCIDENCE)  # across the rays, from the nearest on
    area = np.clip(np.gradient(ray, axis=1), 0, None) * _unshaded(ray)
    at = (east - elevation / np.tan(INCIDENCE)) / CELL_M  # slant range, in bins that are as long as a flat cell
    leaning = at - lean / np.tan(INCIDENCE) / CELL_M
    first = int(np.floor(leaning.min()))
    at, leaning = at - first, leaning - first
    count = int(at.max()) + 3
    lit = area * _unshaded(ray + shade * np.sin(INCIDENCE))
    terrain = np.maximum(_binned(at, area, count), 1e-6)
    whole, lines = at.astype(int), np.arange(side)[:, None]
    image = np.zeros_like(power)
    for band, corrected in zip(power, image, strict=True):
        slant = _binned(leaning, band * lit, count) / terrain
        corrected[:] = slant[lines, whole] * (1 - at + whole) + slant[lines, whole + 1] * (at - whole)
    image = np.where(area > 0, image, 0)[..., BESIDE:-BESIDE]
    return image.reshape(bands, side // FINE, FINE, side // FINE, FINE).mean(axis=(2, 4))


def _unshaded(ray: np.ndarray) -> np.ndarray:
    """(N, N) bool: cells that no cell nearer to the radar rises above."""
    return ray >= np.maximum.accumulate(ray, axis=1)


def _binned(position: np.ndarray, weight: np.ndarray, count: int) -> np.ndarray:
    """(N, count) sums of (N, N) weights in each row, shared between the two bins around each position."""
    whole = position.astype(int)
    index = whole + count * np.arange(len(position))[:, None]
    far = weight * (position - whole)
    size = count * len(position)
    total = np.bincount(index.ravel(), (weight - far).ravel(), size)
    total += np.bincount(index.ravel() + 1, far.ravel(), size + 1)[:size]
    return total.reshape(len(position), count)


def _walls(ground: Landscape) -> np.ndarray:
    """(N, N) 0–1: cells in front of a wall, seen from the radar, by how squarely the wall faces it."""
    building = ground.cover == CODE["building"]
    front = np.zeros_like(building)
    front[:, :-1] = building[:, 1:] & ~building[:, :-1]
    angle = np.zeros(building.shape)
    angle[:, :-1] = ground.angle[ground.parcel[:, 1:]]
    off = np.abs((angle + np.pi / 4) % (np.pi / 2) - np.pi / 4)  # of the nearest wall from north-south
    return front * (0.08 + np.exp(-((off / FACING) ** 2)))


def _power(db: np.ndarray | float) -> np.ndarray:
    return 10 ** (np.asarray(db) / 10)
