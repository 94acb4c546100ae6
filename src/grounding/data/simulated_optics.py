"""Optical image of a simulated landscape: surface reflectance in B02, B03, B04 and B08."""

import numpy as np

from src.grounding.data.random_surface import smooth
from src.grounding.data.simulated_landscape import CELL_M, CODE, COVERS, FINE, Landscape

SUN = np.radians(150), np.radians(52)  # azimuth from north over east, height: a June morning at 50° north
DIFFUSE = 0.2  # share of light that comes from the sky
STEPS = 4  # cells that a shadow is long at most
# Reflectance of leaves or surfaces in B02, B03, B04, B08: round values of the order that is published for crops and
# trees (Vuolo and others 2018, International Journal of Applied Earth Observation 72, 122; Immitzer and others 2016,
# Remote Sensing 8, 166), roofs and roads (Kotthaus and others 2014, ISPRS Journal 94, 194) and lakes (Toming and
# others 2016, Remote Sensing 8, 640).
COLOURS = {
    "water": (0.050, 0.052, 0.035, 0.015), "cereals": (0.032, 0.068, 0.042, 0.38), "maize": (0.030, 0.065, 0.038, 0.42),
    "rapeseed": (0.038, 0.095, 0.060, 0.44), "root crops": (0.030, 0.078, 0.038, 0.49),
    "grassland": (0.036, 0.074, 0.046, 0.36), "bare soil": (0.036, 0.074, 0.046, 0.36),
    "broadleaf": (0.020, 0.044, 0.024, 0.36), "conifer": (0.018, 0.031, 0.021, 0.21),
    "hedge": (0.025, 0.052, 0.030, 0.33), "road": (0.100, 0.115, 0.125, 0.17), "building": (0.120, 0.130, 0.150, 0.20),
    "garden": (0.040, 0.072, 0.048, 0.33), "paved": (0.120, 0.130, 0.140, 0.18),
}  # fmt: skip
RIPE = np.array([0.065, 0.105, 0.125, 0.31], np.float32)  # yellow cereals
SOIL = np.array([0.085, 0.115, 0.155, 0.215], np.float32)  # dry loam
TILE = np.array([0.065, 0.090, 0.170, 0.23], np.float32)  # red roofs
PLANTS = ("cereals", "maize", "rapeseed", "root crops", "grassland", "bare soil", "garden")  # soil shows between leaves
ROWED = ("cereals", "maize", "rapeseed", "root crops", "bare soil")  # with tramlines


def optical(ground: Landscape, generator: np.random.Generator) -> np.ndarray:
    """(4, H, W) float32 reflectance 0–1 of a landscape, at 10 m.

    Brightness and colour of each parcel, variation within it, sunlight on the relief, and shadows that trees and
    buildings cast are drawn here; none of it enters the radar image.
    """
    side, parcels = len(ground.cover), len(ground.angle)
    cover = np.array([COLOURS[name] for name in COVERS], np.float32)[ground.cover]  # (N, N, 4)
    ripe = np.clip(generator.uniform(-0.5, 1) + 0.3 * generator.standard_normal(parcels), 0, 1)[ground.parcel]
    ripe *= ground.cover == CODE["cereals"]
    cover += ripe[..., None] * (RIPE - cover)
    tiled = (generator.random(parcels) < generator.uniform(0.2, 0.8))[ground.parcel]
    cover[tiled & (ground.cover == CODE["building"])] = TILE
    wetness = (1 - 0.5 * ground.moisture) * np.exp(0.2 * generator.standard_normal(dtype=np.float32))
    soil = SOIL * (wetness * np.exp(0.12 * smooth(generator, side, 14)))[..., None]
    planted = np.isin(ground.cover, [CODE[name] for name in PLANTS])
    leaf = np.where(planted, ground.leaf, np.float32(1))[..., None]
    reflectance = leaf * cover + (1 - leaf) * soil
    spread = np.where(np.arange(len(COVERS)) == CODE["building"], 0.45, 0.1)
    spread[CODE["water"]] = 0.25
    own = spread[ground.cover] * generator.standard_normal(parcels)[ground.parcel]
    tint = np.exp(0.06 * generator.standard_normal((parcels, 4), np.float32))[ground.parcel]
    within = 0.06 * smooth(generator, side, 5) + 0.08 * smooth(generator, side, 1.2)
    within = np.where(ground.cover == CODE["water"], 0.3 * within, within)
    rough = np.isin(ground.cover, [CODE["broadleaf"], CODE["conifer"], CODE["hedge"]])
    within += np.where(rough, 0.14 * smooth(generator, side, 1), 0)  # crowns
    light = _sunlight(ground) * np.exp(own + within + _rows(ground, generator))
    reflectance = reflectance * tint * light[..., None]
    mean = reflectance.reshape(side // FINE, FINE, side // FINE, FINE, 4).mean(axis=(1, 3))
    return np.ascontiguousarray(np.clip(np.moveaxis(mean, -1, 0), 0.001, 1), np.float32)


def _rows(ground: Landscape, generator: np.random.Generator) -> np.ndarray:
    """(N, N) logarithm of relative brightness from tramlines and sown strips, along each field's direction."""
    parcels = len(ground.angle)
    rows, columns = np.mgrid[: len(ground.cover), : len(ground.cover)]
    angle = ground.angle[ground.parcel]
    across = CELL_M * (rows * np.cos(angle) - columns * np.sin(angle))
    period = generator.uniform(24, 60, parcels)[ground.parcel]  # m
    strength = np.abs(0.05 * generator.standard_normal(parcels))[ground.parcel]
    rowed = np.isin(ground.cover, [CODE[name] for name in ROWED])
    return np.where(rowed, strength * np.sin(2 * np.pi * across / period), 0)


def _sunlight(ground: Landscape) -> np.ndarray:
    """(N, N) light relative to flat open ground."""
    azimuth, height = SUN
    down, right = np.gradient(ground.elevation, CELL_M)
    towards = -np.cos(azimuth), np.sin(azimuth)  # to the sun, in rows and columns
    cosine = np.sin(height) - np.cos(height) * (down * towards[0] + right * towards[1])
    cosine = np.clip(cosine / np.sqrt(1 + down**2 + right**2), 0, None) / np.sin(height)
    shaded = np.zeros(ground.cover.shape, bool)
    side, beyond = len(shaded), np.pad(ground.height, STEPS, "edge")
    for step in range(1, STEPS + 1):  # a building or tree `step` cells nearer to the sun that reaches above the ray
        row, column = (STEPS + round(step * part) for part in towards)
        risen = beyond[row : row + side, column : column + side] - ground.height
        shaded |= risen > step * CELL_M * np.tan(height)
    return DIFFUSE + (1 - DIFFUSE) * cosine * np.where(shaded, 0.3, 1)
