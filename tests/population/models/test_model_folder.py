"""A model folder: complete in itself, readable by plain transformers, refused when its parts do not fit."""

import json
import re
import shutil

import pytest
import safetensors.torch
import torch
from transformers import AutoModelForImageTextToText

from src.core.stage import files
from src.core.stage.errors import DataError
from src.population.data.samples import GrowthSamples, Prompter
from src.population.models import model_folder
from src.population.models.inference import Reader


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained.sft, tmp_path / "sft")


def test_a_folder_read_and_written_again_answers_the_same(trained, store, split_of, tmp_path):
    model, tokenizer, settings = model_folder.load(trained.sft)
    (tmp_path / "again").mkdir()
    model_folder.save(tmp_path / "again", model, tokenizer, settings, trained.pretrain)
    rows = split_of.rows("test")
    first = Reader(*model_folder.load(trained.sft), store, 4)
    second = Reader(*model_folder.load(tmp_path / "again"), store, 4)
    assert (first.head(rows) == second.head(rows)).all()
    assert first.greedy(rows) == second.greedy(rows)
    assert files.tree_sha256([trained.sft]) == files.tree_sha256([tmp_path / "again"])


def test_plain_transformers_reads_the_folder(trained, store, split_of):
    plain, report = AutoModelForImageTextToText.from_pretrained(trained.sft, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    model, tokenizer, settings = model_folder.load(trained.sft)
    prompter = Prompter(tokenizer, settings, model.vlm.config.vision_config)
    batch = GrowthSamples(store, split_of.rows("test"), prompter, 0, False).__getitems__([0, 1])
    vision, _ = model.vision_inputs(batch["tiles"], batch["valid"])
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "mm_token_type_ids")}
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(**inputs, **vision).logits, model.vlm(**inputs, **vision).logits)


def test_bandwise_json_holds_what_lies_between_tile_and_number(trained, split_of):
    found = json.loads((trained.sft / "bandwise.json").read_text(encoding="utf-8"))
    train = split_of.rows("train").growth_rate
    assert found["bands"] == 8 and found["side"] == 16 and found["input"] == "bands" and found["pca"] is None
    assert found["quantisation"] == {"kind": "linear", "scale": 0.02}
    assert found["band_mean"] == split_of.mean.double().tolist() and found["band_sd"] == split_of.sd.double().tolist()
    assert found["label"]["mean"] == pytest.approx(train.mean())
    assert found["label"]["sd"] == pytest.approx(train.std(ddof=0))
    assert (found["label"]["low"], found["label"]["high"]) == (train.min(), train.max())
    assert found["label"]["unit"] == "per mille per year"
    assert found["split_hash"] == split_of.facts["hash"]
    assert "‰" in found["prompt"] and found["language"] == "zh"
    assert found["covariates"] == {"columns": [], "names": [], "lag_years": 0, "use": "none", "mean": [], "sd": []}
    assert found["tile_lag_years"] == 0
    assert found["head"]["kind"] == "anchored" and len(found["head"]["ridge"]["weight"]) == 8


def test_nothing_in_the_folder_executes(trained):
    for folder in (trained.pretrain, trained.sft):
        names = [path.name for path in folder.iterdir()]
        assert "model.safetensors" in names
        assert {name.rpartition(".")[2] for name in names} <= {"safetensors", "json", "jinja", "txt"}, names


@pytest.mark.parametrize("name", ["bandwise.json", "head.safetensors", "config.json"])
def test_a_folder_without_one_of_its_files_is_refused(copy, name):
    (copy / name).unlink()
    with pytest.raises(DataError, match=re.escape(str(copy))):
        model_folder.load(copy)


def test_settings_that_are_not_ours_are_refused(copy):
    settings = json.loads((copy / "bandwise.json").read_text(encoding="utf-8"))
    for wrong, message in (
        (settings | {"bandz": 8}, "bandz: unknown"),
        (settings | {"bands": "8"}, "bands: found '8'"),
        ({name: value for name, value in settings.items() if name != "side"}, "side: missing"),
    ):
        files.write_json(copy / "bandwise.json", wrong)
        with pytest.raises(DataError, match=message):
            model_folder.load(copy)


def test_a_head_of_another_width_is_refused(copy):
    weights = safetensors.torch.load_file(copy / "head.safetensors")
    weights["net.1.weight"] = weights["net.1.weight"][:5].contiguous()
    safetensors.torch.save_file(weights, copy / "head.safetensors")
    with pytest.raises(DataError, match=r"head\.safetensors: does not fit bandwise\.json"):
        model_folder.load(copy)


def test_weights_that_do_not_fit_the_config_are_refused(copy):
    weights = safetensors.torch.load_file(copy / "model.safetensors")
    del weights["lm_head.weight"]
    safetensors.torch.save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="weights do not fit the config"):
        model_folder.load(copy)
