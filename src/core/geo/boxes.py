"""Which of many points lie in boxes of degrees of latitude and longitude, the date line and the poles included."""

import numpy as np

from src.core.geo.distances import SHARPEST_KM

CHUNK = 1 << 15  # points at a time, so that they stay in the processor's cache
CELLS = 512  # at most, along each side of the grid that finds points near boxes


def bounding_box(lat: float, lon: float, reach_km: float) -> tuple[float, float, float, float]:
    """South, north, west and width in degrees of a box that holds all points within `reach_km`, at most the Earth."""
    angle = 1.001 * reach_km / SHARPEST_KM
    south, north = lat - np.degrees(angle), lat + np.degrees(angle)
    if south <= -90 or north >= 90:
        return south, north, -180.0, 360.0
    # 1 % beyond the sphere's formula: geodetic latitude is not the auxiliary sphere's
    half = 1.01 * np.degrees(np.arcsin(min(1.0, np.sin(angle) / np.cos(np.radians(lat)))))
    return south, north, lon - half, 2 * half


def in_any_box(lat: np.ndarray, lon: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Rows of the points in those cells of a grid that a box touches: all points in boxes, and few others.

    Args:
        lat, lon: (N,) degrees.
        boxes: (K, 4), rows of `bounding_box`.
    """
    south, north, west = boxes[:, 0].min(), boxes[:, 1].max(), boxes[:, 2].min()
    first = _east_of(boxes[:, 2], west)
    last = first + boxes[:, 3]
    width = min(360.0, last.max())
    cells = int(np.clip(np.sqrt(len(lat)), 16, CELLS))
    # a margin of one cell, never marked, takes the points that are in none
    marked = np.zeros((cells + 2, cells + 2), dtype=bool)
    bottom, top = (_cell(edge - south, north - south, cells) for edge in boxes[:, :2].T)
    left, right, wrapped = (_cell(edge, width, cells) for edge in (first, last, last - 360))
    for k in range(len(boxes)):
        marked[bottom[k] : top[k] + 1, left[k] : right[k] + 1] = True
        marked[bottom[k] : top[k] + 1, 1 : wrapped[k] + 1] = True
    marked[-1] = marked[:, -1] = False
    found = [np.empty(0, np.int64)]
    for start in range(0, len(lat), CHUNK):
        part = slice(start, start + CHUNK)
        row = _cell(lat[part] - south, north - south, cells)
        column = _cell(_east_of(lon[part], west), width, cells)
        found.append(start + np.flatnonzero(marked.ravel()[row * (cells + 2) + column]))
    return np.concatenate(found)


def in_boxes(lat: np.ndarray, lon: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of a box and a point in it: row of `boxes`, ascending, and row of the points; arguments as above."""
    found = []
    for south, north, west, width in boxes:
        here = np.flatnonzero((lat >= south) & (lat <= north))
        found.append(here[_east_of(lon[here], west) <= width])
    return np.repeat(np.arange(len(boxes)), [len(here) for here in found]), np.concatenate(found)


def _cell(degrees: np.ndarray | float, extent: float, cells: int) -> np.ndarray:
    """1 to `cells` for 0 to `extent`, 0 below and cells + 1 above."""
    return np.clip(np.floor(degrees * (cells / extent)) + 1, 0, cells + 1).astype(np.intp)


def _east_of(lon: np.ndarray | float, west: float) -> np.ndarray:
    """Degrees eastwards from `west`, in [0, 360)."""
    return (lon - west) - 360 * np.floor((lon - west) / 360)
