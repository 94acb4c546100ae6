"""Counts of tiles by hand, and the audit of what they share."""

import numpy as np
import pandas as pd
import pytest

from src.core.stage.errors import DataError
from src.minerals.data import tile_table
from src.minerals.mapping.minerals import MINERALS, NAMES


def test_shares_are_of_the_pixels_that_are_known():
    classes = np.array([[1, 1, 0, 255], [2, 0, 0, 8]], np.uint8)
    expected = np.zeros(8)
    expected[[0, 1, 7]] = 2 / 7, 1 / 7, 1 / 7
    np.testing.assert_allclose(tile_table.shares(classes), expected)
    assert (tile_table.shares(np.full((2, 2), 255, np.uint8)) == 0).all()


def test_a_tile_is_altered_by_minerals_of_copper_alone_and_above_the_threshold():
    for number, mineral in enumerate(MINERALS):
        shares = np.zeros(8)
        shares[number] = 0.5
        assert tile_table.is_altered(shares, 0.1) == mineral.copper
    assert {mineral.name for mineral in MINERALS if not mineral.copper} == {"calcite", "buddingtonite"}
    shares = np.zeros(8)
    shares[0] = 0.125
    assert not tile_table.is_altered(shares, 0.125) and tile_table.is_altered(shares, 0.124)
    shares[1] = 0.125  # two of them count together
    assert tile_table.is_altered(shares, 0.2)


def test_columns_of_a_tile():
    classes = np.zeros((4, 5), np.uint8)
    classes[0] = 1 + NAMES.index("kaolinite")
    found = tile_table.columns("map", classes, 0.1)
    assert found.pop("map_altered") is True and found.pop("map_kaolinite") == 0.25
    assert list(found) == [f"map_{name}" for name in NAMES if name != "kaolinite"] and not any(found.values())


def grid(tops, lefts, role="train", block=0, scene="a") -> pd.DataFrame:
    rows = [(scene, block, role, top, left) for top in tops for left in lefts]
    return pd.DataFrame(rows, columns=["scene", "block", "role", "top", "left"])


def test_a_stride_that_does_not_divide_a_tile_loses_no_more_than_it_must():
    table = grid([0], [0, 24, 48, 72, 96, 120, 144])  # tiles of 64: a step of three
    assert tile_table.apart(table, 64)["left"].tolist() == [0, 72, 144]
    assert tile_table.apart(table[table["left"] > 0], 64)["left"].tolist() == [24, 96]


def test_tiles_that_share_no_pixel_begin_in_the_corner_of_each_block():
    parts = grid([0, 8, 16, 24], [0, 8, 16]), grid([5, 13, 21], [40, 48], block=1)
    table = pd.concat(parts, ignore_index=True)
    found = tile_table.apart(table, 16)
    assert found[["top", "left"]].values.tolist() == [[0, 0], [0, 16], [16, 0], [16, 16], [5, 40], [21, 40]]


def test_the_audit_counts_pairs_and_tiles():
    table = pd.concat(
        [grid([0, 8, 16], [0]), grid([32], [0], "test", 1), grid([0], [0], "validation", 2, "b")], ignore_index=True
    )
    assert tile_table.check(table, 16) == {
        "pairs_of_roles_that_share_pixels": 0,
        "tiles": {"train": 3, "test": 1, "validation": 1},
        "tiles_without_overlap": {"train": 2, "test": 1, "validation": 1},
    }
    table.loc[table["role"] == "test", "top"] = 31  # one line of the tile at 16
    with pytest.raises(DataError, match="1 pairs of tiles of two roles share pixels"):
        tile_table.check(table, 16)
