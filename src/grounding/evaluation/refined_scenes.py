"""Images of test scenes by every predictor of the list, from the networks that the trainings left."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from zlib import crc32

import numpy as np

from src.grounding.data.degradation import degrade, fill_bicubic, fill_telea
from src.grounding.data.scene_store import Scene
from src.grounding.evaluation.predictors import MAIN, PREDICTORS, SHUFFLED, ZEROED, Predictor
from src.grounding.models import denoiser, regression
from src.grounding.models.denoiser import Denoiser
from src.grounding.models.regression import Regression
from src.grounding.models.whole_scene import refine_scene
from src.grounding.params import Degradation, Params

FILLED = {"bicubic": fill_bicubic, "telea": fill_telea}
KINDS = ("blur_px", "noise", "haze", "holes")


@dataclass(frozen=True)
class Networks:
    """The trained networks, by the names that `predictors.PREDICTORS` gives to their weights."""

    adapted: Denoiser
    pretrained: Denoiser
    without_radar: Denoiser
    regression: Regression


def load(base: Path, grounded: Path, controls: Path) -> Networks:
    """Networks of the stages pretrain, ground and controls."""
    return Networks(
        denoiser.load(grounded)[0],
        denoiser.load(base)[0],
        denoiser.load(controls / "no_sar_network")[0],
        regression.load(controls / "regression_unet"),
    )


def draw(one: Predictor, scene: Scene, other: Scene, networks: Networks, params: Params, samples: int) -> np.ndarray:
    """(samples, 4, H, W) images of a scene by one predictor; a single one where it does not draw.

    Args:
        other: the scene whose radar image is given in place of the scene's own, where the predictor says so.
    """
    if not one.weights:
        fill = FILLED.get(one.name)
        return (fill(scene.first_guess, scene.missing) if fill else scene.first_guess)[None]
    if one.radar == SHUFFLED:
        scene = replace(scene, sar=tiled_to(other.sar, scene.valid.shape))
    elif one.radar == ZEROED:
        level = np.array(networks.adapted.scaling.sar_mean, np.float32)[:, None, None]
        scene = replace(scene, sar=np.broadcast_to(level, scene.sar.shape))
    network = getattr(networks, one.weights)
    seed = crc32(f"{params.seed} {scene.name}".encode())  # or all scenes would share one draw, and its luck
    return refine_scene(scene, network, params.model.steps, params.infer.overlap_px, samples, seed)


def tiled_to(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(C, h, w) repeated and cut to (C, *shape), so that scenes of other sizes can stand in."""
    repeats = [-(-side // have) for side, have in zip(shape, image.shape[1:], strict=True)]
    return np.tile(image, (1, *repeats))[:, : shape[0], : shape[1]]


def by_kind(scenes: list[Scene], networks: Networks, params: Params) -> Iterator[tuple[str, str, Scene, np.ndarray]]:
    """Kind of degradation, predictor, scene and (4, H, W) image, where a scene has that one kind alone.

    Each kind has the strengths of `degrade.ground`; the scene is degraded anew, with its first guess replaced. Of each
    network one image is drawn.
    """
    shown = [one for one in PREDICTORS if one.name in (MAIN, "regression_unet", "opt_v2", *FILLED)]
    for kind in KINDS:
        strengths = only(kind, params.degrade.ground)
        for scene in scenes:
            generator = np.random.default_rng([params.degrade.seed, crc32(scene.name.encode())])
            guess, missing, _ = degrade(scene.optical, scene.valid, strengths, generator)
            degraded = replace(scene, first_guess=guess, missing=missing)
            for one in shown:
                yield kind, one.name, degraded, draw(one, degraded, degraded, networks, params, 1)[0]


def only(kind: str, strengths: Degradation) -> Degradation:
    """`strengths` with every other kind switched off."""
    return Degradation(**{name: list(value) if name == kind else [0.0, 0.0] for name, value in strengths})
