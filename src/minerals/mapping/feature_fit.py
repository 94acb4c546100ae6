"""Fits of absorption features to a spectral library, as Tetracorder makes them, for many spectra at once.

    fitter = FeatureFit(wavelengths, keep, references)
    fit, depth = fitter(spectra)                  # (N, M) each
    classes = thresholds.classify(fit * depth, limits)      # 0: none of these

Every step is a sum over a few bands or a product of matrices, so that a scene passes at the speed of its file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.core.stage.errors import DataError
from src.minerals.mapping.minerals import MINERALS, Absorption, Feature, Interval, Mineral

MIN_FIT = 0.4  # R² below which a shape is not the library's, as in Tetracorder's own rules
GAP_NM = 30  # between two bands of a feature at most, so that its shape is seen
SMOOTH_NM = 28  # of the moving mean in which the deepest point is looked for; at least three bands


@dataclass(frozen=True)
class Continuum:
    """Bands of a window, and the weights that give its straight continuum from the two shoulders.

    Attributes:
        bands: (W,) indices between the shoulders, both included.
        left, right: indices of the shoulders' bands.
        share: (W,) part of the right shoulder in the continuum at each band; outside 0 to 1 it extrapolates.
    """

    bands: np.ndarray
    left: np.ndarray
    right: np.ndarray
    share: np.ndarray

    def remove(self, spectra: np.ndarray) -> np.ndarray:
        """(N, B) reflectance -> (N, W) divided by the continuum; NaN where the continuum is not above 0."""
        left, right = spectra[:, self.left].mean(1), spectra[:, self.right].mean(1)
        line = left[:, None] + (right - left)[:, None] * self.share
        return np.divide(spectra[:, self.bands], line, out=np.full(line.shape, np.nan, line.dtype), where=line > 0)


def continuum(wavelengths: np.ndarray, keep: np.ndarray, left: Interval, right: Interval, inner: Interval, name: str):
    """The window's bands among those of `keep` (B,) bool.

    Raises:
        DataError: a shoulder or the window has no band left.
    """

    def within(interval: Interval, what: str) -> np.ndarray:
        found = np.flatnonzero((wavelengths >= interval[0]) & (wavelengths <= interval[1]) & keep)
        if not len(found):
            raise DataError(
                f"{name}: {what} {interval[0]:g}-{interval[1]:g} nm: found no band, expected one at least; the sensor "
                "does not reach there, or `bands` removed it"
            )
        return found

    low, high, bands = within(left, "left shoulder"), within(right, "right shoulder"), within(inner, "window")
    x = wavelengths[low].mean(), wavelengths[high].mean()
    return Continuum(bands, low, high, ((wavelengths[bands] - x[0]) / (x[1] - x[0])).astype(np.float32))


class FeatureFit:
    """Fit and depth of every mineral of `minerals` in spectra of one sensor.

    A rule that needs bands which sensor or spectrum do not have is not applied; `unchecked` lists those of the sensor.

    Args:
        wavelengths: (B,) nm, ascending.
        keep: (B,) bool, bands that `bands` left.
        references: name of a mineral -> (R, B) library spectra of it, as the sensor would see them.

    Raises:
        DataError: a mineral has no reference, one is NaN at a band that its features need, or a window has no band or
            a gap of more than `GAP_NM`.
    """

    def __init__(
        self,
        wavelengths: np.ndarray,
        keep: np.ndarray,
        references: dict[str, np.ndarray],
        minerals: Sequence[Mineral] = MINERALS,
    ):
        self.minerals = tuple(minerals)
        self._wavelengths, self._keep = np.asarray(wavelengths, float), np.asarray(keep, bool)
        self._windows: dict[Feature, Continuum] = {}
        self._means: dict[Feature, tuple[int, np.ndarray]] = {}
        self._absorptions: dict[Absorption, Continuum] = {}
        self.unchecked: list[Absorption] = []
        self._shapes: dict[tuple[str, Feature], np.ndarray] = {}  # (R, W) continuum-removed library spectra
        for mineral in self.minerals:
            spectra = np.atleast_2d(references.get(mineral.name, np.empty((0, len(self._wavelengths)))))
            if not len(spectra):
                raise DataError(f"spectral library: {mineral.name}: found no spectrum, expected one at least; add one")
            for feature in mineral.features:
                window = self._window(feature, mineral.name)
                shapes = window.remove(spectra.astype(np.float32))
                if np.isnan(shapes).any():
                    raise DataError(
                        f"spectral library: {mineral.name}: found NaN between {feature.left[0]:g} and "
                        f"{feature.right[1]:g} nm, expected reflectance above 0; leave that spectrum out"
                    )
                self._shapes[mineral.name, feature] = shapes
            self._means[mineral.features[0]] = self._mean(self._windows[mineral.features[0]].bands)
            for absorption, _, _ in mineral.ratios:
                self._add(absorption)

    def _mean(self, bands: np.ndarray) -> tuple[int, np.ndarray]:
        """Half width in bands, and the matrix (W, W - 2 * half) that takes a window to its moving mean."""
        half = max(round((SMOOTH_NM / np.median(np.diff(self._wavelengths[bands])) - 1) / 2), 1)
        mean = np.ones(2 * half + 1) / (2 * half + 1)
        return half, np.stack([np.convolve(row, mean, "same") for row in np.eye(len(bands))])[:, half:-half]

    def _add(self, absorption: Absorption) -> None:
        if absorption not in (*self._absorptions, *self.unchecked):
            lists = absorption.left, absorption.right, absorption.centre
            try:
                self._absorptions[absorption] = continuum(self._wavelengths, self._keep, *lists, absorption.name)
            except DataError:
                self.unchecked.append(absorption)

    def _window(self, feature: Feature, name: str) -> Continuum:
        if feature not in self._windows:
            inner = (feature.left[1], feature.right[0])
            self._windows[feature] = continuum(self._wavelengths, self._keep, feature.left, feature.right, inner, name)
            first, last = feature.left[0], feature.right[1]
            seen = self._wavelengths[self._keep & (self._wavelengths >= first) & (self._wavelengths <= last)]
            widest = np.diff(seen).argmax()
            if seen[widest + 1] - seen[widest] > GAP_NM:
                raise DataError(
                    f"{name}: {seen[widest]:g}-{seen[widest + 1]:g} nm: found no band between, expected one every "
                    f"{GAP_NM} nm; the sensor is too coarse there, or `bands` removed it"
                )
        return self._windows[feature]

    def __call__(self, spectra: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, B) reflectance -> fit (R², 0 to 1) and depth (0 to 1) of the best reference of each mineral, (N, M) each.

        Both are 0 where a rule of the mineral is broken or a value that it needs is NaN.
        """
        spectra = np.asarray(spectra, np.float32)
        removed = {feature: window.remove(spectra) for feature, window in self._windows.items()}
        depths = {name: 1 - window.remove(spectra).mean(1) for name, window in self._absorptions.items()}
        fit, depth = np.zeros((2, len(spectra), len(self.minerals)), np.float32)
        for column, mineral in enumerate(self.minerals):
            allowed = self._allowed(mineral, removed[mineral.features[0]], depths)
            fits, deep = self._fits(mineral, removed)  # (R, N) each
            best = (fits * deep).argmax(0), np.arange(len(spectra))
            allowed &= (fits[best] >= MIN_FIT) & (deep[best] > 0)
            fit[allowed, column], depth[allowed, column] = fits[best][allowed], deep[best][allowed]
        return fit, depth

    def _allowed(self, mineral: Mineral, first: np.ndarray, depths: dict[Absorption, np.ndarray]) -> np.ndarray:
        """(N,) bool: every rule of the mineral holds; `first` is its first feature with the continuum removed."""
        bands = self._windows[mineral.features[0]].bands
        half, smooth = self._means[mineral.features[0]]
        smoothed = np.nan_to_num(first, nan=2) @ smooth
        deepest = self._wavelengths[bands][half + smoothed.argmin(1)]
        depth = 1 - smoothed.min(1)
        allowed = (deepest >= mineral.deepest[0]) & (deepest <= mineral.deepest[1]) & (depth > 0)
        for absorption, least, most in mineral.ratios:
            if absorption in depths:
                with np.errstate(invalid="ignore"):  # NaN breaks no rule
                    allowed &= ~((depths[absorption] < least * depth) | (depths[absorption] > most * depth))
        return allowed

    def _fits(self, mineral: Mineral, removed: dict[Feature, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Weighted means of R² and depth over the mineral's features, (R, N) each, of observed = a + b * library."""
        total = sum(feature.weight for feature in mineral.features)
        fits = depths = 0.0
        for feature in mineral.features:
            observed, shapes = np.nan_to_num(removed[feature], nan=1), self._shapes[mineral.name, feature]
            mean, library = observed.mean(1), shapes - shapes.mean(1, keepdims=True)  # (N,), (R, W)
            power = (library**2).sum(1)[:, None]
            slope = library @ (observed - mean[:, None]).T / power  # (R, N)
            variance = ((observed - mean[:, None]) ** 2).sum(1)
            r2 = np.divide(slope**2 * power, variance, out=np.zeros_like(slope), where=variance > 0)
            offset = mean - slope * shapes.mean(1)[:, None]
            deepest = 1 - (offset + slope * shapes.min(1)[:, None]) / np.maximum(offset + slope, 1e-6)
            share = feature.weight / total
            fits = fits + share * np.where(slope > 0, r2, 0)
            depths = depths + share * np.where(slope > 0, deepest, 0)
        return fits, depths
