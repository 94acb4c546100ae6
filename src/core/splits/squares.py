"""Held-out squares of some kilometres, chosen apart from each other, and the points in and around them.

A square is drawn in its own azimuthal equidistant projection: a point lies at (d sin a, d cos a) from the centre, with
geodesic distance d and azimuth a on WGS84, and inside if neither is farther than half a side. Away from the centre the
projection lengthens: within r km of it, distances are those on the ground or longer by less than r³/R² (0.3 m at
22 km). `slack_km` adds that, so that what is left out of a buffer is always farther than `buffer_km` from the square.
"""

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from src.core.geo.distances import SHARPEST_KM, WGS84, bounding_box, in_boxes, pairs_within, to_cartesian
from src.core.stage.errors import DataError, ParamsError

LONGEST_DEGREE_KM = 111.7  # of latitude, at the poles
FARTHEST_KM = 500


def choose_squares(
    lat: np.ndarray,
    lon: np.ndarray,
    classes: np.ndarray,
    *,
    side_km: float,
    apart_km: float,
    count: int,
    minimum: int,
    maximum: float,
    seed: int,
    spread: float,
) -> pd.DataFrame:
    """Squares far from each other, by greedy maximin (Gonzalez 1985, Theoretical Computer Science 38).

    Candidates are the cells of a grid with `minimum` to `maximum` points. The one with most classes is first. Each next
    one is, of those whose centre's least distance to the chosen ones is at least `spread` times the largest such
    distance, to the metre, the one with most classes that no chosen square holds; ties go to the farther, then from
    south to north and west to east. Edges of two squares are `apart_km` apart or more. Where that ends below `count`,
    only candidates that are all apart (`_pack`) are left to choose from.

    Args:
        lat, lon, classes: (N,) degrees and names.
        seed: shifts the grid and does nothing else.
        spread: 0 < spread <= 1, where 1 is maximin and less trades distance for classes.

    Returns:
        DataFrame of `count` rows in the order chosen: lat, lon of the centre (degrees), numbers of points and classes.

    Raises:
        DataError: neither way reaches `count`; the larger number reached is named, which need not be the largest.
    """
    cells = _grid_cells(lat, lon, side_km, seed).drop_duplicates("cell")
    points, holds = _count_points(cells, lat, lon, side_km, classes)
    cells = cells[["lat", "lon"]].assign(points=points, classes=np.diff(holds.indptr))
    kept = np.lexsort([cells["lon"], cells["lat"]])
    kept = kept[(points[kept] >= minimum) & (points[kept] <= maximum)]
    cells, holds = cells.iloc[kept].reset_index(drop=True), holds[kept]
    options = {"count": count, "side_km": side_km, "apart_km": apart_km, "spread": spread}
    chosen = _maximin(cells, holds, np.arange(len(cells)), **options)
    if len(chosen) < count:
        chosen = max(chosen, _maximin(cells, holds, _pack(cells, side_km, apart_km), **options), key=len)
    if len(chosen) < count:
        raise DataError(
            f"squares: found no way to more than {len(chosen)} of {side_km:g} km, {apart_km:g} km apart and with "
            f"{minimum} to {int(maximum)} of the {len(lat)} points each ({len(cells)} candidates), expected {count}; "
            f"ask for at most {len(chosen)}, for smaller or nearer squares or other numbers of points, or bring more "
            "points"
        )
    return cells.iloc[chosen].reset_index(drop=True)


def assign_squares(
    lat: np.ndarray, lon: np.ndarray, squares: pd.DataFrame, *, side_km: float, buffer_km: float
) -> tuple[np.ndarray, np.ndarray]:
    """The square of each point (N,), and the points outside that are within `buffer_km` of one's edge.

    Returns:
        (N,) int64 row of `squares`, -1 outside (the first of squares that overlap); (N,) bool in the buffer of any
        square and in none.

    Raises:
        ParamsError: squares and buffers too large for their projection.
    """
    reach = side_km / np.sqrt(2) + buffer_km
    if reach > FARTHEST_KM:
        raise ParamsError(
            f"squares: found side_km {side_km:g} and buffer_km {buffer_km:g}, expected corners at most "
            f"{FARTHEST_KM} km from the centre, where a projection still measures; use regions or blocks"
        )
    slack = slack_km(reach)
    centres = np.stack([squares["lat"], squares["lon"]], axis=1)
    boxes = np.array([bounding_box(*centre, reach + slack) for centre in centres])
    square_of, row = in_boxes(lat, lon, boxes)
    beyond, distance = _from_square(*_chord_offsets_km(centres, square_of, lat[row], lon[row]), side_km / 2)
    # offsets along the chord and in the projection differ by a sixth of the slack
    edge = np.flatnonzero(np.minimum(np.abs(beyond), np.abs(distance - buffer_km - slack)) <= slack / 2)
    exact = offsets_km(*centres[square_of[edge]].T, lat[row[edge]], lon[row[edge]])
    beyond[edge], distance[edge] = _from_square(*exact, side_km / 2)
    square, near = np.full(len(lat), -1), np.zeros(len(lat), dtype=bool)
    inside = np.flatnonzero(beyond <= 0)[::-1]  # of squares that overlap the first is written last
    square[row[inside]] = square_of[inside]
    near[row[distance <= buffer_km + slack]] = True
    near[row[inside]] = False
    return square, near


def name_cells(lat: np.ndarray, lon: np.ndarray, *, side_km: float, seed: int) -> np.ndarray:
    """Each point's cell "row,column" in the grid from which `choose_squares` takes its candidates, (N,) str."""
    return _grid_cells(lat, lon, side_km, seed)["cell"].to_numpy()


def outline(lat: float, lon: float, *, side_km: float, beyond_km: float = 0.0) -> np.ndarray:
    """Ring of a square's corners, or of all that is within `beyond_km` of it: (P, 2) lat, lon in degrees.

    Corners are the north-east one, then counter-clockwise; with `beyond_km` each is an arc of 13 points. Longitudes
    stay within 180 degrees of the centre's, so that a ring may end beyond ±180 and is never torn.
    """
    quarters = np.repeat(np.arange(4), 13 if beyond_km else 1) * np.pi / 2
    arcs = quarters + np.tile(np.linspace(0, np.pi / 2, 13), 4) if beyond_km else quarters
    x, y = (side_km / np.sqrt(2) * turn(quarters + np.pi / 4) + beyond_km * turn(arcs) for turn in (np.cos, np.sin))
    start = np.full(len(x), lon), np.full(len(x), lat)
    east, north, _ = WGS84.fwd(*start, np.degrees(np.arctan2(x, y)), np.hypot(x, y) * 1000)
    return np.stack([north, lon + (np.asarray(east) - lon + 180) % 360 - 180], axis=1)


def offsets_km(
    lat: np.ndarray | float, lon: np.ndarray | float, other_lat: np.ndarray, other_lon: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """East and north of each other point in the azimuthal equidistant projection around (lat, lon), (N,) km each."""
    points = np.broadcast_arrays(*(np.asarray(values, float) for values in (lon, lat, other_lon, other_lat)))
    azimuth, _, metres = WGS84.inv(*points)
    azimuth, km = np.radians(azimuth), np.asarray(metres) / 1000
    return km * np.sin(azimuth), km * np.cos(azimuth)


def slack_km(reach_km: np.ndarray | float) -> np.ndarray | float:
    """Largest error of the projection in a distance within `reach_km` of its centre, km."""
    return reach_km**3 / SHARPEST_KM**2


def _maximin(
    cells: pd.DataFrame,
    holds: csr_array,
    rows: np.ndarray,
    *,
    count: int,
    side_km: float,
    apart_km: float,
    spread: float,
) -> list[int]:
    """At most `count` of `rows` of the candidates, as `choose_squares` says."""
    unseen = np.ones(holds.shape[1], np.int64)
    position, centres = cells[["lat", "lon"]].to_numpy(), to_cartesian(cells["lat"], cells["lon"])
    chosen, nearest = [], np.full(len(cells), -1.0)  # km through the Earth; -1 where the edges are too near
    nearest[rows] = np.inf
    while len(chosen) < count and (nearest >= 0).any():
        least = np.round(nearest, 3)
        far = np.flatnonzero((least >= 0) & (least >= spread * least.max()))
        best = far[np.lexsort([-least[far], -(holds[far] @ unseen)])[0]]
        chosen.append(best)
        unseen[holds[[best]].indices] = 0
        chord = np.linalg.norm(centres - centres[best], axis=1)
        nearest = np.minimum(nearest, chord)
        near = np.flatnonzero(chord <= apart_km + 1.5 * side_km)  # else circles around the squares are apart
        nearest[near[_gaps_km(position[best], position[near], side_km) < apart_km]] = -1
    return chosen


def _pack(cells: pd.DataFrame, side_km: float, apart_km: float) -> np.ndarray:
    """Rows of many candidates that are all apart: always the one that fewest others are too near to, then the fullest.

    The most there are is an independent set, NP-hard to find; this is the greedy of Halldórsson and Radhakrishnan
    (1997, "Greed is good: approximating independent sets in sparse and bounded-degree graphs", Algorithmica 18).
    """
    position, centres = cells[["lat", "lon"]].to_numpy(), to_cartesian(cells["lat"], cells["lon"])
    i, j = cKDTree(centres).query_pairs(apart_km + 1.5 * side_km, output_type="ndarray").T
    # squares hold circles as wide as they are: below this their edges are too near, whichever way they face
    doubt = np.flatnonzero(np.linalg.norm(centres[i] - centres[j], axis=1) > apart_km + 0.99 * side_km)
    gaps = [_gaps_km(position[one[doubt]], position[other[doubt]], side_km) for one, other in ((i, j), (j, i))]
    apart = doubt[np.minimum(*gaps) >= apart_km]
    i, j = np.delete(i, apart), np.delete(j, apart)
    pairs = np.concatenate([i, j]), np.concatenate([j, i])
    graph = csr_array((np.ones(2 * len(i), np.int64), pairs), shape=(len(cells), len(cells)))
    fullest = np.lexsort([-cells["points"]]).argsort()
    free, conflicts, packed = np.ones(len(cells), bool), graph.sum(axis=1), []
    while free.any():
        packed.append(np.where(free, conflicts * len(cells) + fullest, np.iinfo(np.int64).max).argmin())
        gone = np.append(graph[[packed[-1]]].indices, packed[-1])
        gone = gone[free[gone]]
        free[gone] = False
        np.subtract.at(conflicts, graph[gone].indices, 1)
    return np.array(packed, np.int64)


def _grid_cells(lat: np.ndarray, lon: np.ndarray, side_km: float, seed: int) -> pd.DataFrame:
    """The cell of every point, `side_km` or a little less wide and high: its name, and lat, lon of its centre."""
    shift = np.random.default_rng(seed).uniform(size=2)
    height = side_km / LONGEST_DEGREE_KM
    row = np.floor((lat + 90) / height + shift[0])
    centre = (row + 0.5 - shift[0]) * height - 90
    # a row's cells are as wide as a square where the row is longest, and come round without a remainder
    longest = np.radians(np.clip(np.abs(centre) - height / 2, 0, 90))
    round_km = 2 * np.pi * WGS84.a / 1000 * np.cos(longest) / np.sqrt(1 - WGS84.es * np.sin(longest) ** 2)
    columns = np.ceil(np.maximum(round_km / side_km, 1))
    column = np.floor((lon + 180) / 360 * columns + shift[1]) % columns
    cells, first, which = np.unique(row + 1j * column, return_index=True, return_inverse=True)
    east = (cells.imag + 0.5 - shift[1]) / columns[first] * 360
    names = np.array([f"{cell.real:.0f},{cell.imag:.0f}" for cell in cells], dtype=object)
    found = {"cell": names, "lat": np.clip(centre[first], -90, 90), "lon": east % 360 - 180}
    return pd.DataFrame({name: values[which] for name, values in found.items()})


def _count_points(
    cells: pd.DataFrame, lat: np.ndarray, lon: np.ndarray, side_km: float, classes: np.ndarray
) -> tuple[np.ndarray, csr_array]:
    """Points in the square around each centre, (C,) int64, and the classes that they are of, (C, S) of 0 and 1."""
    cell, point, km = pairs_within(cells["lat"], cells["lon"], lat, lon, side_km / np.sqrt(2))
    edge = np.flatnonzero(km > side_km / 2)
    at = cells.iloc[cell[edge]]
    outside = _from_square(*offsets_km(at["lat"], at["lon"], lat[point[edge]], lon[point[edge]]), side_km / 2)[0] > 0
    cell, point = np.delete(cell, edge[outside]), np.delete(point, edge[outside])
    points = np.bincount(cell, minlength=len(cells))
    names, code = np.unique(classes, return_inverse=True)
    distinct = np.divmod(np.unique(cell * len(names) + code[point]), len(names))
    return points, csr_array((np.ones(len(distinct[0]), np.int64), distinct), shape=(len(cells), len(names)))


def _gaps_km(centre: np.ndarray, others: np.ndarray, side_km: float) -> np.ndarray:
    """Least distance between the edges of a square and of each other, (N,) km, too small by centimetres.

    `others` are (N, 2) lat, lon; `centre` is (2,) or one for each of them.
    """
    (lat, lon), of = (np.repeat(at, 4, axis=0).T for at in (others, np.broadcast_to(centre, others.shape)))
    diagonals = np.tile([45.0, 135.0, 225.0, 315.0], len(others))
    lon, lat, _ = WGS84.fwd(lon, lat, diagonals, np.full(len(lat), side_km * 1000 / np.sqrt(2)))
    x, y = (values.reshape(-1, 4) for values in offsets_km(*of, lat, lon))
    # meridians converge, so another square stands askew: the box around its corners holds it
    apart = [np.maximum(axis.min(axis=1), -axis.max(axis=1)) - side_km / 2 for axis in (x, y)]
    reach = np.hypot(x, y).max(axis=1)
    return np.hypot(*np.maximum(apart, 0)) - slack_km(reach)


def _chord_offsets_km(
    centres: np.ndarray, square: np.ndarray, lat: np.ndarray, lon: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """East and north, (N,) km each, of the chord to each point from its square's centre, a row of `centres` (K, 2)."""
    phi, lam = np.radians(centres).T
    east = np.stack([-np.sin(lam), np.cos(lam), np.zeros(len(lam))], axis=1)
    north = np.stack([-np.sin(phi) * np.cos(lam), -np.sin(phi) * np.sin(lam), np.cos(phi)], axis=1)
    chords = to_cartesian(lat, lon) - to_cartesian(*centres.T)[square]
    return np.einsum("nd,nd->n", chords, east[square]), np.einsum("nd,nd->n", chords, north[square])


def _from_square(x: np.ndarray, y: np.ndarray, half: float) -> tuple[np.ndarray, np.ndarray]:
    """Distance of (x, y) beyond the nearest edge's line (negative inside), and from the square (0 inside)."""
    x, y = np.abs(x) - half, np.abs(y) - half
    return np.maximum(x, y), np.hypot(np.maximum(x, 0), np.maximum(y, 0))
