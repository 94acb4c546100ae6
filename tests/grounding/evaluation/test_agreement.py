"""Agreement and its nulls: an optical image that has nothing to do with the radar's."""

import pytest
import torch

from src.grounding.evaluation.agreement import agreement, centred, seed_agreement
from tests.grounding.images import noise, speckled, valid

ROWS, SIDE = 8, 256


def radar(seed: int) -> torch.Tensor:
    """Fields of 16 px under speckle of 4 looks."""
    fields = -20 + 14 * noise(ROWS, 1, SIDE // 16, SIDE // 16, seed=seed)
    backscatter = fields.repeat_interleave(16, 2).repeat_interleave(16, 3)
    return speckled(torch.cat([backscatter, backscatter - 6], 1), 4, seed)


def ours(optical: torch.Tensor) -> float:
    """Mean over rows of `agreement` with fields under speckle."""
    sar, mask = radar(1), valid(ROWS, SIDE)
    return agreement(optical, sar, mask, sar.roll(1, 0), mask).mean().item()


def seeds(optical: torch.Tensor) -> float:
    """Mean over rows of the seed document's agreement with speckle over even ground."""
    even = speckled(torch.full((ROWS, 2, SIDE, SIDE), -12.0), 4, 2)
    return seed_agreement(optical, even, valid(ROWS, SIDE)).mean().item()


def test_unrelated_noise_scores_0_79_by_the_seed_and_0_by_ours():
    gaussian = 0.3 + 0.05 * torch.randn(ROWS, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    assert seeds(gaussian) == pytest.approx(0.79, abs=0.01)
    assert ours(gaussian) == pytest.approx(0, abs=0.02)


def test_a_flat_image_scores_0_89_by_the_seed_and_exactly_0_by_ours():
    flat = torch.full((ROWS, 4, SIDE, SIDE), 0.3)
    assert seeds(flat) == pytest.approx(0.89, abs=0.01)
    assert ours(flat) == 0 and (centred(flat, radar(1), valid(ROWS, SIDE)) == 0).all()


def test_the_same_fields_score_above_0_and_those_of_another_scene_do_not():
    power = torch.nn.functional.avg_pool2d(radar(1)[:, :1], 16)  # dB of each field
    fields = 0.5 + 0.02 * power.repeat_interleave(16, 2).repeat_interleave(16, 3).repeat(1, 4, 1, 1)
    assert ours(fields) > 0.2
    assert ours(fields.roll(3, 0)) < 0.02


def test_no_data_and_another_size_of_the_other_scene():
    optical, sar, mask = noise(2, 4, 40, 40, seed=0), radar(1)[:2, :, :40, :40], valid(2, 40)
    mask[:, 5:9, 30:] = False
    spoilt = optical.clone()
    spoilt[:, :, 5:9, 30:] = torch.nan
    other, seen = radar(3)[:2, :, :30, :50], torch.ones(2, 30, 50).bool()
    assert torch.equal(agreement(spoilt, sar, mask, other, seen), agreement(optical, sar, mask, other, seen))
    assert torch.equal(seed_agreement(spoilt, sar, mask), seed_agreement(optical, sar, mask))
    none = torch.zeros_like(mask)
    assert (centred(optical, sar, none) == 0).all() and (seed_agreement(optical, sar, none) == 0).all()


def test_rows_are_scored_apart():
    optical, sar, mask = noise(3, 4, 40, 40, seed=0), radar(1)[:3, :, :40, :40], valid(3, 40)
    torch.testing.assert_close(centred(optical, sar, mask)[1:2], centred(optical[1:2], sar[1:2], mask[1:2]))
