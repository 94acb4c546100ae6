"""Distances are the ellipsoid's own, wherever the k-d tree proposes them."""

import numpy as np
import pytest
from pyproj import Geod

from src.core.geo import distances

GENERATOR = np.random.default_rng(2)


def anywhere(count):
    """Points all over the Earth, poles and the date line among them."""
    lat, lon = np.degrees(np.arcsin(GENERATOR.uniform(-1, 1, count))), GENERATOR.uniform(-180, 180, count)
    lat[:2], lon[2:5] = (90, -90), (180, -180, 179.999)
    return lat, lon


def all_km(lat, lon, other_lat, other_lon):
    i, j = np.indices((len(lat), len(other_lat)))
    km = Geod(ellps="WGS84").inv(lon[i.ravel()], lat[i.ravel()], other_lon[j.ravel()], other_lat[j.ravel()])[2]
    return km.reshape(i.shape) / 1000


def test_blocks_are_named_by_their_south_west_corner():
    lat, lon = np.array([37.2, -0.1, 0.0, 35.0, 10.0]), np.array([-91.0, -0.1, 0.0, 180.0, 179.9])
    assert distances.assign_blocks(lat, lon, 5).tolist() == ["35,-95", "-5,-5", "0,0", "35,-180", "10,175"]
    assert distances.assign_blocks([1.3], [2.6], 0.5).tolist() == ["1,2.5"]
    assert distances.assign_blocks([], [], 5).tolist() == []


def test_no_geodesic_has_a_longer_chord_than_the_tree_searches():
    one, other = anywhere(20_000), anywhere(20_000)
    near = one[0] + GENERATOR.normal(0, 0.1, 20_000), one[1]
    for end in (other, (np.clip(near[0], -90, 90), near[1]), (-one[0], one[1] + 179.9)):
        chord = np.linalg.norm(distances.to_cartesian(*one) - distances.to_cartesian(*end), axis=1)
        assert (chord <= distances.longest_chord_km(distances.geodesic_km(*one, *end))).all()


def test_cartesian_coordinates_of_known_points():
    expected = [[6378.137, 0, 0], [0, 6378.137, 0], [0, 0, 6356.752314245]]
    np.testing.assert_allclose(distances.to_cartesian([0, 0, 90], [0, 90, 0]), expected, atol=1e-9)


@pytest.mark.parametrize("radius_km", [50.0, 1000.0, 8000.0, 19_950.0])
def test_pairs_and_buffers_are_those_of_brute_force(radius_km):
    one, other = anywhere(150), anywhere(130)
    km = all_km(*one, *other)
    i, j, found = distances.pairs_within(*one, *other, radius_km)
    assert sorted(zip(i, j, strict=True)) == sorted(zip(*np.nonzero(km <= radius_km), strict=True))
    np.testing.assert_allclose(found, km[i, j], rtol=1e-12)
    assert ((distances.nearest_km(*one, *other) <= radius_km) == (km <= radius_km).any(axis=1)).all()


def test_a_radius_for_each_point():
    i, j, _ = distances.pairs_within([0, 0], [0, 0], [0, 0], [0.1, 0.2], [12.0, 23.0])
    assert list(zip(i, j, strict=True)) == [(0, 0), (1, 0), (1, 1)]


def test_a_buffer_is_exact_to_the_micrometre():
    """The nearest other point is just inside and just outside of radius, in every direction."""
    azimuth = np.linspace(0, 360, 72, endpoint=False)
    for offset, expected in ((-1e-6, True), (1e-6, False)):
        lon, lat, _ = distances.WGS84.fwd(np.full(72, 179.5), np.full(72, 62.0), azimuth, np.full(72, 100_000 + offset))
        assert ((distances.nearest_km(lat, lon, [62.0], [179.5]) <= 100.0) == expected).all()
    assert distances.nearest_km([10.0], [20.0], [10.0], [20.0]).tolist() == [0.0]


def test_nearest_is_exact_on_the_ellipsoid_and_across_the_date_line():
    one, other = anywhere(300), anywhere(200)
    np.testing.assert_allclose(distances.nearest_km(*one, *other), all_km(*one, *other).min(axis=1), rtol=1e-12)
    far = np.full(50, 40.0) + GENERATOR.normal(0, 1, 50), GENERATOR.normal(100, 1, 50)
    np.testing.assert_allclose(distances.nearest_km(*one, *far), all_km(*one, *far).min(axis=1), rtol=1e-12)
    assert distances.nearest_km([0], [179.9], [0], [-179.9])[0] == pytest.approx(22.264, abs=1e-3)
    assert distances.nearest_km([0], [0], [0, 0], [1, 1])[0] == pytest.approx(111.3195, abs=1e-3)


def test_none_are_near_to_nothing():
    assert distances.nearest_km([0], [0], [], []).tolist() == [np.inf]
    assert distances.nearest_km([], [], [0], [0]).tolist() == []
    assert [len(part) for part in distances.pairs_within([], [], [0], [0], 10)] == [0, 0, 0]
