"""Roles by blocks: whole blocks, apart from each other, in the shares asked for; or as sidecars give them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from src.core.geo.distances import geodesic_km
from src.core.stage.errors import DataError
from src.grounding.data import roles
from src.grounding.data.pairs import Pair
from src.grounding.data.scene_store import ROLES
from tests.grounding.pair_files import params

SPLIT = params().split
SIDE = 128


def grid(count: int, step_m: float = 5000, splits=None, crs: str = "EPSG:32632") -> list[Pair]:
    """Scenes of 1.28 km in rows of 8, `step_m` apart."""
    return [
        Pair(
            f"s{number:02d}", Path(f"s{number:02d}_s1.tif"), Path(f"s{number:02d}_s2.tif"), SIDE, SIDE, crs,
            (10, 0, 500_000 + step_m * (number % 8), 0, -10, 5_400_000 + step_m * (number // 8)),
            split=splits[number] if splits else None,
        )
        for number in range(count)
    ]  # fmt: skip


def counts(table) -> dict[str, int]:
    return table["role"].value_counts().to_dict()


def distances(table, one, other) -> np.ndarray:
    a, b = (table.loc[table["role"].isin(role), ["lat", "lon"]].to_numpy() for role in (one, other))
    i, j = (index.ravel() for index in np.mgrid[: len(a), : len(b)])
    return geodesic_km(*a[i].T, *b[j].T)


def test_blocks_are_whole_and_shares_as_asked():
    table = roles.assign(grid(64), SPLIT)
    assert (table.groupby("block")["role"].nunique() == 1).all()
    found = counts(table)
    assert 10 <= found["test"] <= 22 and 10 <= found["ground"] <= 22 and 5 <= found["validation"] <= 12
    assert found["pretrain"] >= 16 and set(found) <= {*ROLES, "buffer"}
    assert table["half_diagonal_km"].between(0.9, 0.92).all() and table["lat"].between(48, 50).all()


def test_order_of_scenes_changes_nothing_and_the_seed_does():
    scenes = grid(64)
    first = roles.assign(scenes, SPLIT).set_index("name")["role"]
    again = roles.assign(scenes[::-1], SPLIT).set_index("name")["role"]
    assert (first == again[first.index]).all()
    assert (first != roles.assign(scenes, SPLIT.model_copy(update={"seed": 1})).set_index("name")["role"]).any()


def test_scenes_side_by_side_are_left_out_up_to_the_buffer():
    for buffer_km, least in ((0, 1.81), (4, 4)):
        table = roles.assign(grid(400, 1280), SPLIT.model_copy(update={"buffer_km": buffer_km}))
        assert "buffer" in counts(table)
        for number, role in enumerate(roles.HELD_OUT_FIRST[1:], 1):
            assert distances(table, [role], roles.HELD_OUT_FIRST[:number]).min() > least
        assert table.loc[table["role"] == "test", "block"].nunique() >= 1


def test_degrees_are_measured_in_kilometres():
    transform = (8.983e-5, 0, -0.78, 0, -8.983e-5, 60.0)
    (scene,) = grid(1, crs="EPSG:4326")
    table = roles.place([replace(scene, transform=transform)])
    assert table["half_diagonal_km"][0] == pytest.approx(np.hypot(1.28, 0.64) / 2, rel=0.01)  # half as wide at 60 N


def test_too_few_or_too_near_blocks_are_named():
    with pytest.raises(DataError, match="found 1 blocks of `block_km` = 5 km, expected at least 4"):
        roles.assign(grid(1), SPLIT)
    with pytest.raises(DataError, match=r"lie within 40 km .`buffer_km`"):
        roles.assign(grid(8), SPLIT.model_copy(update={"buffer_km": 40}))


def test_a_scene_that_is_not_on_earth_is_named():
    with pytest.raises(DataError, match=r"s00_s2\.tif: transform: found a centre at x 500640"):
        roles.place(grid(1, crs="EPSG:4326"))


def test_roles_of_sidecars_are_taken_and_train_is_divided_by_blocks():
    splits = ["train"] * 40 + ["val"] * 8 + ["test"] * 8 + ["pretrain", "ground", "validation", "test"]
    table = roles.assign(grid(60, splits=splits), SPLIT)
    assert table["role"].iloc[40:].tolist() == ["validation"] * 8 + ["test"] * 8 + splits[56:]
    train = table.iloc[:40]
    assert set(train["role"]) == {"pretrain", "ground"} and (train.groupby("block")["role"].nunique() == 1).all()
    assert 12 <= (train["role"] == "ground").sum() <= 20  # 0.25 / (1 - 0.125 - 0.25)


def test_train_without_places_is_divided_by_scene():
    scenes = grid(12, splits=["train"] * 10 + ["val", "test"], crs="")
    table = roles.assign(scenes, SPLIT)
    assert counts(table) == {"pretrain": 6, "ground": 4, "validation": 1, "test": 1} and (table["block"] == "").all()


def test_one_test_scene_alone_may_be_given_and_cannot_be_drawn():
    assert counts(roles.assign(grid(1, splits=["test"]), SPLIT)) == {"test": 1}
    with pytest.raises(DataError, match=r"found one block of .* with all 1 scenes of train"):
        roles.assign(grid(1, splits=["train"]), SPLIT)


def test_half_declared_scenes_are_named():
    with pytest.raises(DataError, match=r"s01_s2\.tif: split: found none, expected one as 1 other"):
        roles.assign(grid(2, splits=["train", None]), SPLIT)
    with pytest.raises(DataError, match="split, crs: found neither for 8 scenes"):
        roles.assign(grid(8, crs=""), SPLIT)
