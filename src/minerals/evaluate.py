"""Score maps and answers on test blocks, draw, and write the report.

    python -m src.minerals.evaluate --params pipelines/minerals/params.yaml --library data/sample/usgs_minerals \\
        --store data/minerals/store \\
        --bands data/minerals/bands --split data/minerals/split --map data/minerals/map --tiles data/minerals/tiles \\
        --annotations data/minerals/annotations --sensitivity data/minerals/sensitivity --sft models/minerals/sft \\
        --curves plots/minerals/sft --metrics metrics/minerals.json --out reports/minerals \\
        --plots plots/minerals/evaluate

Writes metrics/minerals.json (predictor -> map | alteration | minerals -> scores with intervals over blocks), figures,
and index.html with answers.parquet beside it (every answer of every model). Answers are scored against the tile's
truth; test tiles of which less than `tiles.min_valid_ratio` is known are left out. How answers agree with the map, from
which training answers come, stands beside it (alteration_map, minerals_map): the difference is the price of such
labels. Where no truth is known, these stand alone.
`apart_minerals_of_one_sample` are shares named right of minerals of which no sample can be held out.
"""

import logging

import numpy as np
import pandas as pd
import rasterio

from src.core.evaluation.regression_scores import rounded
from src.core.stage import files, run
from src.core.stage.errors import DataError
from src.minerals.data import blocks, tile_table
from src.minerals.data.cube_store import CubeStore
from src.minerals.evaluation import answer_scores, map_scores, one_sample, tile_baselines
from src.minerals.evaluation.predictors import PAIRS, TITLES, WORDS, key_end, require_listed
from src.minerals.mapping.minerals import NAMES
from src.minerals.params import Params
from src.minerals.report import page, score_figures

logger = logging.getLogger(__name__)


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    # Imported here: it imports torch and transformers, which --help does without.
    from src.minerals.models import answering

    run.set_threads(params.threads)
    store, table = CubeStore.open(inputs.store), tile_table.read(inputs.tiles)
    settings = files.read_json(inputs.tiles / "settings.json")
    tested = tile_table.apart(table[table["role"] == "test"], settings["tile_px"])
    source = "truth" if store.manifest["truth"] else "map"
    if source == "truth":
        tested = of_known_truth(store, tested, settings["tile_px"], params.tiles.min_valid_ratio)
    models = answering.find(inputs.sft)
    print(f"evaluate: {len(tested)} test tiles without overlap in {tested['block'].nunique()} blocks; models {models}")
    if dry_run:
        return
    answers = answering.answer_all(models, inputs, tested, params)
    answers |= baselines(inputs, store, table, tested, params, settings)
    if source == "map":
        del answers["map"]  # it would be compared with itself
    require_listed(answers, "evaluate")
    maps = score_maps(store, inputs, settings) if source == "truth" else {}
    scores = rounded(
        {
            "simulated": store.manifest["about"]["simulated"],
            "scored_against": source,
            "tiles": len(tested),
            "blocks": int(tested["block"].nunique()),
            "audit": files.read_json(inputs.split / "audit.json") | files.read_json(inputs.tiles / "audit.json"),
            **{name: {"map": found} for name, found in maps.items()},
            **{name: score_answers(answers[name], tested, source, params) for name in WORDS if name in answers},
            "paired": paired(answers, tested, source),
            "library": files.read_json(inputs.sensitivity / "library.json"),
            "apart_minerals_of_one_sample": one_sample.summary(one_sample.read(inputs.sensitivity)),
        }
    )
    with files.complete_folder(out.plots) as plots, files.complete_folder(out.out) as report:
        everything = pd.concat([found.assign(predictor=name) for name, found in answers.items()], ignore_index=True)
        stored = everything.assign(minerals=[None if said is None else sorted(said) for said in everything["minerals"]])
        stored.to_parquet(report / "answers.parquet", index=False)
        score_figures.draw_all(plots, store, inputs, scores, inputs.library)
        page.write(report / "index.html", scores, answers, tested, params, plots, inputs)
    files.write_json(out.metrics, scores)
    print(page.verdict(scores))
    print(f"report: {out.out}/index.html")


def of_known_truth(store: CubeStore, tested: pd.DataFrame, side: int, least: float) -> pd.DataFrame:
    """Those tiles of which the share `least` or more is known: of the others nobody knows whether they are altered.

    Raises:
        DataError: there is none.
    """
    truth = {scene: store.truth(scene) <= len(NAMES) for scene in tested["scene"].unique()}
    places = tested[["scene", "top", "left"]].itertuples(index=False, name=None)
    known = [truth[scene][top : top + side, left : left + side].mean() for scene, top, left in places]
    found = tested[np.array(known) >= least]
    if found.empty:
        raise DataError(
            f"{store.folder}: truth: found no test tile whose minerals are known for {least:.0%} of its pixels; lower "
            "`min_valid_ratio`, correct `truth`, or leave it blank"
        )
    if len(found) < len(tested):
        logger.warning(
            "evaluate: %d of %d test tiles left out, their truth is unknown", len(tested) - len(found), len(tested)
        )
    return found


def score_maps(store: CubeStore, inputs, settings: dict) -> dict[str, dict]:
    """Scores of every mapping method over the test blocks."""
    table = blocks.read(inputs.split, store)
    tests = list(table[table["role"] == "test"].itertuples())
    known, ours, abundance = {}, {}, {}
    for block in tests:
        inside = blocks.inside(block)
        known[block.block] = store.truth(block.scene)[inside]
        with rasterio.open(inputs.map / "minerals" / f"{block.scene}.tif") as dataset:
            ours[block.block] = dataset.read(1)[inside]
        shares = store.abundance(block.scene)
        if shares is not None:
            abundance[block.block] = shares[inside][..., : len(NAMES)].astype(np.float32)
    maps = {"feature_fit": ours}
    with np.load(inputs.map / "other_methods.npz", allow_pickle=False) as arrays:
        for key in arrays.files:
            name, _, block = key.rpartition("/")
            maps.setdefault(name.replace(" ", "_"), {})[int(block)] = arrays[key]
    more = abundance or None, settings["tile_px"], settings["altered"]
    return {name: map_scores.score_map(known, maps[name], *more) for name in TITLES if name in maps}


def baselines(inputs, store, table: pd.DataFrame, tested: pd.DataFrame, params: Params, settings: dict) -> dict:
    """Answers of majority, map and logistic regression: predictor -> tile, altered, minerals (no words, no parsing)."""
    from src.minerals.evaluation.tile_features import features

    present = params.annotate.present
    altered, minerals = tile_baselines.targets(tested, "map", present)
    sets = [frozenset(name for name, there in zip(NAMES, row, strict=True) if there) for row in minerals]
    of_tile = features(store, inputs, table, settings["tile_px"])
    said, lists = tile_baselines.logistic(of_tile, table, present)
    among = table.loc[table["role"] == "test", "tile"].isin(tested["tile"]).to_numpy()
    found = {
        "majority": tile_baselines.majority(table, present, len(tested)),
        "map": (altered, sets),
        "logistic": (said[among], [names for names, chosen in zip(lists, among, strict=True) if chosen]),
    }
    return {
        name: pd.DataFrame({"tile": tested["tile"].to_numpy(), "altered": yes.astype(object), "minerals": names})
        for name, (yes, names) in found.items()
    }


def joined(found: pd.DataFrame, tested: pd.DataFrame, asked: str) -> pd.DataFrame:
    """Answers of a predictor to the task `asked`, with the columns of their tiles; models answer in each language."""
    rows = found[found["task"] == asked] if "task" in found else found
    return rows.merge(tested, on="tile", how="left")


def score_answers(found: pd.DataFrame, tested: pd.DataFrame, source: str, params: Params) -> dict[str, dict]:
    """Scores of one predictor: `alteration` and `minerals` against truth, where `source` is truth, and `alteration_map`
    and `minerals_map` against the map."""
    result, present = {}, params.annotate.present
    rows = {asked: joined(found, tested, asked) for asked in ("alteration", "minerals")}
    for against in dict.fromkeys((source, "map")):
        end = key_end(against)
        said, block = rows["alteration"], rows["alteration"]["block"].to_numpy()
        truth = said[f"{against}_altered"].to_numpy(bool)
        result[f"alteration{end}"] = answer_scores.score_alteration(said["altered"], truth, block)
        said = rows["minerals"]
        if len(said):  # controls are not asked for lists
            truth = said[[f"{against}_{name}" for name in NAMES]].to_numpy() >= present
            scores = answer_scores.score_minerals(said["minerals"], truth, said["block"].to_numpy())
            result[f"minerals{end}"] = scores
    return result


def paired(answers: dict[str, pd.DataFrame], tested: pd.DataFrame, source: str) -> dict[str, dict]:
    """Differences of PAIRS in balanced accuracy on the same tiles (and languages)."""
    result = {}
    for ours, theirs in PAIRS:
        if ours in answers and theirs in answers:
            keys = [key for key in ("tile", "language") if key in answers[ours] and key in answers[theirs]]
            both = joined(answers[ours], tested, "alteration").merge(
                joined(answers[theirs], tested, "alteration")[[*keys, "altered"]], on=keys, suffixes=("", "_theirs")
            )
            truth = both[f"{source}_altered"].to_numpy(bool)
            said = both["altered"], both["altered_theirs"]
            result[f"{ours}-{theirs}"] = answer_scores.paired_alteration(*said, truth, both["block"].to_numpy())
    return result


if __name__ == "__main__":
    inputs = {name: name for name in ("store", "bands", "split", "map", "tiles", "annotations", "sensitivity", "sft")}
    run.stage(
        main,
        Params,
        name="minerals.evaluate",
        doc=__doc__,
        inputs=inputs | {"store": "ingest", "annotations": "annotate", "curves": "sft"},
        sources={"library": "folder of the spectral library (data.library)"},
        outputs={
            "metrics": "metrics/minerals.json",
            "out": "folder for the report",
            "plots": "folder for figures",
        },
    )
