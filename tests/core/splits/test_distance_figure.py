import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from src.core.splits import distance_figure

DEGREE = 111.31949  # km along the equator


def places(roles="train test validation buffer locked"):
    """One tile each on the equator at 0, 1, 3, 3.5 and 6 degrees east."""
    roles = roles.split()
    lon = [0.0, 1.0, 3.0, 3.5, 6.0][: len(roles)]
    return pd.DataFrame({"place": [f"p{at:g}" for at in lon], "role": roles, "lat": 0.0, "lon": lon})


def test_distances_are_those_to_the_nearest_training_place():
    found = distance_figure.nearest_training_distances(places(), None)
    assert found["to_test"] == pytest.approx([DEGREE], abs=1e-3)
    assert found["to_validation"] == pytest.approx([3 * DEGREE], abs=1e-3)


def test_without_a_stated_use_it_is_places_like_these():
    found = distance_figure.nearest_training_distances(places(), None)["to_use"]
    assert found == pytest.approx([DEGREE, DEGREE, 0.5 * DEGREE, 0.5 * DEGREE, 2.5 * DEGREE], abs=1e-3)
    assert len(distance_figure.nearest_training_distances(places("train"), None)["to_use"]) == 0


def test_a_stated_use_is_as_far_as_it_is_from_training():
    use = pd.DataFrame({"lat": [0.0, 0.0], "lon": [3.0, 359.0]})
    found = distance_figure.nearest_training_distances(places(), use)["to_use"]
    assert found == pytest.approx([3 * DEGREE, DEGREE], abs=1e-3)


def test_a_place_counts_once_and_one_without_coordinates_not_at_all():
    twice = pd.concat([places(), places()], ignore_index=True)
    twice.loc[len(twice)] = {"place": "nowhere", "role": "test", "lat": np.nan, "lon": np.nan}
    for key, once in distance_figure.nearest_training_distances(places(), None).items():
        assert distance_figure.nearest_training_distances(twice, None)[key] == pytest.approx(once)
    assert distance_figure.nearest_training_distances(twice[twice.role != "train"], None)["to_test"].size == 0


def test_a_place_that_is_trained_on_too_lies_at_no_distance():
    shared = places("train test").assign(place="p", lon=1.0)
    assert distance_figure.nearest_training_distances(shared, None)["to_test"].tolist() == [0.0]


@pytest.mark.parametrize("to_test", [np.array([120.0, 300, 640]), np.zeros(3), np.array([])])
def test_the_figure_is_drawn_with_the_same_bytes_twice(tmp_path, to_test):
    for name in "ab":
        distance_figure.draw_distances(tmp_path / name, to_test, np.array([90.0]), np.array([5.0, 12000]), "Distances")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert b"Software" not in (tmp_path / "a").read_bytes()
    assert imread(tmp_path / "a", format="png")[..., :3].std() > 0.01


def test_nothing_to_draw_is_an_empty_figure(tmp_path):
    distance_figure.draw_distances(tmp_path / "a.png", np.array([]), np.array([]), np.array([]), "Distances")
    assert (tmp_path / "a.png").is_file()
