"""The whole grounding pipeline, from simulated pairs to metrics and report, small."""

import html
import json
import shutil
from argparse import Namespace

import numpy as np
import pandas as pd
import pytest
import rasterio

from src.core.stage.errors import DataError, StorageError
from src.grounding import controls, evaluate, ground, preprocess, pretrain, simulate
from src.grounding.evaluation.predictors import COMPARISONS, PREDICTORS
from tests import read_params
from tests.conftest import grounding_params
from tests.population.conftest import contents

CHANGES = {
    "simulate.scenes": 8,
    "simulate.side_px": 64,
    "model.width": 32,
    "model.heads": 2,
    "model.depth": 1,
    "model.steps": 2,
    "pretrain.epochs": 1,
    "pretrain.windows": 32,
    "ground.epochs": 2,
    "ground.windows": 16,
    "evaluate.samples": 2,
    "evaluate.spread_samples": 4,
    "threads": 1,
}
STAGES = (simulate, preprocess, pretrain, ground, controls, evaluate)
TRAINED = ("pretrain", "ground", "controls/no_sar_pretrain", "controls/no_sar_ground", "controls/regression_unet")


def run_chain(folder, **changes):
    params = grounding_params(CHANGES | changes | {"checkpoint_root": str(folder / "checkpoints")})
    inputs = Namespace(
        root=folder / "simulate", store=folder / "preprocess", base=folder / "pretrain", grounded=folder / "ground",
        controls=folder / "controls", curves=folder / "curves",
    )  # fmt: skip
    for stage in STAGES[:-1]:
        name = stage.__name__.rpartition(".")[2]
        stage.main(params, inputs, Namespace(out=folder / name, plots=folder / "curves" / name))
    out = Namespace(metrics=folder / "grounding.json", out=folder / "report", plots=folder / "plots")
    evaluate.main(params, inputs, out)
    return folder


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The folder of the whole chain, and the keys of params.yaml that each of its stages read."""
    with read_params.recording(*STAGES) as read:
        return run_chain(tmp_path_factory.mktemp("grounding")), read


@pytest.fixture(scope="module")
def finished(recorded):
    return recorded[0]


def test_metrics_hold_every_predictor_comparison_and_kind(finished):
    scores = json.loads((finished / "grounding.json").read_text(encoding="utf-8"))
    assert scores["data"] == {"simulated": True, "opt_v2": "synthetic", "scenes": 2, "blocks": 2}
    for one in PREDICTORS:
        found = scores[one.name]["test"]
        assert found["n"] == 2 and 5 < found["psnr"] < 60 and found["psnr_low"] is None, one.name
    assert set(scores["paired"]) == {one.key for one in COMPARISONS}
    assert all(set(found) == {"opt_v3", "regression_unet", "opt_v2", "bicubic", "telea"}
               for found in scores["kinds"].values())  # fmt: skip
    assert set(scores["kinds"]) == {"blur_px", "noise", "haze", "holes"}
    assert scores["telea"]["test"]["missing_psnr"] > scores["opt_v2"]["test"]["missing_psnr"]
    assert scores["audit"]["common_pixels_between_roles"] == 0
    references = scores["references"]
    assert references["flat"]["seed_agreement"] > references["truth"]["seed_agreement"]
    assert references["truth"]["agreement"] > 0.1 and references["flat"]["agreement"] == 0
    assert scores["calibration"]["samples"] == 4 and scores["calibration"]["rmse"] > 0


def test_radar_changes_the_image_of_those_networks_alone_that_see_it(finished):
    rows = pd.read_parquet(finished / "report" / "scenes.parquet").set_index(["predictor", "scene"])["rmse"]
    assert (rows["opt_v3"] != rows["shuffled_sar"]).all() and (rows["opt_v3"] != rows["no_lora"]).all()
    assert (rows["opt_v3"] != rows["zeroed_sar"]).all() and (rows["opt_v3"] != rows["no_sar_network"]).all()


def test_the_report_says_what_is_made_up_and_shows_every_figure(finished):
    page = html.unescape((finished / "report" / "index.html").read_text(encoding="utf-8"))
    assert "The scenes are simulated" in page and "made from the true image" in page and "No verdict" in page
    assert page.count("data:image/png;base64,") == 4 + len(TRAINED)
    for one in PREDICTORS:
        assert one.title in page
    rows = pd.read_parquet(finished / "report" / "scenes.parquet")
    assert len(rows) == 2 * len(PREDICTORS) and {"rmse_B02", "bias_B08", "block"} <= set(rows)
    assert len(pd.read_parquet(finished / "report" / "kinds.parquet")) == 4 * 2 * 5
    assert len(pd.read_parquet(finished / "report" / "spread.parquet")) == 2


def test_every_training_left_its_curves(finished):
    for name in TRAINED:
        assert (finished / "curves" / name / "curves.png").is_file(), name


def test_dvc_yaml_declares_the_params_that_each_stage_reads(recorded):
    seen = recorded[1]
    elsewhere = {
        "preprocess": {"data.sar"},  # what no check can use is written to store.json
        "pretrain": {"model.backbone"},  # only what is not compact reads it
        "ground": {"model", "ground.weights"},  # the base brings the network's shape; weights are taken as one dict
        # Declared as part of `ground`: a network without radar is not stopped by its agreement with radar.
        "controls": {"model.backbone", "ground.weights", "ground.stop"},
        "evaluate": seen["evaluate"].dumped,  # its report shows them
    }
    read_params.assert_declared("grounding", seen, elsewhere)


def test_a_copy_of_a_training_scene_among_the_test_scenes_stops_the_chain(finished, tmp_path):
    """Turned by a quarter and under another name, at another place: the audit looks at pixels."""
    roles = pd.read_parquet(finished / "preprocess" / "scenes.parquet").set_index("name")["role"]
    source, target = (roles.index[roles == role][0] for role in ("pretrain", "test"))
    shutil.copytree(finished / "simulate", tmp_path / "simulated")
    for sensor in ("s1", "s2"):
        with rasterio.open(tmp_path / "simulated" / f"{source}_{sensor}.tif") as dataset:
            leaked = dataset.read()
        with rasterio.open(tmp_path / "simulated" / f"{target}_{sensor}.tif", "r+") as dataset:
            dataset.write(np.rot90(leaked, axes=(1, 2)))
    inputs, out = Namespace(root=tmp_path / "simulated"), Namespace(out=tmp_path / "store")
    with pytest.raises(DataError, match=rf"{source} \(pretrain\).*{target} \(test\)|{target} \(test\).*{source}"):
        preprocess.main(grounding_params(CHANGES), inputs, out)
    assert not (tmp_path / "store").exists()


def test_a_dry_run_checks_the_networks_and_writes_nothing(finished, tmp_path, capsys):
    inputs = Namespace(store=finished / "preprocess", base=finished / "pretrain", grounded=finished / "ground",
                       controls=finished / "controls")  # fmt: skip
    out = Namespace(metrics=tmp_path / "m.json", out=tmp_path / "report", plots=tmp_path / "plots")
    evaluate.main(grounding_params(CHANGES), inputs, out, dry_run=True)
    assert "2 test scenes" in capsys.readouterr().out and not list(tmp_path.iterdir())
    inputs.grounded = tmp_path / "nothing"
    with pytest.raises(StorageError, match=r"nothing/grounding\.json: cannot read"):
        evaluate.main(grounding_params(CHANGES), inputs, out, dry_run=True)


@pytest.mark.slow
def test_a_second_run_gives_the_same_bytes(finished, tmp_path):
    """Leaving out the folder's own path: the generator that was grounded names its base."""
    again = run_chain(tmp_path)
    for name in ("simulate", "preprocess", "pretrain", "ground", "controls", "curves", "plots", "report"):
        assert without_paths(again, name) == without_paths(finished, name), name
    assert (again / "grounding.json").read_bytes() == (finished / "grounding.json").read_bytes()


def without_paths(folder, name: str) -> dict[str, bytes]:
    own = str(folder).encode()
    return {file: content.replace(own, b"") for file, content in contents(folder / name).items()}
