"""Methods that the map is compared with: their formulas, and pure pixels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import spectral

from src.core.stage.errors import DataError
from src.minerals.data import spectral_library
from src.minerals.data.simulated_geology import MATERIALS, draw
from src.minerals.data.simulated_spectra import FWHM, WAVELENGTHS, endmembers, measure
from src.minerals.mapping import other_methods
from src.minerals.mapping.minerals import NAMES

LIBRARY = spectral_library.read(Path("data/sample/usgs_minerals"))
SENSED = LIBRARY.at(WAVELENGTHS, FWHM)
KEPT = (WAVELENGTHS > 400) & (WAVELENGTHS < 2470)
SWIR = (WAVELENGTHS >= 2000) & (WAVELENGTHS < 2470)
SPECTRA = endmembers(LIBRARY, np.random.default_rng(0))
BANDS = other_methods.shared_bands(WAVELENGTHS, KEPT)
SCORERS = {
    name: lambda spectra, scene, score=score: score(spectra[:, BANDS], None if scene is None else scene[:, BANDS])
    for name, score in other_methods.scorers(LIBRARY, WAVELENGTHS, FWHM, KEPT).items()
}
SCENE = measure(draw(np.random.default_rng(4), 32, False), SPECTRA, 0.3, 200, np.random.default_rng(4))
PIXELS = SCENE.reshape(-1, 224)
SCORES = {name: SCORERS[name](PIXELS, PIXELS) for name in ("spectral angle", "matched filter")}


def best_of(scores_of_row) -> np.ndarray:
    """(N, M): the greatest score of each mineral's references; `scores_of_row` gives (N,) for a row of the library."""
    return np.stack([np.max([scores_of_row(row) for row in LIBRARY.rows(name, "reference")], 0) for name in NAMES], 1)


def test_the_spectral_angle_is_spys_and_the_formula():
    found = SCORES["spectral angle"]
    cube = SCENE[..., SWIR].astype(float)
    by_spy = best_of(lambda row: -spectral.spectral_angles(cube, SENSED[row, SWIR][None]).ravel())
    np.testing.assert_allclose(found, by_spy, atol=1e-12)
    x, y = PIXELS[0, SWIR].astype(float), SENSED[LIBRARY.rows("alunite", "reference")[0], SWIR]
    angle = np.arccos(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    assert found[0, NAMES.index("alunite")] == pytest.approx(-angle)


def test_the_matched_filter_is_spys_and_the_formula():
    found = SCORES["matched filter"]
    cube = SCENE[..., SWIR].astype(float)
    by_spy = best_of(lambda row: spectral.matched_filter(cube, SENSED[row, SWIR]).ravel())
    np.testing.assert_allclose(found, by_spy, atol=1e-9)
    pixels, target = cube.reshape(-1, SWIR.sum()), SENSED[LIBRARY.rows("alunite", "reference")[0], SWIR]
    mean, inverse = pixels.mean(0), np.linalg.inv(np.cov(pixels.T))
    by_hand = (pixels - mean) @ inverse @ (target - mean) / ((target - mean) @ inverse @ (target - mean))
    np.testing.assert_allclose(found[:, NAMES.index("alunite")], by_hand, atol=1e-6)


def test_unmixing_gives_the_shares_of_a_known_mixture():
    rows = [LIBRARY.rows(name, "reference")[0] for name in ("alunite", "calcite")]
    plant = LIBRARY.row("Grass_Golden_Dry")
    mixed = 0.5 * SENSED[rows[0]] + 0.2 * SENSED[rows[1]] + 0.3 * SENSED[plant]
    dark = 0.4 * mixed  # shade changes no share
    shares = SCORERS["unmixing"](np.stack([mixed, dark]), None)
    expected = np.zeros(8)
    expected[[NAMES.index("alunite"), NAMES.index("calcite")]] = 0.5, 0.2
    np.testing.assert_allclose(shares, [expected, expected], atol=1e-6)


def test_multiple_endmembers_explain_a_mixture_of_one_mineral_and_cover():
    row, plant = LIBRARY.rows("muscovite", "reference")[1], LIBRARY.row("Engelmann-Spruce")
    mixed = 0.4 * SENSED[row] + 0.6 * SENSED[plant]
    grey = np.full(224, 0.4)
    scores = SCORERS["multiple endmembers"](np.stack([mixed, grey]), None)
    assert scores[0].argmax() == NAMES.index("muscovite") and scores[0].max() == pytest.approx(1, abs=1e-6)
    # A mineral that would have to be taken away explains nothing.
    assert scores[0].min() >= 0 and SCORERS["unmixing"](grey[None], None).max() < 1e-6


@pytest.mark.parametrize(("name", "least"), zip(other_methods.METHODS, (0.55, 0.65, 0.7, 0.8), strict=True))
def test_most_pure_pixels_are_named(name, least):
    """Of samples that scenes are made of, and that are no references where there are two; a guess is right in 1 of 8.
    A filter sees them among the pixels of a scene."""
    assert MATERIALS[: len(NAMES)] == NAMES
    right = []
    for seed in range(10):
        pure = endmembers(LIBRARY, np.random.default_rng(seed))[: len(NAMES)]
        scores = SCORERS[name](pure, np.concatenate([PIXELS, pure]))
        assert scores.shape == (8, 8) and np.isfinite(scores).all()
        right.append(scores.argmax(1) == range(8))
    assert np.mean(right) >= least


def test_kept_bands_between_2000_and_2470_nm_are_looked_at():
    np.testing.assert_array_equal(BANDS, np.flatnonzero(SWIR))
    less = KEPT & ((WAVELENGTHS < 2200) | (WAVELENGTHS > 2300))
    np.testing.assert_array_equal(other_methods.shared_bands(WAVELENGTHS, less), np.flatnonzero(SWIR & less))


def test_a_library_without_a_plant_or_with_a_gap_is_named():
    plants = ~LIBRARY.table["spectrum"].str.startswith("Engelmann")
    less = replace(LIBRARY, spectra=LIBRARY.spectra[plants], table=LIBRARY.table[plants].reset_index(drop=True))
    with pytest.raises(DataError, match="found no spectrum named Engelmann-Spruce"):
        other_methods.scorers(less, WAVELENGTHS, FWHM, KEPT)
    spectra = LIBRARY.spectra.copy()
    spectra[LIBRARY.rows("calcite", "reference")[0], LIBRARY.wavelengths > 2455] = np.nan
    with pytest.raises(DataError, match=r"Calcite_WS272.*: found NaN between 2000 and 2470 nm"):
        other_methods.scorers(replace(LIBRARY, spectra=spectra), WAVELENGTHS, FWHM, KEPT)
