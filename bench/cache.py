"""Training epochs with the vision encoder frozen: features from disk beside features computed again.

    python -m bench.cache --json

The tiny model of params.yaml (64 bands, patches of 2 px, vision 2 x 256, language model 3 x 96) on int8 tiles, an
epoch all of them once, each in one of the 8 orientations, trained as the sft stage does while its encoder is frozen:
front end, mergers, language model, head, backward, clipping, AdamW. Every tile has been visited in every orientation
before, so these are epochs of second visits. Trainer, validation and the reading of tiles are in neither side.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from bench.timing import Benchmark
from src.core.data.quantisation import Quantisation
from src.core.models import chat, qwen_vl
from src.core.models.feature_cache import FeatureCache
from src.core.models.patches import BandFrontEnd
from src.population.models.growth_model import GrowthModel, RegressionHead
from src.population.models.prompts import PROMPTS, answer

BANDS, PATCH, BATCH, TILES = 64, 2, 8, 8
VISION, TEXT = (2, 256, 8), (3, 96, 4)  # depth, width, heads
FAMILY = "qwen2_5_vl"
# The bar is on 128 px, where a tile is 1024 image tokens as for a real backbone (980 px in patches of 14: 1225). On the
# sample's 16 px it is 16 beside 30 of words: most of a step is text, optimizer and overhead, which no cache saves. The
# merger trains in every step and costs half of these two blocks; Qwen3-VL has one more for each of its deep features.
SIDES, BAR_SIDE, OTHERS_SIDE = (16, 64, 128), 128, 64


def main() -> None:
    torch.set_num_threads(1)  # as params.yaml
    benchmark = Benchmark("cache")
    for family in (FAMILY, *(name for name in qwen_vl.FAMILIES if name != FAMILY)):
        for side in SIDES if family == FAMILY else (OTHERS_SIDE,):
            with tempfile.TemporaryDirectory() as folder:
                computed, cached, cache = make_epochs(family, side, Path(folder))
                bar = 4 if side == BAR_SIDE else None
                benchmark.compare(f"computed/cached, {family}, {side} px", computed, cached, at_least=bar)
                assert cache.misses == 8 * TILES, "an epoch that was timed computed features"
    benchmark.finish()


def make_epochs(family: str, side: int, folder: Path) -> tuple[Callable, Callable, FeatureCache]:
    """An epoch that computes, one that reads (of two models alike) and the reader's cache, which holds every view."""
    tokenizer = chat.tiny_tokenizer([PROMPTS["zh"], answer(1.23, "zh")])
    config = qwen_vl.tiny_config(
        family, channels=BANDS, patch_size=PATCH, side=side, vision=VISION, text=TEXT, tokenizer=tokenizer
    )
    random = torch.Generator().manual_seed(0)
    prompt = chat.encode_prompt(tokenizer, PROMPTS["zh"], (side // PATCH // 2) ** 2)
    data = chat.pad_batch([prompt] * TILES, [chat.encode_answer(tokenizer, answer(1.23, "zh"))] * TILES, tokenizer)
    data["tiles"] = torch.randint(-127, 128, (TILES, BANDS, side, side), generator=random).to(torch.int8)
    data["valid"] = torch.ones(TILES, side, side, dtype=torch.bool)
    data["tile"], data["target"] = torch.arange(TILES), torch.randn(TILES, generator=random)

    def make(limit_gb: float) -> tuple[Callable, FeatureCache | None]:
        front = BandFrontEnd(Quantisation("alphaearth"), torch.zeros(BANDS), torch.ones(BANDS), side)
        head = RegressionHead(TEXT[1], 64, 0.1, None, 1.0)
        model = GrowthModel(qwen_vl.build(config, seed=0), front, head, 0.0).train()
        visual = qwen_vl.vision_encoder(model.vlm)
        for name, p in visual.named_parameters():
            p.requires_grad_("merger" in name)
        model.features = FeatureCache(visual, side, folder, limit_gb, context="") if limit_gb else None
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

        def epoch(view: int | None = None) -> None:
            views = torch.randint(8, (TILES,), generator=random) if view is None else torch.full((TILES,), view)
            for start in range(0, TILES, BATCH):
                rows = slice(start, start + BATCH)
                batch = {name: values[rows] for name, values in (data | {"orientation": views}).items()}
                model(**batch)["loss"].backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()

        return epoch, model.features

    computed, _ = make(limit_gb=0)
    cached, cache = make(limit_gb=8)
    for view in range(8):
        cached(view)
    return computed, cached, cache


if __name__ == "__main__":
    main()
