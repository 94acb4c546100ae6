"""Score the models on the test fold beside baselines and a null; draw the figures, write the report.

    python -m src.population.evaluate --tiles data/population/tiles --split data/population/split \\
        --pca data/population/pca --sft models/population/sft --dpo models/population/dpo \\
        --curves plots/population --metrics metrics/population.json --out reports/population \\
        --plots plots/population/evaluate

Writes metrics/population.json (scores, intervals, audit), reports/population/predictions.parquet
(validation and test rows, a column per group), index.html and model_card.md, and the PNGs in plots/population/evaluate.
This is the only stage that looks at test labels.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from src.core import baselines, files, run, splits
from src.core.errors import DataError
from src.core.store import Store
from src.population import card, page, scoring
from src.population.params import Params


def main(params, inputs, out, dry_run=False):
    """Store, split and two models -> predictions, scores, figures, page."""
    store = Store.open(inputs.tiles)
    facts, audit = (files.read_json(inputs.split / name) for name in ("split.json", "audit.json"))
    rows = label_rows(store, inputs.split)
    settings = {name: read_settings(folder, facts) for name, folder in vars(inputs).items() if name in ("sft", "dpo")}
    counts = rows.role.value_counts()
    print(f"labels: {', '.join(f'{counts.get(role, 0)} {role}' for role in ('train', 'validation', 'test'))}")
    if dry_run:
        passes = 2 * (2 + params.evaluate.text_samples + params.evaluate.grid_points)
        held = counts["validation"] + counts["test"]
        print(f"{held} held-out labels, about {passes} forward passes each; {params.evaluate.resamples} resamples")
        return

    # Imported here: they import torch, which --help and --dry-run do without.
    from src.population.inference import group_predictions

    run.set_threads(params.threads)
    held = rows[rows.role.isin(["validation", "test"])]
    answers = group_predictions(inputs.sft, inputs.dpo, store, held, params.evaluate, params.seed)
    features = baselines.band_means(store, rows.tile.to_numpy(), settings["sft"]["side"])
    null = scoring.predict_baselines(rows, features, params.seed)
    table = predictions_table(held, answers, null.predictions, facts["fold"], params.seed)
    scoring.check_finite(table, str(inputs.sft))

    transductive = settings["sft"]["pretrained_on"] == "all"
    scores = scoring.assess(table, null, facts, audit, transductive, params.evaluate.resamples, params.seed)
    scores["dpo"] |= files.read_json(inputs.curves / "dpo" / "pairs.json")
    masked = inputs.curves / "pretrain" / "masked_mse.json"
    scores["pretrain"] = {"masked_mse": files.read_json(masked) if masked.exists() else None}
    curves = page.read_curves(inputs.curves)
    used = {"seed": params.seed, "threads": params.threads, "data": params.data.model_dump()}
    used |= {"memory": params.memory.model_dump()}
    used |= {"split": facts, "model": params.model.model_dump(), "pretrain": params.pretrain.model_dump()}
    used |= {"sft": params.sft.model_dump(), "prefs": params.prefs.model_dump(), "dpo": params.dpo.model_dump()}
    with files.complete_folder(out.plots) as plots, files.complete_folder(out.out) as report:
        table.to_parquet(report / "predictions.parquet", index=False)
        page.draw(plots, table, rows, scores, curves, facts["label_mean"])
        sections = [
            *page.result_sections(scores, facts, plots),
            page.split_section(facts, audit, inputs.split / "split_map.png"),
            *page.picture_sections(plots, inputs.pca / "quicklook.png"),
            page.data_section(files.read_json(inputs.tiles / "matching.json")),
            page.training_section(scores),
            page.run_section(used | {"evaluate": params.evaluate.model_dump(), "bandwise": settings["sft"]}, card.NAME),
        ]
        page.write(report / "index.html", facts, sections)
        card.write(report / card.NAME, params.card, used, store, rows, settings["sft"], facts, audit, scores)
    files.write_json(out.metrics, scores)
    for group in ("head", "text", "dpo", "ridge", "shuffled"):
        print(f"{group:<9} R² {scores[group]['r2']:6.3f}  MAE {scores[group]['mae']:6.3f}")
    print(f"report: {out.out}/index.html")


def label_rows(store: Store, folder: Path) -> pd.DataFrame:
    """`store.samples` with place, block and role; buffer rows are left out.

    Raises:
        DataError: the split is of another store.
    """
    tiles = splits.read_split(folder, store.tiles.tile_id)
    rows = store.samples.merge(tiles[["tile", "place", "block", "role"]], on="tile", validate="many_to_one")
    return rows[rows.role != "buffer"].sort_values("sample").reset_index(drop=True)


def read_settings(folder: Path, facts: dict) -> dict:
    """bandwise.json of a model trained on this split.

    Raises:
        DataError: the model was trained on another split, so it may have seen the test labels.
    """
    path = folder / "bandwise.json"
    settings = files.read_json(path)
    if settings.get("split_hash") != facts["hash"]:
        raise DataError(
            f"{path}: split_hash: found {settings.get('split_hash')}, expected {facts['hash']} of split.json; "
            "the model may have seen these test tiles: train it again on this split"
        )
    return settings


def predictions_table(
    held: pd.DataFrame, answers: pd.DataFrame, null: pd.DataFrame, fold: int, seed: int
) -> pd.DataFrame:
    """predictions.parquet: one row per held-out label, one column per group in ‰ per year (NaN: not parsed)."""
    table = held[["tile_id", "province", "city", "year", "lat", "lon", "block"]].assign(
        fold=fold, seed=seed, split=held.role, y=held.growth_rate
    )
    groups = [*scoring.NETWORK, *scoring.WORDS]
    # Positions, not labels, join them: `answers` has one row for each of `held`, whatever its index.
    for group in groups:
        table[group] = answers[group].to_numpy(np.float64)
    table[null.columns] = null
    # Scores are those of the rounded numbers, so that this file alone gives them again.
    table[groups + list(null.columns)] = table[groups + list(null.columns)].round(6) + 0.0
    for answer in scoring.ANSWERS:
        table[answer] = answers[answer].to_numpy()
    return table.reset_index(drop=True)


if __name__ == "__main__":
    run.stage(
        main,
        Params,
        name="population.evaluate",
        doc=__doc__,
        inputs={
            "tiles": "store of the preprocess stage",
            "split": "output of the split stage",
            "pca": "output of the pca stage, for its quicklook",
            "sft": "model folder of the sft stage",
            "dpo": "model folder of the dpo stage",
            "curves": "folder with the dvclive output of pretrain, sft and dpo",
        },
        outputs={
            "metrics": "JSON of all scores",
            "out": "folder for predictions.parquet, index.html and model_card.md",
            "plots": "folder for the figures",
        },
    )
