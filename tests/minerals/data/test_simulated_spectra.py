"""Simulated measurements: mixtures, light, noise and water vapour."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from src.core.stage.errors import DataError
from src.minerals.data import simulated_spectra as simulated
from src.minerals.data import spectral_library
from src.minerals.data.simulated_geology import MATERIALS, Ground
from src.minerals.data.simulated_spectra import FWHM, WAVELENGTHS
from src.minerals.mapping.minerals import NAMES

LIBRARY = spectral_library.read(Path("data/sample/usgs_minerals"))
SPECTRA = simulated.endmembers(LIBRARY, np.random.default_rng(0))
SURFACE = (WAVELENGTHS > 500) & (WAVELENGTHS < 2400)
for CENTRE, WIDTH, _ in simulated.VAPOUR:
    SURFACE &= np.abs(WAVELENGTHS - CENTRE) > 5 * WIDTH


def ground(shares: dict[str, float], side: int = 40, iron: float = 0, shade: float = 1) -> Ground:
    abundance = np.zeros((side, side, len(MATERIALS)), np.float32)
    for name, share in shares.items():
        abundance[..., MATERIALS.index(name)] = share
    return Ground(abundance, np.full((side, side), iron, np.float32), np.full((side, side), shade, np.float32))


def measured(of: Ground, intimate: float = 0, snr: float = 1e6, seed: int = 0) -> np.ndarray:
    return simulated.measure(of, SPECTRA, intimate, snr, np.random.default_rng(seed))


def test_endmembers_are_reflectance_and_no_references():
    assert SPECTRA.shape == (len(MATERIALS), 224) and np.isfinite(SPECTRA).all()
    assert SPECTRA.min() >= 0.005 and SPECTRA.max() <= 0.98
    sensed, swir = LIBRARY.at(WAVELENGTHS, FWHM), (WAVELENGTHS > 2000) & (WAVELENGTHS < 2470)
    for name in NAMES:
        use = LIBRARY.table["use"][LIBRARY.rows(name, "scene")].tolist()
        if "both" not in use:
            near = [np.corrcoef(sensed[row, swir], SPECTRA[MATERIALS.index(name), swir])[0, 1]
                    for row in LIBRARY.rows(name, "reference")]  # fmt: skip
            assert max(near) < 0.9999


def test_a_library_without_a_mineral_or_a_plant_is_named():
    for column, value, said in (("mineral", "alunite", "alunite: found no spectrum for use in a scene"),
                                ("spectrum", "Grass", "found no spectrum named Grass_Golden_Dry")):  # fmt: skip
        keep = ~LIBRARY.table[column].str.startswith(value)
        less = replace(LIBRARY, spectra=LIBRARY.spectra[keep], table=LIBRARY.table[keep].reset_index(drop=True))
        with pytest.raises(DataError, match=said):
            simulated.endmembers(less, np.random.default_rng(0))


def test_extension_keeps_what_was_measured_and_falls_smoothly():
    spectrum = np.full(224, np.nan)
    spectrum[100:200] = np.linspace(0.4, 0.5, 100)
    full = simulated.extend(spectrum)
    np.testing.assert_array_equal(full[100:200], spectrum[100:200])
    assert (full[200:] == 0.5).all() and (np.diff(full[:101]) > 0).all()
    assert full[0] == pytest.approx(0.55 * 0.4, abs=0.01)


def test_hapke_there_and_back():
    reflectance = np.linspace(0, 0.99, 100)
    albedo = simulated.single_scattering(reflectance)
    np.testing.assert_allclose(simulated.diffuse_reflectance(albedo), reflectance, atol=1e-12)
    assert albedo[0] == 0 and (np.diff(albedo) > 0).all() and albedo[-1] < 1
    assert simulated.single_scattering(0.5) == pytest.approx(8 / 9)  # 1 - (0.5 / 1.5)^2


def test_areas_mix_linearly():
    cube = measured(ground({"alunite": 0.3, "basalt": 0.7}))
    expected = 0.3 * SPECTRA[MATERIALS.index("alunite")] + 0.7 * SPECTRA[MATERIALS.index("basalt")]
    np.testing.assert_allclose(cube.mean((0, 1))[SURFACE], expected[SURFACE], rtol=0.002)


def test_intimate_mixing_darkens_mixtures_and_leaves_pure_pixels():
    pure, mixed = ground({"alunite": 1}), ground({"alunite": 0.5, "basalt": 0.5})
    np.testing.assert_allclose(measured(pure, 1)[..., SURFACE], measured(pure, 0)[..., SURFACE], rtol=1e-3)
    areal, half, grains = (measured(mixed, share)[..., SURFACE].mean((0, 1)) for share in (0, 0.5, 1))
    assert (grains < areal).all() and np.mean(areal - grains) > 0.03
    np.testing.assert_allclose(half, (areal + grains) / 2, rtol=1e-4)


def test_shade_scales_a_whole_spectrum_and_iron_changes_the_visible():
    bright = measured(ground({"tuff": 1}))[..., SURFACE]
    np.testing.assert_allclose(measured(ground({"tuff": 1}, shade=0.5))[..., SURFACE], bright / 2, rtol=1e-3)
    red = measured(ground({"tuff": 1}, iron=0.5))[..., SURFACE].mean((0, 1)) / bright.mean((0, 1))
    nm = WAVELENGTHS[SURFACE]
    assert red[nm < 520].max() < 0.75 and red[nm > 1200].min() > 0.99  # it competes with no mineral
    assert red[np.abs(nm - 830).argmin()] < red[np.abs(nm - 720).argmin()]


def test_noise_is_what_the_ratio_says():
    cube = measured(ground({"tuff": 1}), snr=100)
    noise = cube.std((0, 1))[SURFACE]
    np.testing.assert_allclose(noise, 0.5 / 100, rtol=0.15)


def test_nothing_of_the_ground_is_left_in_the_bands_of_water_vapour():
    bright, dark = (measured(ground({name: 1}), snr=200) for name in ("playa", "basalt"))
    opaque = (np.abs(WAVELENGTHS - 1390) < 20) | (np.abs(WAVELENGTHS - 1880) < 40)
    np.testing.assert_array_equal(bright[..., opaque], dark[..., opaque])


def test_residue_lies_beside_the_weak_bands_of_vapour():
    cube = measured(ground({"playa": 1}))
    spread = cube.std((0, 1)) / cube.mean((0, 1))
    assert spread[np.abs(WAVELENGTHS - 940).argmin()] == pytest.approx(simulated.RESIDUE, rel=0.1)
    assert spread[SURFACE].max() < 0.001
