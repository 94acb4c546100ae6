"""The whole minerals pipeline, from simulated scenes to metrics and report, small."""

import json
from argparse import Namespace
from pathlib import Path

import pandas as pd
import pytest
import rasterio
from PIL import Image

from src.core.models import qwen_vl
from src.minerals import annotate, bands, evaluate, ingest, map, sensitivity, sft, simulate, split, tiles
from src.minerals.evaluation.predictors import PREDICTORS
from src.minerals.mapping import other_methods
from src.minerals.mapping.minerals import NAMES
from tests import qwen_folders, read_params
from tests.conftest import minerals_params
from tests.population.conftest import contents

CHANGES = {
    "simulate.scenes": 6,
    "simulate.side_px": 64,
    "split.validation": 0.17,
    "split.test": 0.34,
    "tiles.tile_px": 32,
    "tiles.stride": 16,
    "annotate.languages": ["en"],
    "model.tiny.vision_width": 32,
    "model.tiny.text_width": 32,
    "model.tiny.text_depth": 1,
    "model.tiny.vision_depth": 1,
    "sft.epochs": 1,
    "threads": 1,
}
LIBRARY = Path("data/sample/usgs_minerals")
STAGES = (simulate, ingest, bands, split, map, sensitivity, tiles, annotate, sft, evaluate)


SMALL_SWEEPS = {"SNR": (100,), "INTIMATE": (0.0,), "SCENES": 1, "SIDE": 32}


def run_chain(folder, **changes):
    params = minerals_params(CHANGES | changes | {"checkpoint_root": str(folder / "checkpoints")})
    at = {stage.__name__.rpartition(".")[2]: folder / stage.__name__.rpartition(".")[2] for stage in STAGES}
    inputs = Namespace(
        library=LIBRARY, root=at["simulate"], store=at["ingest"], annotations=at["annotate"], curves=folder / "curves",
        **{name: at[name] for name in ("bands", "split", "map", "sensitivity", "tiles", "sft")},
    )  # fmt: skip
    for stage in STAGES[:-2]:
        stage.main(params, inputs, Namespace(out=at[stage.__name__.rpartition(".")[2]]))
    sft.main(params, inputs, Namespace(out=at["sft"], plots=folder / "curves"))
    out = Namespace(metrics=folder / "minerals.json", out=folder / "report", plots=folder / "plots")
    evaluate.main(params, inputs, out)
    return folder


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The folder of the whole chain, and the keys of params.yaml that each of its stages read."""
    small = pytest.MonkeyPatch()
    for name, value in SMALL_SWEEPS.items():
        small.setattr(sensitivity, name, value)
    with small.context(), read_params.recording(*STAGES) as read:
        found = run_chain(tmp_path_factory.mktemp("minerals")), read
    small.undo()
    return found


@pytest.fixture(scope="module")
def finished(recorded):
    return recorded[0]


def test_metrics_hold_every_predictor_but_those_that_were_not_asked_for(finished):
    scores = json.loads((finished / "minerals.json").read_text(encoding="utf-8"))
    assert scores["simulated"] and scores["scored_against"] == "truth"
    for one in PREDICTORS:
        if one.name.startswith("rgb_groups"):
            assert one.name not in scores
        elif one.answers == "map":
            assert 0 <= scores[one.name]["map"]["macro_f1"] <= 1
        else:
            assert scores[one.name]["alteration"]["n"] == scores["bands"]["alteration"]["n"]
            assert scores[one.name]["alteration_map"]["n"] == scores["bands"]["alteration"]["n"]
    assert scores["feature_fit"]["map"]["macro_f1"] > scores["spectral_angle"]["map"]["macro_f1"]
    assert scores["audit"]["pairs_of_roles_that_share_pixels"] == 0
    assert set(scores["apart_minerals_of_one_sample"]) == {"buddingtonite", "calcite", "epidote"}


def test_the_report_says_that_it_is_simulated_and_shows_every_figure(finished):
    page = (finished / "report" / "index.html").read_text(encoding="utf-8")
    assert "The scenes are simulated" in page and page.count("it needs 10 test blocks, and there are 2.") == 2
    about = json.loads((finished / "sft" / "rgb" / "minerals.json").read_text(encoding="utf-8"))
    assert about["simulated"] and about["scenes"][0] == "scene_01" and not about["pretrained"]
    assert page.count("data:image/png;base64,") == 10
    answers = pd.read_parquet(finished / "report" / "answers.parquet")
    assert {"bands", "bands_blank", "rgb_shuffled", "logistic", "map"} <= set(answers["predictor"])


def test_the_files_that_other_programs_read(finished):
    with rasterio.open(finished / "map" / "minerals" / "scene_01.tif") as dataset:
        assert dataset.crs.to_epsg() == 32611 and dataset.tags(1)["class_2"] == "kaolinite 高岭石"
        assert dataset.colormap(1)[1] == (215, 48, 39, 255)
    with rasterio.open(finished / "map" / "depth" / "scene_01.tif") as dataset:
        assert dataset.descriptions == NAMES
    items = json.loads((finished / "annotate" / "train.json").read_text(encoding="utf-8"))
    with Image.open(finished / "tiles" / items[0]["image"]) as picture:
        assert picture.size == (32, 32) and picture.mode == "RGB"


def test_dvc_yaml_declares_the_params_that_each_stage_reads(recorded):
    seen = recorded[1]
    elsewhere = {
        # The settings of a pretrained backbone; `tiny` reads none of them.
        "sft": {"model.init", "sft.lr.pretrained", "sft.lora", "model.backbone"},
        "evaluate": seen["evaluate"].dumped,  # its report shows them
    }
    read_params.assert_declared("minerals", seen, elsewhere)


def test_scenes_without_truth_and_bands_in_triples(tmp_path, monkeypatch):
    for name, value in SMALL_SWEEPS.items():
        monkeypatch.setattr(sensitivity, name, value)
    monkeypatch.setattr(other_methods, "scorers", None)  # nothing chooses their thresholds: they do not run
    changes = {"data.truth": None, "simulate.scenes": 4, "split.validation": 0.25, "model.inputs": ["rgb_groups"]}
    run_chain(tmp_path, **changes)
    scores = json.loads((tmp_path / "minerals.json").read_text(encoding="utf-8"))
    assert scores["scored_against"] == "map" and not any("map" in scores.get(one.name, {}) for one in PREDICTORS)
    for name in ("rgb_groups", "logistic", "majority"):  # of truth there is no score
        assert set(scores[name]) == {"alteration_map", "minerals_map"}
    assert {"rgb_groups_blank", "rgb_groups_shuffled"} <= set(scores) and "map" not in scores
    assert {"rgb_groups-rgb_groups_blank", "rgb_groups-logistic"} <= set(scores["paired"])
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "model on all bands was not trained" in page and "No truth is known" in page
    assert page.count("data:image/png;base64,") == 7


@pytest.mark.slow
def test_a_second_run_gives_the_same_bytes(finished, tmp_path, monkeypatch):
    for name, value in SMALL_SWEEPS.items():
        monkeypatch.setattr(sensitivity, name, value)
    again = run_chain(tmp_path)
    for stage in STAGES[:-1]:
        name = stage.__name__.rpartition(".")[2]
        assert contents(again / name) == contents(finished / name), name
    for name in ("curves", "plots", "report"):
        assert contents(again / name) == contents(finished / name), name
    assert (again / "minerals.json").read_bytes() == (finished / "minerals.json").read_bytes()


@pytest.mark.parametrize("kind", ["rgb", "bands"])
def test_of_a_published_model_lora_and_merger_train_and_nothing_else(finished, tmp_path, kind):
    """Saved and loaded as pretrained: with all bands the patch embedding, which is new, trains too."""
    base = qwen_folders.write(tmp_path / "base", "qwen3_vl")
    rates = {"tiny": 0.001, "pretrained": {"lora": 0.01, "merger": 0.01, "patch_embed": 0.01}}
    params = minerals_params(
        CHANGES | {"checkpoint_root": str(tmp_path / "checkpoints"), "model.backbone": str(base), "sft.lr": rates,
                   "model.inputs": [kind], "sft.max_pixels": 1024, "sft.min_pixels": 1}
    )  # fmt: skip
    inputs = Namespace(store=finished / "ingest", annotations=finished / "annotate", **{
        name: finished / name for name in ("bands", "tiles")
    })  # fmt: skip
    sft.main(params, inputs, Namespace(out=tmp_path / "sft", plots=tmp_path / "curves"))
    channels = 3 if kind == "rgb" else len(json.loads((tmp_path / "sft" / kind / "minerals.json").read_text())["mean"])
    before = qwen_vl.load(base, channels=3).state_dict()
    after = qwen_vl.load(tmp_path / "sft" / kind, channels=channels).state_dict()
    moved = {name for name in before if before[name].shape != after[name].shape or not before[name].equal(after[name])}
    merger = {name for name in before if "merger" in name}
    attention = {
        name for name in before if "self_attn" in name and name.endswith(("q_proj.weight", "k_proj.weight",
                                                                          "v_proj.weight", "o_proj.weight"))
    }  # fmt: skip
    patches = {name for name in before if "patch_embed" in name} if kind == "bands" else set()
    assert moved - patches == merger | attention
    assert (moved & patches) == {name for name in patches if name.endswith(("proj.weight", "proj.bias"))}
    assert (tmp_path / "sft" / kind / "adapter" / "adapter_config.json").is_file()
