"""Spatial blocks: gaps, roles, and windows within them."""

from types import SimpleNamespace

import numpy as np
import pytest

from src.core.stage import files
from src.core.stage.errors import DataError
from src.minerals.data import blocks
from tests.conftest import minerals_params


def store(**shapes) -> SimpleNamespace:
    return SimpleNamespace(folder="store", scenes={name: {"shape": list(shape)} for name, shape in shapes.items()})


def divided(of, **split):
    keys = {"tiles.tile_px": 32} | {f"split.{key}": value for key, value in split.items()}
    return blocks.divide(of, minerals_params(keys).split)


def cover(table, scene, shape) -> np.ndarray:
    """(H, W, 3) blocks of each role on each pixel."""
    count = np.zeros((*shape, 3), int)
    for row in table[table["scene"] == scene].itertuples():
        part = count[row.top : row.top + row.height, row.left : row.left + row.width]
        assert part.shape[:2] == (row.height, row.width) and row.height > 0 and row.width > 0
        part[..., blocks.ROLES.index(row.role)] += 1
    return count


def test_small_scenes_are_whole_blocks_of_every_role():
    table = divided(store(**{f"s{number}": (20, 30) for number in range(10)}), test=0.4, validation=0.1)
    assert table["role"].value_counts().to_dict() == {"train": 5, "test": 4, "validation": 1}
    assert (table[["top", "left", "height", "width"]] == [0, 0, 20, 30]).all(axis=None)
    assert table["block"].tolist() == list(range(10))


@pytest.mark.parametrize("gap", [32, 33])
def test_a_large_scene_is_cut_with_a_gap_between_blocks(gap):
    shape = (215, 300)
    table = divided(store(scene=shape), block_px=100, gap_px=gap)
    assert len(table) == 2 * 3
    count = cover(table, "scene", shape)
    assert count.sum(-1).max() == 1
    lines, samples = (np.flatnonzero(count.sum((-1, 1 - axis)) == 0) for axis in (0, 1))
    np.testing.assert_array_equal(lines, 100 - gap // 2 + np.arange(gap))
    np.testing.assert_array_equal(samples, np.concatenate([edge - gap // 2 + np.arange(gap) for edge in (100, 200)]))
    assert table["height"].tolist()[-1] == 115 - -(-gap // 2)  # what is left over belongs to the last block


def test_a_block_no_smaller_than_the_scene_is_the_scene():
    shapes = {"a": (90, 90), "b": (100, 140), "c": (150, 199)}
    table = divided(store(**shapes), block_px=100, gap_px=32)
    assert [(row.scene, row.height, row.width) for row in table.itertuples()] == [(n, *s) for n, s in shapes.items()]


def test_roles_depend_on_the_seed_of_the_split_alone():
    of = store(**{f"s{number}": (20, 30) for number in range(20)})
    assert divided(of).equals(divided(of)) and not divided(of)["role"].equals(divided(of, seed=1)["role"])


def test_fewer_than_three_blocks_are_named():
    with pytest.raises(
        DataError, match=r"found 2 spatial blocks in 2 scenes of 50 x 50 px .*, expected at least 3.*add scenes"
    ):
        divided(store(a=(50, 50), b=(50, 50)), block_px=100)
    assert len(divided(store(a=(50, 50), b=(50, 50), c=(50, 50)))["role"].unique()) == 3


def test_windows_lie_within_their_block_at_every_stride():
    table = divided(store(scene=(215, 300)), block_px=100, gap_px=32)
    found = list(blocks.windows(table, 32, 5))
    inside = table.set_index("block")
    for block, scene, role, top, left in found:
        row = inside.loc[block]
        assert (scene, role) == (row["scene"], row["role"])
        assert row["top"] <= top <= row["top"] + row["height"] - 32
        assert row["left"] <= left <= row["left"] + row["width"] - 32
    of_first = [(top, left) for block, _, _, top, left in found if block == 0]
    assert of_first == [(top, left) for top in range(0, 53, 5) for left in range(0, 53, 5)]  # 84 px high and wide
    assert not list(blocks.windows(table, 120, 16))


def test_a_table_of_other_scenes_is_refused(tmp_path):
    of = store(a=(50, 50), b=(50, 50), c=(50, 50))
    table = divided(of)
    files.write_table(tmp_path / blocks.TABLE, table)
    assert blocks.read(tmp_path, of).equals(table)
    with pytest.raises(DataError, match="scenes are not those of"):
        blocks.read(tmp_path, store(a=(50, 50), b=(50, 50)))
