"""Distances between many points on the WGS84 ellipsoid, and the boxes and grid squares of degrees they lie in.

A k-d tree over Earth-centred coordinates proposes pairs by their chord, and Karney's geodesic (pyproj; Karney 2013,
"Algorithms for geodesics", J. Geodesy 87) decides, so results are exact and a million points take seconds.
"""

from itertools import chain

import numpy as np
from pyproj import Geod
from scipy.spatial import cKDTree

WGS84 = Geod(ellps="WGS84")
# Radii of curvature of the ellipsoid's normal sections lie between b²/a (at the equator, northwards) and a²/b (at the
# poles); a geodesic's torsion takes away less than a thousandth of the radius.
SHARPEST_KM = WGS84.b**2 / WGS84.a / 1000
FLATTEST_KM = 1.001 * WGS84.a**2 / WGS84.b / 1000
ROUNDING_KM = 1e-9  # of coordinates in float64
CHUNK = 1 << 16  # points whose neighbours are held as Python lists at once


def to_cartesian(lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Earth-centred coordinates of points on the ellipsoid, (N, 3) float64 km, from (N,) degrees each."""
    phi, lam = np.radians(np.asarray(lat, float)), np.radians(np.asarray(lon, float))
    sine, cosine = np.sin(phi), np.cos(phi)
    normal = WGS84.a / 1000 / np.sqrt(1 - WGS84.es * sine**2)
    return np.stack(
        [normal * cosine * np.cos(lam), normal * cosine * np.sin(lam), normal * (1 - WGS84.es) * sine], axis=1
    )


def geodesic_km(lat: np.ndarray, lon: np.ndarray, other_lat: np.ndarray, other_lon: np.ndarray) -> np.ndarray:
    """Length of the shortest way on the ellipsoid between the points of each pair, (N,) float64 km."""
    points = [np.asarray(values, float) for values in (lon, lat, other_lon, other_lat)]
    return np.asarray(WGS84.inv(*points)[2], float) / 1000


def pairs_within(
    lat: np.ndarray,
    lon: np.ndarray,
    other_lat: np.ndarray,
    other_lon: np.ndarray,
    radius_km: np.ndarray | float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of (N,) and (M,) points in degrees not farther apart than `radius_km`, a scalar or one for each of N.

    Returns:
        Index into the first points (ascending), index into the others, and distance in km, (P,) each.
    """
    lat, lon, other_lat, other_lon = (np.asarray(values, float) for values in (lat, lon, other_lat, other_lon))
    radius_km = np.broadcast_to(np.asarray(radius_km, float), len(lat))
    tree = cKDTree(to_cartesian(other_lat, other_lon))
    points, reach = to_cartesian(lat, lon), longest_chord_km(radius_km)
    counts, found = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, len(lat), CHUNK):
        rows = slice(start, start + CHUNK)
        near = tree.query_ball_point(points[rows], reach[rows], return_sorted=True)
        counts.append(np.fromiter(map(len, near), np.int64, len(near)))
        found.append(np.fromiter(chain.from_iterable(near), np.int64, counts[-1].sum()))
    i, j = np.repeat(np.arange(len(lat)), np.concatenate(counts)), np.concatenate(found)
    km = geodesic_km(lat[i], lon[i], other_lat[j], other_lon[j])
    inside = km <= radius_km[i]
    return i[inside], j[inside], km[inside]


def nearest_km(lat: np.ndarray, lon: np.ndarray, other_lat: np.ndarray, other_lon: np.ndarray) -> np.ndarray:
    """Geodesic distance of each point to the nearest of the others, (N,) float64 km; inf if there are none."""
    lat, lon = np.asarray(lat, float), np.asarray(lon, float)
    if not len(lat) or not len(other_lat):
        return np.full(len(lat), np.inf)
    # one of several tiles at the same spot, or the second nearest chord would decide nothing
    others = np.unique(np.asarray(other_lat, float) + 1j * np.asarray(other_lon, float))
    other_lat, other_lon = others.real, others.imag
    chords, j = cKDTree(to_cartesian(other_lat, other_lon)).query(to_cartesian(lat, lon), k=[1, 2])
    nearest = geodesic_km(lat, lon, other_lat[j[:, 0]], other_lon[j[:, 0]])
    unsure = np.flatnonzero(chords[:, 1] <= longest_chord_km(nearest))
    for rows in np.array_split(unsure, 1 + len(unsure) // CHUNK):
        i, _, km = pairs_within(lat[rows], lon[rows], other_lat, other_lon, nearest[rows])
        np.minimum.at(nearest, rows[i], km)
    return nearest


def longest_chord_km(km: np.ndarray | float) -> np.ndarray:
    """No two points `km` apart on the ellipsoid, or nearer, have a longer chord than this (km)."""
    km = np.asarray(km, float)
    arc = 2 * FLATTEST_KM * np.sin(np.minimum(km / (2 * FLATTEST_KM), np.pi / 2))
    return np.minimum(arc, km) + ROUNDING_KM


def bounding_box(lat: float, lon: float, reach_km: float) -> tuple[float, float, float, float]:
    """South, north, west and width in degrees of a box that holds all points within `reach_km`, at most the Earth."""
    angle = 1.001 * reach_km / SHARPEST_KM
    south, north = lat - np.degrees(angle), lat + np.degrees(angle)
    if south <= -90 or north >= 90:
        return south, north, -180.0, 360.0
    # 1 % beyond the sphere's formula: geodetic latitude is not the auxiliary sphere's
    half = 1.01 * np.degrees(np.arcsin(min(1.0, np.sin(angle) / np.cos(np.radians(lat)))))
    return south, north, lon - half, 2 * half


def in_boxes(lat: np.ndarray, lon: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All P pairs of a box and a point in it, the date line and the poles included.

    Of points (N,) in degrees and boxes (K, 4) of `bounding_box`: row of the box, ascending, and of the point.
    """
    found = []
    for south, north, west, width in boxes:
        here = np.flatnonzero((lat >= south) & (lat <= north))
        eastwards = (lon[here] - west) - 360 * np.floor((lon[here] - west) / 360)  # faster than %
        found.append(here[eastwards <= width])
    return np.repeat(np.arange(len(boxes)), [len(here) for here in found]), np.concatenate(found)


def assign_blocks(lat: np.ndarray, lon: np.ndarray, degrees: float) -> np.ndarray:
    """South-west corner of the grid square, `degrees` wide, that holds each point: (N,) str such as "35,-95"."""
    south = np.floor(np.asarray(lat, float) / degrees) * degrees
    west = np.floor(((np.asarray(lon, float) + 180) % 360 - 180) / degrees) * degrees
    # + 0.0 turns -0.0 into 0.0, which would otherwise print as another block
    corners, which = np.unique((south + 0.0) + 1j * (west + 0.0), return_inverse=True)
    return np.array([f"{corner.real:.6g},{corner.imag:.6g}" for corner in corners], dtype=object)[which]
