"""The plane on which simulated records lie, and smooth random fields that can be evaluated anywhere on it.

The plane is the azimuthal equidistant projection around the middle of central Florida, in km east and north.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.path import Path as Outline

from src.core.geo.distances import WGS84
from src.core.splits.squares import offsets_km

MIDDLE = 28.5, -81.65  # lat, lon in degrees, where the plane touches
# Central Florida drawn by hand, lon and lat in degrees: the Gulf coast with Tampa Bay from south to north, the northern
# edge, the Atlantic coast with Cape Canaveral, the southern edge. Kilometres off where the true coast winds.
COAST = (
    (-82.56, 27.60), (-82.42, 27.82), (-82.50, 27.97), (-82.62, 27.72), (-82.80, 27.86), (-82.77, 28.17),
    (-82.66, 28.45), (-82.71, 28.80), (-82.80, 29.02), (-82.80, 29.40), (-81.12, 29.40), (-80.98, 29.15),
    (-80.75, 28.80), (-80.55, 28.46), (-80.60, 28.20), (-80.50, 27.98), (-80.50, 27.60),
)  # fmt: skip
WAVES = 1024  # of a field; its covariance is off by about 1 / sqrt(WAVES)
CLUSTER_KM, CLUSTERED = 6, 1.3  # of sites: length and standard deviation of their log-density
SCATTER_KM, FREE = 0.15, 0.2  # around a site; share of records that are at none


class Field:
    """K Gaussian random fields of mean 0 and variance 1: sums of M cosine waves, drawn as random Fourier features
    (Rahimi and Recht 2007, NIPS).

    The correlation of two points d km apart is the mean of exp(-d² / 2l²) over the lengths l.
    """

    def __init__(self, generator: np.random.Generator, outputs: int, lengths_km: Sequence[float]):
        self.frequencies = generator.standard_normal((2, WAVES)) / np.resize(lengths_km, WAVES)  # radians per km
        self.phases = generator.uniform(0, 2 * np.pi, WAVES)
        self.weights = generator.standard_normal((WAVES, outputs)) * np.sqrt(2 / WAVES)  # (M, K)

    def at(self, km: np.ndarray) -> np.ndarray:
        """(P, K) values at (P, 2) points of the plane."""
        return np.cos(km @ self.frequencies + self.phases) @ self.weights


def to_km(lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """(P, 2) km east and north of `MIDDLE`, from (P,) degrees each."""
    return np.stack(offsets_km(*MIDDLE, lat, lon), axis=-1)


def to_degrees(km: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P,) lat and (P,) lon of (P, 2) points of the plane."""
    east, north = np.asarray(km, float).T
    lat, lon = np.full(len(east), MIDDLE[0]), np.full(len(east), MIDDLE[1])
    lon, lat, _ = WGS84.fwd(lon, lat, np.degrees(np.arctan2(east, north)), 1000 * np.hypot(east, north))
    return np.asarray(lat), np.asarray(lon)


def land() -> Outline:
    """The area within `COAST`, on the plane."""
    lon, lat = np.array(COAST).T
    return Outline(to_km(lat, lon))


def land_points(generator: np.random.Generator, count: int) -> np.ndarray:
    """(count, 2) km, uniform on land."""
    outline, found = land(), np.empty((0, 2))
    while len(found) < count:
        proposed = generator.uniform(outline.vertices.min(axis=0), outline.vertices.max(axis=0), (2 * count, 2))
        found = np.concatenate([found, proposed[outline.contains_points(proposed)]])
    return found[:count]


def draw_places(generator: np.random.Generator, count: int, sites: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, 2) km where records are, and (count,) int64 of the site, -1 for those that are at none."""
    proposed = land_points(generator, 20 * sites)
    density = np.exp(CLUSTERED * Field(generator, 1, [CLUSTER_KM]).at(proposed)[:, 0])
    centres = proposed[generator.choice(len(proposed), sites, replace=False, p=density / density.sum())]
    effort = generator.lognormal(0, 1, sites)
    site = generator.choice(sites, count, p=effort / effort.sum())
    site[generator.random(count) < FREE] = -1
    free = land_points(generator, count)
    scattered = centres[site] + SCATTER_KM * generator.standard_normal((count, 2))
    return np.where((site < 0)[:, None], free, keep_on_land(scattered, centres[site])), site


def keep_on_land(moved: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """`moved` (P, 2), but for points in the sea their `origin` (P, 2)."""
    return np.where(land().contains_points(moved)[:, None], moved, origin)
