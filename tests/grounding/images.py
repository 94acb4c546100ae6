"""Made-up images for tests: speckle over even ground, and edges that two sensors share."""

import torch


def valid(rows: int = 1, side: int = 32) -> torch.Tensor:
    return torch.ones(rows, side, side, dtype=torch.bool)


def speckled(backscatter: torch.Tensor, looks: float, seed: int) -> torch.Tensor:
    """dB of a power that is `backscatter` (dB) times gamma noise of mean 1."""
    generator = torch.Generator().manual_seed(seed)
    gamma = torch._standard_gamma(torch.full_like(backscatter, looks), generator=generator) / looks
    return backscatter + 10 * gamma.log10()


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def steps(side: int = 32, low: float = 0.0, high: float = 1.0, at: int = 16) -> torch.Tensor:
    """(1, 1, side, side): `low` left of column `at`, `high` from there on."""
    image = torch.full((1, 1, side, side), low)
    image[..., at:] = high
    return image
