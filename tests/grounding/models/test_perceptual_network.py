"""LPIPS is off, or has the weights of the file; a package that stands in for lpips has two layers."""

import sys

import pytest
import torch
from safetensors.torch import save_file

from src.core.stage.errors import DataError, DependencyError
from src.grounding.models.perceptual_network import read_lpips

STAND_IN = """
import torch

class LPIPS(torch.nn.Module):
    def __init__(self, net, pnet_rand, verbose):
        super().__init__()
        assert pnet_rand
        self.net = torch.nn.Module()
        self.net.slice1 = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 1))
        self.net.slice2 = torch.nn.Sequential()
        self.net.slice2.add_module("3", torch.nn.Conv2d(1, 1, 1))

    def forward(self, one, other, normalize):
        assert normalize
        first, last = self.net.slice1, self.net.slice2
        return (last(first(one)) - last(first(other))).abs().mean((1, 2, 3), keepdim=True)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "lpips.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "lpips", raising=False)
    yield
    sys.modules.pop("lpips", None)  # or later tests would find it installed


def weights(path, **changes):
    layers = {"0": (1, 3, 1, 1), "3": (1, 1, 1, 1)}
    stored = {f"features.{at}.weight": torch.full(shape, 2.0) for at, shape in layers.items()}
    stored |= {f"features.{at}.bias": torch.zeros(1) for at in layers} | {"classifier.1.weight": torch.zeros(2)}
    save_file({name: value for name, value in (stored | changes).items() if value is not None}, path)
    return path


def test_off_without_weights_and_refused_without_the_package(tmp_path):
    assert read_lpips(None) is None
    with pytest.raises(DependencyError, match="`lpips_weights`: lpips is not installed; run pip install lpips"):
        read_lpips(weights(tmp_path / "alexnet.safetensors"))


def test_weights_are_those_of_the_file(package, tmp_path):
    distance = read_lpips(weights(tmp_path / "alexnet.safetensors"))
    one, other = torch.full((2, 3, 4, 4), 0.5), torch.full((2, 3, 4, 4), 0.25)
    assert distance(one, other).tolist() == pytest.approx([2 * 2 * 3 * 0.25] * 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features.3.weight": None}, "features.3.weight: found none"),
        ({"features.0.weight": torch.zeros(1, 4, 1, 1)}, r"found shape \(1, 4, 1, 1\), expected shape \(1, 3, 1, 1\)"),
    ],
)
def test_no_layer_stays_random(package, tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        read_lpips(weights(tmp_path / "alexnet.safetensors", **changes))


def test_other_files_are_named(package, tmp_path):
    (tmp_path / "alexnet.pth").write_bytes(b"\x80\x02pickled")
    for name in ("alexnet.pth", "absent.safetensors"):
        with pytest.raises(DataError, match=f"{name}: `lpips_weights`: found no readable safetensors file"):
            read_lpips(tmp_path / name)
