"""The figures of a split: same bytes, every role drawn, and the random split they compare with."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from src.core.report import figures
from src.species.data import roles
from src.species.report import split_map
from tests.species.places import make_observations, make_params


@pytest.fixture(scope="module")
def drawn():
    observations = make_observations(1500)
    return observations, roles.draw(observations, make_params({"split.minimum": 5}).split, "index")


def draw_map(drawn, path, buffer_km=5.0):
    """Into `path`, which a test that only wants the figure leaves unwritten."""
    observations, found = drawn
    points = observations.assign(**found.table[["role", "kind"]])
    split_map.draw_map(path, points, found.squares, side_km=10, buffer_km=buffer_km, title="a map")
    return path.read_bytes() if path.exists() else b""


def test_the_map_has_the_same_bytes_each_time(drawn, tmp_path):
    assert b"" != draw_map(drawn, tmp_path / "a.png") == draw_map(drawn, tmp_path / "b.png")
    assert draw_map(drawn, tmp_path / "a.png", 0.0) != draw_map(drawn, tmp_path / "b.png")


def test_every_role_and_square_is_drawn(drawn, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(figures, "save", lambda figure, *how: saved.append(figure))
    draw_map(drawn, tmp_path / "map.png")
    observations, found = drawn
    figure: Figure = saved[0]
    axes = figure.axes[0]
    assert sum(len(points.get_offsets()) for points in axes.collections) == len(observations)
    assert [text.get_text() for text in axes.texts] == [str(k) for k in range(7)]
    legend = " ".join(text.get_text() for text in figure.legends[0].get_texts())
    for (role, kind), rows in found.table.groupby(["role", "kind"]):
        assert f"{role}, {kind}: {len(rows)} " in legend or f"{role}: {len(rows)} " in legend
    assert set(found.table[["role", "kind"]].itertuples(index=False, name=None)) == set(split_map.POINTS)
    # a degree of longitude is drawn as wide as it is on the ground
    assert axes.get_aspect() == pytest.approx(1 / np.cos(np.radians(28.5)), rel=0.01)


def test_one_observation_far_out_leaves_room_for_the_others(drawn, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(figures, "save", lambda figure, *how: saved.append(figure))
    observations, found = drawn
    far = observations.assign(lat=np.where(np.arange(len(observations)) == 7, -52.0, observations["lat"]))
    draw_map((far, found), tmp_path / "map.png")
    axes = saved[0].axes[0]
    assert axes.get_ylim()[0] > 27 and "1 observations lie beyond the map" in axes.get_title()


def test_a_random_split_is_near_and_keeps_records_together(drawn):
    observations, roles_ = drawn
    role = roles_.table["role"].to_numpy()
    km = split_map.random_split_km(observations, role, seed=0)
    assert len(km) == observations.loc[role == "test", "gbif_id"].nunique()
    assert km.min() > 0  # the second image of a record is not its neighbour
    test = roles_.table[role == "test"]
    assert np.median(km) < 0.2 * test.loc[test["kind"] == "spatial", "nearest_train_km"].median()
    np.testing.assert_array_equal(km, split_map.random_split_km(observations, role, seed=0))
    assert not np.array_equal(km, split_map.random_split_km(observations, role, seed=1))


def test_distances_are_drawn_even_at_0_km_and_without_a_kind(tmp_path):
    km = {"temporal": np.array([0.0, 0.5, 2]), "spatial": np.array([6.0, 7]), "both": np.empty(0)}
    for name in ("a.png", "b.png"):
        split_map.draw_distances(tmp_path / name, km, np.array([0.1, 0.2]))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert pd.Series([0.0005, 0.5, 5, 150]).map(split_map._kilometres).tolist() == ["0.5 m", "500 m", "5 km", "150 km"]
