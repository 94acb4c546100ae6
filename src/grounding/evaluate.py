"""Score refined images of unseen scenes, and of the controls that say whether radar was used.

    python -m src.grounding.evaluate --params pipelines/grounding/params.yaml --store data/grounding/store \\
        --base models/grounding/pretrain --grounded models/grounding/ground --controls models/grounding/controls \\
        --curves plots/grounding --metrics metrics/grounding.json --out reports/grounding \\
        --plots plots/grounding/evaluate

Writes metrics/grounding.json (predictor -> test -> scores with intervals over spatial blocks), figures, and index.html
with scenes.parquet beside it (every score of every scene). Of each generator the mean of `evaluate.samples` images is
scored, of all with as many, since the mean of more has a smaller error.
"""

import pandas as pd
from tqdm import tqdm

from src.core.evaluation.regression_scores import rounded
from src.core.stage import files, run
from src.grounding.data.scene_store import SceneStore
from src.grounding.params import Params


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    """Store and networks -> scores, figures, page."""
    # Imported here: they import torch and diffusers, which --help does without.
    from src.grounding.evaluation import refined_scenes, scored_scenes
    from src.grounding.report import page

    run.set_threads(params.threads)
    store = SceneStore.open(inputs.store)
    names = store.names("test")
    print(f"evaluate: {len(names)} test scenes; opt_v2 is {store.facts['opt_v2']}")
    networks = refined_scenes.load(inputs.base, inputs.grounded, inputs.controls)
    if dry_run:
        return
    scenes = [store.read(name) for name in names]
    blocks = store.table.set_index("name")["block"]
    found = scored_scenes.score(tqdm(scenes, desc="evaluate", unit="scene"), scenes, networks, params)
    rows = pd.DataFrame(found.rows).assign(block=lambda frame: frame["scene"].map(blocks))
    kinds = pd.DataFrame(found.kinds).assign(block=lambda frame: frame["scene"].map(blocks))
    scores = rounded(scored_scenes.summary(rows, kinds, found, store))
    with files.complete_folder(out.plots) as plots, files.complete_folder(out.out) as report:
        files.write_table(report / "scenes.parquet", rows)
        page.write(report, plots, scores, found, inputs)
    files.write_json(out.metrics, scores)
    print(page.verdict(scores))
    print(f"report: {out.out}/index.html")


if __name__ == "__main__":
    run.stage(
        main,
        Params,
        name="grounding.evaluate",
        doc=__doc__,
        inputs={"store": "preprocess", "base": "pretrain", "grounded": "ground", "controls": "controls"},
        sources={"curves": "folder of the trainings' curves"},
        outputs={"metrics": "metrics/grounding.json", "out": "folder for the report", "plots": "folder for figures"},
    )
