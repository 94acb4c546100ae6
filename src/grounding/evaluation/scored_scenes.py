"""Scores of every predictor on every test scene, and what of them stands in metrics/grounding.json."""

from typing import NamedTuple
from zlib import crc32

import numpy as np
import pandas as pd
from tqdm import tqdm

from src.core.stage import files
from src.core.stage.errors import DataError
from src.grounding.data.scene_store import Scene, SceneStore
from src.grounding.evaluation import calibration, image_scores, refined_scenes
from src.grounding.evaluation.predictors import COMPARISONS, MAIN, PREDICTORS, require_listed
from src.grounding.evaluation.refined_scenes import Networks
from src.grounding.params import Params
from src.grounding.report.panels import Refined

SHOWN = 4
"""Scenes in the panels: the first ones by name, so that no result chooses them."""
TEST = (
    "psnr", "degraded_psnr", "missing_psnr", "mae", "rmse", "ssim", "sam_deg", "ndvi_mae", "agreement",
    "seed_agreement",
)  # fmt: skip
PAIRED = ("psnr", "degraded_psnr", "missing_psnr", "ssim", "agreement")
REFERENCES = ("agreement", "seed_agreement")
CALIBRATION = ("spearman_r", "expected_rmse", "rmse", *calibration.COVERAGE.values())


class Found(NamedTuple):
    """Everything that was scored. All tables have the columns scene and `block`, by which intervals are made.

    Attributes:
        rows: one row a predictor and scene, see `image_scores.scene_rows`.
        references: predictor (truth, noise, flat) and REFERENCES: the agreements of images that no network made.
        kinds: kind of degradation, predictor, psnr, where a scene has that one kind alone; empty where the first guess
            is given.
        spread: one row a scene, see `calibration.scene_row`.
        reliability: see `calibration.reliability`.
        shown: scenes for the panels.
    """

    rows: pd.DataFrame
    references: pd.DataFrame
    kinds: pd.DataFrame
    spread: pd.DataFrame
    reliability: list[dict]
    shown: list[Refined]


def score(store: SceneStore, networks: Networks, params: Params) -> Found:
    """Score every predictor on every test scene.

    Raises:
        DataError: there is no test scene, or too few others; or an image is not finite.
    """
    others = strangers(store)
    scenes = [store.read(name) for name in others]
    rows, references, spreads, spread_rows, shown = [], [], [], [], []
    for scene in tqdm(scenes, desc="evaluate", unit="scene"):
        given, null = map(store.read, others[scene.name])
        found, samples = score_scene(scene, given, null, networks, params)
        rows += found
        references += reference_rows(scene, null, params.seed)
        spreads.append(calibration.spread(samples, scene))
        spread_rows.append(calibration.scene_row(samples, scene))
        if len(shown) < SHOWN:
            mean = samples[: params.evaluate.samples].mean(0)
            shown.append(Refined(scene, mean, samples.std(0, ddof=1)))
    kinds = kind_rows(scenes, networks, params) if store.facts["opt_v2"] == "synthetic" else []
    require_listed({row["predictor"] for row in rows}, "evaluate")
    block = blocks(store)
    tables = (with_blocks(table, block) for table in (rows, references, kinds, spread_rows))
    return Found(*tables, calibration.reliability(spreads), shown)


class Strangers(NamedTuple):
    """Two scenes of other blocks that have nothing to do with a test scene.

    Attributes:
        given: its radar image stands in for the scene's own, to see whether that is used.
        null: agreement with its radar image is taken away. Another one, or an image drawn from `given` would have its
            own agreement taken away.
    """

    given: str
    null: str


def strangers(store: SceneStore) -> dict[str, Strangers]:
    """Each test scene -> the next two in order that lie in other blocks; of other roles where too few test scenes do.

    Raises:
        DataError: there is no test scene, or fewer than two scenes of other blocks.
    """
    tested, block = store.names("test"), blocks(store)
    if not tested:
        raise DataError(
            f"{store.folder}: role test: found no scene, expected some; raise `test`, or give scenes that role"
        )
    rest = [name for name in store.table["name"] if name not in set(tested)]
    found = {}
    for at, name in enumerate(tested):
        order = [
            one for one in [*tested[at + 1 :], *tested[:at], *rest] if (block[one] or one) != (block[name] or name)
        ]
        if len(order) < 2:
            raise DataError(
                f"{store.folder}: block: found {len(order)} scenes in other blocks than that of {name}, expected two "
                "whose radar images are other places'; bring more places"
            )
        found[name] = Strangers(*order[:2])
    return found


def blocks(store: SceneStore) -> dict[str, str]:
    """Scene -> spatial block, "" for a scene without a place."""
    return {row.name: row.block for row in store.table.itertuples(index=False)}


def with_blocks(rows: list[dict], block: dict[str, str]) -> pd.DataFrame:
    """Rows as a table, with the `block` of each scene.

    All scenes without a place are one block: they may be neighbours, and so they give no interval.
    """
    table = pd.DataFrame(rows, columns=None if rows else ["kind", "predictor", "scene", "psnr"])
    return table.assign(block=table["scene"].map(block))


def score_scene(
    scene: Scene, given: Scene, null: Scene, networks: Networks, params: Params
) -> tuple[list[dict], np.ndarray]:
    """Rows of all predictors for one scene, and the samples of MAIN whose spread is compared with their error.

    Of MAIN the first samples are those that are scored, so that none is drawn twice: a sample hangs on its number and
    not on how many there are.
    """
    scored, spread = params.evaluate.samples, params.evaluate.spread_samples
    rows, kept = [], None
    for one in PREDICTORS:
        count = max(scored, spread) if one.name == MAIN else scored
        samples = refined_scenes.draw(one, scene, given, networks, params, count)
        if one.name == MAIN:
            kept = samples[:spread]
        rows += image_scores.scene_rows(one.name, [(scene, samples[:scored].mean(0), null)])
    return rows, kept


def reference_rows(scene: Scene, null: Scene, seed: int) -> list[dict]:
    """Agreement with radar of the true image, and of two that know nothing: noise, and the same value everywhere."""
    noise = np.random.default_rng([seed, crc32(scene.name.encode())]).random(scene.optical.shape)
    images = {"truth": scene.optical, "noise": noise, "flat": np.full(scene.optical.shape, 0.5)}
    return [
        {"predictor": name, "scene": scene.name} | image_scores.scene_agreement(scene, image, null)
        for name, image in images.items()
    ]


def kind_rows(scenes: list[Scene], networks: Networks, params: Params) -> list[dict]:
    """PSNR over all valid pixels of each scene under each kind of degradation alone."""
    return [
        {"kind": kind, "predictor": name, "scene": scene.name}
        | {"psnr": image_scores.scores(image[:, scene.valid], scene.optical[:, scene.valid])["psnr"]}
        for kind, name, scene, image in refined_scenes.by_kind(scenes, networks, params)
    ]


def summary(found: Found, store: SceneStore, params: Params) -> dict:
    """Contents of metrics/grounding.json: data, predictor -> test -> scores, differences, kinds, calibration.

    Errors of single bands are in the report's table alone: a file that is compared from run to run has to stay short.
    """
    by_predictor = dict(list(found.rows.groupby("predictor")))
    by_reference = dict(list(found.references.groupby("predictor", sort=False)))
    kinds = found.kinds.groupby(["kind", "predictor"], sort=False)["psnr"].mean()
    return {
        "data": {
            "simulated": store.facts["simulated"],
            "opt_v2": store.facts["opt_v2"],
            "scenes": int(found.rows["scene"].nunique()),
            "blocks": int(found.rows["block"].nunique()),
        },
        "audit": files.read_json(store.folder / "audit.json"),
        **{one.name: {"test": image_scores.pooled(by_predictor[one.name], "block", TEST)} for one in PREDICTORS},
        "paired": {
            one.key: image_scores.paired(found.rows, one.ours, one.theirs, "block", PAIRED) for one in COMPARISONS
        },
        "references": {
            name: {key: float(rows[key].mean()) for key in REFERENCES} for name, rows in by_reference.items()
        },
        "kinds": {
            kind: {name: float(value) for (_, name), value in group.items()}
            for kind, group in kinds.groupby("kind", sort=False)
        },
        "calibration": {"samples": params.evaluate.spread_samples}
        | image_scores.pooled(found.spread, "block", CALIBRATION),
    }
