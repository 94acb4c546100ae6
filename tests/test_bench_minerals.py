"""bench.minerals on a small cube: the file is the scene repeated, every figure and bar is there."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import minerals
from src.minerals.data import cube_files, spectral_library


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, value in (("LINES", 70), ("SAMPLES", 45), ("SIDE", 32), ("LOOPED", 4), ("REPETITIONS", 1)):
        monkeypatch.setattr(minerals, name, value)


def test_the_cube_is_the_scene_repeated(tmp_path):
    scene = minerals.simulated(spectral_library.read(Path("data/sample/usgs_minerals")))
    cube = cube_files.open_cube(minerals.write_cube(tmp_path, scene), None, None, None)
    assert cube.shape == (70, 45, 224) and cube.scale == 10000
    np.testing.assert_array_equal(cube.read(0, 70), np.tile(scene, (3, 2, 1))[:70, :45])


def test_every_bar_is_measured_and_printed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench.minerals", "--json"])
    monkeypatch.setattr(minerals, "of_command", lambda path, out: (61.0, 100.0))
    with pytest.raises(SystemExit) as stopped:
        minerals.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result["bars"]) == {"command, seconds", "command, peak MB", "per-pixel loop/map"}
    assert set(result["ratios"]) == {*result["bars"], "map/one pass", "map/bytes alone"}
    assert stopped.value.code == 1 and not result["pass"], "61 s are too many"
