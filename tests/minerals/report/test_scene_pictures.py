"""Pictures of scenes."""

import numpy as np
from PIL import Image

from src.minerals.data.scene_files import COLOURS
from src.minerals.data.simulated_spectra import WAVELENGTHS
from src.minerals.report.scene_pictures import Picture, contact_sheet, natural_colour
from tests.minerals import cubes


def test_natural_colour_is_red_green_blue_by_wavelength():
    cube = np.full((4, 4, 224), 0.3)
    cube[:2, :, np.abs(WAVELENGTHS - 660).argmin()] = 0.6
    cube[3, 3] = np.nan
    rgb = natural_colour(cube, WAVELENGTHS)
    assert (rgb[:2] == [1, 0, 0]).all() and (rgb[2:] == 0).all()


def test_no_data_has_the_colour_of_no_mineral(tmp_path):
    def pixels_of(classes: int, colour: str) -> int:
        picture = Picture("a", natural_colour(cubes.reflectance(9, 9), WAVELENGTHS), np.full((9, 9), classes, np.uint8))
        contact_sheet([picture], "title", tmp_path / "a.png")
        shown = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
        return int((shown == COLOURS[colour]).all(-1).sum())

    legend = pixels_of(0, "epidote")  # the last mineral
    assert pixels_of(255, "epidote") == legend < pixels_of(8, "epidote") / 10
    assert pixels_of(255, "background") < pixels_of(0, "background") / 10
