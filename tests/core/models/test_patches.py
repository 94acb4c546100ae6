"""Patches that a Qwen-VL model reads of a tile: patch order, merge order, bands, masks, scale."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionPatchEmbed
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from src.core.data.crop import centre_crop
from src.core.data.quantisation import Quantisation, dequantise
from src.core.models.patches import (
    BandFrontEnd,
    band_means,
    patchify,
    pixel_values,
    tiles_at_once,
    unpatchify,
    usable_side,
)


def vision(patch_size: int, frames: int = 1) -> SimpleNamespace:
    return SimpleNamespace(patch_size=patch_size, temporal_patch_size=frames, spatial_merge_size=2)


def random_images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def merge_order(rows: int, columns: int) -> list[tuple[int, int]]:
    """Grid places in the order of 2 x 2 blocks, written out rather than reshaped."""
    return [
        (block_row + i, block_column + j)
        for block_row in range(0, rows, 2)
        for block_column in range(0, columns, 2)
        for i in range(2)
        for j in range(2)
    ]


def front_end(kind="alphaearth", scale=None, *, bands=5, side=16, pca=None, seed=1) -> BandFrontEnd:
    mean, sd = random_images(bands, seed=seed), random_images(bands, seed=seed + 1).abs() + 0.5
    return BandFrontEnd(Quantisation(kind, scale), mean, sd, side, pca)


def test_every_patch_is_its_block_of_the_image():
    images = random_images(2, 3, 8, 12)
    patches = patchify(images, 2)
    for n, (row, column) in enumerate(merge_order(4, 6)):
        assert torch.equal(patches[:, n], images[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2])
    assert torch.equal(unpatchify(patches, 8, 12), images)


def test_order_is_that_of_qwens_own_processor():
    picture = np.random.default_rng(0).integers(0, 256, (3, 28, 56), dtype=np.uint8)
    processor = Qwen2VLImageProcessorPil(
        do_resize=False, do_rescale=False, do_normalize=False, do_convert_rgb=False, patch_size=7, merge_size=2
    )
    expected = processor(picture, input_data_format="channels_first", return_tensors="pt")
    pixels, grid = pixel_values(torch.from_numpy(picture)[None].float(), vision(7, frames=2))
    assert torch.equal(grid, expected["image_grid_thw"])
    assert torch.equal(pixels, expected["pixel_values"].float())


@pytest.mark.parametrize("frames", [1, 2])
def test_qwens_patch_embedding_sees_the_image(frames):
    """Its Conv3d over `pixel_values` equals the same kernel slid over the image itself."""
    embed = Qwen2_5_VisionPatchEmbed(patch_size=4, temporal_patch_size=frames, in_channels=6, embed_dim=10)
    images = random_images(2, 6, 16, 24)
    pixels, _ = pixel_values(images, vision(4, frames))
    still = images.unsqueeze(2).expand(-1, -1, frames, -1, -1)  # the same picture in every frame
    slid = nn.functional.conv3d(still, embed.proj.weight, stride=(frames, 4, 4))[:, :, 0]  # (B, D, rows, columns)
    expected = torch.stack([slid[:, :, row, column] for row, column in merge_order(4, 6)], dim=1)
    torch.testing.assert_close(embed(pixels), expected.flatten(0, 1), rtol=0, atol=1e-5)


def test_a_still_image_fills_both_frames():
    pixels, grid = pixel_values(random_images(3, 5, 8, 8), vision(2, frames=2))
    frames = pixels.view(-1, 5, 2, 2, 2)  # (N, C, T, p, p)
    assert torch.equal(frames[:, :, 0], frames[:, :, 1])
    assert grid.tolist() == [[1, 4, 4]] * 3 and grid.dtype == torch.int64


@pytest.mark.parametrize(("side", "patch", "expected"), [(1000, 14, 980), (1000, 16, 992), (16, 2, 16), (27, 14, 0)])
def test_usable_side(side, patch, expected):
    assert usable_side(side, patch) == expected


def test_crop_is_central():
    assert centre_crop(torch.arange(49).view(7, 7), 3, 5).tolist()[0] == [15, 16, 17, 18, 19]


@pytest.mark.parametrize(("kind", "scale"), [("alphaearth", None), ("linear", 0.03), ("none", None)])
def test_dequantises_every_code_as_the_data_stages_do(kind, scale):
    codes = np.arange(-128, 128).astype(np.int8).reshape(1, 1, 16, 16)
    front = front_end(kind, scale, bands=1)
    values, _ = front.dequantise(torch.from_numpy(codes), torch.ones(1, 16, 16, dtype=torch.bool))
    assert values.dtype == torch.float32
    np.testing.assert_array_equal(values.numpy(), dequantise(codes, front.quantisation))


@pytest.mark.parametrize("route", ["bands", "pca3"])
@pytest.mark.parametrize("filler", [-128, float("nan")])
def test_masked_pixels_are_zero_and_change_nothing_else(route, filler):
    pca = (random_images(3, 5, seed=8), random_images(3, seed=9)) if route == "pca3" else None
    front = front_end("none", pca=pca)
    tiles = random_images(2, 5, 16, 16)
    valid = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(3)) > 0.3
    whole = front(tiles, torch.ones_like(valid))
    masked = front(tiles.masked_fill(~valid[:, None], filler), valid)
    assert masked.shape[1] == front.channels == (3 if pca else 5)
    assert torch.equal(masked, whole * valid[:, None])


def test_pca3_is_the_affine_projection_of_standardised_bands():
    weight, bias = random_images(3, 5, seed=8), random_images(3, seed=9)
    front = front_end(pca=(weight, bias))
    tiles = torch.randint(-127, 128, (2, 5, 16, 16), generator=torch.Generator().manual_seed(4)).to(torch.int8)
    values = torch.from_numpy(dequantise(tiles.numpy(), front.quantisation))
    standardised = (values - front.mean[:, None, None]) / front.sd[:, None, None]
    expected = (weight @ standardised.flatten(2)).unflatten(2, (16, 16)) + bias[:, None, None]
    images = front(tiles, torch.ones(2, 16, 16, dtype=torch.bool))
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)


def test_tiles_and_masks_are_cropped_alike():
    tiles = random_images(1, 2, 9, 9)
    valid = torch.zeros(1, 9, 9, dtype=torch.bool)
    valid[0, 4, 4] = True
    front = front_end("none", bands=2, side=4)
    images = front(tiles, valid)
    assert images.shape == (1, 2, 4, 4)
    standardised = (tiles[0, :, 4, 4] - front.mean) / front.sd
    torch.testing.assert_close(images[0, :, 2, 2], standardised)
    assert images.count_nonzero() == 2, "only the one valid pixel survives"


def test_band_means_count_valid_pixels_alone():
    values = random_images(2, 3, 4, 4)
    valid = torch.zeros(2, 4, 4, dtype=torch.bool)
    valid[0, :2] = True
    valid[1, 3, 3] = True
    means = band_means(values.masked_fill(~valid[:, None], 1e6), valid)
    torch.testing.assert_close(means, torch.stack([values[0, :, :2].mean((1, 2)), values[1, :, 3, 3]]))


def test_large_tiles_are_read_by_twos_whatever_the_batch():
    assert tiles_at_once(64, 64, 16) == 64
    assert tiles_at_once(64, 64, 980) == 2
    assert tiles_at_once(64, 64, 4000) == 1
