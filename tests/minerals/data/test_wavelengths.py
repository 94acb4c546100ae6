"""Wavelengths out of lists, names of bands and CSV files."""

import numpy as np
import pytest

from src.core.stage.errors import DataError, StorageError
from src.minerals.data.wavelengths import check, from_text, read_list

COUNT = 40
NM = np.linspace(400, 2350, COUNT)


def checked(centres=NM, fwhm=None, good=None, unit="nm", count=COUNT):
    return check("a.hdr", centres, fwhm, good, unit, count)


def test_widths_and_flags_are_sorted_with_the_wavelengths():
    order = np.random.default_rng(0).permutation(COUNT)
    widths, good = np.linspace(5, 15, COUNT), np.arange(COUNT) != 7
    bands = checked(NM[order], widths[order], good[order].astype(int))
    np.testing.assert_array_equal(bands.wavelengths, NM)
    np.testing.assert_array_equal(bands.fwhm, widths)
    np.testing.assert_array_equal(bands.good, good)
    np.testing.assert_array_equal(order[bands.order], np.arange(COUNT))


def test_without_widths_a_band_reaches_to_its_neighbours():
    np.testing.assert_allclose(checked().fwhm, 50)


def test_micrometres_by_unit_or_by_size_turn_widths_too():
    for unit in ("Micrometers", "μm", "", "Unknown"):
        bands = checked(NM / 1000, np.full(COUNT, 0.01), unit=unit)
        np.testing.assert_allclose(bands.wavelengths, NM)
        np.testing.assert_allclose(bands.fwhm, 10)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"centres": NM[:-1]}, "wavelength: found 39 numbers, the cube has 40 bands"),
        ({"centres": [None, *NM[1:]]}, "wavelength: expected numbers"),
        ({"centres": [*NM[:-1], float("nan")]}, "wavelength of band 40: found nan nm"),
        ({"centres": NM / 1000}, "found 0.4 nm, expected 300 to 3000 nm"),
        ({"centres": [*NM[:-1], NM[0]]}, "two bands at 400 nm"),
        ({"unit": "GHz"}, "wavelength units: found 'GHz', expected Nanometers or Micrometers"),
        ({"fwhm": [*NM[:-1], float("nan")]}, "fwhm: found nan, expected widths above 0"),
        ({"fwhm": np.full(COUNT, -1)}, "fwhm: found -1, expected widths above 0"),
        ({"good": ["yes"] * COUNT}, "bbl: expected numbers"),
        ({"centres": NM[:3], "count": 3}, "found 3 bands, expected a hyperspectral cube"),
    ],
)
def test_lists_that_are_wrong_are_named_with_their_file(change, said):
    with pytest.raises(DataError, match=f"a.hdr: .*{said}"):
        checked(**change)


@pytest.mark.parametrize(
    ("texts", "numbers", "unit"),
    [
        (["493.2 Nanometers", "501 nm"], [493.2, 501], "nm"),
        (["Band 12 (0.493 um)", "Band 13 (0.51 um)"], [0.493, 0.51], "um"),
        (["band 1: 0.5 µm", "band 2: 0.6 Micrometers"], [0.5, 0.6], "um"),
        (["1 412.7", "2 420.1"], [412.7, 420.1], ""),
        (["0.45", "0.46"], [0.45, 0.46], ""),
    ],
)
def test_numbers_in_names_of_bands(texts, numbers, unit):
    assert from_text(texts) == (numbers, unit)


@pytest.mark.parametrize("texts", [["450 nm", None], ["450 nm", "0.46 um"], ["Band 1", "Band 2"], ["450 nm", "red"]])
def test_names_without_a_wavelength_each_in_one_unit_say_nothing(texts):
    assert from_text(texts) is None


def listed(tmp_path, text: str):
    path = tmp_path / "bands.csv"
    path.write_text(text)
    return read_list(path)


@pytest.mark.parametrize("head", ["", "wavelength,fwhm\n", "# of the sensor\nnm,nm\n", "lambda,400\n"])
def test_a_list_with_or_without_a_header(tmp_path, head):
    assert listed(tmp_path, f"{head}400.5,10\n410,11\n") == ([400.5, 410], [10, 11])


def test_a_list_of_one_column(tmp_path):
    assert listed(tmp_path, "wavelength\n400\n410\n") == ([400, 410], None)


def test_a_first_row_without_a_width_is_no_header(tmp_path):
    centres, fwhm = listed(tmp_path, "400,\n410,10\n")
    assert centres == [400, 410] and np.isnan(fwhm[0])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "bands.csv: found no table of wavelengths"),
        ("400\n410,11,12\n", "bands.csv: found no table of wavelengths"),
        ("wavelength\n", "row 2: expected a wavelength"),
        ("400\nx\n410\n", "row 2: expected a wavelength"),
        ("nm,fwhm\n400,10\n,11\n", "row 3: expected a wavelength"),
    ],
)
def test_a_list_that_is_wrong_is_named(tmp_path, text, said):
    with pytest.raises(DataError, match=said):
        listed(tmp_path, text)


def test_a_list_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StorageError, match="no such file; correct `wavelengths`"):
        read_list(tmp_path / "none.csv")
