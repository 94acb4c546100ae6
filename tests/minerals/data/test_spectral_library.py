"""Spectral libraries: reading, and what a sensor would measure."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from src.core.stage.errors import DataError, StorageError
from src.minerals.data import spectral_library
from src.minerals.data.spectral_library import Library

GRID = np.arange(400.0, 2500)
TABLE = pd.DataFrame({"spectrum": ["Kaol_1", "Kaol_2", "Grass"], "mineral": ["kaolinite", "kaolinite", ""],
                      "use": ["reference", "both", "scene"]})  # fmt: skip
SPECTRA = "wavelength_nm,a,b\n400,0.5,0.1\n401,,0.2\n402,0.7,0.3\n"
MATERIALS = "spectrum,mineral,use\na,kaolinite,reference\nb,,\n"


def write(folder, spectra=SPECTRA, materials=MATERIALS):
    (folder / "spectra.csv").write_text(spectra)
    (folder / "materials.csv").write_text(materials)
    return folder


def library(*spectra: np.ndarray) -> Library:
    return Library(GRID, np.stack(spectra), TABLE.iloc[: len(spectra)])


def test_spectra_and_materials_are_read(tmp_path):
    found = spectral_library.read(write(tmp_path))
    np.testing.assert_array_equal(found.wavelengths, [400, 401, 402])
    np.testing.assert_array_equal(found.spectra, [[0.5, np.nan, 0.7], [0.1, 0.2, 0.3]])
    assert found.table["mineral"].tolist() == ["kaolinite", ""]


@pytest.mark.parametrize("name", ["spectra.csv", "materials.csv"])
def test_a_missing_file_is_named(tmp_path, name):
    (write(tmp_path) / name).unlink()
    with pytest.raises(StorageError, match=f"{name}: no such file"):
        spectral_library.read(tmp_path)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"spectra": SPECTRA.replace("wavelength_nm", "nm")}, r"spectra\.csv: column 1: found 'nm'"),
        ({"materials": MATERIALS.replace("use", "usage")}, r"materials\.csv: no column 'use'"),
        ({"materials": MATERIALS.replace("b,,", "c,,")}, r"name different spectra \(b\)"),
        ({"materials": "spectrum,mineral,use\nb,,\na,,\n"}, r"different spectra \(another order\)"),
        ({"materials": MATERIALS.replace("reference", "train")}, "use: found 'train', expected reference, scene, both"),
        ({"spectra": SPECTRA.replace("0.7", "x")}, "found something that is not a number"),
        ({"spectra": SPECTRA.replace("402", "401")}, "expected ascending numbers; sort the rows, each once"),
        ({"spectra": SPECTRA.replace("402", "")}, "expected ascending numbers"),
        ({"spectra": SPECTRA.replace("0.7", "70")}, "a at 402 nm: found 70, .*divide per cent by 100"),
        ({"spectra": SPECTRA.replace("0.2", "-1.23e34")}, "b at 401 nm: found -1.23e"),
    ],
)
def test_every_mistake_is_named(tmp_path, files, said):
    with pytest.raises(DataError, match=said):
        spectral_library.read(write(tmp_path, **files))


def test_rows_by_mineral_and_use():
    of = library(*np.full((3, len(GRID)), 0.5))
    assert of.rows("kaolinite", "reference").tolist() == [0, 1] and of.rows("kaolinite", "scene").tolist() == [1]
    assert of.rows("alunite", "scene").tolist() == []
    assert of.row("Kaol") == 0 and of.row("Gra") == 2
    with pytest.raises(DataError, match=r"found no spectrum named Engelmann\.\.\., expected one"):
        of.row("Engelmann")


def test_resampling_agrees_with_the_integral_by_hand():
    """A parabola around a band's centre: its value there, and the variance of the response, a Gaussian cut at half
    its height."""
    centre, fwhm = 2200.0, 40.0
    sigma = fwhm / (2 * np.sqrt(2 * np.log(2)))
    cut = fwhm / 2 / sigma
    variance = sigma**2 * (1 - 2 * cut * norm.pdf(cut) / (2 * norm.cdf(cut) - 1))
    measured = library(0.2 + 1e-4 * (GRID - centre) ** 2).at(np.array([centre]), np.array([fwhm]))
    assert measured[0, 0] == pytest.approx(0.2 + 1e-4 * variance, abs=2e-5) and variance > 80


def test_a_straight_spectrum_keeps_its_values_and_a_narrow_feature_is_blurred():
    centres, fwhm = np.arange(420.0, 2480, 10), np.full(206, 10.0)
    narrow = 0.5 - 0.3 * np.exp(-(((GRID - 2200) / 3) ** 2))
    straight, blurred = library(0.1 + GRID / 5000, narrow).at(centres, fwhm)
    np.testing.assert_allclose(straight, 0.1 + centres / 5000, atol=1e-9)
    at = np.flatnonzero(centres == 2200)[0]
    assert 0.25 < blurred[at] < 0.35 and blurred[at - 3] == pytest.approx(0.5)


def test_a_band_is_nan_where_the_spectrum_has_a_hole_or_ends():
    holed = np.full(len(GRID), 0.5)
    holed[GRID == 2200] = np.nan
    centres = np.array([395.0, 404, 2190, 2198, 2205.4, 2210, 2496, 2504])
    one, whole = library(holed, np.full(len(GRID), 0.5)).at(centres, np.full(8, 10.0))
    np.testing.assert_array_equal(np.isnan(whole), [True, False, False, False, False, False, False, True])
    np.testing.assert_array_equal(np.isnan(one), [True, False, False, True, False, False, False, True])
    np.testing.assert_allclose(one[~np.isnan(one)], 0.5, atol=1e-9)


def test_the_committed_library_has_references_for_the_sensor():
    found = spectral_library.read(Path("data/sample/usgs_minerals"))
    assert len(found.spectra) == 58 and found.wavelengths[0] == 350 and found.wavelengths[-1] == 2500
