"""Pretrain the generator: from a degraded optical image and radar to the truth, on scenes that it alone sees.

    python -m src.grounding.pretrain --params pipelines/grounding/params.yaml --store data/grounding/store \\
        --out models/grounding/pretrain --plots plots/grounding/pretrain

Writes the generator (transformer/, scheduler/, sar_tokens.safetensors, grounding.json) and curves.
"""

from src.core.stage import distributed, run
from src.core.stage.scratch import scratch_folder
from src.grounding.params import Params


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    """Store -> generator."""
    # Imported here: they import torch and diffusers, which --help does without.
    from src.core.training import driver
    from src.grounding.data.scene_store import SceneStore
    from src.grounding.models import denoiser, fitting

    run.set_threads(params.threads)
    store = SceneStore.open(inputs.store)
    if dry_run:
        fitting.explain(fitting.generator(store, params, sees_sar=True))
        return
    settings = params.model_dump(include={"seed", "threads", "tiles", "model", "pretrain"})
    scratch = scratch_folder(params.checkpoint_root, "grounding-pretrain", settings, [inputs.store / "manifest.json"])
    with driver.outputs(out, [scratch], "pretrain", fitting.REMEDIES) as (folder, plots):
        part = fitting.generator(store, params, sees_sar=True)
        fitting.fit(part, params.pretrain.weight_decay, scratch, plots)
        if distributed.is_main():
            denoiser.save(folder, part.model.denoiser, fitting.facts(params, store))


if __name__ == "__main__":
    inputs = {"store": "preprocess"}
    outputs = {"out": "folder for the generator", "plots": "folder for curves"}
    run.stage(main, Params, name="grounding.pretrain", doc=__doc__, inputs=inputs, outputs=outputs)
