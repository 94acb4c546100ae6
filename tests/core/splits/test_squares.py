"""Held-out squares: apart, where the points are, and exact at their edges and buffers."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import LinearConstraint, milp

from src.core.geo.distances import WGS84, geodesic_km
from src.core.splits import squares
from src.core.stage.errors import DataError, ParamsError
from tests.hash_seeds import printed

CHOICE = {"side_km": 10, "apart_km": 15, "count": 5, "minimum": 1, "maximum": 10_000, "seed": 0, "spread": 1.0}


def choose(lat, lon, classes=None, **changes):
    """Choose with each point a class of its own, unless classes are given, so that the fullest square holds most."""
    classes = np.arange(len(lat)) if classes is None else classes
    return squares.choose_squares(lat, lon, classes, **CHOICE | changes)


def make_points(count=4000, seed=3):
    """Clustered points in a box of about 200 km, as observations are."""
    generator = np.random.default_rng(seed)
    towns = generator.uniform([27.5, -82.5], [29.5, -80.5], (30, 2))
    return (towns[generator.integers(30, size=count)] + generator.normal(0, 0.05, (count, 2))).T


def ring(lat, lon, side_km, beyond_km=0.0, each=101):
    """lat, lon of points on the edges of a square, or of the one `beyond_km` larger on all sides."""
    half = side_km / 2 + beyond_km
    along = np.linspace(-half, half, each)
    x = np.concatenate([along, along, np.full(each, half), np.full(each, -half)])
    y = np.concatenate([np.full(each, half), np.full(each, -half), along, along])
    return at(lat, lon, x, y)


def at(lat, lon, x, y):
    """lat, lon of the points x km east and y km north in the projection around (lat, lon)."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    start = np.full(len(x), lon), np.full(len(x), lat)
    east, north, _ = WGS84.fwd(*start, np.degrees(np.arctan2(x, y)), np.hypot(x, y) * 1000)
    return np.array([north, east])


def least_km(one, other):
    i, j = (grid.ravel() for grid in np.indices((one.shape[1], other.shape[1])))
    return geodesic_km(*one[:, i], *other[:, j]).reshape(one.shape[1], -1).min(axis=1)


def test_squares_are_apart_and_hold_the_points_they_count():
    lat, lon = make_points()
    chosen = choose(lat, lon, minimum=20)
    assert len(chosen) == 5 and (chosen["points"] >= 20).all()
    inside, _ = squares.assign_squares(lat, lon, chosen, side_km=10, buffer_km=0)
    assert np.bincount(inside[inside >= 0], minlength=5).tolist() == chosen["points"].tolist()
    edges = [ring(*centre, 10) for centre in chosen[["lat", "lon"]].to_numpy()]
    for k, edge in enumerate(edges):
        for other in edges[:k]:
            assert least_km(edge, other).min() >= 15


def test_the_first_is_the_fullest_and_each_next_the_farthest():
    """Towns on a line at 0, 40, 100 and 130 km: 130 has most points, then 0, then 40 (100 is 30 from the first)."""
    generator = np.random.default_rng(0)
    position = np.repeat([0.0, 40, 100, 130], [20, 30, 60, 90])
    lat, lon = at(45.0, 10.0, position + generator.normal(0, 0.5, 200), generator.normal(0, 0.5, 200))
    chosen = choose(lat, lon, count=4, minimum=10)
    found = squares.offsets_km(45.0, 10.0, chosen["lat"], chosen["lon"])[0]
    assert np.abs(found - [130, 0, 40, 100]).max() < 7


def test_classes_decide_instead_of_points():
    lat, lon = at(45.0, 10.0, np.repeat([0.0, 60.0], [50, 10]), np.zeros(60))
    classes = np.array(["oak"] * 50 + [f"s{i % 5}" for i in range(10)])
    chosen = choose(lat, lon, count=2, classes=classes)
    assert chosen["points"].tolist() == [10, 50] and chosen["classes"].tolist() == [5, 1]
    assert choose(lat, lon, count=1)["points"].tolist() == [50]


def test_spread_trades_distance_for_new_classes():
    """Towns at 0, 40, 100 and 130 km; the farthest from the first repeats its classes, the next one has others."""
    position = np.repeat([0.0, 40, 100, 130], [20, 20, 20, 40])
    lat, lon = at(45.0, 10.0, position, np.zeros(100))
    classes = np.array(["a", "b"] * 10 + ["c", "d"] * 10 + ["c", "e"] * 10 + ["a", "b", "c", "d"] * 10)

    def chosen(spread, count=2):
        found = choose(lat, lon, count=count, minimum=10, classes=classes, spread=spread)
        return squares.offsets_km(45.0, 10.0, found["lat"], found["lon"])[0]

    assert np.abs(chosen(1.0) - [130, 0]).max() < 7
    assert np.abs(chosen(0.9) - [130, 0]).max() < 7  # the town at 40 km lies 90 km off: 0.69 of the largest distance
    assert np.abs(chosen(0.2) - [130, 100]).max() < 7  # "e" is in no square; whichever town that has none is far enough
    assert np.abs(chosen(0.2, 4)[2:] - [0, 40]).max() < 7  # nothing new is left: the farther goes first


def test_spread_trades_distance_for_points_where_each_is_a_class():
    position = np.repeat([0.0, 40, 100], [10, 30, 50])
    lat, lon = at(45.0, 10.0, position, np.zeros(90))
    for spread, points in ((1.0, [50, 10, 30]), (0.5, [50, 30, 10])):
        found = choose(lat, lon, count=3, spread=spread)
        assert found["points"].tolist() == points


def test_cells_are_those_squares_are_chosen_from():
    lat, lon = make_points()
    cell = squares.name_cells(lat, lon, side_km=10, seed=0)
    for square in choose(lat, lon).itertuples():
        here = cell == squares.name_cells(np.array([square.lat]), np.array([square.lon]), side_km=10, seed=0)[0]
        # a cell is a little narrower than the square around its centre
        assert 0.8 * square.points <= here.sum() <= square.points
    assert (squares.name_cells(lat, lon + 360, side_km=10, seed=0) == cell).all()
    assert (squares.name_cells(lat, lon, side_km=10, seed=1) != cell).mean() > 0.5


@pytest.mark.parametrize("centre", [(28.5, -81.4), (-17.0, 179.98)])
def test_outlines_are_corners_and_rounded_buffers(centre):
    corners = squares.outline(*centre, side_km=10)
    x, y = squares.offsets_km(*centre, *corners.T)
    np.testing.assert_allclose(np.stack([x, y]), [[5, -5, -5, 5], [5, 5, -5, -5]], atol=1e-9)
    buffer = squares.outline(*centre, side_km=10, beyond_km=4)
    one = pd.DataFrame([centre], columns=["lat", "lon"])
    for km, expected in ((3.999, True), (4.001, False)):
        ring = squares.outline(*centre, side_km=10, beyond_km=km)
        _, near = squares.assign_squares(*ring.T, one, side_km=10, buffer_km=4)
        assert (near == expected).all()
    assert np.ptp(buffer[:, 1]) < 0.3


def test_row_order_and_hash_seed_change_nothing_and_the_seed_shifts_the_grid():
    lat, lon = make_points()
    chosen = choose(lat, lon)
    order = np.random.default_rng(1).permutation(len(lat))
    pd.testing.assert_frame_equal(choose(lat[order], lon[order]), chosen)
    shifted = choose(lat, lon, seed=1)
    assert (shifted["lat"] != chosen["lat"]).all()
    code = (
        "from tests.core.splits.test_squares import *\n"
        "names = np.array([f's{i % 7}' for i in range(4000)])\n"
        "print(choose(*make_points(), classes=names).to_csv())"
    )
    assert len(printed(code)) == 1


def test_the_fullest_gives_way_where_more_squares_fit_without_it():
    """Towns at 0, 20 and 40 km, 10 km between their squares: the fullest, in the middle, would be the only one."""
    lat, lon = at(45.0, 10.0, np.repeat([0.0, 20, 40], [20, 90, 30]), np.zeros(140))
    classes = np.repeat(["a", "b", "c", "d"], [20, 45, 45, 30])
    for named, spread in ((None, 1.0), (classes, 0.5)):
        choice = {"classes": named, "spread": spread}
        assert choose(lat, lon, **choice, count=1)["points"].tolist() == [90]
        assert sorted(choose(lat, lon, **choice, count=2)["points"]) == [20, 30]
        with pytest.raises(DataError, match=r"no way to more than 2 of 10 km.*ask for at most 2"):
            choose(lat, lon, **choice, count=3)


@pytest.mark.parametrize("seed", range(3))
def test_the_number_named_is_reached_apart_and_near_the_largest(seed):
    lat, lon = make_points(300, seed)
    one, most = (most_squares(lat, lon, apart_km) for apart_km in (1e-6, 25))
    chosen = choose(lat, lon, side_km=10, apart_km=25, count=most)
    assert len(chosen) == most
    centres = chosen[["lat", "lon"]].to_numpy()
    edges = [ring(*centre, 10, each=5) for centre in centres]
    gaps = [least_km(edge, other).min() for k, edge in enumerate(edges) for other in edges[:k]]
    assert min(gaps) >= 25
    assert 0.9 * largest_number(lat, lon, 25) <= most <= largest_number(lat, lon, 25) < one


def most_squares(lat, lon, apart_km):
    """The number that an error names."""
    with pytest.raises(DataError) as error:
        choose(lat, lon, side_km=10, apart_km=apart_km, count=len(lat) + 1)
    return int(str(error.value).split("no way to more than ")[1].split()[0])


def largest_number(lat, lon, apart_km):
    """The most squares there are, by integer programming over the cells' pairs, in the plane's approximation."""
    cells = squares._grid_cells(lat, lon, 10, 0).drop_duplicates("cell")[["lat", "lon"]].to_numpy()
    i, j = np.triu_indices(len(cells), 1)
    x, y = np.abs(squares.offsets_km(*cells[i].T, *cells[j].T))
    near = np.hypot(np.maximum(x - 10, 0), np.maximum(y - 10, 0)) < apart_km
    pairs = np.zeros((near.sum(), len(cells)))
    pairs[np.arange(near.sum()), i[near]] = pairs[np.arange(near.sum()), j[near]] = 1
    found = milp(-np.ones(len(cells)), integrality=1, bounds=(0, 1), constraints=LinearConstraint(pairs, ub=1))
    return round(-found.fun)


def test_more_squares_than_fit_are_refused_with_a_number_that_fits():
    lat, lon = make_points()
    with pytest.raises(DataError) as error:
        choose(lat, lon, count=500)
    most = int(str(error.value).split("no way to more than ")[1].split()[0])
    assert 5 < most < 500 and f"expected 500; ask for at most {most}" in str(error.value)
    assert len(choose(lat, lon, count=most)) == most
    with pytest.raises(DataError, match=f"no way to more than {most} of 10 km"):
        choose(lat, lon, count=most + 1)
    with pytest.raises(
        DataError, match=r"than 0 of 10 km.* with 5000 to 10000 of the 4000 points each \(0 candidates\)"
    ):
        choose(lat, lon, minimum=5000)
    with pytest.raises(DataError, match=r"than 0 of 10 km.* with 1 to 0 of the 4000 points"):
        choose(lat, lon, maximum=0.5)


def test_a_square_holds_no_more_than_its_maximum():
    """Or the first one chosen, which is the fullest, could hold most of what there is to learn from."""
    lat, lon = make_points()
    city = np.random.default_rng(1).normal([lat[0], lon[0]], 0.005, (500, 2)).T
    lat, lon = np.append(lat, city[0]), np.append(lon, city[1])
    assert choose(lat, lon)["points"].max() > 300
    chosen = choose(lat, lon, minimum=10, maximum=60)
    assert chosen["points"].between(10, 60).all()


@pytest.mark.parametrize("centre", [(28.5, -81.4), (0.0, 0.0), (-17.0, 180.0), (65.0, -179.99), (89.95, 20.0)])
def test_edges_and_buffers_are_exact(centre):
    """Points a millimetre within and beyond the edge; and in the buffer exactly those that are near the square."""
    one = pd.DataFrame([centre], columns=["lat", "lon"])
    for beyond, expected in ((-1e-6, 0), (1e-6, -1)):
        square, near = squares.assign_squares(*ring(*centre, 10, beyond), one, side_km=10, buffer_km=15)
        assert (square == expected).all() and (near == (expected < 0)).all()

    generator = np.random.default_rng(4)
    points = at(*centre, *generator.uniform(-26, 26, (2, 1500)))
    square, near = squares.assign_squares(*points, one, side_km=10, buffer_km=15)
    x, y = squares.offsets_km(*centre, *points)
    assert ((square == 0) == (np.maximum(np.abs(x), np.abs(y)) <= 5)).all()
    km = least_km(points, ring(*centre, 10, each=101))  # to the nearest of points 100 m apart
    outside = square < 0
    assert near[outside & (km <= 15)].all()
    assert not near[outside & (km > 15.002)].any()
    assert near.sum() > 300 and not near[~outside].any()


def test_nothing_outside_a_buffer_is_nearer_than_the_buffer_to_a_test_point():
    """At the limit of what squares may be, where the projection stretches most."""
    centre, side = (60.0, 10.0), 300.0
    one = pd.DataFrame([centre], columns=["lat", "lon"])
    edge = ring(*centre, side, each=201)
    shell = ring(*centre, side, 100.0 - 1e-3, each=201)
    square, near = squares.assign_squares(*shell, one, side_km=side, buffer_km=100)
    km = least_km(shell, edge)
    assert (square == -1).all() and near[km <= 100].all() and (km <= 100).sum() > 200
    with pytest.raises(ParamsError, match="found side_km 900 and buffer_km 15"):
        squares.assign_squares(*edge, one, side_km=900, buffer_km=15)


def test_many_squares_around_the_earth_are_those_of_a_plain_loop():
    generator = np.random.default_rng(6)
    centres = np.column_stack([generator.uniform(-75, 75, 40), generator.uniform(-180, 180, 40)])
    centres[:4] = [[10, 179.9], [10, -179.8], [85, 0], [10.1, -179.85]]
    around = [at(*centre, *generator.uniform(-60, 60, (2, 500))) for centre in centres]
    lat, lon = np.concatenate([*around, generator.uniform([[-90], [-180]], [[90], [540]], (2, 5000))], axis=1)
    square, near = squares.assign_squares(
        lat, lon, pd.DataFrame(centres, columns=["lat", "lon"]), side_km=30, buffer_km=20
    )
    expected, around = np.full(len(lat), -1), np.zeros(len(lat), bool)
    slack = squares.slack_km(30 / np.sqrt(2) + 20)
    for k in reversed(range(len(centres))):
        x, y = (np.abs(offset) - 15 for offset in squares.offsets_km(*centres[k], lat, lon))
        expected[np.maximum(x, y) <= 0] = k
        around |= np.hypot(np.maximum(x, 0), np.maximum(y, 0)) <= 20 + slack
    assert (square == expected).all() and (near == (around & (expected < 0))).all()
    assert len(np.unique(square)) == 41 and near.sum() > 1000


def test_squares_across_the_date_line_are_near():
    lat, lon = at(-17.0, 179.999, np.repeat([-8.0, 8.0], 30), np.zeros(60))
    assert (lon < 0).any() and (lon > 0).any()
    with pytest.raises(DataError, match="than 1 of 10 km"):
        choose(lat, lon, count=2)
    assert len(choose(lat, lon, side_km=5, apart_km=2, count=2)) == 2
