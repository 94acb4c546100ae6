"""Fine-tune Qwen3-VL to answer about tiles, once for each input: a composite, all bands, bands in triples.

    python -m src.minerals.sft --params pipelines/minerals/params.yaml --store data/minerals/store \\
        --bands data/minerals/bands --tiles data/minerals/tiles --annotations data/minerals/annotations \\
        --out models/minerals/sft --plots plots/minerals/sft

Writes a model folder for each of `model.inputs` (weights, tokenizer, minerals.json) and its curves. Of a pretrained
backbone LoRA and the merger train, and with all bands the patch embedding; of `tiny` everything.
"""

import logging

from src.core.stage import distributed, files, run
from src.core.stage.model_params import TINY
from src.core.stage.scratch import scratch_folder
from src.minerals.params import Params

logger = logging.getLogger(__name__)


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    """Store, tiles and conversations -> a model for each input."""
    # Imported here: they import torch and transformers, which --help does without.
    from src.core.models import hub
    from src.core.training import driver
    from src.core.training.dry_run import memory_and_time
    from src.core.training.precision import weights_dtype
    from src.minerals.models import finetuning, model_folder

    run.set_threads(params.threads)
    items = {name: files.read_json(inputs.annotations / f"{name}.json") for name in ("train", "val")}
    meta = dry_run and params.model.backbone != TINY
    prepared = {}
    for kind in params.model.inputs if dry_run else ():
        part = prepared[kind] = finetuning.prepare(kind, inputs, params, items, meta)
        logger.info("%s: %s", kind, part.describe())
        logger.info(memory_and_time(finetuning.plan(params), part.model, part.groups, part.train))
    if dry_run:
        return

    facts = params.model_dump(include={"seed", "threads", "sft"}) | params.model.model_dump(exclude={"inputs"})
    read = [inputs.store / "manifest.json", inputs.bands, inputs.tiles, inputs.annotations]
    read += hub.files_of(params.model.backbone)
    scratch = {
        kind: scratch_folder(params.checkpoint_root, f"minerals-sft-{kind}", facts, read)
        for kind in params.model.inputs
    }
    savings = ["raise sft.accumulate", "a smaller sft.max_pixels", "a smaller model.backbone"]
    with driver.outputs(out, scratch.values(), "sft", savings) as (folder, plots):
        for kind in params.model.inputs:
            part = finetuning.prepare(kind, inputs, params, items, meta=False)
            logger.info("%s: %s", kind, part.describe())
            history = driver.fit(
                finetuning.plan(params),
                part.model,
                part.groups,
                part.groups.optimizer(params.sft.weight_decay),
                part.train,
                part.validation,
                label="labels",
                scratch=scratch[kind],
                plots=plots / kind,
            )
            if distributed.is_main():
                base = hub.files_of(params.model.backbone) or [folder]
                dtype = weights_dtype(params.model.backbone, params.sft.precision)
                model_folder.save(folder / kind, part.model, part.tokenizer, part.settings, base[0], dtype)
                finetuning.draw_curves(plots / kind / "curves.png", kind, history)


if __name__ == "__main__":
    run.stage(
        main,
        Params,
        name="minerals.sft",
        doc=__doc__,
        inputs={"store": "ingest", "bands": "bands", "tiles": "tiles", "annotations": "annotate"},
        outputs={"out": "folder for a model of each input", "plots": "folder for curves"},
    )
