"""Ground and images in two roles are refused; those within a role are counted."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pyproj import Transformer

from src.core.stage.errors import DataError
from src.grounding.data import role_audit, roles
from tests.grounding.data.test_roles import SPLIT, grid

SPLITS = ["pretrain", "ground", "validation", "test"]


def audited(scenes):
    table = roles.assign(scenes, SPLIT)
    return role_audit.check_ground({scene.name: scene for scene in scenes}, table), table


def shifted(scene, metres, **changes):
    a, b, c, d, e, f = scene.transform
    return replace(scene, transform=(a, b, c + metres, d, e, f), **changes)


def test_scenes_that_touch_do_not_overlap_and_one_pixel_more_does():
    scenes = grid(4, splits=SPLITS)
    scenes[1] = shifted(scenes[0], 1280, name="s01", split="ground")
    assert audited(scenes)[0] == 0
    scenes[1] = shifted(scenes[0], 1270, name="s01", split="ground")
    with pytest.raises(DataError, match=r"scenes s00 \(pretrain\) and s01 \(ground\) show the same ground"):
        audited(scenes)
    scenes[1] = replace(scenes[1], split="pretrain")
    assert audited(scenes)[0] == 1


def test_overlap_is_seen_across_two_crs():
    west = grid(1, splits=["test"])[0]  # at 9 degrees east, in zone 32
    x, y = Transformer.from_crs(west.crs, "EPSG:32633", always_xy=True).transform(500_600, 5_399_400)
    east = replace(west, name="east", crs="EPSG:32633", transform=(10, 0, x, 0, -10, y), split="pretrain")
    with pytest.raises(DataError, match="show the same ground"):
        audited([west, east])


def test_copies_between_roles_are_refused_and_within_a_role_counted():
    image = np.random.default_rng(0).random((2, 8, 8), np.float32)
    other = image + 1
    prints = [role_audit.fingerprint(one) for one in (image, image[:, ::-1], np.rot90(image, 1, (1, 2)), other)]
    assert prints[0] == prints[1] == prints[2] != prints[3]
    table = roles.assign(grid(4, splits=["test", "test", "pretrain", "ground"]), SPLIT)
    table["sar"], table["optical"] = ["a", "a", "b", "c"], ["d", "e", "f", "g"]
    assert role_audit.check_copies(table) == 1
    table["optical"] = ["d", "e", "f", "f"]
    with pytest.raises(DataError, match=r"s02 \(pretrain\) and s03 \(ground\) have the same optical image"):
        role_audit.check_copies(table)


def test_report_and_map(tmp_path):
    overlaps, table = audited(grid(64))
    report = role_audit.report(table, overlaps, 0)
    assert sum(report["scenes"].values()) == 64 and report["scenes_in_two_roles"] == 0
    assert report["nearest_km"]["pretrain_test"] == pytest.approx(5, rel=0.02)
    role_audit.draw(table, tmp_path / "roles.png")
    first = (tmp_path / "roles.png").read_bytes()
    colours = {tuple(pixel) for pixel in np.asarray(Image.open(tmp_path / "roles.png").convert("RGB")).reshape(-1, 3)}
    assert {tuple(bytes.fromhex(colour[1:])) for colour in role_audit.COLOURS.values()} <= colours
    role_audit.draw(table, tmp_path / "roles.png")
    assert (tmp_path / "roles.png").read_bytes() == first


def test_scenes_without_a_place_are_counted(tmp_path):
    overlaps, table = audited(grid(2, splits=["test", "ground"], crs=""))
    report = role_audit.report(table, overlaps, 0)
    assert report["scenes_without_place"] == 2 and set(report["nearest_km"].values()) == {None}
    role_audit.draw(table, tmp_path / "roles.png")
