"""Time to find which of N points lie in K = 20 held-out squares of 10 km, or within 15 km of one.

    python -m bench.split --json

Points lie in a box of 6 x 8 degrees (Florida and Georgia), 7 k, 100 k and 1 M of them. `ours` is `assign_squares`; the
base is no more than the chord of all N x K pairs in numpy. The peers are a haversine BallTree over the points with the
exact test on what it proposes, and two Python loops with the haversine formula and the exact test. All of them must
give the same labels. A split by blocks with its buffer is timed at 1 M tiles, without a bar.
"""

import math
import time

import numpy as np
import pandas as pd
from sklearn.neighbors import BallTree

from bench.timing import Benchmark
from src.core.geo.distances import WGS84, to_cartesian
from src.core.splits import spatial_temporal
from src.core.splits.squares import assign_squares, choose_squares, slack_km

SIZES = {"7 k": 7_000, "100 k": 100_000, "1 M": 1_000_000}
COUNT, SIDE_KM, BUFFER_KM = 20, 10.0, 15.0
EARTH_RADIUS_KM = 6371.0088
REACH_KM = SIDE_KM / math.sqrt(2) + BUFFER_KM
SPHERE_KM = 1.01 * REACH_KM  # the sphere is wrong by at most 0.6 %


def main() -> None:
    benchmark = Benchmark("split")
    for name, size in SIZES.items():
        compare(benchmark, name, *make_points(size))
    time_blocks(benchmark)
    benchmark.finish()


def compare(benchmark: Benchmark, name: str, lat: np.ndarray, lon: np.ndarray) -> None:
    choice = {"side_km": SIDE_KM, "apart_km": 2 * BUFFER_KM, "count": COUNT, "minimum": 1, "maximum": 7_000}
    squares = choose_squares(lat[:7_000], lon[:7_000], np.arange(7_000), **choice, seed=0, spread=1.0)
    large = len(lat) >= 100_000

    def ours():
        return assign_squares(lat, lon, squares, side_km=SIDE_KM, buffer_km=BUFFER_KM)

    def balltree():
        return by_balltree(lat, lon, squares)

    def naive():
        return by_loops(lat, lon, squares)

    labels = [way() for way in ((ours, balltree) if large else (ours, balltree, naive))]
    differing = sum(np.count_nonzero(np.stack(found) != np.stack(labels[0])) for found in labels)
    benchmark.record(f"{name} labels that differ", differing, at_most=0)
    benchmark.compare(f"{name} ours/chords", ours, lambda: chords(lat, lon, squares))
    benchmark.compare(f"{name} BallTree/ours", balltree, ours, at_least=10 if large else None)
    if not large:
        benchmark.compare(f"{name} naive/ours", naive, ours, at_least=40)


def make_points(size: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(size)
    return generator.uniform(25, 31, size), generator.uniform(-87, -79, size)


def chords(lat: np.ndarray, lon: np.ndarray, squares: pd.DataFrame) -> np.ndarray:
    """(K, N) km through the Earth."""
    points, centres = to_cartesian(lat, lon).T.copy(), to_cartesian(squares["lat"], squares["lon"])
    return np.stack([np.sqrt(sum((axis - at) ** 2 for axis, at in zip(points, c, strict=True))) for c in centres])


def by_balltree(lat: np.ndarray, lon: np.ndarray, squares: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    tree = BallTree(np.radians(np.column_stack([lat, lon])), metric="haversine")
    centres = squares[["lat", "lon"]].to_numpy()
    found = tree.query_radius(np.radians(centres), SPHERE_KM / EARTH_RADIUS_KM)
    k = np.repeat(np.arange(len(centres)), [len(rows) for rows in found])
    rows = np.concatenate(found)
    inside, near = exact(*centres[k].T, lat[rows], lon[rows])
    square, buffer = np.full(len(lat), len(centres)), np.zeros(len(lat), bool)
    np.minimum.at(square, rows[inside], k[inside])
    buffer[rows[near]] = True
    square[square == len(centres)] = -1
    return square, buffer & (square < 0)


def by_loops(lat: np.ndarray, lon: np.ndarray, squares: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    square, buffer = np.full(len(lat), -1), np.zeros(len(lat), bool)
    centres = [(a, b, math.radians(a), math.radians(b)) for a, b in zip(squares["lat"], squares["lon"], strict=True)]
    for i, (a, b) in enumerate(zip(lat.tolist(), lon.tolist(), strict=True)):
        phi, lam = math.radians(a), math.radians(b)
        for k, (centre_lat, centre_lon, centre_phi, centre_lam) in enumerate(centres):
            half_chord = (
                math.sin((phi - centre_phi) / 2) ** 2
                + math.cos(phi) * math.cos(centre_phi) * math.sin((lam - centre_lam) / 2) ** 2
            )
            if 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(half_chord)) > SPHERE_KM:
                continue
            inside, near = exact(centre_lat, centre_lon, a, b)
            if inside and square[i] < 0:
                square[i] = k
            buffer[i] |= near
    return square, buffer & (square < 0)


def exact(centre_lat, centre_lon, lat, lon) -> tuple[np.ndarray, np.ndarray]:
    """Inside, and not farther than the buffer from the square (or inside), in its projection."""
    azimuth, _, metres = WGS84.inv(centre_lon, centre_lat, lon, lat)
    azimuth, km = np.radians(azimuth), np.asarray(metres) / 1000
    x, y = (np.abs(km * turn(azimuth)) - SIDE_KM / 2 for turn in (np.sin, np.cos))
    away = np.hypot(np.maximum(x, 0), np.maximum(y, 0))
    return np.maximum(x, y) <= 0, away <= BUFFER_KM + slack_km(REACH_KM)


def time_blocks(benchmark: Benchmark) -> None:
    generator, size = np.random.default_rng(0), SIZES["1 M"]
    tiles = pd.DataFrame({"lat": generator.uniform(25, 50, size), "lon": generator.uniform(-125, -65, size)})
    tiles["place"] = tiles["tile_id"] = [f"place {row}" for row in range(size)]
    start = time.perf_counter()
    tiles["half_diagonal_km"] = 1.0
    blocks = spatial_temporal.blocks_of_places(tiles, degrees=4)
    draw = {"buffer_km": 50, "folds": 5, "fold": 0, "seed": 0, "keep_from": tiles[:0]}
    spatial_temporal.split_with_buffer(tiles, blocks, "blocks", "", **draw)
    seconds = time.perf_counter() - start
    benchmark.record("1 M tiles split_with_buffer, seconds", seconds)
    print(f"  split of 1 M tiles by blocks with a buffer of 50 km: {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
