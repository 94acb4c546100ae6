"""Windows lie inside their scenes, are clear enough, and are a function of (seed, epoch, index)."""

import numpy as np
import pytest
import torch

from src.core.stage.errors import DataError
from src.grounding.models.training_windows import GridWindows, RandomWindows, scaling
from tests.grounding.trainings import scene

SIDE, STEPS = 16, 50


def numbered(name: str, number: int, height: int = 20, width: int = 23, valid=None):
    """A scene whose pixels say where they lie: number, row, column, and the row again as B08."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    optical = np.stack([np.full_like(rows, number), rows, columns, rows])
    sar = np.stack([rows + 100 * number, columns])
    one = scene(name, "pretrain", 0, 20, optical=optical, sar=sar, first_guess=optical + 1000)
    valid = np.ones((height, width), bool) if valid is None else valid
    fields = vars(one) | {"valid": valid, "missing": rows > 10}
    return type(one)(**fields)


def random_windows(scenes, seed=0, count=60, least=0.8):
    return RandomWindows(scenes, SIDE, least, count, seed, STEPS)


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_windows_are_cut_from_inside_and_all_arrays_from_one_place():
    scenes = [numbered("a", 0), numbered("b", 1, 16, 40), numbered("c", 2, 16, 16)]
    rows = random_windows(scenes, count=200).__getitems__(list(range(200)))
    number, top, left = rows["truth"][:, :3, 0, 0].long().T
    assert set(number.tolist()) == {0, 1, 2}
    limits = torch.tensor([one.valid.shape for one in scenes])[number] - SIDE
    assert (top <= limits[:, 0]).all() and (left <= limits[:, 1]).all() and top.max() == 4 and left.max() == 24
    for index in range(200):
        t, w = int(top[index]), int(left[index])
        expected = torch.arange(t, t + SIDE).float()[:, None].expand(SIDE, SIDE)
        assert torch.equal(rows["truth"][index, 1], expected)
        assert torch.equal(rows["truth"][index, 2], torch.arange(w, w + SIDE).float().expand(SIDE, SIDE))
        assert torch.equal(rows["first_guess"][index], rows["truth"][index] + 1000)
        assert torch.equal(rows["sar"][index, 0], expected + 100 * number[index])
        assert torch.equal(rows["missing"][index], expected > 10)


def test_a_window_depends_on_seed_epoch_and_index_alone():
    scenes = [numbered("a", 0, 60, 60), numbered("b", 1, 60, 60)]
    windows = random_windows(scenes)
    together = windows.__getitems__([3, 7])
    alone = random_windows(scenes).__getitems__([7])
    assert equal({name: values[1:] for name, values in together.items()}, alone)
    assert not torch.equal(together["noise"][0], together["noise"][1])
    for changed in ("epoch", "seed"):
        other = random_windows(scenes, seed=int(changed == "seed"))
        other.set_epoch(int(changed == "epoch"))
        assert not torch.equal(other.__getitems__([7])["noise"], alone["noise"]), changed
        places = [batch.__getitems__(list(range(30)))["truth"][:, :3, 0, 0] for batch in (windows, other)]
        assert not torch.equal(*places), changed
    windows.set_epoch(0)
    assert equal(windows.__getitems__([3, 7]), together)


def test_every_step_of_the_noise_is_trained():
    drawn = random_windows([numbered("a", 0)], count=600).__getitems__(list(range(600)))["timestep"]
    assert set(drawn.tolist()) == set(range(STEPS)) and drawn.dtype == torch.int64


def test_windows_have_as_many_clear_pixels_as_asked():
    valid = np.ones((40, 40), bool)
    valid[:, 18:] = False
    scenes = [numbered("a", 0, 40, 40, valid), numbered("cloudy", 1, 40, 40, np.zeros((40, 40), bool))]
    rows = random_windows(scenes, least=0.9).__getitems__(list(range(60)))
    assert (rows["valid"].float().mean((1, 2)) >= 0.9).all() and set(rows["truth"][:, 0, 0, 0].tolist()) == {0.0}
    places = GridWindows(scenes, SIDE, 0.9, 0, STEPS).places
    assert places == [(0, 0, 0), (0, 16, 0)]
    with pytest.raises(DataError, match=r"50 random windows of 16 px: found none with 90% clear .*`min_valid_ratio`"):
        random_windows(scenes[1:], least=0.9).__getitems__([0])


def test_validation_windows_tile_the_scenes_and_carry_the_radar_of_another():
    scenes = [numbered("a", 0, 40, 40), numbered("b", 1, 20, 50), numbered("c", 2, 16, 16)]
    windows = GridWindows(scenes, SIDE, 0.8, 0, STEPS)
    rows = windows.__getitems__(list(range(len(windows))))
    assert len(windows) == 4 + 3 + 1
    number = rows["truth"][:, 0, 0, 0]
    assert ((rows["other_sar"][:, 0, 0, 0] // 100) != number).all()
    assert rows["other_valid"].shape == rows["valid"].shape
    windows.set_epoch(5)
    assert equal(windows.__getitems__([1, 2]), {name: values[1:3] for name, values in rows.items()})
    assert len(set(rows["timestep"].tolist())) == len(windows) and rows["timestep"].max() < STEPS


def test_one_validation_scene_is_compared_with_another_place_of_itself():
    """Compared with itself its agreement would be 0 in every epoch, and training would end."""
    windows = GridWindows([numbered("a", 0, 40, 40)], SIDE, 0.8, 0, STEPS)
    rows = windows.__getitems__(list(range(4)))
    assert all(not torch.equal(own, other) for own, other in zip(rows["sar"], rows["other_sar"], strict=True))
    with pytest.raises(DataError, match=r"role validation: found 1 windows of 16 px .* expected two or more"):
        len(GridWindows([numbered("a", 0)], SIDE, 0.8, 0, STEPS))


def test_scaling_counts_clear_pixels_alone_and_names_a_band_that_does_not_vary():
    one = scene("a", "pretrain", 0)
    found = scaling([one])
    clear = one.valid
    assert found["sar_sd"] == pytest.approx(one.sar[:, clear].std(1, dtype=float))
    assert found["residual_sd"] == pytest.approx(
        np.sqrt(((one.optical - one.first_guess)[:, clear].astype(float) ** 2).mean(1))
    )
    spoilt = scene("a", "pretrain", 0, optical=np.where(clear, one.optical, np.nan))
    assert scaling([spoilt]) == found
    flat = one.sar.copy()
    flat[1] = -20
    with pytest.raises(DataError, match="VH: sar_sd is 0"):
        scaling([scene("a", "pretrain", 0, sar=flat)])
    guess = one.first_guess.copy()
    guess[2] = one.optical[2]
    with pytest.raises(DataError, match="B04: residual_sd is 0"):
        scaling([scene("a", "pretrain", 0, first_guess=guess)])
