"""The encoder inside the masked autoencoder is Qwen's own, and sees nothing of masked pixels."""

import pytest
import torch

from src.core.models import chat, qwen_vl
from src.core.models.mae import MaskedAutoencoder, unit_statistics
from src.core.models.patches import patchify, pixel_values, unpatchify

SIDE, PATCH, BANDS = 16, 2, 5


def make_visual(family: str):
    tokenizer = chat.tiny_tokenizer(["预测值：1.23‰"])
    config = qwen_vl.tiny_config(
        family,
        channels=BANDS,
        patch_size=PATCH,
        side=SIDE,
        vision=(3, 32, 2),
        text=(1, 32, 2),
        tokenizer=tokenizer,
    )
    return qwen_vl.build(config, seed=1).model.visual.eval()


def make_mae(family: str, **changes) -> MaskedAutoencoder:
    torch.manual_seed(0)
    settings = {"encoder": "full", "decoder": (1, 32, 2), "norm_pix_loss": True} | changes
    return MaskedAutoencoder(make_visual(family), SIDE, **settings).eval()


FAMILIES = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]


@pytest.fixture
def images():
    return torch.randn(3, BANDS, SIDE, SIDE, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_unit_visible_equals_the_whole_encoder(family, images):
    mae = make_mae(family)
    units = (SIDE // PATCH // 2) ** 2
    latent, keep = mae.forward_encoder(patchify(images, PATCH), torch.arange(units).repeat(3, 1))
    pixels, grid = pixel_values(images, mae.visual.config)
    expected = mae.visual(pixels, grid_thw=grid).last_hidden_state.unflatten(0, (3, -1))
    torch.testing.assert_close(latent, expected, rtol=0, atol=1e-5)
    if family == "qwen2_5_vl":
        assert not torch.equal(keep[0], torch.arange(units)), "2.5 runs in window order; this grid has 4 windows"


@pytest.mark.parametrize("family", FAMILIES)
def test_masked_pixels_do_not_reach_visible_tokens(family, images):
    mae = make_mae(family)
    keep = mae.random_masking(torch.rand(3, 16, generator=torch.Generator().manual_seed(3)), 0.75)
    before, order = mae.forward_encoder(patchify(images, PATCH), keep)
    mask = mae.mask_of(order)[:, :, None, None, None].expand(-1, -1, BANDS, PATCH, PATCH)
    changed = torch.where(unpatchify(mask, SIDE, SIDE), images + 5.0, images)
    after, _ = mae.forward_encoder(patchify(changed, PATCH), keep)
    assert torch.equal(before, after)
    visible = torch.where(unpatchify(mask, SIDE, SIDE), images, images + 5.0)
    assert not torch.allclose(before, mae.forward_encoder(patchify(visible, PATCH), keep)[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_block_gets_gradient(family, images):
    mae = make_mae(family).train()
    valid = torch.ones(3, SIDE, SIDE, dtype=torch.bool)
    mae(images, valid, torch.rand(3, 16), 0.75)["loss"].backward()
    for index, block in enumerate(mae.visual.blocks):
        assert all(p.grad is not None and p.grad.any() for p in block.attn.qkv.parameters()), index
    assert mae.visual.patch_embed.proj.weight.grad.any()


def test_position_of_a_token_reaches_its_own_prediction(images):
    """A decoder that mixed up window order and merge order would still train; its errors would sit elsewhere."""
    mae = make_mae("qwen2_5_vl")
    keep = torch.tensor([[0, 5, 10, 15]]).repeat(3, 1)
    latent, order = mae.forward_encoder(patchify(images, PATCH), keep)
    tokens = torch.full((3, 64, 32), float("nan"))
    mae.decoder_embed = torch.nn.Identity()
    mae.decoder_pos = torch.zeros(64, 32)
    mae.decoder_blocks = torch.nn.ModuleList()
    mae.decoder_norm = torch.nn.Identity()
    mae.decoder_pred = torch.nn.Identity()
    tokens = mae.forward_decoder(latent, order)
    full, _ = mae.forward_encoder(patchify(images, PATCH), keep)
    for place, unit in enumerate(order[0].tolist()):
        torch.testing.assert_close(tokens[0, unit * 4 : unit * 4 + 4], full[0, place * 4 : place * 4 + 4])
    assert (tokens[0, 4:8] == mae.mask_token).all()


def test_mask_hides_the_share_it_should():
    mae = make_mae("qwen2_5_vl")
    keep = mae.random_masking(torch.rand(7, 16), 0.75)
    mask = mae.mask_of(keep)
    assert keep.shape == (7, 4) and (mask.sum(1) == 48).all()
    assert (mask.view(7, 16, 4).all(2) | ~mask.view(7, 16, 4).any(2)).all(), "whole merge units"


def test_loss_ignores_visible_and_invalid_pixels_and_normalises_per_band(images):
    mae = make_mae("qwen2_5_vl")
    patches = patchify(images * torch.tensor([1.0, 10, 100, 0.1, 5])[:, None, None], PATCH)
    mask = torch.zeros(3, 64, dtype=torch.bool)
    mask[:, :8] = True
    weight = torch.ones(3, 64, 1, PATCH, PATCH)
    weight[:, 0, :, 0, 0] = 0
    weight[0, 1] = 0  # of no other image
    loss, target = mae.forward_loss(patches, torch.zeros_like(patches), weight, mask)
    mean, sd = unit_statistics(patches, weight, 4)
    valid = float(weight[:, :8].mean())
    assert loss == pytest.approx(valid, abs=1e-3), "zeros against unit-variance targets, whatever the band's scale"
    parts = [mae.forward_loss(patches[i], 0 * patches[i], weight[i], mask[i])[0] for i in ([0], [1, 2])]
    torch.testing.assert_close(loss, (parts[0] + 2 * parts[1]) / 3)
    off = patches.clone()
    off[:, 0, :, 0, 0] += 1e4
    off[:, 20:] += 1e4
    again, _ = mae.forward_loss(off, torch.zeros_like(patches), weight, mask)
    torch.testing.assert_close(loss, again)
    torch.testing.assert_close(target * sd + mean, patches)


def test_patch_embed_mode_runs_no_block(images):
    mae = make_mae("qwen2_5_vl", encoder="patch_embed").train()
    mae(images, torch.ones(3, SIDE, SIDE, dtype=torch.bool), torch.rand(3, 16), 0.75)["loss"].backward()
    assert all(p.grad is None for p in mae.visual.blocks.parameters())
    assert mae.visual.patch_embed.proj.weight.grad.any()
