"""The ground of a simulated scene: which materials lie where, and relief.

Hydrothermal alteration is zoned around its centres as at Cuprite (Swayze and others 2014, Economic Geology 109, 1179)
and around porphyry copper (Lowell and Guilbert 1970, Economic Geology 65, 373): alunite and kaolinite inside, then
muscovite, montmorillonite, and chlorite, epidote and calcite outside. Everything else is smooth noise.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from src.minerals.mapping.minerals import NAMES

# Zones by distance from the centre, in units of its radius; each with the minerals that share it.
ZONES = (
    (0.55, ("alunite", "kaolinite")),
    (0.95, ("kaolinite", "muscovite")),
    (1.3, ("muscovite", "montmorillonite")),
    (1.8, ("chlorite", "epidote", "calcite")),
)
OTHERS = ("tuff", "basalt", "playa", "green vegetation", "dry grass")  # materials that the map does not know
MATERIALS = (*NAMES, *OTHERS)
SMOOTH_PX = 6  # correlation length of what is not zoned
RELIEF_PX = 14  # of the relief
SLOPE = 0.35  # standard deviation of its slopes


@dataclass(frozen=True)
class Ground:
    """Contents of each pixel of a scene.

    Attributes:
        abundance: (H, W, len(MATERIALS)) float32, area shares that sum to 1.
        iron: (H, W) float32, 0 to 1, how far iron oxide coats the surface.
        shade: (H, W) float32, illumination relative to flat ground.
    """

    abundance: np.ndarray
    iron: np.ndarray
    shade: np.ndarray


def draw(generator: np.random.Generator, side: int, barren: bool) -> Ground:
    """One scene of side x side px; a barren one has no alteration, but calcite, playa and iron oxide like others."""
    noise = {name: smooth(generator, side, SMOOTH_PX) for name in (*MATERIALS, "zone", "strength", "iron", "patch")}
    share = np.zeros((side, side, len(MATERIALS)), np.float32)
    if not barren:
        _alteration(generator, share, noise)
    column = {name: number for number, name in enumerate(MATERIALS)}
    patches = [("calcite", generator.choice([1.0, 1.6])), ("buddingtonite", generator.choice([1.3, 1.7, 9])),
               ("playa", generator.choice([0.8, 9, 9]))]  # fmt: skip
    for name, threshold in patches:  # 9: none in this scene
        patch = noise["patch"] if name == "playa" else noise[name]
        inside = patch > threshold
        share[inside] *= 0.15
        share[inside, column[name]] += np.clip(0.45 + 0.3 * noise["strength"][inside], 0.2, 0.8)
    share /= np.maximum(share.sum(-1, keepdims=True) / 0.9, 1)  # some host rock is everywhere
    rest = 1 - share.sum(-1)
    cover = np.clip(0.12 + 0.12 * noise["green vegetation"], 0, 0.6) * np.where(noise["patch"] > 0.8, 0.2, 1)
    green = 1 / (1 + np.exp(-noise["dry grass"]))
    share *= (1 - cover)[..., None]
    share[..., column["green vegetation"]], share[..., column["dry grass"]] = cover * green, cover * (1 - green)
    rock = (1 / (1 + np.exp(-4 * noise["tuff"]))).astype(np.float32)
    share[..., column["tuff"]], share[..., column["basalt"]] = (1 - cover) * rest * rock, (1 - cover) * rest * (1 - rock)
    iron = np.clip(0.25 * noise["iron"] + (0.05 if barren else 0.2), 0, 0.7).astype(np.float32)
    return Ground(share, iron, _shade(generator, side))


def _alteration(generator: np.random.Generator, share: np.ndarray, noise: dict[str, np.ndarray]) -> None:
    """Add the zones around one or two centres to `share`."""
    side = len(share)
    y, x = np.mgrid[:side, :side]
    distance = np.full((side, side), np.inf)
    for _ in range(generator.integers(1, 3)):
        centre, radius = generator.uniform(0.1, 0.9, 2) * side, generator.uniform(0.18, 0.34) * side
        stretch, angle = generator.uniform(1, 1.8), generator.uniform(0, np.pi)
        along = (x - centre[1]) * np.cos(angle) + (y - centre[0]) * np.sin(angle)
        across = (y - centre[0]) * np.cos(angle) - (x - centre[1]) * np.sin(angle)
        distance = np.minimum(distance, np.hypot(along / stretch, across) / radius)
    distance += 0.18 * noise["zone"]
    strength = np.clip(0.5 + 0.25 * noise["strength"], 0.05, 0.9)
    inner = -np.inf
    for outer, minerals in ZONES:
        inside = (distance >= inner) & (distance < outer)
        weights = np.exp(2.5 * np.stack([noise[name] for name in minerals], -1))
        weights /= weights.sum(-1, keepdims=True)
        for number, name in enumerate(minerals):
            share[inside, MATERIALS.index(name)] += (strength * weights[..., number])[inside]
        inner = outer


def smooth(generator: np.random.Generator, side: int, length: float) -> np.ndarray:
    """(side, side) Gaussian noise of mean 0 and variance 1 with a correlation length in px."""
    margin = int(4 * length)
    field = gaussian_filter(generator.standard_normal((side + 2 * margin, side + 2 * margin)), length)
    field = field[margin:-margin, margin:-margin] * (2 * length * np.sqrt(np.pi))
    return field.astype(np.float32)


def _shade(generator: np.random.Generator, side: int) -> np.ndarray:
    """Cosine of the angle between sun (45 degrees high, in the south-east) and relief, relative to flat ground."""
    down, right = np.gradient(smooth(generator, side, RELIEF_PX) * RELIEF_PX * SLOPE)
    toward = np.array([-0.5, 0.5])  # of the sun, rows and columns; its height is sqrt(0.5)
    cosine = (np.sqrt(0.5) - down * toward[0] * -1 - right * toward[1]) / np.sqrt(1 + down**2 + right**2)
    return np.clip(cosine / np.sqrt(0.5), 0.3, 1.4).astype(np.float32)
