"""A picture of each scene that infer wrote, with the columns that there are data for."""

import numpy as np
import pytest
from matplotlib.image import imread

from src.core.stage import run
from src.grounding import infer, visualise
from src.grounding.inference import images
from src.grounding.report import panels
from tests.grounding.pair_files import images as drawn
from tests.grounding.pair_files import write_pair, write_tile
from tests.grounding.small_models import write


def call(found, out) -> tuple[int, str]:
    return run.outcome(lambda: visualise.main(found, out), "grounding.visualise")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Folders of infer: tiles with truth (one of them larger than is shown), and a pair with one sample."""
    root = tmp_path_factory.mktemp("results")
    model = write(root / "model")
    for name, seed in (("a", 0), ("b", 1)):
        write_tile(root / "tiles", name, seed, arrays={"opt_v2": np.rint(drawn(5 + seed)[1] * 10_000)})
    sar, optical = write_pair(root / "pair", "c")
    known = ["--model", model]
    for options in (
        ["--input-dir", root / "tiles", *known, "--samples", 2, "--out", root / "many"],
        ["--sar", sar, "--optical", optical, *known, "--samples", 1, "--out", root / "one"],
    ):
        infer.command(infer.PARSER.parse_args([*map(str, options)]))
    return root


def titles_of(monkeypatch, folder, out):
    figures = []
    monkeypatch.setattr("src.core.report.figures.save", lambda figure, *rest: figures.append(figure))
    assert call(folder, out)[0] == 0
    return [[axes.get_title() for axes in figure.axes if axes.get_title()] for figure in figures]


def test_each_scene_has_a_picture(results, tmp_path):
    assert call(results / "many", tmp_path)[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]
    first, second = (imread(tmp_path / f"{name}.png") for name in "ab")
    assert first.std() > 0.05 and np.abs(first - second).mean() > 1e-3


def test_columns_without_data_are_left_out(results, tmp_path, monkeypatch):
    assert titles_of(monkeypatch, results / "many", tmp_path) == [list(panels.COLUMNS)] * 2
    assert titles_of(monkeypatch, results / "one", tmp_path) == [list(panels.COLUMNS[:3])]


def test_the_error_is_that_of_the_same_pixels(results, monkeypatch):
    one = visualise.read("a", results / "many" / "a")
    truth = np.rint(drawn(0)[1] * 10_000) / 10_000
    np.testing.assert_allclose(one.scene.optical, truth, atol=1e-6)
    refined = images.thinned(results / "many" / "a" / "opt_v3.tif", [1, 2, 3, 4])
    np.testing.assert_array_equal(one.mean, refined)
    assert one.scene.valid.all() and one.scene.name == "a"


def test_folders_that_infer_did_not_write_are_named(results, tmp_path):
    code, message = call(tmp_path, tmp_path / "out")
    assert code == 65 and "found no summary.json in it nor below" in message
    assert call(tmp_path / "no", tmp_path / "out")[0] == 74
    assert not (tmp_path / "out").exists()
