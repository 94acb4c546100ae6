"""Preference pairs from the SFT model's own answers: nearest to the truth chosen, farthest rejected.

    python -m src.population.prefs --tiles data/population/tiles --split data/population/split \\
        --model models/population/sft --out data/population/prefs

Writes `train.jsonl` and `validation.jsonl` (ids, texts, values, errors) and `counts.json`.
"""

import json
import logging

from src.core.stage import files, run
from src.population.params import Params

logger = logging.getLogger(__name__)


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    """Store, split and SFT model -> pairs of its own answers."""
    # Imported here: they import torch and transformers, which --help does without.
    from src.population.data.preference_pairs import advice, make_pairs
    from src.population.models.inference import Reader
    from src.population.models.model_folder import load_for_use
    from src.population.models.training_setup import begin

    prefs = params.prefs
    store, split = begin(params, inputs)
    split = split.permuted(params.seed, params.sft.permutation)
    model, tokenizer, settings = load_for_use(inputs.model)
    reader = Reader(model, tokenizer, settings, store, prefs.batch_size)
    roles = {role: split.rows(role) for role in ("train", "validation")}
    logger.info("%s answers to sample", {role: len(rows) * prefs.num_samples for role, rows in roles.items()})
    if dry_run:
        return

    with files.complete_folder(out.out) as folder:
        counts = {}
        for role, rows in roles.items():
            answers = reader.sampled(rows, prefs.num_samples, prefs.temperature, prefs.top_p, params.seed)
            pairs, counts[role] = make_pairs(rows, answers, prefs, settings.language)
            lines = [json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs]
            (folder / f"{role}.jsonl").write_text("".join(lines), encoding="utf-8")
            logger.info("%s: %s", role, counts[role])
        if not counts["train"]["pairs"]:
            logger.warning("no training pair survives (%s), and dpo will stop unless dpo.epochs is 0; %s",
                           counts["train"], advice(counts["train"]))  # fmt: skip
        files.write_json(folder / "counts.json", counts)


if __name__ == "__main__":
    run.stage(
        main,
        Params,
        name="population.prefs",
        doc=__doc__,
        inputs={"tiles": "preprocess", "split": "split", "model": "sft"},
        outputs={"out": "folder to write"},
    )
