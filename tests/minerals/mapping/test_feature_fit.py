"""The map against the spectral library: samples that it has not seen, and materials that it does not know."""

from pathlib import Path

import numpy as np
import pytest
from spectral.algorithms.continuum import remove_continuum

from src.core.stage.errors import DataError
from src.minerals.data import spectral_library
from src.minerals.data.simulated_spectra import FWHM, WAVELENGTHS
from src.minerals.mapping.feature_fit import FeatureFit, continuum
from src.minerals.mapping.minerals import MINERALS, NAMES
from src.minerals.mapping.thresholds import classify

LIBRARY = spectral_library.read(Path("data/sample/usgs_minerals"))
SENSED = LIBRARY.at(WAVELENGTHS, FWHM)
KEPT = ~(
    ((WAVELENGTHS >= 1350) & (WAVELENGTHS <= 1450))
    | ((WAVELENGTHS >= 1790) & (WAVELENGTHS <= 1990))
    | (WAVELENGTHS < 400)
    | (WAVELENGTHS > 2470)
)
MINERAL = LIBRARY.table["mineral"].to_numpy()
TITLE = LIBRARY.table["spectrum"].to_numpy()
THRESHOLD = 0.004  # a tenth of what scenes take: here there is no noise
# Materials that hold one of the eight minerals, or one of its group: neither right nor wrong.
RELATED = (
    "Illite", "Halloysite", "Dickite", "Buddingtnt+", "Pyrophyl.25", "Alun366", "Kaol", "Muscov+", "Chlorite+",
    "Calcite.", "Dolomite.5", "Water+Montmor",
)  # fmt: skip


def fitter(without: int | None = None) -> FeatureFit:
    """All samples of the eight minerals are references, but for row `without`."""
    rows = {name: [row for row in np.flatnonzero(name == MINERAL) if row != without] for name in NAMES}
    return FeatureFit(WAVELENGTHS, KEPT, {name: SENSED[chosen] for name, chosen in rows.items()})


def named(fit: FeatureFit, spectrum: np.ndarray) -> str:
    scores = np.multiply(*fit(spectrum[None]))
    return ("none", *NAMES)[classify(scores, THRESHOLD)[0]]


def test_samples_that_are_no_references_are_named_right():
    """Of the five minerals with at least two samples: 14 samples, each named by the others."""
    rows = [row for name in NAMES if (name == MINERAL).sum() > 1 for row in np.flatnonzero(name == MINERAL)]
    right = [named(fitter(row), SENSED[row]) == MINERAL[row] for row in rows]
    assert len(rows) == 14 and np.mean(right) >= 0.9


def test_materials_that_the_library_does_not_know_are_none():
    rows = [row for row in range(len(MINERAL)) if not MINERAL[row] and not TITLE[row].startswith(RELATED)]
    fit = fitter()
    none = [named(fit, SENSED[row]) == "none" for row in rows]
    assert len(rows) >= 20 and np.mean(none) >= 0.9


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", ["coarse", "fine", "shade", "half grey rock"])
def test_a_mineral_keeps_its_name_by_grain_size_shade_and_dilution(name, change):
    spectrum = SENSED[LIBRARY.rows(name, "reference")[0]]
    changed = {
        "coarse": spectrum**1.2,
        "fine": spectrum**0.8,
        "shade": spectrum * 0.3,
        "half grey rock": 0.5 * spectrum + 0.5 * 0.3,
    }[change]
    assert named(fitter(), changed) == name


def test_depth_and_fit_of_a_reference_are_its_own():
    fit, depth = fitter()(np.stack([SENSED[LIBRARY.rows(name, "reference")[0]] for name in NAMES]))
    np.testing.assert_allclose(np.diag(fit), 1, atol=1e-4)
    assert (np.diag(depth) > 0.1).all()


def test_depth_falls_as_the_mineral_is_diluted():
    spectrum, rock = SENSED[LIBRARY.rows("kaolinite", "reference")[0]], np.full(224, 0.4)
    shares = np.linspace(1, 0.2, 5)
    diluted = np.stack([share * spectrum + (1 - share) * rock for share in shares])
    depth = fitter()(diluted)[1][:, NAMES.index("kaolinite")]
    assert (np.diff(depth) < 0).all() and depth[-1] > 0.05


def test_a_flat_spectrum_noise_and_no_data_are_none():
    fit = fitter()
    assert named(fit, np.full(224, 0.3)) == "none"
    assert named(fit, np.full(224, np.nan)) == "none"
    assert named(fit, np.zeros(224)) == "none"


def test_a_hole_in_a_spectrum_leaves_out_the_minerals_that_need_it_alone():
    spectrum = SENSED[LIBRARY.rows("muscovite", "reference")[1]].copy()
    spectrum[(WAVELENGTHS > 1400) & (WAVELENGTHS < 1600)] = np.nan
    assert named(fitter(), spectrum) == "muscovite"
    spectrum[(WAVELENGTHS > 2190) & (WAVELENGTHS < 2215)] = np.nan
    assert named(fitter(), spectrum) == "none"


def test_the_straight_continuum_agrees_with_spy_where_shoulders_are_the_hull():
    """On a feature between two convex shoulders the convex hull (SPy) and the straight line are the same."""
    x = np.arange(2100.0, 2301, 10)
    spectrum = (0.5 - 0.2 * np.exp(-(((x - 2200) / 25) ** 2))) * (1 + (x - 2100) / 1000)
    window = continuum(x, np.ones(len(x), bool), (2100, 2100), (2300, 2300), (2100, 2300), "feature")
    np.testing.assert_allclose(window.remove(spectrum[None])[0], remove_continuum(spectrum, x), atol=0.002)


def test_shoulders_never_lie_in_removed_bands():
    fit = fitter()
    for window in (*fit._windows.values(), *fit._absorptions.values()):
        assert KEPT[np.concatenate([window.bands, window.left, window.right])].all()
    assert not fit.unchecked


def test_a_window_without_bands_is_named():
    kept = KEPT & ~((WAVELENGTHS > 2230) & (WAVELENGTHS < 2270))
    with pytest.raises(DataError, match="alunite: right shoulder 2235-2260 nm: found no band"):
        FeatureFit(WAVELENGTHS, kept, {name: SENSED[LIBRARY.rows(name, "reference")] for name in NAMES})


def test_a_rule_whose_bands_the_sensor_lacks_is_left_out_and_said():
    kept = KEPT & (WAVELENGTHS > 1440)
    fit = FeatureFit(WAVELENGTHS, kept, {name: SENSED[LIBRARY.rows(name, "reference")] for name in NAMES})
    assert {absorption.name for absorption in fit.unchecked} == {"ferrous iron at 1000 nm", "chlorophyll at 680 nm"}


def test_a_reference_with_a_hole_where_it_is_needed_is_named():
    references = {name: SENSED[LIBRARY.rows(name, "reference")].copy() for name in NAMES}
    references["calcite"][0, (WAVELENGTHS > 2300) & (WAVELENGTHS < 2310)] = np.nan
    with pytest.raises(DataError, match="calcite: found NaN between 2178 and 2406 nm"):
        FeatureFit(WAVELENGTHS, KEPT, references)
    with pytest.raises(DataError, match="epidote: found no spectrum"):
        FeatureFit(WAVELENGTHS, KEPT, {name: spectra for name, spectra in references.items() if name in NAMES[:5]} | {
            name: SENSED[LIBRARY.rows(name, "reference")] for name in ("calcite", "chlorite")
        })  # fmt: skip


def test_no_sample_is_both_reference_and_scene_where_two_exist():
    for mineral in MINERALS:
        reference, scene = LIBRARY.rows(mineral.name, "reference"), LIBRARY.rows(mineral.name, "scene")
        assert len(reference) and len(scene)
        if (mineral.name == MINERAL).sum() > 1:
            assert not set(reference) & set(scene)
