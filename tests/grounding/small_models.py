"""A generator of few weights, random ones, written as `ground` writes its own."""

from pathlib import Path
from types import SimpleNamespace

import torch

from src.grounding.models import denoiser
from src.grounding.models.denoiser import Denoiser, Scaling

SIDE = 16
SCALING = Scaling([0.1] * 4, [0.05] * 4, [-12.0, -18.0], [4.0, 4.0], [0.05] * 4)
FACTS = {
    "sar": {"product": "RTC", "coefficient": "gamma0", "clip_db": [-25.0, 0.0]},
    "opt_v2": "given",
    "simulated": False,
    "steps": 2,
}


def generator(prediction: str = "sample") -> Denoiser:
    torch.manual_seed(0)
    settings = SimpleNamespace(width=16, heads=2, depth=1, patch_px=4, train_steps=50, prediction=prediction)
    return denoiser.build(settings, SIDE, SCALING, sees_sar=True).eval()


def write(folder: Path, **facts) -> Path:
    folder.mkdir(parents=True)
    denoiser.save(folder, generator(), FACTS | facts)
    return folder
