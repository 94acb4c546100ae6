"""Train the reference classifiers: MLPs on language and on pooled vision embeddings, and their late fusion.

    python -m src.species.train --params pipelines/species/params.yaml --store data/species/store \\
        --split data/species/split --out models/species/train --plots plots/species/train

Writes a folder for every model (model.safetensors, config.json), predictions.safetensors (their log-probabilities for
all that is held out), summary.json and curves. `train.models: []` trains none, where there are no embeddings.
"""

from src.core.stage import run

CLI = {
    "name": "species.train",
    "doc": __doc__,
    "inputs": {"store": "output of ingest", "split": "output of split"},
    "outputs": {"out": "folder for models and predictions", "plots": "folder for curves"},
}
if __name__ == "__main__":
    run.command_line(**CLI).parse_args()  # --help ends here, before seconds of imports

import logging

from transformers import set_seed

from src.core.stage import files
from src.core.training import checkpoints
from src.species.data import task as tasks
from src.species.evaluation import predictions
from src.species.evaluation.predictors import INPUTS
from src.species.models import networks, training
from src.species.params import Params

logger = logging.getLogger(__name__)


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    """Store and split -> trained classifiers and their answers for validation and test."""
    run.set_threads(params.threads)
    training.require_one_process("train")
    task = tasks.read(inputs.store, inputs.split)
    chosen, dropout = params.train.models, params.train.dropout
    for name in chosen:
        training.require_modalities(task, INPUTS[name], f"train.models: {name}")
    rows = {name: training.learnable(task, INPUTS[name]) for name in chosen}

    def build(name: str):
        set_seed(params.seed)  # a model does not depend on those that came before it
        shares = {"language": dropout.language, "vision_pooled": dropout.vision}
        used = {modality: shares[modality] for modality in INPUTS[name]}
        model, groups = training.build_classifier(
            training.moments(task, INPUTS[name]), used, rows[name][0], task, params
        )
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
    settings = params.train.model_dump(exclude={"models"})
    scratch = {name: training.scratch(params, f"train-{name}", settings, inputs) for name in chosen}
    histories, summaries, answers = {}, {}, {}
    with files.complete_folder(out.out) as folder, files.complete_folder(out.plots) as plots:
        for name in chosen:
            model, groups = build(name)
            read = training.embedding_reader(task, INPUTS[name])
            histories[name] = training.fit_classifier(
                model, groups, read, rows[name], task, params, scratch[name], plots / name
            )
            summaries[name] = training.summary(histories[name], groups, rows[name])
            answers[name] = training.log_probabilities(model, read, task.held_out)
            networks.save(model, folder / name)
        predictions.write(folder, task, answers)
        files.write_json(folder / "summary.json", summaries)
        if histories:
            training.write_curves(plots / "curves.png", histories)
    for name, facts in summaries.items():
        checkpoints.remove(scratch[name])
        logger.info("%s: epoch %d of %d: %s", name, facts["best_epoch"], facts["epochs"], facts["validation"])


if __name__ == "__main__":
    run.stage(main, Params, **CLI)
