"""Train a cross-modal masked autoencoder on language and pooled vision embeddings, and measure it on test rows.

    python -m src.species.crossmodal --params pipelines/species/params.yaml --store data/species/store \\
        --split data/species/split --out models/species/crossmodal --plots plots/species/crossmodal

It learns from training rows with both modalities and from no label. Writes model.safetensors and config.json;
reconstruction.json, errors on test rows beside a linear map, the training mean and shuffled pairs; retrieval.json,
each modality found by the other one; predictions.safetensors, species from its shared features and from as many
principal components of the concatenated embeddings, by the same three classifiers; summary.json and curves. If the
store lacks one of the modalities, there is nothing to learn: the stage logs a warning and writes empty outputs.
"""

import logging

from src.core.evaluation.regression_scores import rounded
from src.core.stage import files, run
from src.core.stage.scratch import scratch_folder
from src.species.data import task as tasks
from src.species.data.task import EMBEDDINGS, Task
from src.species.evaluation import predictions
from src.species.evaluation.predictors import PROBES
from src.species.params import Params

logger = logging.getLogger(__name__)


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    # Imported here: they import torch and transformers, which --help does without.
    from transformers import set_seed

    from src.core.training import driver
    from src.species.models import autoencoder, networks, reconstruction, training

    run.set_threads(params.threads)
    training.require_one_process("crossmodal")
    task = tasks.read(inputs.store, inputs.split)
    if missing := [name for name in EMBEDDINGS if name not in task.store.modalities]:
        leave_out(task, missing, out, dry_run)
        return
    pairs = training.learnable(task, EMBEDDINGS, every=True)
    set_seed(params.seed)
    model, groups = autoencoder.build(task, params.crossmodal)
    logger.info("%d training and %d validation pairs; %s", *map(len, pairs), groups.describe())
    if dry_run:
        return

    facts = {"seed": params.seed, "threads": params.threads, "crossmodal": params.crossmodal.model_dump()}
    probed = facts | {"train": params.train.model_dump(exclude={"models"})}
    settings = {"autoencoder": facts} | {names["network"]: probed for names in PROBES.values()}
    scratch = {
        name: scratch_folder(params.checkpoint_root, f"species-crossmodal-{name}", given, training.files_read(inputs))
        for name, given in settings.items()
    }
    with driver.outputs(out, scratch.values(), "crossmodal", ["a smaller crossmodal.batch_size"]) as (folder, plots):
        trained = {"autoencoder": autoencoder.fit(model, groups, task, pairs, params, scratch["autoencoder"], plots)}
        networks.save(model, folder)
        errors, found = reconstruction.measure(model, task, pairs, params.baselines.components, params.seed)
        files.write_json(folder / "reconstruction.json", rounded(errors))
        files.write_json(folder / "retrieval.json", rounded(found))
        classifiers, probes = autoencoder.probe(model, task, params, scratch, plots)
        trained |= classifiers
        predictions.write(folder, task, probes.groups)
        summaries = {name: each.summary for name, each in trained.items()}
        files.write_json(folder / "summary.json", rounded(summaries | probes.choices))
        training.write_curves(plots / "curves.png", trained)


def leave_out(task: Task, missing: list[str], out, dry_run: bool) -> None:
    """Write empty outputs, so that evaluate can still score the models of one modality."""
    reason = f"left out: {task.store.folder} holds no {' and no '.join(missing)}, and it takes both modalities"
    logger.warning("crossmodal: %s", reason)
    if not dry_run:
        with files.complete_folder(out.out) as folder, files.complete_folder(out.plots):
            predictions.write(folder, task, {})
            for name, content in {"reconstruction": {}, "retrieval": {}, "summary": {"left_out": reason}}.items():
                files.write_json(folder / f"{name}.json", content)


if __name__ == "__main__":
    inputs = {"store": "ingest", "split": "split"}
    outputs = {"out": "folder for model, measurements and predictions", "plots": "folder for curves"}
    run.stage(main, Params, name="species.crossmodal", doc=__doc__, inputs=inputs, outputs=outputs)
