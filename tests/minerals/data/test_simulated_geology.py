"""Drawn ground: shares, zones, and scenes without alteration."""

import numpy as np
import pytest

from src.minerals.data.simulated_geology import MATERIALS, Ground, dominant, draw, smooth
from src.minerals.mapping.minerals import MINERALS, NAMES

COPPER = [number for number, mineral in enumerate(MINERALS) if mineral.copper]


def drawn(seed: int, barren: bool = False, side: int = 64):
    return draw(np.random.default_rng(seed), side, barren)


@pytest.mark.parametrize("barren", [False, True])
def test_shares_sum_to_one_and_none_is_negative(barren):
    for seed in range(5):
        ground = drawn(seed, barren)
        assert ground.abundance.shape == (64, 64, len(MATERIALS)) and ground.abundance.dtype == np.float32
        np.testing.assert_allclose(ground.abundance.sum(-1), 1, atol=1e-5)
        assert ground.abundance.min() >= 0
        assert ground.iron.min() >= 0 and ground.iron.max() <= 0.7
        assert ground.shade.min() >= 0.3 and ground.shade.max() <= 1.4


def test_flat_ground_is_lit_as_much_as_the_mean_of_many_scenes():
    assert np.mean([drawn(seed).shade.mean() for seed in range(20)]) == pytest.approx(1, abs=0.1)


def test_barren_scenes_have_no_mineral_of_copper_and_others_have_some():
    for seed in range(10):
        assert not drawn(seed, barren=True).abundance[..., COPPER].any()
        assert drawn(seed).abundance[..., COPPER].sum(-1).max() > 0.3


def test_barren_scenes_differ_from_others_by_no_other_cover():
    """Or a model would tell them by their plants."""
    cover = [MATERIALS.index(name) for name in ("green vegetation", "dry grass")]
    with_and_without = [
        np.mean([drawn(seed, barren).abundance[..., cover].sum(-1).mean() for seed in range(20)])
        for barren in (False, True)
    ]
    assert np.diff(with_and_without) == pytest.approx(0, abs=0.01)


def test_zones_lie_around_each_other():
    """Alunite is nearer to kaolinite, which surrounds it, than to chlorite, which is outside."""
    together = np.zeros((len(NAMES), len(NAMES)))
    for seed in range(10):
        present = drawn(seed).abundance[..., : len(NAMES)] > 0.05
        together += np.einsum("hwa,hwb->ab", present.astype(float), present)
    alunite, kaolinite, chlorite = (NAMES.index(name) for name in ("alunite", "kaolinite", "chlorite"))
    assert together[alunite, kaolinite] > 100 > together[alunite, chlorite]


def test_every_mineral_occurs_somewhere():
    most = np.max([drawn(seed).abundance[..., : len(NAMES)].max((0, 1)) for seed in range(20)], axis=0)
    assert (most > 0.3).all()


def test_smooth_noise_has_its_variance_and_length():
    field = np.stack([smooth(np.random.default_rng(seed), 64, 6) for seed in range(30)])
    assert field.std() == pytest.approx(1, abs=0.1)
    near = np.mean(field[:, :, :-6] * field[:, :, 6:])
    assert near == pytest.approx(np.exp(-(6**2) / (4 * 6**2)), abs=0.1)


def test_the_same_seed_draws_the_same_ground():
    one, same, other = drawn(3), drawn(3), drawn(4)
    np.testing.assert_array_equal(one.abundance, same.abundance)
    assert (one.iron == same.iron).all() and (one.shade == same.shade).all()
    assert (one.abundance != other.abundance).any()


def test_a_share_at_the_limit_is_named_and_one_below_is_background():
    abundance = np.zeros((1, 3, len(MATERIALS)), np.float32)
    abundance[0, 0, 2], abundance[0, 1, 2], abundance[0, 2, [4, 5]] = 0.2, 0.19, (0.3, 0.31)
    nothing = np.zeros((1, 3), np.float32)
    assert dominant(Ground(abundance, nothing, nothing)).tolist() == [[3, 0, 6]]
