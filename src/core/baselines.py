"""What a score has to beat: mean, place on the map, ridge and forest on band means, shuffled labels.

Every choice (number of neighbours, ridge penalty) is made by squared error on validation. A
baseline sees the training rows alone; the network's `anchored` head stores the same `Ridge`.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import RandomForestRegressor
from sklearn.neighbors import KNeighborsRegressor
from tqdm import tqdm

from src.core.errors import DataError
from src.core.sensors import Quantisation, dequantise
from src.core.store import Store

ALPHAS = tuple(float(alpha) for alpha in np.logspace(-2, 6, 33))
"""Penalties tried: from none worth the name to all weights zero, for 10² to 10⁵ standardised rows."""

NEIGHBOURS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89)
TREES = 300
PERMUTATIONS = 20


@dataclass(frozen=True)
class Ridge:
    """A linear model in the features' own units: prediction = features @ weight + intercept."""

    weight: np.ndarray  # (C,) float64
    intercept: float
    alpha: float  # penalty on standardised features

    def predict(self, features: np.ndarray) -> np.ndarray:
        """(N, C) -> (N,) float64."""
        return np.asarray(features, dtype=np.float64) @ self.weight + self.intercept


def tile_band_means(values: np.ndarray, valid: np.ndarray, quantisation: Quantisation) -> np.ndarray:
    """Dequantised mean of every band over the valid pixels of one tile.

    values (C, H, W) in the stored dtype, valid (H, W) bool -> (C,) float64.
    """
    # Band by band: a 64 x 1000 x 1000 tile as float32 would take 256 MB, and its temporaries as much again.
    return np.array([dequantise(band[valid], quantisation).mean(dtype=np.float64) for band in values])


def band_means(store: Store, rows: np.ndarray, side: int) -> np.ndarray:
    """`tile_band_means` over the centre crop of `side` px that the model sees -> (N, C) float64.

    rows (N,) are tiles of the store; one that is named twice is read once.

    Raises:
        DataError: a tile has no valid pixel in the crop.
    """
    tiles, index = np.unique(np.asarray(rows), return_inverse=True)
    top, left = (store.height - side) // 2, (store.width - side) // 2
    crop = np.s_[..., top : top + side, left : left + side]
    means = np.empty((len(tiles), store.bands))
    for row, tile in enumerate(tqdm(tiles, desc="band means", unit="tile", leave=False)):
        valid = store.valid([tile])[0][crop]
        if not valid.any():
            raise DataError(
                f"{store.folder}: {store.tiles.tile_id[tile]}: valid pixels: found none in the centre {side} px, "
                "expected some; remove the tile and its label"
            )
        means[row] = tile_band_means(store.view(tile)[crop], valid, store.quantisation)
    return means[index]


def fit_ridge(
    features: np.ndarray, y: np.ndarray, alphas: tuple[float, ...], validation: tuple[np.ndarray, np.ndarray]
) -> Ridge:
    """Ridge regression on standardised features, the penalty with the least squared error on `validation`.

    features (N, C) float, y (N,); validation (features, y). Of equal penalties the larger is kept.
    Solved for all penalties from one singular value decomposition (Hastie et al. 2009, eq. 3.47).
    """
    features = np.asarray(features, dtype=np.float64)
    mean, sd = features.mean(axis=0), features.std(axis=0)
    # A constant feature is zero once centred and gets weight zero; its sd may be rounding, not 0.
    sd = np.where(sd > 1e-12 * np.abs(mean), sd, 1.0)
    u, s, vt = np.linalg.svd((features - mean) / sd, full_matrices=False)
    projected = u.T @ (y - y.mean())
    best, least = None, np.inf
    for alpha in sorted(alphas, reverse=True):
        weight = vt.T @ (s / (s**2 + alpha) * projected) / sd
        ridge = Ridge(weight, float(y.mean() - mean @ weight), alpha)
        error = np.mean((ridge.predict(validation[0]) - validation[1]) ** 2)
        if error < least:
            best, least = ridge, error
    return best


def mean(y: np.ndarray, count: int) -> np.ndarray:
    """The training mean for each of `count` rows."""
    return np.full(count, np.mean(y, dtype=np.float64))


def year_means(y: np.ndarray, year: np.ndarray, years: np.ndarray) -> np.ndarray:
    """For each of `years` (M,) the mean training label of that year, or of all years where it has none."""
    by_year = {value: y[year == value].mean() for value in np.unique(year)}
    return np.array([by_year.get(value, y.mean()) for value in years], dtype=np.float64)


def unit_vectors(lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Degrees -> (N, 3) on the unit sphere, where distance knows no date line and no poles."""
    lat, lon = np.radians(lat), np.radians(lon)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


def fit_latlon(where: np.ndarray, y: np.ndarray, validation: tuple[np.ndarray, np.ndarray]) -> KNeighborsRegressor:
    """The mean of the k nearest training labels, k from NEIGHBOURS by squared error on `validation`.

    where (N, 3) of `unit_vectors`; `.predict` takes the same, `.n_neighbors` says which k it is.
    """
    models = [KNeighborsRegressor(k).fit(where, y) for k in NEIGHBOURS if k <= len(y)]
    errors = [np.mean((model.predict(validation[0]) - validation[1]) ** 2) for model in models]
    return models[int(np.argmin(errors))]


def fit_forest(features: np.ndarray, y: np.ndarray, seed: int) -> RandomForestRegressor:
    """TREES trees at scikit-learn's defaults (Breiman 2001)."""
    # One job: with more, the trees' predictions are summed in the order in which threads finish.
    return RandomForestRegressor(TREES, random_state=seed, n_jobs=1).fit(features, y)


def shuffle_by_place(y: np.ndarray, place: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Training labels moved between places: all labels of a place come from one other, drawn place.

    Labels of one place resemble each other over the years; moving them one by one would make the
    null easier to beat than it is. Where the donor has fewer years its labels are repeated.
    """
    place = np.asarray(place, dtype=str)
    names = np.unique(place)
    shuffled = np.empty(len(y))
    for name, donor in zip(names, generator.permutation(names), strict=True):
        here = place == name
        shuffled[here] = np.resize(y[place == donor], np.count_nonzero(here))
    return shuffled
