"""Scores of all predictors: no image drawn twice, the radar image of another place, and what the metrics hold."""

import numpy as np
import pytest

from src.core.stage.errors import DataError
from src.grounding.evaluation import image_scores, refined_scenes, scored_scenes
from src.grounding.evaluation.predictors import COMPARISONS, PREDICTORS
from tests.conftest import grounding_params
from tests.grounding.scenes import scene
from tests.grounding.stores import in_role, write_store

SIDE = 16


def made_up(params, count: int = 3, blocks: str = "abcdefghijkl", **changes):
    """`count` test scenes, the first guess of each off by 0.1, and one of pretrain, each in a block."""
    found = [scene(f"s{at:02}", SIDE, at, **changes) for at in range(count)]
    return [(one, block) for one, block in zip(found, blocks, strict=False)]


@pytest.fixture
def params():
    return grounding_params({"evaluate.samples": 2, "evaluate.spread_samples": 4})


@pytest.fixture
def drawn(monkeypatch):
    """Draws that are replaced by the truth plus 0.01 a sample, and a list of (predictor, scene, other, samples)."""
    calls = []

    def draw(one, scene, other, networks, params, samples):
        calls.append((one.name, scene.name, other.name, samples))
        count = samples if one.weights else 1
        steps = 0.01 * (1 + np.arange(count))[:, None, None, None]
        return (scene.optical + steps).astype(np.float32)

    monkeypatch.setattr(refined_scenes, "draw", draw)
    return calls


def test_strangers_are_the_next_two_of_other_blocks(tmp_path):
    four = [scene(name, SIDE, at) for at, name in enumerate("wxyz")]
    store = write_store(tmp_path / "a", list(zip(four, "aabc", strict=True)))
    assert scored_scenes.strangers(store) == {"w": ("y", "z"), "x": ("y", "z"), "y": ("z", "w"), "z": ("w", "x")}
    trained = [in_role(scene(name, SIDE), "pretrain") for name in "uv"]
    store = write_store(tmp_path / "b", [(four[0], "a"), (four[1], "a"), (trained[0], "c"), (trained[1], "d")])
    assert scored_scenes.strangers(store) == {"w": ("u", "v"), "x": ("u", "v")}
    store = write_store(tmp_path / "c", [(one, "") for one in four[:3]])  # places that nobody knows
    assert scored_scenes.strangers(store) == {"w": ("x", "y"), "x": ("y", "w"), "y": ("w", "x")}


def test_the_radar_that_is_fed_is_never_the_null_of_agreement(tmp_path, drawn, params, monkeypatch):
    nulls = {}
    agreement = image_scores.scene_agreement

    def spied(one, predicted, other):
        nulls.setdefault(one.name, set()).add(other.name)
        return agreement(one, predicted, other)

    monkeypatch.setattr(image_scores, "scene_agreement", spied)
    scored_scenes.score(write_store(tmp_path / "store", made_up(params)), None, params)
    fed = {(name, other) for _, name, other, _ in drawn}
    assert len(nulls) == 3 and all(len(found) == 1 for found in nulls.values())
    assert not fed & {(name, other) for name, found in nulls.items() for other in found}


def test_scenes_without_a_place_are_one_unit_and_give_no_interval(tmp_path, drawn, params):
    scenes = [(scene(f"s{at:02d}", SIDE, at), "") for at in range(12)]
    store = write_store(tmp_path / "store", scenes)
    found = scored_scenes.score(store, None, params)
    scores = scored_scenes.summary(found, store, params)
    assert scores["data"]["blocks"] == 1 and scores["opt_v3"]["test"]["psnr_low"] is None


def test_a_store_without_test_scenes_or_with_one_place_is_refused(tmp_path):
    store = write_store(tmp_path / "a", [(in_role(scene("w", SIDE), "pretrain"), "a")])
    with pytest.raises(DataError, match="role test: found no scene"):
        scored_scenes.strangers(store)
    store = write_store(tmp_path / "b", [(scene("x", SIDE), "a"), (scene("y", SIDE), "a")])
    with pytest.raises(DataError, match="found 0 scenes in other blocks than that of x"):
        scored_scenes.strangers(store)


def test_every_predictor_draws_once_a_scene_and_the_main_one_as_many_as_its_spread_needs(tmp_path, drawn, params):
    store = write_store(tmp_path / "store", made_up(params))
    found = scored_scenes.score(store, None, params)
    assert len(drawn) == len(set(drawn)) == 3 * len(PREDICTORS)
    counts = {name: samples for name, _, _, samples in drawn}
    assert counts.pop("opt_v3") == 4 and set(counts.values()) == {2}
    rows = found.rows.set_index(["predictor", "scene"])
    assert rows.loc[("opt_v3", "s00"), "mae"] == pytest.approx(0.015, abs=1e-6)  # mean of the first two of four
    assert rows.loc[("telea", "s00"), "mae"] == pytest.approx(0.01, abs=1e-6)
    assert found.spread["rmse"].tolist() == pytest.approx([0.025] * 3, abs=1e-6)  # mean of all four
    np.testing.assert_allclose(found.shown[0].mean, store.read("s00").optical + 0.015, atol=1e-6)
    np.testing.assert_allclose(found.shown[0].spread, np.std([1, 2, 3, 4], ddof=1) * 0.01, atol=1e-6)


def test_the_summary_has_intervals_over_blocks_and_every_comparison(tmp_path, drawn, params):
    blocks = "aabcdefghijk"  # two scenes share one
    store = write_store(tmp_path / "store", made_up(params, 12, blocks), opt_v2="synthetic", simulated=True)
    found = scored_scenes.score(store, None, params)
    scores = scored_scenes.summary(found, store, params)
    assert scores["data"] == {"simulated": True, "opt_v2": "synthetic", "scenes": 12, "blocks": 11}
    main, null = scores["opt_v3"]["test"], scores["references"]
    assert main["n"] == 12 and main["n_units"] == 11 and main["agreement_low"] < main["agreement_high"]
    assert main["missing_psnr"] is None  # nothing is missing in these scenes
    assert not any("B02" in key for key in main)
    assert set(scores["paired"]) == {one.key for one in COMPARISONS}
    pair = scores["paired"]["opt_v3-opt_v2"]
    assert pair["psnr"] == pytest.approx(20 * np.log10(0.01 / 0.015), abs=1e-3) and pair["n_units"] == 11
    assert null["flat"] == pytest.approx({"agreement": 0, "seed_agreement": 0.89}, abs=0.05)
    assert scores["kinds"]["holes"].keys() == {"opt_v3", "regression_unet", "opt_v2", "bicubic", "telea"}
    assert scores["calibration"]["samples"] == 4 and scores["calibration"]["coverage_50"] == 0


def test_a_first_guess_that_is_given_is_not_degraded_by_kind(tmp_path, drawn, params):
    store = write_store(tmp_path / "store", made_up(params))
    found = scored_scenes.score(store, None, params)
    assert found.kinds.empty and scored_scenes.summary(found, store, params)["kinds"] == {}
    assert len(drawn) == 3 * len(PREDICTORS)
