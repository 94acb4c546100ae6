"""Checks of a published backbone before anything trains: what fits, and what is refused."""

import json
import logging
import re
import shutil

import pytest

from src.core.stage.errors import DataError, ParamsError
from tests import qwen_folders
from tests.population.conftest import run_pretrain, run_sft, small_params
from tests.population.test_pretrained import FAMILY, SHORT


def test_a_dry_run_says_what_fits_without_any_weight(wide, hub, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    bare = shutil.copytree(hub(FAMILY), tmp_path / "bare")
    for weights in bare.glob("*.safetensors*"):
        weights.unlink()
    changes = SHORT | {"model.backbone": str(bare), "sft.accumulate": 2}
    run_pretrain(wide, tmp_path / "none", changes, dry_run=True)
    assert "16 patches of 14 px a tile in 4 units of which 75 % masked" in caplog.text
    caplog.clear()
    run_sft(wide, tmp_path / "not there yet", tmp_path / "none", changes, dry_run=True)
    assert "a tile is 16 patches of 14 px and 4 image tokens" in caplog.text
    for line in ("lora ", "weights ", "gradients ", "optimiser ", "activations with gradient checkpointing "):
        assert f"  {line}" in caplog.text, line
    assert re.search(r"all groups training, 4 at once: [\d.]+ GB", caplog.text)
    for card in (24, 40, 80, 141):
        assert f"{card} GB  batch 8 x 1 accumulated, gradient checkpointing off" in caplog.text
    assert "their time depends on the GPU" in caplog.text
    assert not (tmp_path / "none").exists()


def test_a_tokenizer_of_another_model_is_refused(wide, hub, tmp_path):
    mixed = shutil.copytree(hub(FAMILY), tmp_path / "mixed")
    qwen_folders.change_config(mixed, image_token_id=3)
    with pytest.raises(DataError, match=r"tokenizer: found id 5 of <\|image_pad\|>, expected 3, as config\.json"):
        run_pretrain(wide, tmp_path, {"model.backbone": str(mixed)})


def test_a_backbone_of_this_project_must_have_read_the_same_bands(study, trained, tmp_path):
    """Adapted to one region, it starts another; with the bands in another order it would start from noise."""
    changes = {"model.backbone": str(trained.sft), "pretrain.epochs": 0}
    run_pretrain(study, tmp_path / "same", changes)
    other = shutil.copytree(trained.sft, tmp_path / "other")
    settings = json.loads((other / "bandwise.json").read_text())
    settings["band_names"].reverse()
    (other / "bandwise.json").write_text(json.dumps(settings))
    with pytest.raises(
        ParamsError, match=r"band 1: found 'A00', expected 'A07' in the tiles, as the model was trained"
    ):
        run_pretrain(study, tmp_path / "again", changes | {"model.backbone": str(other)})


def test_four_bits_need_lora_on_a_pretrained_backbone():
    memory = small_params().memory.model_dump() | {"four_bit": True}
    with pytest.raises(ParamsError, match=r"^small: memory\.four_bit freezes the language model: it needs"):
        small_params({"memory": memory})


def test_what_cannot_be_trained_is_said_by_the_dry_run(study, wide, hub, tmp_path):
    """The embedded sample has 16 px, and a newcomer tries it with a real backbone first."""
    backbone = {"model.backbone": str(hub(FAMILY))}
    with pytest.raises(DataError, match=r"tiles are 16 x 16 px, expected at least 56 \(2 x 2 units of 28 px\)"):
        run_sft(study, tmp_path, tmp_path, backbone, dry_run=True)
    lora = small_params().sft.lora.model_dump()
    with pytest.raises(ParamsError, match=r"`targets`: found 'nothing', .* such as .*down_proj; correct it"):
        run_sft(wide, tmp_path, tmp_path, backbone | {"sft.lora": lora | {"targets": "nothing"}}, dry_run=True)
    with pytest.raises(ParamsError, match="targets is no regular expression"):
        small_params({"sft.lora": lora | {"targets": "(("}})
    with pytest.raises(ParamsError, match=r"sft\.accumulate: found 3; .*batch_size 8 is no multiple of accumulate 3"):
        small_params({"sft.accumulate": 3})
    pickled = shutil.copytree(hub(FAMILY), tmp_path / "pickled")
    for weights in pickled.glob("*.safetensors*"):
        weights.unlink()
    (pickled / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"pytorch_model\.bin"):
        run_sft(wide, tmp_path, tmp_path, {"model.backbone": str(pickled)}, dry_run=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "pytorch_model.bin"):
        (pickled / name).unlink()
    with pytest.raises(DataError, match=r"found no tokenizer\.json"):
        run_sft(wide, tmp_path, tmp_path, {"model.backbone": str(pickled)}, dry_run=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pickled"]
