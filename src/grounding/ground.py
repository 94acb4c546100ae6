"""Ground the generator in radar: LoRA on its cross-attention, on other scenes and a stronger degradation.

    python -m src.grounding.ground --params pipelines/grounding/params.yaml --store data/grounding/store \\
        --base models/grounding/pretrain --out models/grounding/ground --plots plots/grounding/ground

Writes the generator with the adapters merged, adapter/ beside it (peft), and curves of each loss and of agreement.
Training ends when agreement with the radar image of validation scenes no longer rises.
"""

from src.core.stage import distributed, run
from src.core.stage.scratch import scratch_folder
from src.grounding.params import Params


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    """Store and pretrained generator -> grounded generator."""
    # Imported here: they import torch and diffusers, which --help does without.
    from src.core.models import lora
    from src.core.training import driver
    from src.grounding.data.scene_store import SceneStore
    from src.grounding.models import denoiser, fitting

    run.set_threads(params.threads)
    store = SceneStore.open(inputs.store)
    part = fitting.grounding(store, params, denoiser.load(inputs.base)[0])
    if dry_run:
        fitting.explain(part)
        return
    settings = params.model_dump(include={"seed", "threads", "tiles", "model", "ground"})
    settings |= {"sar": params.data.sar.model_dump(include={"clip_db", "looks"})}  # of the losses
    read = [inputs.store / "manifest.json", inputs.base]
    scratch = scratch_folder(params.checkpoint_root, "grounding-ground", settings, read)
    with driver.outputs(out, [scratch], "ground", fitting.REMEDIES) as (folder, plots):
        fitting.fit(part, params.ground.weight_decay, scratch, plots)
        if distributed.is_main():
            network = part.model.denoiser
            adapted = network.get_submodule(network.adapted)
            lora.save_adapter(adapted, folder / "adapter", inputs.base / network.adapted.partition(".")[0])
            denoiser.save(folder, fitting.merged(network), fitting.facts(params, store))


if __name__ == "__main__":
    inputs = {"store": "preprocess", "base": "pretrain"}
    outputs = {"out": "folder for the grounded generator", "plots": "folder for curves"}
    run.stage(main, Params, name="grounding.ground", doc=__doc__, inputs=inputs, outputs=outputs)
