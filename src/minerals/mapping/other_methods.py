"""Methods that the feature fit is compared with, each giving every mineral a score, the higher the likelier.

Angles and matched filters are SPy's, non-negative unmixing is scipy's. All see the reflectance between 2000 and
2470 nm, where the minerals differ.
"""

from collections.abc import Callable

import numpy as np
import spectral
from scipy.optimize import nnls

from src.core.stage.errors import DataError
from src.minerals.data.spectral_library import Library
from src.minerals.mapping.minerals import NAMES

SWIR_NM = 2000, 2470
COVER = ("Engelmann-Spruce", "Grass_Golden_Dry")  # endmembers that are no mineral; a flat spectrum is added to them
METHODS = ("spectral angle", "matched filter", "unmixing", "multiple endmembers")


def shared_bands(wavelengths: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Positions of the kept bands that every method here sees."""
    return np.flatnonzero(kept & (wavelengths >= SWIR_NM[0]) & (wavelengths <= SWIR_NM[1]))


def scorers(
    library: Library, wavelengths: np.ndarray, fwhm: np.ndarray, kept: np.ndarray
) -> dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    """Name of a method -> function of (N, W) spectra and (K, W) spectra of the whole scene -> (N, M) scores.

    W are the bands of `shared_bands`.

    Raises:
        DataError: a spectrum that is needed is not in the library, or is not measured everywhere in `SWIR_NM`.
    """
    bands = shared_bands(wavelengths, kept)
    sensed = library.at(wavelengths, fwhm)[:, bands]
    references = [sensed[library.rows(name, "reference")] for name in NAMES]
    owner = np.repeat(np.arange(len(NAMES)), [len(spectra) for spectra in references])  # mineral of each reference
    members = np.concatenate(references)
    plants = [library.row(name) for name in COVER]
    cover = np.stack([*sensed[plants], np.full(len(bands), 0.4)])
    for row in (*np.concatenate([library.rows(name, "reference") for name in NAMES]), *plants):
        if np.isnan(sensed[row]).any():
            raise DataError(
                f"spectral library: {library.table['spectrum'][row]}: found NaN between {SWIR_NM[0]} and "
                f"{SWIR_NM[1]} nm, expected reflectance; leave that spectrum out"
            )

    def best(scores: np.ndarray) -> np.ndarray:
        """(N, R) scores of references -> (N, M) of minerals."""
        return np.stack([scores[:, owner == number].max(1) for number in range(len(NAMES))], 1)

    def angle(spectra, _):
        return best(-spectral.spectral_angles(_by_band(spectra)[None], members)[0])

    def filtered(spectra, scene):
        background = spectral.calc_stats(_by_band(scene))
        values = _by_band(spectra)
        return best(np.stack([spectral.matched_filter(values, member, background).ravel() for member in members], 1))

    def unmixed(spectra, _):
        matrix = np.concatenate([members, cover]).T
        shares = np.stack([nnls(matrix, spectrum)[0] for spectrum in _by_band(spectra)])
        shares /= np.maximum(shares.sum(1, keepdims=True), 1e-6)
        return np.stack([shares[:, : len(owner)][:, owner == number].sum(1) for number in range(len(NAMES))], 1)

    def multiple(spectra, _):
        return best(_multiple_endmembers(_by_band(spectra), members, cover))

    return dict(zip(METHODS, (angle, filtered, unmixed, multiple), strict=True))


def _by_band(spectra: np.ndarray) -> np.ndarray:
    """(N, W) as float64, the values of a band side by side in memory, so that sums have one order and last digit."""
    return spectra.astype(float, order="F")


def _multiple_endmembers(spectra: np.ndarray, members: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """(N, R) part of the misfit of cover alone that one mineral takes away (Roberts and others 1998, RSE 65, 267).

    Every model is one mineral, or none, beside all of `cover`; a model with a negative share of the mineral scores 0.
    """
    without = _residual(spectra, cover)[0]
    scores = np.zeros((len(spectra), len(members)))
    for number, member in enumerate(members):
        misfit, share = _residual(spectra, np.vstack([member, cover]))
        scores[:, number] = np.where(share > 0, 1 - misfit / np.maximum(without, 1e-12), 0)
    return scores


def _residual(spectra: np.ndarray, endmembers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) sum of squared residuals of a least-squares mixture, and (N,) share of the first endmember."""
    shares = spectra @ np.linalg.pinv(endmembers)
    return ((spectra - shares @ endmembers) ** 2).sum(1), shares[:, 0]
