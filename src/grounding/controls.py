"""Train what the grounded generator has to beat: itself without radar, and a plain regression network with it.

    python -m src.grounding.controls --params pipelines/grounding/params.yaml --store data/grounding/store \\
        --out models/grounding/controls --plots plots/grounding/controls

Writes no_sar_network/ (a generator of equal size that never sees radar, pretrained and adapted in the same way but for
the losses that ask for radar) and regression_unet/ (of DSen2-CR's residual kind, on the scenes of both trainings), and
curves.
"""

from src.core.stage import distributed, run
from src.core.stage.scratch import scratch_folder
from src.grounding.params import Params


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    """Store -> the two networks."""
    # Imported here: they import torch and diffusers, which --help does without.
    from src.core.training import driver
    from src.grounding.data.scene_store import SceneStore
    from src.grounding.models import denoiser, fitting, regression

    run.set_threads(params.threads)
    store = SceneStore.open(inputs.store)
    if dry_run:
        fitting.explain(fitting.generator(store, params, sees_sar=False))
        fitting.explain(fitting.regression_network(store, params))
        return
    settings = params.model_dump(include={"seed", "threads", "tiles", "model", "pretrain", "ground"})
    settings |= {"sar": params.data.sar.model_dump(include={"clip_db", "looks"})}  # of the losses
    read = [inputs.store / "manifest.json"]
    scratch = {
        name: scratch_folder(params.checkpoint_root, f"grounding-{name}", settings, read)
        for name in ("no_sar_pretrain", "no_sar_ground", "regression_unet")
    }
    with driver.outputs(out, scratch.values(), "controls", fitting.REMEDIES) as (folder, plots):
        part = fitting.generator(store, params, sees_sar=False)
        fitting.fit(part, params.pretrain.weight_decay, scratch["no_sar_pretrain"], plots / "no_sar_pretrain")
        part = fitting.grounding(store, params, part.model.denoiser)
        fitting.fit(part, params.ground.weight_decay, scratch["no_sar_ground"], plots / "no_sar_ground")
        network = fitting.merged(part.model.denoiser)
        part = fitting.regression_network(store, params)
        fitting.fit(part, params.pretrain.weight_decay, scratch["regression_unet"], plots / "regression_unet")
        if distributed.is_main():
            facts = fitting.facts(params, store)
            denoiser.save(folder / "no_sar_network", network, facts)
            regression.save(folder / "regression_unet", part.model.network, facts)


if __name__ == "__main__":
    inputs = {"store": "preprocess"}
    outputs = {"out": "folder for the two networks", "plots": "folder for curves"}
    run.stage(main, Params, name="grounding.controls", doc=__doc__, inputs=inputs, outputs=outputs)
