"""Train the reference classifiers: MLPs on language and on pooled vision embeddings, and their late fusion.

    python -m src.species.train --params pipelines/species/params.yaml --store data/species/store \\
        --split data/species/split --out models/species/train --plots plots/species/train

Writes a folder for every model (model.safetensors, config.json), predictions.safetensors (their log-probabilities for
all that is held out), summary.json and curves. `train.models: []` trains none, where there are no embeddings.
"""

import logging

from src.core.stage import files, run
from src.core.stage.scratch import scratch_folder
from src.species.data import task as tasks
from src.species.evaluation import predictions
from src.species.evaluation.predictors import INPUTS
from src.species.params import Params

logger = logging.getLogger(__name__)


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    # Imported here: they import torch and transformers, which --help does without.
    from src.core.training import driver
    from src.species.models import networks, training

    run.set_threads(params.threads)
    training.require_one_process("train")
    task = tasks.read(inputs.store, inputs.split)
    chosen, dropout = params.train.models, params.train.dropout
    for name in chosen:
        training.require_modalities(task, INPUTS[name], f"train.models: {name}")
    rows = {name: training.learnable(task, INPUTS[name]) for name in chosen}
    shares = {"language": dropout.language, "vision_pooled": dropout.vision}

    def build(name: str):
        used, moments = {modality: shares[modality] for modality in INPUTS[name]}, training.moments(task, INPUTS[name])
        model, groups = training.build_classifier(moments, used, rows[name][0], task, params)
        logger.info(
            "%s: %d training and %d validation rows of %d species, %d held out; %s",
            name, *map(len, rows[name]), len(task.classes), len(task.held_out), groups.describe(),
        )  # fmt: skip
        return model, groups

    if dry_run:
        for name in chosen:
            build(name)
        return

    # One model's training does not depend on which others are asked for.
    facts = params.train.model_dump(exclude={"models"}) | {"seed": params.seed, "threads": params.threads}
    read = training.files_read(inputs)
    scratch = {name: scratch_folder(params.checkpoint_root, f"species-train-{name}", facts, read) for name in chosen}
    trained, answers = {}, {}
    with driver.outputs(out, scratch.values(), "train", ["a smaller train.batch_size"]) as (folder, plots):
        for name in chosen:
            model, groups = build(name)
            reader = training.embedding_reader(task, INPUTS[name])
            trained[name], answers[name] = training.fit_classifier(
                model, groups, reader, rows[name], task, params, scratch[name], plots / name
            )
            networks.save(model, folder / name)
        predictions.write(folder, task, answers)
        files.write_json(folder / "summary.json", {name: each.summary for name, each in trained.items()})
        if trained:
            training.write_curves(plots / "curves.png", trained)


if __name__ == "__main__":
    inputs = {"store": "ingest", "split": "split"}
    outputs = {"out": "folder for models and predictions", "plots": "folder for curves"}
    run.stage(main, Params, name="species.train", doc=__doc__, inputs=inputs, outputs=outputs)
