"""Pictures of scenes."""

import numpy as np
import pytest
from PIL import Image

from src.minerals.data.simulated_spectra import WAVELENGTHS
from src.minerals.mapping.map_classes import COLOURS
from src.minerals.report.scene_pictures import Picture, contact_sheet, natural_colour, shown_bands, stretched
from tests.minerals import cubes


def test_natural_colour_is_red_green_blue_by_wavelength():
    cube = np.full((4, 4, 224), 0.3)
    cube[:2, :, np.abs(WAVELENGTHS - 660).argmin()] = 0.6
    cube[3, 3] = np.nan
    rgb = natural_colour(cube, WAVELENGTHS)
    assert (rgb[:2] == [1, 0, 0]).all() and (rgb[2:] == 0).all()


def test_a_scene_without_data_is_black():
    assert (stretched(np.full((2, 2, 3), np.nan)) == 0).all()


def test_without_visible_light_one_band_in_grey_is_shown():
    assert shown_bands(WAVELENGTHS, WAVELENGTHS > 300)[1] == "natural colour"
    bands, title = shown_bands(WAVELENGTHS, (WAVELENGTHS > 700) & (np.abs(WAVELENGTHS - 2200) > 4))
    assert len(set(bands)) == 1 and 4 < abs(WAVELENGTHS[bands[0]] - 2200) < 15
    assert title == f"reflectance at {WAVELENGTHS[bands[0]]:.0f} nm"


@pytest.mark.parametrize("more", [None, np.full((9, 9), 8, np.uint8)])
def test_a_second_map_lies_below_the_first(tmp_path, more):
    picture = Picture("a", np.zeros((9, 9, 3)), np.zeros((9, 9), np.uint8), more)
    contact_sheet([picture], "title", tmp_path / "a.png")
    shown = (np.asarray(Image.open(tmp_path / "a.png").convert("RGB")) == COLOURS["epidote"]).all(-1)
    assert (shown.sum() > 10_000) == (more is not None)  # the legend has less


def test_no_data_has_the_colour_of_no_mineral(tmp_path):
    def pixels_of(classes: int, colour: str) -> int:
        picture = Picture("a", natural_colour(cubes.reflectance(9, 9), WAVELENGTHS), np.full((9, 9), classes, np.uint8))
        contact_sheet([picture], "title", tmp_path / "a.png")
        shown = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
        return int((shown == COLOURS[colour]).all(-1).sum())

    legend = pixels_of(0, "epidote")  # the last mineral
    assert pixels_of(255, "epidote") == legend < pixels_of(8, "epidote") / 10
    assert pixels_of(255, "background") < pixels_of(0, "background") / 10
