"""Preference optimisation: the facts that fail silently, each looked at from outside the trainer."""

import json
import logging
import re
from argparse import Namespace

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from trl import DPOTrainer

from src.core.models import chat
from src.core.stage.errors import DataError
from src.core.training import checkpoints
from src.population import dpo
from src.population.models import model_folder, prompts
from src.population.models.inference import Reader
from src.population.models.model_folder import load
from src.population.models.preference_training import answer_log_probs
from tests.population.conftest import (
    contents,
    moved_groups,
    run_dpo,
    run_pretrain,
    run_sft,
    small_params,
    weights_of,
    write_pairs,
)
from tests.population.covaried import GDP, with_gdp


class Captured(Exception):
    pass


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def model_of(request, study, trained, tmp_path_factory):
    """An SFT folder of each family."""
    if request.param == small_params().model.family:
        return trained.sft
    folder = tmp_path_factory.mktemp(request.param)
    changes = {"model.family": request.param, "sft.epochs": 1}
    return run_sft(study, run_pretrain(study, folder, changes | {"pretrain.epochs": 0}), folder, changes)


@pytest.fixture
def start(study, trained, tmp_path, monkeypatch):
    """`start(model, changes)` -> the trainer as the stage hands it over for training."""

    def start(model=trained.sft, changes=None, prefs=trained.prefs, study=study):
        seen = []

        def capture(trainer, scratch, save_steps):
            seen.append(trainer)
            raise Captured

        monkeypatch.setattr(checkpoints, "train", capture)
        with pytest.raises(Captured):
            run_dpo(study, model, prefs, tmp_path, changes)
        seen[0].model.eval()
        return seen[0]

    return start


def batch_of(trainer, count=4):
    return trainer.data_collator([trainer.train_dataset[i] for i in range(count)])


def test_chosen_rows_come_first_then_rejected(start, trained):
    trainer = start()
    batch = batch_of(trainer)
    lines = (trained.prefs / "train.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = [json.loads(line) for line in lines[:4]]
    tokenizer = trainer.data_collator.prompter.tokenizer
    for row, text in enumerate([pair["chosen"] for pair in pairs] + [pair["rejected"] for pair in pairs]):
        answer = batch["input_ids"][row][batch["completion_mask"][row].bool()]
        assert tokenizer.decode(answer) == text + chat.IM_END


def test_prompts_hold_the_covariates_of_their_sample(start, study, trained, store, tmp_path):
    gdp_study = with_gdp(study, tmp_path)
    changes = GDP | {"sft.covariates": "both", "sft.epochs": 1}
    trainer = start(run_sft(gdp_study, trained.pretrain, tmp_path, changes), study=gdp_study)
    batch, collator = batch_of(trainer), trainer.data_collator
    rows = collator.samples.loc[trainer.train_dataset["sample"][:4] * 2]
    assert rows.gdp.nunique() == 4
    for ids, value in zip(batch["input_ids"], rows.gdp, strict=True):
        assert f"gdp：{prompts.fill('{gdp}', {'gdp': value})}。" in collator.prompter.tokenizer.decode(ids)
    assert "covariates" not in batch, "the words have them in the prompt, and the head does not train"


def test_no_image_token_is_lost(start):
    trainer = start()
    batch = batch_of(trainer)
    image = trainer.data_collator.prompter.tokenizer.convert_tokens_to_ids(chat.IMAGE_PAD)
    assert (batch["input_ids"] == image).sum(1).tolist() == [16] * 8
    assert (batch["mm_token_type_ids"] == 1).equal(batch["input_ids"] == image)
    assert batch["image_grid_thw"].tolist() == [[1, 8, 8]] * 8
    assert len(batch["pixel_values"]) == 8 * 64
    chosen, rejected = batch["pixel_values"].chunk(2)
    assert torch.equal(chosen, rejected) and len(chosen.view(4, -1).unique(dim=0)) == 4


def test_every_images_pixels_move_its_own_log_probs_and_no_other(start, model_of):
    trainer = start(model_of)
    batch = batch_of(trainer)
    before = answer_log_probs(trainer.model, batch)
    for row in range(8):
        pixels = batch["pixel_values"].clone()
        pixels.view(8, 64, -1)[row] += 3.0
        moved = (answer_log_probs(trainer.model, batch | {"pixel_values": pixels}) - before).abs()
        others = [other for other in range(8) if other != row]
        assert moved[row] > 1e-4 and moved[others].max() == 0, row


def test_log_probs_are_trls_own_and_those_of_the_full_model(start, model_of, store):
    trainer = start(model_of)
    batch = batch_of(trainer)
    own = answer_log_probs(trainer.model, batch)
    reference = torch.cat([batch["ref_chosen_logps"], batch["ref_rejected_logps"]])
    torch.testing.assert_close(own, reference.float(), rtol=0, atol=1e-4)

    model, tokenizer, settings = load(model_of)
    reader = Reader(model, tokenizer, settings, store, 1)
    samples = trainer.data_collator.samples
    for row in range(8):
        example = trainer.train_dataset[row % 4]
        rows = samples.loc[[example["sample"]]]
        prompt = reader.prompter.prompts(rows)[0]
        answer = chat.encode_answer(tokenizer, example["chosen_text" if row < 4 else "rejected_text"])
        vision, _ = model.vision_inputs(
            torch.from_numpy(store.read(rows.tile.tolist())), torch.from_numpy(store.valid(rows.tile.tolist()))
        )
        ids = torch.tensor([prompt + answer])
        image = tokenizer.convert_tokens_to_ids(chat.IMAGE_PAD)
        with torch.no_grad():
            logits = model.vlm(
                input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=(ids == image).long(), **vision
            ).logits[0]
        log_probs = logits[len(prompt) - 1 : -1].log_softmax(-1)  # position t predicts token t + 1
        expected = log_probs.gather(1, torch.tensor(answer)[:, None]).sum()
        torch.testing.assert_close(own[row], expected, rtol=0, atol=1e-4)


def test_the_reference_is_of_each_samples_own_tile(start, study, split_of):
    """Padding, batches and shuffling apart: what trl computed for a sample is what another batch gives."""
    trainer = start()
    everything = trainer.data_collator([trainer.train_dataset[i] for i in range(len(trainer.train_dataset))])
    chosen, rejected = answer_log_probs(trainer.model, everything).chunk(2)
    torch.testing.assert_close(chosen, everything["ref_chosen_logps"].float(), rtol=0, atol=1e-4)
    torch.testing.assert_close(rejected, everything["ref_rejected_logps"].float(), rtol=0, atol=1e-4)
    assert trainer.train_dataset["sample"][:] == split_of.rows("train")["sample"].tolist()


@pytest.mark.parametrize(("loss", "value"), [("sigmoid", float(np.log(2))), ("hinge", 1.0)])
def test_training_starts_where_policy_and_reference_agree(start, loss, value):
    """Were pixels, shift or order not those of the reference, the first loss would be another."""
    trainer = start(changes={"dpo.loss": loss})
    with torch.no_grad():
        found = trainer.compute_loss(trainer.model, batch_of(trainer))
    assert float(found) == pytest.approx(value, abs=1e-5)


def test_words_move_towards_chosen_and_the_head_stays(study, trained, store, split_of, tmp_path):
    out = run_dpo(study, trained.sft, trained.prefs, tmp_path, {"dpo.epochs": 3})
    assert moved_groups(weights_of(trained.sft), weights_of(out)) == {"encoder", "merger", "language"}
    before = safetensors.torch.load_file(trained.sft / "head.safetensors")
    after = safetensors.torch.load_file(out / "head.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert (trained.sft / "bandwise.json").read_bytes() == (out / "bandwise.json").read_bytes()

    facts = json.loads((tmp_path / "plots" / "dpo" / "pairs.json").read_text())
    counts = {f"{role}_pairs": len(split_of.rows(role)) for role in ("train", "validation")}
    assert counts.items() <= facts.items()
    assert 0 <= facts["reward_accuracy"] <= 1
    margins = pd.read_csv(
        tmp_path / "plots" / "dpo" / "plots" / "metrics" / "train" / "rewards" / "margins.tsv", sep="\t"
    )
    assert margins["margins"].iloc[-1] > 0.01 > abs(margins["margins"].iloc[0]) / 10


@pytest.mark.parametrize("lora", [False, True])
def test_the_best_epoch_is_kept_whole(study, trained, tmp_path, monkeypatch, lora):
    """Trainer loads the best checkpoint by name and without an error where names do not fit."""
    scores = iter([0.5, 0.3, 0.4, 0.6])
    epochs, kept = [], {}

    def weights(model):
        return {name: p.detach().clone() for name, p in model.named_parameters()}

    def scripted(self, *args, **kwargs):
        epochs.append(weights(self.model))
        out = evaluation_loop(self, *args, **kwargs)
        out.metrics["eval_loss"] = next(scores)
        return out

    def watch(folder, model, tokenizer, settings, *rest):
        kept.update(weights(model.vlm))
        save(folder, model, tokenizer, settings, *rest)

    evaluation_loop, save = DPOTrainer.evaluation_loop, model_folder.save
    monkeypatch.setattr(DPOTrainer, "evaluation_loop", scripted)
    monkeypatch.setattr(model_folder, "save", watch)
    changes = {"model.backbone": str(trained.pretrain) if lora else "tiny", "dpo.epochs": 5, "dpo.patience": 2}
    run_dpo(study, trained.sft, trained.prefs, tmp_path, changes)
    assert len(epochs) == 4, "stopped early"
    assert kept.keys() == epochs[1].keys()
    assert [name for name in kept if not torch.equal(kept[name], epochs[1][name])] == []
    assert moved_groups(epochs[1], epochs[3]) == ({"language"} if lora else {"encoder", "merger", "language"})


def test_a_single_step_moves_the_words(study, trained, split_of, tmp_path):
    few = {role: split_of.rows(role).head(3) for role in ("train", "validation")}
    out = run_dpo(study, trained.sft, write_pairs(tmp_path / "prefs", few), tmp_path, {"dpo.epochs": 1})
    assert moved_groups(weights_of(trained.sft), weights_of(out)), "a warm-up of one step would have rate 0"


def test_the_hinge_loss_runs_and_is_another(study, trained, tmp_path):
    usual = run_dpo(study, trained.sft, trained.prefs, tmp_path / "usual", {"dpo.epochs": 1})
    hinge = run_dpo(study, trained.sft, trained.prefs, tmp_path / "hinge", {"dpo.epochs": 1, "dpo.loss": "hinge"})
    assert moved_groups(weights_of(usual), weights_of(hinge))


def test_lora_moves_the_language_model_alone_and_merges(study, trained, store, split_of, tmp_path, monkeypatch):
    kept = {}
    save = model_folder.save

    def watch(folder, model, tokenizer, settings, *rest):
        kept["names"] = {name for name, p in model.vlm.named_parameters() if p.requires_grad}
        kept["head"] = Reader(model, tokenizer, settings, store, 8).head(split_of.rows("test"))
        save(folder, model, tokenizer, settings, *rest)

    monkeypatch.setattr(model_folder, "save", watch)
    changes = {"model.backbone": str(trained.pretrain), "dpo.lr": 0.01}
    out = run_dpo(study, trained.sft, trained.prefs, tmp_path, changes)
    assert kept["names"] and all("lora_" in name and "language_model" in name for name in kept["names"])
    before, after = weights_of(trained.sft), weights_of(out)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(changed) == 2 * 7 and all(name.endswith("_proj.weight") for name in changed)
    assert moved_groups(before, after) == {"language"}
    np.testing.assert_allclose(Reader(*load(out), store, 8).head(split_of.rows("test")), kept["head"], atol=1e-4)


def test_lora_starts_at_its_reference(start, trained):
    trainer = start(changes={"model.backbone": str(trained.pretrain)})
    batch = batch_of(trainer)
    own = answer_log_probs(trainer.model, batch)
    reference = torch.cat([batch["ref_chosen_logps"], batch["ref_rejected_logps"]])
    torch.testing.assert_close(own, reference.float(), rtol=0, atol=1e-4)


def test_three_channel_models_too(study, split_of, tmp_path):
    changes = {"model.input": "pca3", "pretrain.epochs": 0, "sft.epochs": 1, "dpo.epochs": 1}
    model = run_sft(study, run_pretrain(study, tmp_path, changes), tmp_path, changes)
    prefs = write_pairs(tmp_path / "prefs", {role: split_of.rows(role) for role in ("train", "validation")})
    out = run_dpo(study, model, prefs, tmp_path, changes)
    assert load(out)[2].input == "pca3"


def test_no_epoch_passes_the_sft_model_on(study, trained, tmp_path):
    """A head without words has no pairs, and is to be scored all the same."""
    out = run_dpo(study, trained.sft, tmp_path / "no prefs", tmp_path, {"dpo.epochs": 0})
    assert contents(out) == contents(trained.sft)
    facts = json.loads((tmp_path / "plots" / "dpo" / "pairs.json").read_text())
    assert facts == {"train_pairs": 0, "validation_pairs": 0}


def test_no_pair_and_a_dry_run(study, trained, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "prefs").mkdir()
    for role in ("train", "validation"):
        (tmp_path / "prefs" / f"{role}.jsonl").write_text("")
    for few, message in ((16, r"raise prefs\.num_samples or"), (17, "most answers lack the asked form, .* sft.epochs")):
        counts = json.dumps({"train": {"rows": 32, "too_few_answers": few}})
        (tmp_path / "prefs" / "counts.json").write_text(counts)
        with pytest.raises(DataError, match=rf"train\.jsonl: no pair; {message}.*, or go without \(dpo.epochs: 0\)"):
            run_dpo(study, trained.sft, tmp_path / "prefs", tmp_path)
    inputs = Namespace(tiles=study.tiles, split=study.split, prefs=trained.prefs, model=trained.sft)
    dpo.main(small_params(), inputs, Namespace(out=tmp_path / "out", plots=tmp_path / "plots"), dry_run=True)
    assert "  words " in caplog.text and re.search(r"\d+ steps of [\d.]+ s: about", caplog.text)
    assert [path.name for path in tmp_path.iterdir()] == ["prefs"]
