"""A small study that the population tests share: real tiles and labels, read by the real stages.

48 places, each in its own block, 8 bands of 16 x 16 int8. Growth depends on the means of two bands. The first tile
has no label, so that what confuses a sample with a tile shows.
"""

import contextlib
import io
import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForImageTextToText

from src.core.data.quantisation import NODATA
from src.core.data.tile_store import Store
from src.core.stage.params import validate
from src.population import dpo, pca, preprocess, pretrain, sft, split
from src.population.data import stage_inputs as stage_inputs
from src.population.models import finetuning, prompts
from src.population.models.starting_model import starting_model
from src.population.params import Params
from tests import qwen_folders
from tests.conftest import make_population_params
from tests.pipelines import values_of
from tests.population import evaluated
from tests.shared import shared_folder
from tests.tiles import write_geotiff

PLACES, BANDS, SIDE = 48, 8, 16
SCALE = 0.02
CONTROL = "<|im_start|>system"
SMALL = {
    "threads": 1,
    "split.lock": None,
    "split.block_degrees": 5,
    "split.folds": 5,
    "model.bands": BANDS,
    "data.max_unmatched": 1,
    "model.tiny": {
        "patch_size": 2,
        "vision_depth": 2,
        "vision_width": 32,
        "vision_heads": 2,
        "text_depth": 2,
        "text_width": 32,
        "text_heads": 2,
    },
    "pretrain.epochs": 2,
    "pretrain.batch_size": 8,
    "pretrain.save_steps": 3,
    "pretrain.decoder": {"depth": 1, "width": 32, "heads": 2},
    "sft.head_width": 16,
    "sft.epochs": 2,
    "sft.freeze_encoder_epochs": 1,
    "sft.batch_size": 8,
    "sft.save_steps": 3,
    "sft.patience": 100,
    "prefs.min_margin": 0.0,
    "dpo.epochs": 2,
    "dpo.batch_size": 8,
    "dpo.lr": 0.001,
    "dpo.save_steps": 3,
    "sft.head": "anchored",
    "baselines.networks": ["cnn"],
    "baselines.epochs": 2,
    "baselines.budget": 2,
    "baselines.permutations": 9,
    "evaluate.text_samples": 2,
    "evaluate.grid_points": 5,
}


def sft_rates(rate: float, encoder: float = 0.0005) -> dict:
    """`sft.lr` with one rate for language model, merger and head, and one for the encoder."""
    groups = dict.fromkeys(("language", "merger", "head"), rate) | dict.fromkeys(("blocks", "patch_embed"), encoder)
    return {"tiny": groups, "pretrained": groups}


def pretrain_rates(rate: float) -> dict:
    """`pretrain.lr` with one rate for all."""
    groups = dict.fromkeys(("patch_embed", "blocks", "decoder"), rate)
    return {"tiny": groups, "pretrained": groups}


def small_values(changes: dict | None = None) -> dict:
    """The committed params.yaml with SMALL and then `changes`, as nested values."""
    return values_of("population", SMALL | (changes or {}))


def small_params(changes: dict | None = None) -> Params:
    return validate(small_values(changes), Params, where="small")


def write_study(folder: Path, side: int = SIDE) -> Namespace:
    """GeoTIFFs, labels.csv and aliases.csv below `folder`."""
    generator = np.random.default_rng(3)
    means = generator.integers(-60, 60, (PLACES + 1, BANDS))
    rows = []
    for number, mean in enumerate(means):
        pixels = mean[:, None, None] + generator.integers(-30, 31, (BANDS, side, side))
        pixels = pixels.astype(np.int8)
        if number % 5 == 0:
            pixels[:, : 3 + number % 4, :7] = NODATA
        province, city = f"P{number % 4}", f"C{number:02d}"
        # 5 degrees are one block: no two places share one, and none lies in another's buffer.
        lat, lon = 22.0 + 6 * (number // 8), -120.0 + 6 * (number % 8)
        path = folder / "raw" / province / city / f"2020_{city}.tif"
        tags = {"quantisation": "linear", "scale": SCALE}
        names = [f"A{band:02d}" for band in range(BANDS)]
        size = 0.04 * SIDE / side  # degrees, so that the ground is the same
        write_geotiff(path, pixels, tags, lat=lat, lon=lon, pixel_size=size, nodata=NODATA, band_names=names)
        if number == 0:
            continue  # a tile without a label
        growth = 5 + 0.1 * mean[1] - 0.06 * mean[4] + generator.normal(0, 0.3)
        rows.append(f"{province},{city},2020,{growth:.4f},{'coast' if number % 2 else CONTROL}")
    text = "\n".join(["province,city,year,growth_rate,note", *generator.permutation(rows)]) + "\n"
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    (folder / "aliases.csv").write_text("kind,found,use\n", encoding="utf-8")
    return Namespace(tiles=folder / "raw", labels=folder / "labels.csv", aliases=folder / "aliases.csv")


def prepare(folder: Path, params: Params, side: int = SIDE) -> Namespace:
    """Everything before the first network: a namespace with the folders tiles, split and pca."""
    paths = Namespace(tiles=folder / "tiles", split=folder / "split", pca=folder / "pca")
    preprocess.main(params, write_study(folder, side), Namespace(out=paths.tiles))
    split.main(params, Namespace(tiles=paths.tiles), Namespace(out=paths.split))
    pca.main(params, Namespace(tiles=paths.tiles, split=paths.split), Namespace(out=paths.pca))
    return paths


def begin(params: Params, study: Namespace) -> Namespace:
    """Start of a training stage: vlm, tokenizer, front and settings, nothing trained."""
    store = Store.open(study.tiles)
    split, projection = stage_inputs.read_split(study.split, store), stage_inputs.read_pca(study.pca)
    vlm, tokenizer, front = starting_model(params, store, split, projection)
    settings = finetuning.make_settings(params, store, split, front)
    return Namespace(vlm=vlm, tokenizer=tokenizer, front=front, settings=settings)


def run_pretrain(study: Namespace, folder: Path, changes: dict | None = None, dry_run: bool = False) -> Path:
    params = small_params({"checkpoint_root": str(folder / "checkpoints")} | (changes or {}))
    out = Namespace(out=folder / "pretrain", plots=folder / "plots" / "pretrain")
    pretrain.main(params, study, out, dry_run)
    return out.out


def run_sft(study: Namespace, pretrained: Path, folder: Path, changes: dict | None = None, dry_run=False) -> Path:
    params = small_params({"checkpoint_root": str(folder / "checkpoints")} | (changes or {}))
    out = Namespace(out=folder / "sft", plots=folder / "plots" / "sft")
    sft.main(params, Namespace(**vars(study), pretrain=pretrained), out, dry_run)
    return out.out


def run_dpo(
    study: Namespace, model: Path, prefs: Path, folder: Path, changes: dict | None = None, dry_run: bool = False
) -> Path:
    params = small_params({"checkpoint_root": str(folder / "checkpoints")} | (changes or {}))
    inputs = Namespace(tiles=study.tiles, split=study.split, prefs=prefs, model=model)
    out = Namespace(out=folder / "dpo", plots=folder / "plots" / "dpo")
    dpo.main(params, inputs, out, dry_run)
    return out.out


def train_small(study: Namespace, folder: Path) -> None:
    """`pretrain` and `sft` folders of a short run below `folder`, their `plots`, and hand-made `prefs`."""
    pretrained = run_pretrain(study, folder)
    run_sft(study, pretrained, folder)
    rows = stage_inputs.read_split(study.split, Store.open(study.tiles))
    write_pairs(folder / "prefs", {role: rows.rows(role) for role in ("train", "validation")})


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """Every weight of a model folder by its name in the model, as plain transformers reads it."""
    return AutoModelForImageTextToText.from_pretrained(folder).state_dict()


def group_of(name: str) -> str:
    """The part of the model that a weight belongs to."""
    if "merger" in name:
        return "merger"
    return "encoder" if "visual." in name else "language"


def moved_groups(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Parts with a weight that differs."""
    assert before.keys() == after.keys()
    return {group_of(name) for name in before if not torch.equal(before[name], after[name])}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_pairs(folder: Path, rows: dict[str, pd.DataFrame], language: str = "zh") -> Path:
    """Preference pairs as the prefs stage writes them: the truth against a value 3 above or below it."""
    folder.mkdir(parents=True)
    for role, part in rows.items():
        pairs = [
            {
                "sample": int(row.sample),
                "chosen": prompts.answer(row.growth_rate, language),
                "rejected": prompts.answer(row.growth_rate + (3 if row.sample % 2 else -13), language),
            }
            for row in part.itertuples()
        ]
        lines = [json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs]
        (folder / f"{role}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Namespace:
    """Folders tiles, split and pca."""
    folder = shared_folder(tmp_path_factory, "study", lambda folder: prepare(folder, small_params()))
    return Namespace(**{name: folder / name for name in ("tiles", "split", "pca")})


@pytest.fixture(scope="session")
def store(study) -> Store:
    return Store.open(study.tiles)


@pytest.fixture(scope="session")
def split_of(study, store) -> stage_inputs.Split:
    return stage_inputs.read_split(study.split, store)


@pytest.fixture(scope="session")
def trained(study, tmp_path_factory) -> Namespace:
    """Folders pretrain, sft, prefs and plots of a short run."""
    folder = shared_folder(tmp_path_factory, "trained", lambda folder: train_small(study, folder))
    return Namespace(**{name: folder / name for name in ("pretrain", "sft", "prefs", "plots")})


@pytest.fixture(scope="session")
def evaluate_inputs(tmp_path_factory) -> Namespace:
    """Everything that evaluate reads."""
    return evaluated.write_inputs(tmp_path_factory.mktemp("inputs"), make_population_params)


@pytest.fixture
def run(evaluate_inputs, tmp_path, monkeypatch):
    """`run()` evaluates a copy of the inputs that a test may change."""
    return evaluated.make_run(evaluate_inputs, tmp_path, make_population_params, monkeypatch)


@pytest.fixture(scope="session")
def scored(evaluate_inputs, tmp_path_factory) -> Namespace:
    """Metrics, report and plots of unchanged inputs, with what `run` has; `printed` is the standard output."""
    folder = tmp_path_factory.mktemp("scored")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        run = evaluated.make_run(evaluate_inputs, folder, make_population_params, patch)
        return Namespace(**vars(run()), folder=folder, split=run.split, y=run.y, printed=printed.getvalue())


@pytest.fixture(scope="session")
def wide(tmp_path_factory) -> Namespace:
    """The small study with tiles of 64 px: 2 x 2 merge units of a published backbone."""
    return prepare(tmp_path_factory.mktemp("wide"), small_params(), side=64)


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """`hub(family)` -> a folder as it is published."""
    made = {}

    def hub(family: str) -> Path:
        if family not in made:
            made[family] = qwen_folders.write(tmp_path_factory.mktemp(family), family, tied=family == "qwen2_vl")
        return made[family]

    return hub
