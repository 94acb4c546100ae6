"""The ground of a simulated scene: farmland, woods, water, roads, villages and relief, in cells of 5 m.

A temperate European landscape in early summer. Optical and radar images are made of the same landscape
(simulated_optics.py, simulated_radar.py), each with variation of its own.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, label

from src.grounding.data.random_surface import smooth

CELL_M = 5  # side of a cell
FINE = 2  # cells along a pixel of 10 m
COVERS = ("water", "cereals", "maize", "rapeseed", "root crops", "grassland", "bare soil", "broadleaf", "conifer",
          "hedge", "road", "building", "garden", "paved")  # fmt: skip
CODE = {name: number for number, name in enumerate(COVERS)}
CROPS = ("cereals", "maize", "rapeseed", "root crops", "grassland", "bare soil", "broadleaf")
COMMON = np.array([0.28, 0.14, 0.12, 0.1, 0.2, 0.12, 0.04])  # share of fields with each of CROPS
# Canopy or roof above ground in m, lowest and highest of a parcel. Low crops are flat to the radar.
HEIGHT_M = {"broadleaf": (12, 22), "conifer": (15, 28), "hedge": (3, 8)}


@dataclass(frozen=True)
class Landscape:
    """Cells of a square scene, row 0 in the north.

    A parcel is a field, a wood, a lake, a road, a village's gardens or one building; what differs between parcels of
    the same cover is drawn for each.

    Attributes:
        cover: (N, N) uint8, index in COVERS.
        parcel: (N, N) int32, number of the parcel, from 0.
        angle: (P,) float32 radians, direction of a parcel's rows or longest wall, from east to south.
        leaf: (N, N) float32 0–1, share of ground under green leaves.
        moisture: (N, N) float32 0–1, of the topsoil.
        elevation: (N, N) float32 m, of the ground.
        height: (N, N) float32 m, of trees and buildings above it.
    """

    cover: np.ndarray
    parcel: np.ndarray
    angle: np.ndarray
    leaf: np.ndarray
    moisture: np.ndarray
    elevation: np.ndarray
    height: np.ndarray


class _Canvas:
    """Cells that are painted one thing over the other."""

    def __init__(self, side: int):
        self.rows, self.columns = np.mgrid[:side, :side].astype(np.float32)
        self.side = side
        self.cover, self.parcel = np.zeros((side, side), np.uint8), np.zeros((side, side), np.int32)
        self.height = np.zeros((side, side), np.float32)
        self.angles = [0.0]

    def paint(self, inside: np.ndarray | tuple, cover: str, angle: float = 0.0, height_m: float = 0.0) -> None:
        """Cover the cells `inside` with one new parcel."""
        self.cover[inside], self.parcel[inside], self.height[inside] = CODE[cover], len(self.angles), height_m
        self.angles.append(angle)

    def turned(self, angle: float) -> tuple[np.ndarray, np.ndarray]:
        """(N, N) each: coordinates in cells along and across a direction, from the scene's middle."""
        right, down = self.columns - self.side / 2, self.rows - self.side / 2
        return right * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - right * np.sin(angle)


def draw(generator: np.random.Generator, side_px: int) -> Landscape:
    """A scene of side_px x side_px pixels of 10 m; what it has much of (woods, houses, relief) is drawn too."""
    canvas = _Canvas(side_px * FINE)
    _farmland(canvas, generator)
    if (share := generator.choice([0, 0.08, 0.2, 0.45])) > 0:
        _woods(canvas, generator, share)
    water = _water(canvas, generator)
    tops = _roads_and_villages(canvas, generator)
    wet = water if water.any() else np.zeros_like(water)
    near = np.exp(-((CELL_M * distance_transform_edt(~wet) / 250) ** 2)) if water.any() else np.zeros(wet.shape)
    elevation = _relief(generator, canvas.side) * (1 - near)  # valleys are flat around water
    leaf, moisture = _state(canvas, generator, near)
    return Landscape(canvas.cover, canvas.parcel, np.array(canvas.angles, np.float32), leaf, moisture,
                     elevation.astype(np.float32), canvas.height + tops)  # fmt: skip


def _farmland(canvas: _Canvas, generator: np.random.Generator) -> None:
    """Fields in two to four districts, each with rows in one direction, with hedges on some of their borders."""
    side, districts = canvas.side, generator.integers(2, 5)
    bend = 12 * np.stack([smooth(generator, side, 30) for _ in range(2)])
    seeds = generator.uniform(0, side, (districts, 2))
    distance = [(canvas.rows + bend[0] - y) ** 2 + (canvas.columns + bend[1] - x) ** 2 for y, x in seeds]
    nearest = np.argmin(distance, axis=0)
    common = generator.dirichlet(12 * COMMON)
    hedged = generator.choice([0.05, 0.3, 0.6])
    for number in range(districts):
        angle = generator.uniform(0, np.pi)
        along, across = canvas.turned(angle)
        along, across = along + 0.3 * bend[0], across + 0.3 * bend[1]
        hectares = generator.uniform(1.5, 7)
        reach = 0.75 * side
        strips: list[np.ndarray] = []
        box = (-reach, reach, -reach, reach)
        _split(canvas, generator, nearest == number, along, across, box, angle, hectares, common, strips)
        for strip in strips:
            if generator.random() < hedged:
                canvas.paint(strip, "hedge", angle, generator.uniform(*HEIGHT_M["hedge"]))
            elif generator.random() < 0.15:
                canvas.paint(strip, "road", angle)


def _split(
    canvas: _Canvas,
    generator: np.random.Generator,
    inside: np.ndarray,
    along: np.ndarray,
    across: np.ndarray,
    box: tuple[float, float, float, float],
    angle: float,
    hectares: float,
    common: np.ndarray,
    strips: list[np.ndarray],
) -> None:
    """Halve a rectangle of farmland until its parts are fields; `strips` receives the cells along each border."""
    cells = np.count_nonzero(inside)
    if not cells:
        return
    left, right, low, high = box
    if cells * CELL_M**2 / 1e4 < hectares * generator.uniform(0.6, 1.7) or min(right - left, high - low) < 8:
        crop = CROPS[generator.choice(len(CROPS), p=common)]
        canvas.paint(inside, crop, angle, generator.uniform(*HEIGHT_M.get(crop, (0, 0))))
        return
    at = generator.uniform(0.35, 0.65)
    lengthwise = (right - left) * generator.uniform(0.6, 1.3) > high - low
    if lengthwise:
        where, border = along, left + at * (right - left)
        parts = (left, border, low, high), (border, right, low, high)
    else:
        where, border = across, low + at * (high - low)
        parts = (left, right, low, border), (left, right, border, high)
    first = where < border
    strips.append(inside & (np.abs(where - border) < 0.8))
    for part, box_of_part in zip((inside & first, inside & ~first), parts, strict=True):
        _split(canvas, generator, part, along, across, box_of_part, angle, hectares, common, strips)


def _woods(canvas: _Canvas, generator: np.random.Generator, share: float) -> None:
    """Woods with ragged borders over a share of the scene; each connected one is a parcel of one kind of trees."""
    surface = smooth(generator, canvas.side, 18) + 0.25 * smooth(generator, canvas.side, 4)
    kind = smooth(generator, canvas.side, 22) > generator.normal(0, 0.7)
    wooded = surface > np.quantile(surface, 1 - share)
    for cells, cover in ((wooded & kind, "broadleaf"), (wooded & ~kind, "conifer")):
        numbers, count = label(cells)
        for number in range(1, count + 1):
            canvas.paint(numbers == number, cover, 0.0, generator.uniform(*HEIGHT_M[cover]))


def _curve(canvas: _Canvas, generator: np.random.Generator, bend: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Distance in cells to a curve through the scene (N, N), the curve's (row, column) points (K, 2), its angle."""
    angle = generator.uniform(0, np.pi)
    steps = np.arange(-0.8 * canvas.side, 0.8 * canvas.side)
    waves = np.arange(1, 6)
    size = generator.standard_normal((2, 5)) * bend * canvas.side / waves**1.5
    turn = 2 * np.pi * waves * steps[:, None] / (1.6 * canvas.side)
    offset = np.cos(turn) @ size[0] + np.sin(turn) @ size[1]
    offset += generator.uniform(-0.3, 0.3) * canvas.side - np.median(offset)
    along, across = canvas.turned(angle)
    slope = np.gradient(offset)
    distance = np.abs(across - np.interp(along, steps, offset)) / np.hypot(1, np.interp(along, steps, slope))
    rows = canvas.side / 2 + steps * np.sin(angle) + offset * np.cos(angle)
    columns = canvas.side / 2 + steps * np.cos(angle) - offset * np.sin(angle)
    return distance, np.stack([rows, columns], axis=-1), angle


def _water(canvas: _Canvas, generator: np.random.Generator) -> np.ndarray:
    """A river with trees along it, a lake, both or none; returns (N, N) bool."""
    water = np.zeros((canvas.side, canvas.side), bool)
    if generator.random() < 0.55:
        distance, _, _ = _curve(canvas, generator, 0.06)
        width_m = np.exp(generator.uniform(np.log(15), np.log(90)))
        width = width_m / CELL_M / 2 * (1 + 0.25 * smooth(generator, canvas.side, 12))
        trees = (distance < width + 3) & (smooth(generator, canvas.side, 4) > generator.uniform(-0.3, 1))
        canvas.paint(trees, "broadleaf", 0.0, generator.uniform(*HEIGHT_M["hedge"]))
        canvas.paint(distance < width, "water")
        water |= distance < width
    if generator.random() < 0.35:
        surface = smooth(generator, canvas.side, generator.uniform(10, 25))
        lake = surface > np.quantile(surface, 1 - generator.uniform(0.02, 0.12))
        canvas.paint(lake, "water")
        water |= lake
    return water


def _roads_and_villages(canvas: _Canvas, generator: np.random.Generator) -> np.ndarray:
    """One to three roads, with villages or a town on them; returns (N, N) m, how far roofs rise unevenly."""
    tops = np.zeros((canvas.side, canvas.side), np.float32)
    land = canvas.cover != CODE["water"]
    for _ in range(generator.integers(1, 4)):
        distance, points, angle = _curve(canvas, generator, 0.04)
        for _ in range(generator.choice([0, 1, 1, 2])):
            inside = points[(points > 0).all(-1) & (points < canvas.side).all(-1)]
            if len(inside):
                town = generator.random() < 0.3
                _village(canvas, generator, inside[generator.integers(len(inside))], angle, town, land)
        canvas.paint(distance < generator.choice([0.8, 1.1, 1.7]), "road", angle)
    return tops


def _village(
    canvas: _Canvas, generator: np.random.Generator, centre: np.ndarray, angle: float, town: bool, land: np.ndarray
) -> None:
    """Gardens or paved yards with streets, and houses in rows along them; a town has larger and higher ones."""
    radius = generator.uniform(35, 65) if town else generator.uniform(16, 40)  # cells
    angle = angle + generator.normal(0, 0.25)
    along, across = canvas.turned(angle)
    middle = canvas.turned(angle)[0][tuple(centre.astype(int))], canvas.turned(angle)[1][tuple(centre.astype(int))]
    along, across = along - middle[0], across - middle[1]
    edge = radius * (1 + 0.25 * smooth(generator, canvas.side, 10))
    inside = (np.hypot(along, across) < edge) & land
    canvas.paint(inside, "garden", angle)
    block, depth = (18, 14) if town else (14, 11)
    canvas.paint(inside & ((along % block < 1.2) | (across % depth < 1.2)), "paved" if town else "road", angle)
    if town:
        canvas.paint(inside & (np.hypot(along, across) < 0.4 * radius), "paved", angle)
    reach = int(1.3 * radius)
    for u in np.arange(-reach, reach, block / 3):
        for v in np.arange(-reach, reach, depth / 2):
            if generator.random() < (0.75 if town else 0.6):
                long, wide = (generator.uniform(2.5, 6), generator.uniform(2.5, 5)) if town else (3, 2)
                if generator.random() < 0.05:
                    long, wide = generator.uniform(5, 12), generator.uniform(4, 7)  # a barn or a hall
                height = generator.uniform(8, 22) if town else generator.uniform(5, 9)
                place = u + generator.normal(0, 0.6), v + 2.5 + generator.normal(0, 0.4)
                _house(canvas, generator, along, across, inside, centre, angle, place, (long, wide), height)


def _house(
    canvas: _Canvas,
    generator: np.random.Generator,
    along: np.ndarray,
    across: np.ndarray,
    inside: np.ndarray,
    centre: np.ndarray,
    angle: float,
    place: tuple[float, float],
    extent: tuple[float, float],
    height_m: float,
) -> None:
    """Paint one building, unless its middle lies outside the village; only cells around it are looked at."""
    row = int(centre[0] + place[0] * np.sin(angle) + place[1] * np.cos(angle))
    column = int(centre[1] + place[0] * np.cos(angle) - place[1] * np.sin(angle))
    if not (0 <= row < canvas.side and 0 <= column < canvas.side and inside[row, column]):
        return
    window = np.s_[max(row - 9, 0) : row + 10, max(column - 9, 0) : column + 10]
    near = np.abs(along[window] - place[0]) < extent[0] / 2
    near &= (np.abs(across[window] - place[1]) < extent[1] / 2) & inside[window]
    rows, columns = np.nonzero(near)
    turned = angle if extent[0] > extent[1] else angle + np.pi / 2
    canvas.paint((rows + window[0].start, columns + window[1].start), "building", turned, height_m)


def _relief(generator: np.random.Generator, side: int) -> np.ndarray:
    """(N, N) m above the lowest ground: plain, hills, or mountains steep enough for layover and shadow."""
    slope = generator.choice([0.015, 0.06, 0.15, 0.45], p=[0.35, 0.3, 0.2, 0.15])  # standard deviation
    length = generator.uniform(25, 50)  # cells; the slope of a surface of variance 1 is 1 / (sqrt(2) length)
    surface = smooth(generator, side, length) + 0.05 * smooth(generator, side, length / 4)
    return (surface - surface.min()) * slope * np.sqrt(2) * length * CELL_M


def _state(canvas: _Canvas, generator: np.random.Generator, near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leaf cover and soil moisture, from draws of the scene, of each parcel, and within parcels."""
    parcels = len(canvas.angles)
    spread = {"cereals": (0.75, 0.18), "maize": (0.4, 0.25), "rapeseed": (0.85, 0.1), "root crops": (0.5, 0.25),
              "grassland": (0.75, 0.15), "bare soil": (0.04, 0.03), "broadleaf": (0.92, 0.03),
              "conifer": (0.9, 0.03), "hedge": (0.8, 0.08), "garden": (0.6, 0.15)}  # fmt: skip
    mean, deviation = np.zeros((2, len(COVERS)), np.float32)
    for name, values in spread.items():
        mean[CODE[name]], deviation[CODE[name]] = values
    grown = generator.standard_normal(parcels).astype(np.float32)[canvas.parcel]
    leaf = mean[canvas.cover] + deviation[canvas.cover] * grown
    leaf += 0.06 * smooth(generator, canvas.side, 8) * (deviation[canvas.cover] > 0.1)
    damp = 0.1 * generator.standard_normal(parcels).astype(np.float32)[canvas.parcel]
    moisture = generator.uniform(0.2, 0.6) + damp + 0.1 * smooth(generator, canvas.side, 24) + 0.25 * near
    return np.clip(leaf, 0, 0.98).astype(np.float32), np.clip(moisture, 0, 1).astype(np.float32)
