"""Masked autoencoding: a step on visible tokens beside one on all, and the patch embedding as a Linear.

    python -m bench.mae --json

Qwen2.5-VL's encoder, small, on 4 images of 64 bands x 224 px in patches of 14 (256 tokens, of which a quarter
is visible). All tokens pass through the same autoencoder with nothing masked, so that every block, the decoder
and the loss are in both. `Conv3d` is transformers' own patch embedding, without `backbone.quicken`.
"""

import torch

from bench.timing import Benchmark
from src.core.models import chat, qwen_vl
from src.core.models.mae import MaskedAutoencoder
from src.core.models.patches import patchify, pixel_values

BANDS, SIDE, PATCH, BATCH = 64, 224, 14, 4
VISION, DECODER = (6, 512, 8), (1, 128, 4)  # depth, width, heads
MASK_RATIO = 0.75


def main() -> None:
    torch.set_num_threads(1)  # on a busy machine two threads wait for each other, longest in the small case
    torch.manual_seed(0)
    benchmark = Benchmark("mae")
    visual = make_encoder()
    mae = MaskedAutoencoder(visual, SIDE, "full", DECODER, norm_pix_loss=True)
    optimizer = torch.optim.AdamW(mae.parameters(), lr=1e-4)
    images = torch.randn(BATCH, BANDS, SIDE, SIDE)
    valid = torch.ones(BATCH, SIDE, SIDE, dtype=torch.bool)
    noise = torch.rand(BATCH, mae.grid**2 // mae.unit)
    patches = patchify(images, PATCH)
    pixels, _ = pixel_values(images, visual.config)

    def step(mask_ratio: float) -> None:
        optimizer.zero_grad()
        mae(images, valid, noise, mask_ratio)["loss"].backward()
        optimizer.step()

    def encode(mask_ratio: float) -> None:
        visual.zero_grad()
        latent, _ = mae.forward_encoder(patches, mae.random_masking(noise, mask_ratio))
        latent.square().mean().backward()

    def embed(forward) -> None:
        visual.zero_grad()
        forward(pixels).square().mean().backward()

    plain = type(visual.patch_embed).forward.__get__(visual.patch_embed)  # below the quick one of this instance
    with torch.no_grad():
        difference = (plain(pixels) - visual.patch_embed(pixels)).abs().max().item()
    benchmark.record("largest |Conv3d - Linear|", difference, at_most=1e-4)
    benchmark.compare("all/visible, step", lambda: step(0.0), lambda: step(MASK_RATIO), at_least=2.2)
    benchmark.compare("all/visible, encoder", lambda: encode(0.0), lambda: encode(MASK_RATIO), at_least=3.5)
    benchmark.compare("Conv3d/Linear", lambda: embed(plain), lambda: embed(visual.patch_embed), at_least=5)
    benchmark.finish()


def make_encoder():
    """Vision encoder of a small Qwen2.5-VL, in training mode."""
    config = qwen_vl.tiny_config(
        "qwen2_5_vl",
        channels=BANDS,
        patch_size=PATCH,
        side=SIDE,
        vision=VISION,
        text=(1, 64, 2),
        tokenizer=chat.tiny_tokenizer(["预测值：1.23‰"]),
    )
    return qwen_vl.build(config, seed=0).model.visual.train()


if __name__ == "__main__":
    main()
