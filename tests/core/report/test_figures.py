import numpy as np
from matplotlib.image import imread

from src.core.report import figures

SCORE = {"r2": 0.31, "mae": 7.5, "r2_low": 0.1, "r2_high": 0.5}


def draw_all(folder):
    generator = np.random.default_rng(0)
    y = generator.normal(9, 13, 60)
    panels = {"head": (y * 0.5 + 4, SCORE), "ridge": (np.full(60, 9.0), {"r2": None, "mae": 9.0})}
    figures.predicted_vs_actual(folder / "scatter.png", y, panels, "‰ per year")
    lat, lon = generator.uniform(25, 49, 60), generator.uniform(-124, -70, 60)
    figures.residual_map(folder / "map.png", lat, lon, y - 9, (lat + 1, lon + 1), "Residuals", "‰ per year")
    line = np.arange(5), generator.normal(size=5)
    panel = figures.Curve("loss", "loss", {"train": line, "validation": line})
    figures.curves(folder / "curves.png", {"sft": [panel] * 5, "dpo": [panel]})
    groups = {"head": SCORE, "mean": SCORE | {"r2_low": None, "r2_high": None}, "odd": SCORE | {"r2": None}}
    figures.score_intervals(folder / "intervals.png", groups, ["head"], "R²")
    return sorted(folder.glob("*.png"))


def test_every_figure_has_the_same_bytes_twice(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = draw_all(tmp_path / "a"), draw_all(tmp_path / "b")
    assert [file.name for file in first] == ["curves.png", "intervals.png", "map.png", "scatter.png"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
        assert b"Software" not in one.read_bytes() and b"Date" not in one.read_bytes()
        assert imread(one)[..., :3].std() > 0.01  # something is drawn


def test_residual_colours_are_centred_on_zero(tmp_path, monkeypatch):
    """Residuals that are all positive must not reach the blue half of the scale."""
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, *_: drawn.append(figure.axes[0].collections[1]))
    where = np.array([40.0, 41.0, 42.0]), np.array([-100.0, -99.0, -98.0])
    figures.residual_map(tmp_path / "map.png", *where, np.array([30.0, 1.0, 8.0]), where, "t", "u")
    points = drawn[0]
    assert points.norm.vmin == -points.norm.vmax and points.norm.vmax > 8
    assert points.get_array().tolist() == [1.0, 8.0, 30.0]  # the largest on top
    assert points.get_offsets()[2].tolist() == [-100.0, 40.0]  # and still at its own place
    red, _, blue, _ = points.cmap(points.norm(30.0))
    assert red > blue
