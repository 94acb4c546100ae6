"""Landscapes made by hand: flat, dry, of one cover, with what a test puts on them."""

from dataclasses import replace

import numpy as np

from src.grounding.data.simulated_landscape import CODE, Landscape

SIDE = 64  # cells of 5 m


def plain(cover: str = "grassland", **changes) -> Landscape:
    """Level ground of one parcel of `cover`, but for `changes`."""
    flat = np.zeros((SIDE, SIDE), np.float32)
    one = np.full((SIDE, SIDE), CODE[cover], np.uint8), np.zeros((SIDE, SIDE), np.int32), np.zeros(1, np.float32)
    return replace(Landscape(*one, leaf=flat + 0.5, moisture=flat + 0.3, elevation=flat, height=flat), **changes)


def with_block(cover: str, height_m: float, angle: float = 0.0) -> Landscape:
    """Grassland with a block of `cover` of 8 x 8 cells in the middle, rows and columns 28 to 35."""
    ground = plain(angle=np.array([0, angle], np.float32))
    inside = np.s_[28:36, 28:36]
    ground.cover[inside], ground.parcel[inside] = CODE[cover], 1
    height = np.zeros((SIDE, SIDE), np.float32)
    height[inside] = height_m
    return replace(ground, height=height)
