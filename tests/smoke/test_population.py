"""The whole population pipeline, from GeoTIFFs and a CSV to metrics, on 49 small tiles."""

import json
import shutil
from argparse import Namespace

import numpy as np
import pandas as pd
import pytest

from src.population import baselines, dpo, evaluate, pca, prefs, preprocess, pretrain, sft, split
from src.population.evaluation import predictors
from tests import read_params
from tests.population.conftest import contents, prepare, run_dpo, run_pretrain, run_sft, sft_rates, small_params

# Enough training for words that can be parsed: without them there is no preference pair.
CHANGES = {
    "sft.epochs": 20,
    "sft.batch_size": 4,
    "sft.lr": sft_rates(0.01),
    "sft.ce_weight": 1.0,
    "sft.mse_weight": 1.0,
    "prefs.num_samples": 5,
    "prefs.temperature": 1.5,
    "prefs.top_p": 1.0,
    "dpo.lr": 0.0001,
}
STAGES = (preprocess, split, baselines, pca, pretrain, sft, prefs, dpo, evaluate)


def run_evaluate(folder, changes=None):
    inputs = Namespace(
        tiles=folder / "tiles",
        split=folder / "split",
        pca=folder / "pca",
        baselines=folder / "baselines",
        sft=folder / "sft",
        dpo=folder / "dpo",
        curves=folder / "plots",
        final=False,
    )
    out = Namespace(metrics=folder / "population.json", out=folder / "report", plots=folder / "plots" / "evaluate")
    evaluate.main(small_params(CHANGES | (changes or {})), inputs, out)


def run_chain(folder):
    study = prepare(folder, small_params())
    pretrained = run_pretrain(study, folder, CHANGES)
    tuned = run_sft(study, pretrained, folder, CHANGES)
    inputs = Namespace(tiles=study.tiles, split=study.split, model=tuned)
    prefs.main(small_params(CHANGES), inputs, Namespace(out=folder / "prefs"))
    run_dpo(study, tuned, folder / "prefs", folder, CHANGES)
    out = Namespace(out=folder / "baselines", plots=folder / "plots" / "baselines")
    baselines.main(small_params(CHANGES), study, out)
    run_evaluate(folder)
    return folder


@pytest.fixture(scope="module")
def recorded(wide, hub, tmp_path_factory):
    """The folder of the whole chain, and the keys of params.yaml that its stages read there, and in dry runs of the
    trainings from a published backbone."""
    with read_params.recording(*STAGES) as seen:
        chain = run_chain(tmp_path_factory.mktemp("chain"))
        folder, published = tmp_path_factory.mktemp("published"), {"model.backbone": str(hub("qwen2_5_vl"))}
        run_pretrain(wide, folder, published, dry_run=True)
        run_sft(wide, folder / "pretrain", folder, published, dry_run=True)
        run_dpo(
            Namespace(tiles=chain / "tiles", split=chain / "split"),
            chain / "sft",
            chain / "prefs",
            folder,
            published,
            dry_run=True,
        )
    return chain, seen


@pytest.fixture(scope="module")
def finished(recorded):
    return recorded[0]


def test_every_group_is_scored(finished):
    found = json.loads((finished / "population.json").read_text(encoding="utf-8"))
    groups = [*(group.name for group in predictors.MODEL), "mean", "latlon", "gp", "ridge", "forest", "cnn"]
    for group in groups:
        assert {"r2", "r2_low", "r2_high", "mae", "rmse", "pearson_r", "n"} <= set(found[group]), group
        assert found[group]["n"] == 10 and np.isfinite(found[group]["mae"]), group
    for group in (group.name for group in predictors.MODEL if group.parsed):
        assert 0.5 < found[group]["parse_rate"] <= 1, group
    assert found["ridge"]["r2"] > 0.9 and found["head"]["r2"] > 0.9, "the labels follow the band means"
    assert found["null"]["ridge"]["p_value"] == 0.1 and found["mean"]["r2"] <= 0
    assert found["controls"]["swapped"]["head"]["r2"] < 0.5 and found["audit"]["pca_difference"] == 0
    assert found["audit"]["shared_places"] == found["audit"]["overlapping_footprints"] == 0
    assert found["audit"]["duplicate_tiles"] == 0 and found["audit"]["nearest_train_test_km"] > 100


def test_predictions_are_of_held_out_labels(finished):
    table = pd.read_parquet(finished / "report" / "predictions.parquet")
    roles = pd.read_parquet(finished / "split" / "split.parquet").set_index("tile_id").role
    assert (roles[table.tile_id].to_numpy() == table.split.to_numpy()).all()
    assert table.split.value_counts().to_dict() == {"test": 10, "validation": 6}
    labels = pd.read_csv(finished / "labels.csv").set_index("city").growth_rate
    np.testing.assert_array_equal(table.y, labels[table.city])
    assert (table["head"] - table.ridge).abs().max() < 10 and (table["head"] != table.ridge).any()
    assert table.answer_text.str.startswith("预测值：").mean() > 0.5


def test_pairs_survive_and_every_picture_is_there(finished):
    counts = json.loads((finished / "prefs" / "counts.json").read_text())
    assert counts["train"]["pairs"] >= 10 and counts["train"]["rows"] == 32
    for name in ("split/split_map.png", "pca/quicklook.png", "plots/pretrain/reconstruction.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG"), name
    assert list((finished / "plots" / "evaluate").glob("*.png"))
    page = (finished / "report" / "index.html").read_text(encoding="utf-8")
    assert "head" in page and "permuted" in page
    assert not any((finished / "checkpoints").iterdir()), "nothing to resume is left"


def test_a_model_without_dpo_is_scored_too(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "chain")
    shutil.rmtree(tmp_path / "chain" / "prefs")
    study = Namespace(tiles=tmp_path / "chain" / "tiles", split=tmp_path / "chain" / "split")
    run_dpo(study, tmp_path / "chain" / "sft", tmp_path / "none", tmp_path / "chain", CHANGES | {"dpo.epochs": 0})
    run_evaluate(tmp_path / "chain")
    found = json.loads((tmp_path / "chain" / "population.json").read_text(encoding="utf-8"))
    assert found["dpo"]["r2"] == found["text"]["r2"] and found["dpo"]["train_pairs"] == 0
    assert "reward_accuracy" not in found["dpo"]


def test_dvc_yaml_declares_the_params_that_each_stage_reads(recorded):
    seen = recorded[1]
    elsewhere = {
        "split": {"split.horizon", "split.origin"},  # these runs' task is new_place
        "pretrain": {"memory.attention", "model.bands"},  # of weights, which a dry run does not read; of the store
        # LoRA's are keyword arguments as they are; the others made the model that sft starts from.
        "sft": {"sft.lora", "model.bands", "model.family", "model.tiny"},
        "dpo": {"sft"},  # LoRA's again; the others made the model that dpo starts from
        "evaluate": seen["evaluate"].dumped,  # its report shows them
    }
    read_params.assert_declared("population", seen, elsewhere)


@pytest.mark.slow
def test_the_whole_chain_twice_the_same_bytes(finished, tmp_path):
    again = contents(run_chain(tmp_path))
    before = contents(finished)
    assert before.keys() == again.keys()
    assert [name for name in before if before[name] != again[name]] == []
