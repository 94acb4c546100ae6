"""The five losses against cases worked by hand."""

import pytest
import torch

from src.grounding.models import losses
from tests.grounding.images import noise, speckled, steps, valid

CLIP = (-30.0, 5.0)
WEIGHTS = {"sar": 1.0, "cycle": 0.5, "identity": 0.3, "lpips": 0.1, "spectral": 1.0}


def shared_edges(rows: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """An optical and a radar image with the same bright square, without speckle."""
    square = torch.zeros(rows, 1, 32, 32)
    square[..., 8:20, 10:26] = 1
    return 0.1 + 0.2 * square.repeat(1, 4, 1, 1), -15 + 10 * square.repeat(1, 2, 1, 1)


def test_sar_consistency_is_low_for_the_same_edges_and_1_for_a_flat_or_unrelated_image():
    optical, sar = shared_edges()
    same = losses.sar_consistency(optical, sar, valid(), CLIP).item()
    moved = losses.sar_consistency(optical.roll((9, 9), (2, 3)), sar, valid(), CLIP).item()
    assert 0 <= same < 0.2 < 0.7 < moved <= 2
    assert losses.sar_consistency(torch.full_like(optical, 0.3), sar, valid(), CLIP).item() == 1
    speckle = speckled(torch.full((4, 2, 128, 128), -12.0), 4, 3)
    unrelated = losses.sar_consistency(noise(4, 4, 128, 128, seed=9), speckle, valid(4, 128), CLIP)
    assert unrelated.mean().item() == pytest.approx(1, abs=0.03)


def test_sar_consistency_does_not_depend_on_contrast_and_has_a_slope_that_lowers_it():
    optical, sar = shared_edges()
    found = losses.sar_consistency(0.05 + 0.5 * optical, sar, valid(), CLIP)
    torch.testing.assert_close(found, losses.sar_consistency(optical, sar, valid(), CLIP), atol=1e-3, rtol=0)
    start = (optical + 0.05 * noise(1, 4, 32, 32, seed=1)).requires_grad_()
    before = losses.sar_consistency(start, sar, valid(), CLIP)
    before.sum().backward()
    after = losses.sar_consistency(start - 0.02 * start.grad / start.grad.abs().max(), sar, valid(), CLIP)
    assert start.grad.isfinite().all() and after.item() < before.item()
    flat = torch.full((1, 4, 32, 32), 0.3, requires_grad=True)
    losses.sar_consistency(flat, sar, valid(), CLIP).sum().backward()
    assert flat.grad.isfinite().all()


def test_backscatter_weighs_edges():
    sar = torch.stack([torch.full((2, 2), value) for value in (-30.0, -12.5, 5.0, 9.0)])[:, None].repeat(1, 2, 1, 1)
    assert losses.backscatter_weight(sar, CLIP)[:, 0, 0].tolist() == [0, 0.5, 1, 1]
    # The left half agrees and is bright; in the right one, at the noise floor, the optical edge is not the radar's.
    optical = torch.cat([steps(32, 0.1, 0.3, 12), steps(32, 0.1, 0.3, 12)], 3).repeat(1, 4, 1, 1)
    bright = torch.cat([steps(32, -10, 5, 12), steps(32, -10, 5, 24)], 3).repeat(1, 2, 1, 1)
    dark = torch.cat([steps(32, -10, 5, 12), steps(32, -30, -28, 24)], 3).repeat(1, 2, 1, 1)
    found = [losses.sar_consistency(optical, sar, torch.ones(1, 32, 64).bool(), CLIP).item() for sar in (bright, dark)]
    assert found[1] < found[0] - 0.1


def test_means_over_bands_and_the_pixels_that_count():
    first = torch.zeros(2, 4, 2, 2)
    predicted = torch.full_like(first, 0.2)
    predicted[0, 0, 0, 0] = 1.0
    known = torch.ones(2, 2, 2, dtype=torch.bool)
    known[1] = False
    predicted[1] = float("nan")
    expected = pytest.approx([(15 * 0.2 + 1) / 16, 0])
    assert losses.cycle(predicted, first, known).tolist() == expected
    assert losses.spectral(predicted, first, known).tolist() == expected


def test_identity_counts_where_the_radar_says_little():
    first, predicted = torch.zeros(1, 4, 1, 2), torch.tensor([0.1, 0.4]).expand(1, 4, 1, 2)
    known, confidence = torch.ones(1, 1, 2).bool(), torch.tensor([[[1.0, 0.25]]])
    assert losses.identity(predicted, first, known, confidence).item() == pytest.approx(0.75 * 0.4 / 2)
    assert losses.identity(predicted, first, known, torch.ones(1, 1, 2)).item() == 0


def test_confidence_tells_an_edge_from_speckle():
    even = speckled(torch.full((1, 2, 200, 200), -12.0), 4, 0)
    assert losses.sar_confidence(even, valid(1, 200), 4).mean().item() == pytest.approx(0.07, abs=0.02)
    edge = speckled(steps(200, -15.0, -5.0, 100).repeat(1, 2, 1, 1), 4, 0)
    found = losses.sar_confidence(edge, valid(1, 200), 4)[0]
    assert found[:, 99:101].mean().item() == pytest.approx(0.75, abs=0.04)  # 1 - 0.25 / 1.09 by hand: 0.77
    assert found[:, :90].mean().item() == pytest.approx(0.07, abs=0.02)
    assert (losses.sar_confidence(torch.full((1, 2, 9, 9), -12.0), valid(1, 9), 4) == 0).all()
    none = torch.zeros(1, 9, 9, dtype=torch.bool)
    assert (losses.sar_confidence(torch.full((1, 2, 9, 9), torch.nan), none, 4) == 0).all()


def batch(rows: int) -> list[torch.Tensor]:
    """Arguments of `total`, some pixels missing or not valid."""
    images = [noise(rows, 4, 24, 24, seed=seed) for seed in range(3)]
    sar = speckled(torch.full((rows, 2, 24, 24), -12.0), 4, 3)
    return [*images, sar, noise(rows, 24, 24, seed=4) > 0.1, noise(rows, 24, 24, seed=5) > 0.8]


def test_total_is_the_weighted_sum_and_holes_are_nothing_to_stay_near_to():
    arguments = batch(3)
    loss, parts = losses.total(*arguments, weights=WEIGHTS, clip_db=CLIP, looks=4)
    assert set(parts) == {"sar", "cycle", "identity", "spectral"}  # without its weights LPIPS is off
    assert loss.item() == pytest.approx(sum(WEIGHTS[name] * value.item() for name, value in parts.items()))
    filled = list(arguments)
    filled[2] = torch.where(arguments[5][:, None], 7.0, arguments[2])
    torch.testing.assert_close(losses.total(*filled, weights=WEIGHTS, clip_db=CLIP, looks=4)[0], loss)


def test_total_of_a_batch_is_the_mean_of_its_rows():
    arguments = batch(3)
    arguments[4][0, :20] = False  # rows with few and with many valid pixels count alike

    def of(rows: slice) -> float:
        return losses.total(*(one[rows] for one in arguments), weights=WEIGHTS, clip_db=CLIP, looks=4)[0].item()

    assert of(slice(0, 3)) == pytest.approx((of(slice(0, 1)) + 2 * of(slice(1, 3))) / 3, rel=1e-5)


def test_perceptual_sees_natural_colour_and_valid_pixels_alone():
    def distance(one, other):
        assert one.shape[1] == 3 and one.min() >= 0 and one.max() <= 1
        return (one - other).abs().mean((2, 3))[:, 0]  # of red

    truth = torch.full((1, 4, 2, 2), 0.2)
    predicted = truth.clone()
    predicted[0, 2, 0, 0] = 0.3  # red: B04
    predicted[0, :, 1, 1] = torch.nan
    mask = torch.tensor([[[True, True], [True, False]]])
    assert losses.perceptual(predicted, truth, mask, distance).item() == pytest.approx(2.5 * 0.1 / 4, rel=1e-5)
    arguments = batch(2)
    found = losses.total(*arguments, weights=WEIGHTS, clip_db=CLIP, looks=4, distance=distance)[1]
    assert found["lpips"] > 0
