"""Score refined images of unseen scenes, and of the controls that say whether radar was used.

    python -m src.grounding.evaluate --params pipelines/grounding/params.yaml --store data/grounding/store \\
        --base models/grounding/pretrain --grounded models/grounding/ground --controls models/grounding/controls \\
        --curves plots/grounding --metrics metrics/grounding.json --out reports/grounding \\
        --plots plots/grounding/evaluate

Writes metrics/grounding.json (predictor -> test -> scores with intervals over spatial blocks), figures, and index.html
with three tables beside it: scenes.parquet (every score of every scene), kinds.parquet (each kind of degradation
alone), spread.parquet (is the spread of samples as large as their error?). Of each generator the mean of
`evaluate.samples` images is scored, of all with as many, since the mean of more has a smaller error.
"""

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
    others = scored_scenes.strangers(store)
    print(f"evaluate: {len(others)} test scenes; opt_v2 is {store.facts['opt_v2']}")
    networks = refined_scenes.load(inputs.base, inputs.grounded, inputs.controls)
    if dry_run:
        return
    found = scored_scenes.score(store, networks, params)
    scores = rounded(scored_scenes.summary(found, store, params))
    with files.complete_folder(out.plots) as plots, files.complete_folder(out.out) as report:
        for name, table in (("scenes", found.rows), ("kinds", found.kinds), ("spread", found.spread)):
            files.write_table(report / f"{name}.parquet", table)
        page.draw(plots, scores, found, inputs.store)
        page.write(report / "index.html", scores, found.rows, params, plots, inputs.curves)
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
