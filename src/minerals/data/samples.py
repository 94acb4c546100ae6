"""Conversations with their tiles as batches to train on or to answer."""

from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from src.core.data.augment import ORIENT, generator, orient
from src.core.models import chat
from src.core.training.global_batches import ReadyBatches
from src.minerals.data.conversations import IMAGE

CACHE_BYTES = 2**29  # of tiles held in memory: conversations about one tile come in any order
GROUP = 3  # bands of an image that an RGB encoder reads


class TileImages:
    """Tiles as the model reads them.

    `kind` says which input: rgb (the composite, 0 to 255 to -1 to 1), bands (all kept bands, relative and standardised,
    no data 0) or rgb_groups (the same, in triples; the last one is filled with zeros). A tile of another side than
    `model_px` is resized bilinearly. The composite is `source.picture(tile)`, (side, side, 3) uint8, and the bands are
    `source.relative(tile)`, (C, side, side) float32 and (side, side) bool valid (src/minerals/models/model_inputs.py).
    """

    def __init__(self, kind: str, source, statistics: dict, model_px: int):
        self.kind, self.source, self.model_px = kind, source, model_px
        self.mean, self.sd = (statistics[name].astype(np.float32)[:, None, None] for name in ("mean", "sd"))
        tile_bytes = 2 * self.channels * self.groups * model_px**2
        self.read = lru_cache(max(CACHE_BYTES // tile_bytes, 1))(self._read)

    @property
    def channels(self) -> int:
        """Channels that the patch embedding reads."""
        return len(self.mean) if self.kind == "bands" else GROUP

    @property
    def groups(self) -> int:
        """Images of a sample."""
        return -(-len(self.mean) // GROUP) if self.kind == "rgb_groups" else 1

    def _read(self, tile: str | tuple[int, int]) -> np.ndarray:
        """(C, side, side), or (G, 3, side, side), float16."""
        if self.kind == "rgb":
            picture = self.source.picture(tile).astype(np.float16)
            return np.moveaxis(picture, -1, 0) / np.float16(127.5) - np.float16(1)
        values, valid = self.source.relative(tile)
        values = np.where(valid, (values - self.mean) / self.sd, 0).astype(np.float16)
        if self.kind == "bands":
            return values
        missing = self.groups * GROUP - len(values)
        return np.pad(values, ((0, missing), (0, 0), (0, 0))).reshape(self.groups, GROUP, *values.shape[1:])

    def batch(self, tiles: list) -> torch.Tensor:
        """(B, C, model_px, model_px) or (B, G, 3, model_px, model_px) float32."""
        images = torch.from_numpy(np.stack([self.read(tile) for tile in tiles])).float()
        if images.shape[-1] == self.model_px:
            return images
        flat = functional.interpolate(images.flatten(0, -4), size=self.model_px, mode="bilinear", antialias=True)
        return flat.reshape(*images.shape[:-2], self.model_px, self.model_px)


class Conversations(ReadyBatches):
    """Items of the annotations as batches; with `augment` a tile is turned by one of 8 flips and rotations.

    A turn is a function of (seed, epoch, item).
    """

    def __init__(
        self, items: list[dict], images: TileImages, tokenizer: PreTrainedTokenizerBase, tokens: int, seed: int,
        augment: bool,
    ):  # fmt: skip
        self.items, self.images, self.tokenizer, self.seed, self.augment = items, images, tokenizer, seed, augment
        self.prompts = [prompt(tokenizer, item, tokens, images.groups) for item in items]
        self.answers = [chat.encode_answer(tokenizer, item["conversations"][1]["value"]) for item in items]

    def __len__(self) -> int:
        return len(self.items)

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        batch = chat.pad_batch([self.prompts[i] for i in indices], [self.answers[i] for i in indices], self.tokenizer)
        batch["images"] = self.images.batch([self.items[i]["tile"] for i in indices])
        if self.augment:
            turns = [generator(self.seed, self.epoch, i, ORIENT).integers(8) for i in indices]
            shape = batch["images"].shape
            turned = orient(batch["images"].flatten(1, -3), torch.from_numpy(np.asarray(turns)))
            batch["images"] = turned.reshape(shape)
        return batch


def prompt(tokenizer: PreTrainedTokenizerBase, item: dict, tokens: int, images: int) -> list[int]:
    """Ids of an item's question behind its image tokens."""
    question = item["conversations"][0]["value"].removeprefix(f"{IMAGE}\n")
    return chat.encode_prompt(tokenizer, question, tokens, images)
