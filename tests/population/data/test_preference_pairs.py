"""Preference pairs as the dpo stage reads them: a damaged line is named."""

import pytest

from src.core.stage.errors import DataError
from tests.population.conftest import run_dpo, write_pairs


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is not a pair"),
        ('{"sample": 1, "chosen": "x"}', r"is not a pair \(KeyError\('rejected'\)\)"),
        ('{"sample": 999, "chosen": "x", "rejected": "y"}', "names sample 999, which the split does not have"),
    ],
)
def test_damaged_pairs_are_named_by_line(study, trained, split_of, tmp_path, line, message):
    prefs = write_pairs(tmp_path / "prefs", {role: split_of.rows(role) for role in ("train", "validation")})
    with (prefs / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    last = len(split_of.rows("train")) + 1
    with pytest.raises(DataError, match=rf"train\.jsonl: line {last} {message}"):
        run_dpo(study, trained.sft, prefs, tmp_path)
    assert not (tmp_path / "dpo").exists()
