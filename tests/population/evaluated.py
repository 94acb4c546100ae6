"""Inputs of the evaluate stage, made up, and a run of it whose models answer from the truth with noise."""

import shutil
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
from safetensors.numpy import save

from src.core.data.band_statistics import band_statistics
from src.core.stage import files
from src.population import baselines, evaluate, pca
from src.population.evaluation import group_scores, predictors
from tests.tiles import write_store

TILES, BLOCKS = 96, 24
GROUPS = [group.name for group in predictors.MODEL]


def role_of(block: int) -> str:
    return "test" if block % 2 == 0 else "validation" if block % 6 == 1 else "train"


def write_inputs(folder, make_params):
    """Everything that evaluate reads, below `folder`: a store whose band means explain the label, a split by blocks,
    baselines, and two models without weights. The namespace holds `folder`, the table `split` and the labels `y`."""
    generator = np.random.default_rng(0)
    level = generator.integers(-60, 60, TILES)
    pixels = generator.integers(-20, 20, (TILES, 4, 6, 6)) + level[:, None, None, None]
    pixels[:, 1] = generator.integers(-90, 90, (TILES, 6, 6))  # a band that says nothing
    y = 0.2 * level + 9 + generator.normal(0, 1, TILES)
    years = np.where(np.arange(TILES) % 4 == 0, 1990, 1980)
    store = write_store(
        folder / "tiles",
        pixels.astype(np.int8),
        lat=30 + generator.uniform(0, 15, TILES),
        lon=-100 + generator.uniform(0, 20, TILES),
        growth_rate=y,
        year=years,
    )
    block = np.arange(TILES) % BLOCKS
    split = store.tiles[["tile", "tile_id", "lat", "lon"]].assign(
        place=store.tiles.province + "/" + store.tiles.city,
        block=[f"b{number:02d}" for number in block],
        role=[role_of(number) for number in block],
    )
    split.loc[split.tile == 3, "role"] = "buffer"
    split.loc[split.block == "b03", "role"] = "locked"
    (folder / "split").mkdir()
    split.to_parquet(folder / "split" / "split.parquet")
    samples = store.samples.merge(split[["tile", "place", "block", "role"]], on="tile").assign(tile_year=years)
    samples.to_parquet(folder / "split" / "samples.parquet")
    is_train = (split.role == "train").to_numpy()
    train = y[is_train]
    mean, sd = (array.astype(np.float32) for array in band_statistics(store, np.flatnonzero(is_train)))
    (folder / "split" / "statistics.safetensors").write_bytes(save({"mean": mean, "sd": sd}))
    roles = split.role.value_counts().to_dict()
    facts = {
        "task": "new_place",
        "origin": None,
        "horizon": None,
        "step_years": 10,
        "locked": {"places": 4, "provinces": ["<b>locked"]},
        "method": "blocks",
        "seed": 0,
        "folds": 5,
        "fold": 2,
        "unit": "block",
        "block_degrees": 5.0,
        "buffer_km": 100.0,
        "retrospective_tiles": False,
        "counts": roles,
        "samples": roles,
        "units": split.groupby("role").block.nunique().to_dict(),
        "hash": "abc",
        "label_mean": float(train.mean()),
        "label_sd": float(train.std()),
    }
    audit = dict.fromkeys(group_scores.AUDIT, 0) | {"nearest_train_test_km": 123.4}
    audit.pop("pca_difference")
    matching = {
        "tiles": TILES,
        "samples": TILES,
        "crop": {"size": 6, "smallest_side": 6, "largest_side": 7},
        "flipped": [],
        "years": [1980, 1990],
        "places": {place: {"tiles": [1980], "labels": [1980, 1990]} for place in split.place},
        "nearest": [{"province": "<b>", "city": "x", "label_year": 1990, "tile_year": 1980}],
        "unmatched_tiles": [],
        "unmatched_labels": [],
    }
    files.write_json(folder / "split" / "split.json", facts)
    files.write_json(folder / "split" / "audit.json", audit)
    files.write_json(folder / "tiles" / "matching.json", matching)
    settings = {"split_hash": "abc", "side": 6, "pretrained_on": "train", "band_mean": [0.0] * 64, "bands": 4}
    settings |= {"language": "zh", "prompt": "预测 {year} 年的人口增长率 ```"}
    values = {"threads": 1, "baselines.networks": [], "baselines.permutations": 7, "baselines.budget": 3}
    inputs = SimpleNamespace(**{name: folder / name for name in ("tiles", "split", "pca", "baselines")})
    baselines.main(make_params(values), inputs, SimpleNamespace(out=inputs.baselines, plots=folder / "b"))
    pca.main(make_params(values), inputs, SimpleNamespace(out=inputs.pca))
    for name in ("sft", "dpo"):
        (folder / name).mkdir()
        files.write_json(folder / name / "bandwise.json", settings)
    for kind in ("train", "validation"):
        series = folder / "curves" / "sft" / "plots" / "metrics" / kind / "loss.tsv"
        series.parent.mkdir(parents=True)
        series.write_text("step\tloss\n1\t2.5\n2\t1.5\n")

    (folder / "curves" / "dpo").mkdir()
    files.write_json(folder / "curves" / "dpo" / "pairs.json", {"train_pairs": 120, "reward_accuracy": 0.6})
    return SimpleNamespace(folder=folder, split=split, y=y)


def make_run(inputs, folder, make_params, monkeypatch):
    """`run(name)` evaluates a copy of `inputs` in `folder` into the folder `name` there; the models' answers are made
    up by `run.fake`."""
    shutil.copytree(inputs.folder, folder, dirs_exist_ok=True)

    def group_predictions(sft, dpo, store, samples, settings, prefs, seed):
        assert (prefs.temperature, prefs.top_p) == (0.7, 0.9)
        noise = np.random.default_rng(seed).normal(0, 2, (len(samples), len(GROUPS)))
        # An index of its own: rows are matched by position.
        values = pd.DataFrame(samples.growth_rate.to_numpy()[:, None] + noise, columns=GROUPS)
        values.loc[::7, "text"] = np.nan
        drawn = values.to_numpy()[:, :1] + np.array([-1.0, 2.0, np.nan])
        texts = {"answer_text": "预测值：1.00‰", "answer_dpo": "预测值：2.00‰"}
        return values.assign(**texts, text_samples=list(drawn), dpo_samples=list(drawn))

    def control_predictions(folder, store, samples, settings, seed):
        noise = np.random.default_rng(seed).normal(9, 2, (len(samples), 6))
        return pd.DataFrame(
            noise, columns=[f"{part}_{name}" for name in predictors.CONTROLS for part in ("head", "text")]
        )

    fake = ModuleType("src.population.models.inference")
    fake.group_predictions = group_predictions
    controls = ModuleType("src.population.evaluation.controls")
    controls.control_predictions = control_predictions
    monkeypatch.setitem(sys.modules, "src.population.models.inference", fake)
    monkeypatch.setitem(sys.modules, "src.population.evaluation.controls", controls)
    monkeypatch.setattr(evaluate.run, "set_threads", lambda count: None)

    def call(name="run", dry_run=False, changes=None, final=False):
        folders = {name: folder / name for name in ("tiles", "split", "pca", "baselines", "sft", "dpo", "curves")}
        into = folder / name
        out = SimpleNamespace(metrics=into / "m.json", out=into / "report", plots=into / "plots")
        evaluate.main(make_params(changes), SimpleNamespace(**folders, final=final), out, dry_run)
        return out

    call.folder, call.fake, call.split, call.y = folder, fake, inputs.split, inputs.y
    return call
