"""Outputs of the stages and untrained models, and answers that are asked of them by hand."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import safetensors.numpy
import torch

from src.core.stage import params as params_file
from src.minerals import bands, ingest, map, split, tiles
from src.minerals.data import band_table, conversations
from src.minerals.data.cube_store import CubeStore
from src.minerals.models import answering, model_folder, model_inputs, starting_model
from src.minerals.models.mineral_model import MineralModel
from src.minerals.params import Params
from tests.conftest import minerals_params
from tests.minerals.cubes import LIBRARY

KINDS = ("rgb", "bands", "rgb_groups")
SMALL = {"vision_width": 32, "text_width": 32, "text_depth": 1, "vision_depth": 1}
SIDE = 32
LIST, CHINESE = (conversations.QUESTIONS["minerals", language][1] for language in ("en", "zh"))


def run_stages(cubes: Path, params_yaml: Path, folder: Path) -> SimpleNamespace:
    """Outputs of the stages up to `tiles`, of the cubes in a folder, and the params."""
    params = params_file.read(params_yaml, Params)
    paths = SimpleNamespace(root=cubes, library=LIBRARY, params=params)
    for name, stage in {"store": ingest, "bands": bands, "split": split, "map": map, "tiles": tiles}.items():
        stage.main(params, paths, SimpleNamespace(out=folder / name))
        setattr(paths, name, folder / name)
    return paths


def write_models(stages: SimpleNamespace, folder: Path) -> Path:
    """`folder` with an untrained model of each input, as if measured scenes had trained it."""
    store = CubeStore.open(stages.store)
    kept = band_table.read_kept(stages.bands, store)
    statistics = safetensors.numpy.load_file(stages.tiles / "statistics.safetensors")
    about = json.loads((stages.tiles / "settings.json").read_text())
    small = minerals_params({f"model.tiny.{name}": value for name, value in SMALL.items()})
    corpus = [question for asked in conversations.QUESTIONS.values() for question in asked]
    for kind in KINDS:
        settings = model_folder.Settings(
            input=kind, composite="clay", wavelengths=store.wavelengths[kept].tolist(),
            mean=statistics["mean"].tolist(), sd=statistics["sd"].tolist(), stretch=about["stretch"]["clay"],
            tile_px=SIDE, model_px=SIDE, languages=["en", "zh"], altered=0.1, present=0.02,
            pretrained=False, simulated=False, scenes=list(store.scenes),
        )  # fmt: skip
        vlm, tokenizer = starting_model.start(small, int(kept.sum()) if kind == "bands" else 3, SIDE, corpus, False)
        model_folder.save(folder / kind, MineralModel(vlm), tokenizer, settings, folder, torch.float32)
    return folder


def changed(model: Path, folder: Path, **settings) -> Path:
    """A copy of a model in `folder`, with other values in its minerals.json."""
    shutil.copytree(model, folder)
    about = json.loads((folder / "minerals.json").read_text())
    (folder / "minerals.json").write_text(json.dumps(about | settings))
    return folder


def ask(call, source: list, model: Path, question: str) -> None:
    """Ask about the one tile of `source`, from the command line."""
    call(*source, "--model", model, "--ask", question, asked=True)


def by_hand(models: Path, kind: str, stages: SimpleNamespace, tile: str, questions: list[str]) -> list[str]:
    """Answers about a tile of the stages, each question alone."""
    model, tokenizer, settings = model_folder.load(models / kind)
    images = model_inputs.tile_images(kind, stages, stages.params, settings.model_px)
    answerer = answering.Answerer(model, tokenizer, images)
    items = [{"tile": tile, "conversations": [{"value": f"<image>\n{question}"}]} for question in questions]
    return [answerer.answer([item], [tile], 12, "")[0] for item in items]
