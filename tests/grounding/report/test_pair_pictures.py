"""Colours of pairs: band order, limits, and the sheet."""

import numpy as np
import pytest

from src.grounding.report.pair_pictures import contact_sheet, natural_colour, radar_colour


def test_natural_colour_shows_red_as_red_and_ignores_infrared():
    optical = np.zeros((4, 2, 2), np.float32)
    optical[2] = optical[3] = 0.3  # B04 is red; B08 is not shown
    assert natural_colour(optical)[0, 0] == pytest.approx([1, 0, 0])


def test_radar_colour_is_vv_vh_and_ratio():
    sar = np.full((2, 8, 8), -10, np.float32)
    assert radar_colour(sar)[0, 0] == pytest.approx([0.5, 0.8, 0])  # equal bands: a ratio of 0 dB is black
    sar[1] = -22
    assert radar_colour(sar)[4, 4] == pytest.approx([0.5, 0.2, 1])


def test_the_sheet_is_written_for_one_pair_and_for_more(tmp_path):
    pair = np.zeros((2, 16, 16), np.float32), np.full((4, 16, 16), 0.1, np.float32)
    for count in (1, 3):
        path = tmp_path / f"{count}.png"
        contact_sheet({f"scene_{number}": pair for number in range(count)}, "title", path)
        assert path.read_bytes()[:4] == b"\x89PNG"
