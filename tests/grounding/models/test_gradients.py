"""Gradients, despeckling and correlation by hand."""

import math

import pytest
import torch

from src.grounding.models import gradients
from tests.grounding.images import noise, speckled, steps, valid


def test_gradient_of_a_slope_and_of_a_border_that_two_bands_have_with_opposite_signs():
    slope = torch.arange(6.0).repeat(6, 1)[None, None] * 0.1
    assert gradients.gradient_magnitude(slope)[0, 0, 2, 2].item() == pytest.approx(0.1, rel=1e-4)
    both = torch.cat([steps(8, 0.0, 0.3, 4), steps(8, 0.4, 0.0, 4)], 1)  # the mean of both bands hardly changes
    # Sobel's (1 + 2 + 1) / 8 of the step, on the two columns beside it
    assert gradients.gradient_magnitude(both)[0, 0, 3].tolist() == pytest.approx(
        [1e-6, 1e-6, 1e-6, 0.25, 0.25, 1e-6, 1e-6, 1e-6], rel=1e-4
    )


def test_despeckling_averages_power_and_leaves_out_what_is_not_valid():
    sar = torch.full((1, 2, 5, 5), 0.0)
    sar[0, :, 2, 2] = 10.0  # dB: ten times the power
    mask = valid(1, 5)
    mask[0, 2, 1] = False
    sar[0, :, 2, 1] = float("nan")
    found = gradients.despeckled(sar, mask)
    assert found[0, 0, 2, 2].item() == pytest.approx(10 * math.log10((7 + 10) / 8), abs=1e-4)
    assert found.isfinite().all() and found[0, 0, 0, 4].item() == 0
    assert (gradients.despeckled(sar, torch.zeros_like(mask)) == 0).all()


def test_texture_is_the_local_standard_deviation_whatever_the_level():
    checked = (torch.arange(20)[:, None] + torch.arange(20)) % 2 * 0.2
    found = gradients.texture(checked[None, None] - 20.0, valid(1, 20))[0, 0, 10, 10].item()
    assert found == pytest.approx(0.2 * math.sqrt(12 / 25 * 13 / 25), rel=1e-3)


def test_correlation_by_hand():
    one = torch.tensor([1.0, 2.0, 3.0, 100.0]).view(1, 1, 2, 2)
    other = torch.tensor([1.0, 3.0, 2.0, -7.0]).view(1, 1, 2, 2)
    weight = torch.tensor([1.0, 1.0, 1.0, 0.0]).view(1, 2, 2)
    assert gradients.correlation(one, other, weight).item() == pytest.approx(0.5)
    assert gradients.correlation(one, -one, weight).item() == pytest.approx(-1)
    assert gradients.correlation(one, torch.full_like(one, 0.3), weight).item() == 0
    assert gradients.correlation(one, other, 0 * weight).item() == 0


def test_only_pixels_with_eight_valid_neighbours_have_a_gradient():
    mask = valid(1, 7)
    mask[0, 0, 0] = False
    expected = torch.zeros(7, 7, dtype=torch.bool)
    expected[1:6, 1:6] = True
    expected[1, 1] = False
    assert torch.equal(gradients.inner(mask)[0], expected)


def test_what_is_not_valid_changes_nothing_and_gets_no_gradient():
    image, sar, mask = noise(1, 4, 16, 16, seed=0), speckled(torch.zeros(1, 2, 16, 16), 4, 1), valid(1, 16)
    mask[0, 3:7, 3:7] = False

    def score(optical, radar):
        edges = gradients.gradient_magnitude(gradients.filled(optical, mask))
        return gradients.correlation(
            edges, gradients.gradient_magnitude(gradients.despeckled(radar, mask)), gradients.inner(mask)
        )

    changed, radar = image.clone(), sar.clone()
    changed[..., 3:7, 3:7], radar[..., 3:7, 3:7] = float("nan"), float("nan")
    assert torch.equal(score(image, sar), score(changed, radar))
    changed.requires_grad_()
    score(changed, radar).sum().backward()
    assert (changed.grad[..., 3:7, 3:7] == 0).all() and changed.grad.isfinite().all() and changed.grad.any()
