"""Small stores and networks for tests of evaluation."""

from dataclasses import replace
from pathlib import Path

import torch

from src.grounding.data import scene_store
from src.grounding.data.scene_store import Scene, SceneStore
from src.grounding.evaluation.refined_scenes import Networks
from src.grounding.models import denoiser, regression
from src.grounding.models.denoiser import Scaling
from src.grounding.params import Params

SCALING = Scaling([0.3] * 4, [0.1] * 4, [-12.0, -15.0], [4.0, 5.0], [0.1] * 4)


def write_store(folder: Path, scenes: list[tuple[Scene, str]], **facts) -> SceneStore:
    """A store of `scenes`, a scene with its block each; the role is the scene's."""
    folder.mkdir()
    rows = []
    for scene, block in scenes:
        scene_store.write_scene(folder, scene)
        height, width = scene.valid.shape
        rows.append({
            "name": scene.name, "role": scene.role, "block": block, "height": height, "width": width, "crs": scene.crs,
            "transform": list(scene.transform), "sar_date": "", "optical_date": "", "shift_px": 0.0,
            "valid_share": 1.0, "flags": "",
        })  # fmt: skip
    scene_store.finish(folder, rows, {"simulated": False, "opt_v2": "given"} | facts, {"scenes": {}})
    return SceneStore.open(folder)


def networks(params: Params) -> Networks:
    """Networks of random weights that never trained."""
    torch.manual_seed(0)
    side = params.tiles.tile_px
    generators = [denoiser.build(params.model, side, SCALING, sees).eval() for sees in (True, True, False)]
    return Networks(*generators, regression.build(side, 8, SCALING).eval())


def in_role(scene: Scene, role: str) -> Scene:
    return replace(scene, role=role)
