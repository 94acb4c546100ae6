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
VALLEY_M = 150  # from water to where a valley's floor begins to rise
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

    def paint(self, inside: np.ndarray, cover: str, angle: float = 0.0, height_m: float = 0.0) -> None:
        """Cover the cells `inside` (N, N) bool with one new parcel."""
        self.cover[inside], self.parcel[inside], self.height[inside] = CODE[cover], len(self.angles), height_m
        self.angles.append(angle)

    def turned(self, angle: float) -> tuple[np.ndarray, np.ndarray]:
        """(N, N) each: coordinates in cells along and across a direction, from the scene's middle."""
        right, down = self.columns - self.side / 2, self.rows - self.side / 2
        return right * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - right * np.sin(angle)


def draw(generator: np.random.Generator, side_px: int) -> Landscape:
    """A scene of side_px x side_px pixels of 10 m; what it has much of (woods, houses, relief) is drawn too."""
    canvas = _Canvas(side_px * FINE)
    slope = generator.choice([0.015, 0.06, 0.15, 0.5], p=[0.35, 0.3, 0.2, 0.15])  # standard deviation
    steep = slope > 0.3  # woods and meadows, no large villages
    _farmland(canvas, generator, np.where(np.array(CROPS) == "grassland", 8, 1) * COMMON if steep else COMMON)
    _woods(canvas, generator, generator.choice([0.3, 0.5] if steep else [0, 0.08, 0.2, 0.45]))
    water = _water(canvas, generator)
    _roads_and_villages(canvas, generator, 12 if steep else 65)
    elevation, near = _relief(canvas, generator, slope), np.zeros(water.shape)
    if water.any():  # it is level, and so is the valley floor around it, which is damp
        near = np.exp(-((CELL_M * distance_transform_edt(~water) / VALLEY_M) ** 2))
        elevation += near * (elevation[water].mean() - elevation)
    leaf, moisture = _state(canvas, generator, near)
    angle = np.array(canvas.angles, np.float32)
    return Landscape(canvas.cover, canvas.parcel, angle, leaf, moisture, elevation.astype(np.float32), canvas.height)


def _farmland(canvas: _Canvas, generator: np.random.Generator, common: np.ndarray) -> None:
    """Fields in two to four districts, each with rows in one direction, with hedges on some of their borders."""
    side, districts = canvas.side, generator.integers(2, 5)
    bend = 12 * np.stack([smooth(generator, side, 30) for _ in range(2)])
    seeds = generator.uniform(0, side, (districts, 2))
    distance = [(canvas.rows + bend[0] - y) ** 2 + (canvas.columns + bend[1] - x) ** 2 for y, x in seeds]
    nearest = np.argmin(distance, axis=0)
    crops = generator.dirichlet(12 * common / common.sum())
    hedged = generator.choice([0.05, 0.3, 0.6])
    for number in range(districts):
        angle = generator.uniform(0, np.pi)
        along, across = canvas.turned(angle)
        place = along + 0.3 * bend[0], across + 0.3 * bend[1]
        fields, borders = _split(nearest == number, *place, generator.uniform(1.5, 7), generator)
        for field in fields:
            crop = CROPS[generator.choice(len(CROPS), p=crops)]
            canvas.paint(field, crop, angle, generator.uniform(*HEIGHT_M.get(crop, (0, 0))))
        for border in borders:
            if generator.random() < hedged:
                canvas.paint(border, "hedge", angle, generator.uniform(*HEIGHT_M["hedge"]))
            elif generator.random() < 0.15:
                canvas.paint(border, "road", angle)


def _split(
    inside: np.ndarray, along: np.ndarray, across: np.ndarray, hectares: float, generator: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Halve farmland, the longer way first, until its parts have about so many hectares.

    Returns:
        The fields and the strips on the borders between them, (N, N) bool each.
    """
    cells = np.count_nonzero(inside)
    if not cells:
        return [], []
    extents = [(where[inside].min(), where[inside].max()) for where in (along, across)]
    lengths = [high - low for low, high in extents]
    if cells * CELL_M**2 / 1e4 < hectares * generator.uniform(0.6, 1.7) or min(lengths) < 8:
        return [inside], []
    longer = int(lengths[1] > lengths[0] * generator.uniform(0.6, 1.3))
    border = extents[longer][0] + generator.uniform(0.35, 0.65) * lengths[longer]
    off = (along, across)[longer] - border
    fields, borders = [], [inside & (np.abs(off) < 0.8)]
    for part in (inside & (off < 0), inside & (off >= 0)):
        more_fields, more_borders = _split(part, along, across, hectares, generator)
        fields, borders = fields + more_fields, borders + more_borders
    return fields, borders


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
    amplitude = generator.standard_normal((2, 5)) * bend * canvas.side / waves**1.5
    turn = 2 * np.pi * waves * steps[:, None] / (1.6 * canvas.side)
    offset = np.cos(turn) @ amplitude[0] + np.sin(turn) @ amplitude[1]
    offset += generator.uniform(-0.3, 0.3) * canvas.side - np.median(offset)
    along, across = canvas.turned(angle)
    stretched = np.hypot(1, np.interp(along, steps, np.gradient(offset)))
    distance = np.abs(across - np.interp(along, steps, offset)) / stretched
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
    if generator.random() < 0.4:
        surface = smooth(generator, canvas.side, generator.uniform(10, 25)) + 0.1 * smooth(generator, canvas.side, 4)
        numbers, _ = label(surface > np.quantile(surface, 1 - generator.uniform(0.02, 0.15)))
        lake = numbers == 1 + np.argmax(np.bincount(numbers.ravel())[1:])
        canvas.paint(lake, "water")
        water |= lake
    return water


def _roads_and_villages(canvas: _Canvas, generator: np.random.Generator, largest: float) -> None:
    """One to three roads, with villages or towns on them, of a radius up to `largest` cells."""
    land = canvas.cover != CODE["water"]
    for _ in range(generator.integers(1, 4)):
        distance, points, angle = _curve(canvas, generator, 0.04)
        points = points[(points > 0).all(-1) & (points < canvas.side).all(-1)]
        for _ in range(generator.choice([0, 1, 1, 2]) if len(points) else 0):
            centre = points[generator.integers(len(points))]
            town = generator.random() < 0.25 and largest > 40
            radius = generator.uniform(32, largest) if town else generator.uniform(9, min(largest, 36))
            _village(canvas, generator, land, centre, angle + generator.normal(0, 0.25), radius, town)
        canvas.paint(distance < generator.choice([0.8, 1.1, 1.7]), "road", angle)


def _village(
    canvas: _Canvas,
    generator: np.random.Generator,
    land: np.ndarray,
    centre: np.ndarray,
    angle: float,
    radius: float,
    town: bool,
) -> None:
    """Gardens with streets, and at most one building on each lot; a town's are larger and higher, its yards paved."""
    row, column = centre.astype(int)
    along, across = canvas.turned(angle)
    along, across = along - along[row, column], across - across[row, column]
    distance = np.hypot(along, across)
    inside = (distance < radius * (1 + 0.35 * smooth(generator, canvas.side, 8))) & land
    canvas.paint(inside, "garden", angle)
    if town:
        canvas.paint(inside & (distance < radius * generator.uniform(0.2, 0.6)), "paved", angle)
    along = along + 2.5 * smooth(generator, canvas.side, 16)  # streets wind
    across = across + 2.5 * smooth(generator, canvas.side, 16)
    lot = (8, 8) if town else (6, 7)  # cells
    streets = (along % (lot[0] * generator.integers(2, 5)) < 1.2) | (across % (lot[1] * 2) < 1.2)
    canvas.paint(inside & streets, "road", angle)
    free = np.nonzero(inside & ~streets)
    if len(free[0]):
        _buildings(canvas, generator, free, (along[free] / lot[0], across[free] / lot[1]), lot, angle, town)


def _buildings(
    canvas: _Canvas,
    generator: np.random.Generator,
    free: tuple[np.ndarray, np.ndarray],
    place: tuple[np.ndarray, np.ndarray],
    lot: tuple[int, int],
    angle: float,
    town: bool,
) -> None:
    """Paint buildings on the cells `free` (rows and columns, (K,) each); `place` (K,) each is in lots of `lot` cells
    along and across."""
    numbers = [np.floor(where).astype(int) - int(np.floor(where.min())) for where in place]
    shape = numbers[0].max() + 1, numbers[1].max() + 1
    lots = tuple(numbers)
    built = generator.random(shape) < (0.8 if town else 0.6)
    long = generator.uniform(2.5, 7, shape) if town else generator.uniform(2, 4, shape)
    wide = generator.uniform(2, 4, shape) if town else generator.uniform(1.6, 2.6, shape)
    larger = np.where(generator.random(shape) < 0.06, 1.8, 1)  # a barn or a hall
    height = generator.gamma(4, 2.8 if town else 1.6, shape)  # m
    turn = 0.12 * generator.standard_normal(shape) + np.where(generator.random(shape) < 0.3, np.pi / 2, 0)
    shift = 0.6 * generator.standard_normal((2, *shape))
    u, v = ((place[axis] % 1 - 0.5) * lot[axis] - shift[axis][lots] for axis in range(2))
    cos, sin = np.cos(turn)[lots], np.sin(turn)[lots]
    house = built[lots] & (np.abs(u * cos + v * sin) < (larger * long)[lots] / 2)
    house &= np.abs(v * cos - u * sin) < (larger * wide)[lots] / 2
    ones, parcel = np.unique(np.ravel_multi_index(lots, shape)[house], return_inverse=True)
    cells = free[0][house], free[1][house]
    canvas.cover[cells], canvas.parcel[cells] = CODE["building"], len(canvas.angles) + parcel
    canvas.height[cells] = height[lots][house]
    canvas.angles += (angle + turn.flat[ones]).tolist()


def _relief(canvas: _Canvas, generator: np.random.Generator, slope: float) -> np.ndarray:
    """(N, N) m above the lowest ground, by the standard deviation of its slopes."""
    length = generator.uniform(22, 40)  # cells; a surface of variance 1 has slopes of 1 / (sqrt(2) length)
    surface = smooth(generator, canvas.side, length) + 0.05 * smooth(generator, canvas.side, length / 4)
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
