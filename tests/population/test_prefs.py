"""Preference pairs: nearest to the truth chosen, farthest rejected, the rest dropped and counted."""

import json
import logging
import math
import re
from argparse import Namespace

import pandas as pd
import pytest

from src.population import prefs
from src.population.data import preference_pairs
from src.population.models import prompts
from src.population.models.inference import Reader
from tests.population.conftest import contents, small_params


def say(*values):
    return [value if isinstance(value, str) else prompts.answer(value, "zh") for value in values]


def pairs_of(answers, truth=5.0, **changes):
    rows = pd.DataFrame({"sample": [7], "tile_id": ["P/C/2020"], "growth_rate": [truth]})
    params = small_params({f"prefs.{name}": value for name, value in changes.items()}).prefs
    return preference_pairs.make_pairs(rows, [answers], params, "zh")


def test_nearest_is_chosen_and_farthest_rejected():
    (pair,), counts = pairs_of(say(9.0, 4.5, 6.0, -3.0))
    assert pair == {
        "sample": 7,
        "tile_id": "P/C/2020",
        "truth": 5.0,
        "chosen": prompts.answer(4.5, "zh"),
        "rejected": prompts.answer(-3.0, "zh"),
        "chosen_value": 4.5,
        "rejected_value": -3.0,
        "chosen_error": 0.5,
        "rejected_error": 8.0,
    }
    assert counts["pairs"] == 1 == counts["rows"]


def test_what_cannot_be_parsed_takes_no_part_and_is_counted():
    (pair,), counts = pairs_of(say("预测值：5.00", 9.0, "预测值：100.00%", 6.0))
    assert (pair["chosen_value"], pair["rejected_value"]) == (6.0, 9.0)
    assert counts["unparsable_answers"] == 2


@pytest.mark.parametrize(
    ("answers", "dropped"),
    [
        (say(6.0, 6.0, 6.0), "ties"),
        (say(6.0, 4.0), "ties"),  # as far on either side
        (say(6.0, 6.5), "small_margin"),
        (say(6.0, "?"), "too_few_answers"),
        (say("?", "?"), "too_few_answers"),
    ],
)
def test_rows_without_a_clear_pair_are_dropped_and_counted(answers, dropped):
    pairs, counts = pairs_of(answers, min_margin=1.0)
    assert not pairs and counts["pairs"] == 0
    assert {name: counts[name] for name in ("ties", "small_margin", "too_few_answers")} == {
        "ties": 0, "small_margin": 0, "too_few_answers": 0, dropped: 1,
    }  # fmt: skip


def test_the_margin_is_between_the_errors_and_inclusive():
    assert pairs_of(say(6.0, 2.5), min_margin=1.5)[1]["pairs"] == 1
    assert pairs_of(say(6.0, 2.6), min_margin=1.5)[1]["small_margin"] == 1


@pytest.fixture
def sample(study, trained, tmp_path, monkeypatch):
    """`sample(answers, **changes)` -> output folder, where the model answers `answers(row, count)`; asked rows."""
    asked = []

    def sample(answers=None, dry_run=False, name="prefs", **changes):
        def sampled(self, rows, count, temperature, top_p, seed):
            asked.append((rows, count, temperature, top_p, seed))
            return [answers(row, count) for row in rows.itertuples()]

        if answers:
            monkeypatch.setattr(Reader, "sampled", sampled)
        inputs = Namespace(tiles=study.tiles, split=study.split, model=trained.sft)
        prefs.main(small_params(changes), inputs, Namespace(out=tmp_path / name), dry_run)
        return tmp_path / name

    sample.asked = asked
    return sample


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_training_and_validation_tiles_are_asked_and_test_tiles_never(sample, split_of):
    def answers(row, count):
        return say(*[row.growth_rate + 3.0 * step for step in range(count)])

    out = sample(answers, **{"prefs.num_samples": 4, "prefs.temperature": 0.8})
    expected = [(len(split_of.rows(role)), 4, 0.8, 0.9, 0) for role in ("train", "validation")]
    assert [(len(rows), *rest) for rows, *rest in sample.asked] == expected
    counts = json.loads((out / "counts.json").read_text())
    for role, (count, *_) in zip(("train", "validation"), expected, strict=True):
        pairs = lines(out / f"{role}.jsonl")
        assert [pair["sample"] for pair in pairs] == split_of.rows(role)["sample"].tolist()
        assert counts[role]["pairs"] == counts[role]["rows"] == len(pairs) == count
        for pair, truth in zip(pairs, split_of.rows(role).growth_rate, strict=True):
            assert pair["truth"] == truth
            assert math.isclose(pair["rejected_value"] - truth, 9.0, abs_tol=0.011)
    used = {pair["tile_id"] for role in ("train", "validation") for pair in lines(out / f"{role}.jsonl")}
    assert not used & set(split_of.rows("test").tile_id)
    assert not used & set(split_of.tiles.tile_id[split_of.tiles.role == "buffer"])


def test_no_surviving_pair_is_said_aloud(sample, caplog):
    """It is no error here: with dpo.epochs 0 the head is scored all the same."""
    sample(lambda row, count: say(*[1.0] * count), name="ties")
    assert re.search(r"no training pair survives .*'ties': 32.*unless dpo\.epochs is 0; raise prefs\.num", caplog.text)
    out = sample(lambda row, count: ["about 1"] * count, name="formless")
    assert re.search(r"most answers lack the asked form, .*raise sft\.epochs", caplog.text)
    assert lines(out / "train.jsonl") == [] and (out / "counts.json").exists()


def test_a_dry_run_counts_and_writes_nothing(sample, split_of, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    sample(dry_run=True)
    asked = {role: 5 * len(split_of.rows(role)) for role in ("train", "validation")}
    assert f"{asked} answers to sample" in caplog.text
    assert not list(tmp_path.iterdir())


def test_sampled_answers_give_the_same_bytes_whatever_the_batch(sample, monkeypatch):
    """The real sampler; the short run's answers are no numbers yet, so parsing is made lenient."""
    monkeypatch.setattr(preference_pairs.prompts, "parse", lambda text, language: float(len(text)) if text else None)
    changes = {"prefs.num_samples": 3, "prefs.temperature": 1.0}
    first = sample(name="first", **changes)
    second = sample(name="second", **changes | {"prefs.batch_size": 7})
    assert contents(first) == contents(second)
    assert len(lines(first / "train.jsonl")) > 5
    assert contents(sample(name="third", **changes | {"seed": 1})) != contents(first)


def test_a_permutation_prefers_what_is_near_to_permuted_labels(sample, split_of):
    """The rows that `sampled` sees are those of the permutation too: answers spread around their labels."""

    def answers(row, count):
        return say(*[row.growth_rate + 3.0 * step for step in range(count)])

    out = sample(answers, **{"sft.permutation": 1})
    null = split_of.permuted(0, 1)
    for role in ("train", "validation"):
        truths = [pair["truth"] for pair in lines(out / f"{role}.jsonl")]
        assert truths == null.rows(role).growth_rate.tolist() != split_of.rows(role).growth_rate.tolist()
