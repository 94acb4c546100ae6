"""The regression network: a residual on the first guess, from radar too, and the same after saving."""

import json

import pytest
import torch
from diffusers import UNet2DModel

from src.core.stage.errors import DataError
from src.grounding.models import regression
from tests.grounding.trainings import SCALING, TILE, batch, contents


@pytest.fixture
def model():
    torch.manual_seed(0)
    return regression.build(TILE, 16, SCALING).eval()


@pytest.fixture
def inputs():
    rows = batch()
    rows.pop("noise")
    return rows


def test_a_network_that_answers_zero_leaves_the_first_guess_as_it_is(model, inputs):
    for parameter in model.unet.conv_out.parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.equal(model.refine(**inputs), inputs["first_guess"])


def test_radar_and_holes_change_the_image(model, inputs):
    refined = model.refine(**inputs)
    assert refined.shape == inputs["first_guess"].shape and refined.min() >= 0 and refined.max() <= 1
    for name in ("sar", "missing"):
        assert (model.refine(**inputs | {name: batch(seed=1)[name]}) - refined).abs().max() > 1e-5, name


def test_the_folder_gives_back_the_same_network(model, inputs, tmp_path):
    (tmp_path / "one").mkdir(), (tmp_path / "two").mkdir()
    regression.save(tmp_path / "one", model, {"opt_v2": "given"})
    loaded = regression.load(tmp_path / "one")
    assert not loaded.training and loaded.tile_px == TILE and loaded.scaling == SCALING
    assert torch.equal(loaded.refine(**inputs), model.refine(**inputs))
    regression.save(tmp_path / "two", loaded, {"opt_v2": "given"})
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_other_formats_and_bands_are_refused(model, tmp_path):
    regression.save(tmp_path, model, {})
    UNet2DModel.from_config(model.unet.config, in_channels=16, out_channels=13).save_pretrained(
        tmp_path / regression.NETWORK
    )
    with pytest.raises(DataError, match="channels: found 16 in and 13 out, expected 7 and 4"):
        regression.load(tmp_path)
    path = tmp_path / regression.SETTINGS
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": "bandwise-grounding-1"}))
    with pytest.raises(DataError, match=r"grounding\.json: format: found 'bandwise-grounding-1', expected"):
        regression.load(tmp_path)
