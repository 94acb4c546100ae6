"""The network behind the perceptual loss: LPIPS on AlexNet, with weights from a file and never with random ones."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from src.core.stage.errors import DataError, require
from src.grounding.models.losses import Perceptual


def read_lpips(path: str | Path | None) -> Perceptual | None:
    """LPIPS of two colour images; None where no weights are given: the loss is then off.

    The package lpips brings the weights of its last layers. Those of AlexNet it would fetch from the network; here
    they are read from `path`, with the names of torchvision's `alexnet` ("features.0.weight", …).

    Args:
        path: a safetensors file.

    Raises:
        DependencyError: lpips is not installed.
        DataError: the file cannot be read, lacks a layer, or has one of another shape.
    """
    if path is None:
        return None
    require("lpips", "lpips_weights", "null")
    import lpips

    network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)  # pnet_rand: fetches nothing
    _fill(network.net, Path(path))
    network.requires_grad_(False).eval()

    def distance(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        network.to(one.device)
        return network(one, other, normalize=True).flatten()

    return distance


def _fill(backbone: torch.nn.Module, path: Path) -> None:
    """Replace every weight of `backbone`, whose layer "slice2.3.weight" is "features.3.weight" in the file."""
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{path}: `lpips_weights`: found no readable safetensors file ({error}), expected the weights of AlexNet; "
            "save torchvision's `alexnet` as safetensors, or leave it blank"
        ) from error
    weights = {}
    for name, random in backbone.state_dict().items():
        key = "features." + name.split(".", 1)[1]
        if key not in stored or stored[key].shape != random.shape:
            found = f"shape {tuple(stored[key].shape)}" if key in stored else "none"
            raise DataError(
                f"{path}: {key}: found {found}, expected shape {tuple(random.shape)} as in torchvision's `alexnet`; "
                "give the weights of that network"
            )
        weights[name] = stored[key]
    backbone.load_state_dict(weights)
