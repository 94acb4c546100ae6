"""Processes and micro-batches draw together what one process draws at once."""

import pytest
import torch
from accelerate.data_loader import SeedableRandomSampler

from src.core.training.global_batches import GlobalBatches

SHAPES = [(32, 8, 1, 1), (32, 8, 2, 1), (32, 12, 2, 3), (7, 6, 2, 3), (33, 6, 3, 1), (5, 8, 2, 2)]


def batches_of(samples, batch, count, accumulate, rank, monkeypatch, epoch=0) -> GlobalBatches:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(count))
    drawn = GlobalBatches(samples, batch // (count * accumulate), accumulate, seed=3)
    drawn.set_epoch(epoch)
    return drawn


@pytest.mark.parametrize(("samples", "batch", "count", "accumulate"), SHAPES)
@pytest.mark.parametrize("epoch", [0, 2])
def test_every_step_takes_the_samples_of_one_process(samples, batch, count, accumulate, epoch, monkeypatch):
    sampler = SeedableRandomSampler(range(samples), data_seed=3)
    sampler.set_epoch(epoch)
    order = list(sampler)
    expected = [sorted(order[start : start + batch]) for start in range(0, samples, batch)]
    found: list[list[int]] = [[] for _ in expected]
    shares = torch.zeros(len(expected))
    for rank in range(count):
        mine = batches_of(samples, batch, count, accumulate, rank, monkeypatch, epoch)
        drawn = list(mine)
        assert len(drawn) == len(mine) == len(expected) * accumulate, "every process has equally many, or one waits"
        assert min(map(len, drawn)) > 0
        for step in range(len(expected)):
            rows, whole = mine.rows(step + epoch * len(expected))
            assert whole == len(expected[step])
            for part, count_of_part in zip(drawn[step * accumulate : (step + 1) * accumulate], rows, strict=True):
                found[step] += part[:count_of_part]
                shares[step] += count_of_part / whole
    assert [sorted(step) for step in found] == expected
    assert torch.allclose(shares, torch.ones(len(expected)))


def test_a_part_differs_by_at_most_one_sample(monkeypatch):
    sizes = [batches_of(32, 18, 2, 3, rank, monkeypatch).rows(1)[0] for rank in (0, 1)]
    assert sizes == [[3, 2, 2], [3, 2, 2]]
