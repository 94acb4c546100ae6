"""A widened patch embedding starts where its initialisation says, to the last pixel."""

import copy

import pytest
import torch

from src.core.data.quantisation import Quantisation
from src.core.models import chat, qwen_vl
from src.core.models.more_bands import RGB, shifted_mean, widen
from src.core.models.patches import BandFrontEnd, pixel_values
from src.core.stage.errors import ParamsError

BANDS, SIDE = 7, 16


@pytest.fixture(params=list(qwen_vl.FAMILIES))
def rgb(request):
    """A tiny model in the shape of the real ones: RGB, two frames a patch."""
    config = qwen_vl.tiny_config(
        request.param,
        channels=RGB,
        patch_size=2,
        side=SIDE,
        vision=(2, 32, 2),
        text=(1, 32, 2),
        tokenizer=chat.tiny_tokenizer(["1.23"]),
    )
    config.vision_config.temporal_patch_size = 2
    model = qwen_vl.build(config, 0).eval()
    bias = model.model.visual.patch_embed.proj.bias
    if bias is not None:
        torch.nn.init.normal_(bias, 0, 0.5)
    return model


@torch.no_grad()
def seen(model, images):
    """Features that the vision encoder hands to the language model."""
    visual = model.model.visual
    pixels, grid = pixel_values(images, visual.config)
    return visual(pixels, grid_thw=grid).pooler_output


def images(channels, seed=0):
    return torch.randn(2, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def test_one_frame_is_two_equal_ones(rgb):
    folded = widen(copy.deepcopy(rgb), RGB, "zero", seed=0)
    assert folded.model.visual.config.temporal_patch_size == 1
    torch.testing.assert_close(seen(folded, images(RGB)), seen(rgb, images(RGB)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("init", ["normal", "zero"])
def test_the_first_three_bands_are_rgb(rgb, init):
    wide = widen(copy.deepcopy(rgb), BANDS, init, seed=1)
    alone = images(BANDS)
    alone[:, RGB:] = 0
    torch.testing.assert_close(seen(wide, alone), seen(rgb, alone[:, :RGB]), rtol=0, atol=1e-5)
    rest = wide.model.visual.patch_embed.proj.weight.detach()[:, RGB:]
    assert rest.std() == pytest.approx(0.02, rel=0.1) if init == "normal" else not rest.any()


def test_normal_is_drawn_from_its_seed(rgb):
    one, two, other = (
        widen(copy.deepcopy(rgb), BANDS, "normal", seed).model.visual.patch_embed.proj.weight for seed in (1, 1, 2)
    )
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_copy_keeps_the_scale_of_grey(rgb):
    """Six bands that all hold one image are seen as RGB that holds it thrice."""
    grey = images(1)
    wide = widen(copy.deepcopy(rgb), 6, "copy", seed=0)
    torch.testing.assert_close(
        seen(wide, grey.expand(-1, 6, -1, -1)), seen(rgb, grey.expand(-1, 3, -1, -1)), rtol=0, atol=1e-5
    )


def test_pca_sees_what_route_b_shows_masked_pixels_included(rgb):
    random = torch.Generator().manual_seed(3)
    mean, sd = torch.randn(BANDS, generator=random), torch.rand(BANDS, generator=random) + 0.5
    weight, offset = torch.randn(RGB, BANDS, generator=random), torch.randn(RGB, generator=random)
    tiles = torch.randn(2, BANDS, SIDE, SIDE, generator=random)
    valid = torch.rand(2, SIDE, SIDE, generator=random) > 0.2
    none = Quantisation("none")
    route_b = BandFrontEnd(none, mean, sd, SIDE, (weight, offset))(tiles, valid)
    bands = BandFrontEnd(none, shifted_mean(mean, sd, weight, offset), sd, SIDE)(tiles, valid)
    wide = widen(copy.deepcopy(rgb), BANDS, "pca", seed=0, projection=weight)
    torch.testing.assert_close(seen(wide, bands), seen(rgb, route_b), rtol=0, atol=1e-4)


def test_every_band_can_learn(rgb):
    weight = torch.randn(RGB, BANDS, generator=torch.Generator().manual_seed(3))
    for init in ("normal", "zero", "copy", "pca"):
        visual = widen(copy.deepcopy(rgb), BANDS, init, seed=0, projection=weight).model.visual
        pixels, grid = pixel_values(images(BANDS), visual.config)
        visual(pixels, grid_thw=grid).pooler_output.square().mean().backward()
        assert visual.patch_embed.proj.weight.grad.abs().amax((0, 2, 3, 4)).min() > 0


def test_a_wide_model_comes_back_from_its_folder(rgb, tmp_path):
    wide = widen(rgb, BANDS, "copy", seed=0)
    wide.save_pretrained(tmp_path)
    again = qwen_vl.load(tmp_path, channels=BANDS).eval()
    assert torch.equal(seen(wide, images(BANDS)), seen(again, images(BANDS)))


def test_only_rgb_is_widened(rgb):
    widen(rgb, BANDS, "zero", seed=0)
    with pytest.raises(ParamsError, match=r"found 7 channels and 9 bands; use a pretrained RGB model"):
        widen(rgb, 9, "zero", seed=0)
