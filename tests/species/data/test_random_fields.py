"""Random fields have the correlation they promise, and nothing lies in the sea."""

import numpy as np
import pytest

from src.core.geo.distances import geodesic_km
from src.species.data import random_fields


def test_correlation_falls_with_distance_as_promised():
    generator = np.random.default_rng(0)
    field = random_fields.Field(generator, 400, [3.0])
    origin = generator.uniform(-100, 100, (50, 2))
    values = field.at(origin)
    assert values.shape == (50, 400)
    assert np.mean(values**2) == pytest.approx(1, abs=0.03)
    for apart, expected in ((0.3, np.exp(-0.005)), (3.0, np.exp(-0.5)), (12.0, np.exp(-8))):
        assert np.mean(values * field.at(origin + np.array([0, apart]))) == pytest.approx(expected, abs=0.03)


def test_two_lengths_share_the_variance():
    generator = np.random.default_rng(1)
    field = random_fields.Field(generator, 400, [0.8, 4.0, 4.0])
    origin = generator.uniform(-100, 100, (50, 2))
    near = np.mean(field.at(origin) * field.at(origin + np.array([4.0, 0])))
    assert near == pytest.approx(2 / 3 * np.exp(-0.5), abs=0.03)  # the short third is gone


def test_outputs_are_independent_and_a_point_has_one_value():
    field = random_fields.Field(np.random.default_rng(2), 2, [1.0])
    km = np.random.default_rng(3).uniform(-100, 100, (5000, 2))
    one, other = field.at(km).T
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.1
    np.testing.assert_allclose(field.at(km[7:8])[0], [one[7], other[7]], rtol=1e-12)


def test_plane_and_degrees_are_inverse_and_keep_distances():
    km = np.random.default_rng(4).uniform(-100, 100, (200, 2))
    lat, lon = random_fields.to_degrees(km)
    np.testing.assert_allclose(random_fields.to_km(lat, lon), km, atol=1e-6)
    north = random_fields.to_degrees(np.array([[0.0, 10.0]]))
    assert geodesic_km(*random_fields.MIDDLE, north[0], north[1]) == pytest.approx(10, abs=1e-6)
    assert north[0][0] > random_fields.MIDDLE[0]


@pytest.mark.parametrize(
    ("place", "lat", "lon", "land"),
    [
        ("Orlando", 28.54, -81.38, True),
        ("Ocala", 29.19, -82.13, True),
        ("Tampa Bay", 27.70, -82.55, False),
        ("Gulf of Mexico", 28.20, -82.95, False),
        ("Atlantic", 29.00, -80.60, False),
    ],
)
def test_land_and_sea(place, lat, lon, land):
    assert random_fields.land().contains_points(random_fields.to_km(np.array([lat]), np.array([lon])))[0] == land, place


def test_places_are_on_land_and_sites_are_dense():
    km, site = random_fields.draw_places(np.random.default_rng(5), 3000, sites=100)
    assert random_fields.land().contains_points(km).all()
    assert (site < 0).mean() == pytest.approx(random_fields.FREE, abs=0.03)
    counts = np.bincount(site[site >= 0], minlength=100)
    assert counts.max() > 4 * np.median(counts)  # effort is long-tailed
    busiest = km[site == counts.argmax()]
    assert np.linalg.norm(busiest - busiest.mean(axis=0), axis=1).mean() < 2 * random_fields.SCATTER_KM


def test_what_would_move_into_the_sea_stays():
    lat, lon = np.array([28.5, 28.5]), np.array([-81.5, -81.4])
    origin = random_fields.to_km(lat, lon)
    moved = origin + np.array([[1.0, 0.0], [500.0, 0.0]])
    np.testing.assert_array_equal(random_fields.keep_on_land(moved, origin), [moved[0], origin[1]])
