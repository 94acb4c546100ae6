"""Plain transformers answers as the project's own reader does."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoTokenizer

from src.core.errors import DataError
from src.population.inference import NEVER_ANSWERED, Reader
from src.population.model import load
from src.population.plain import plain_inputs
from tests.population.conftest import run_sft


@pytest.fixture(scope="module")
def folder(study, trained, tmp_path_factory):
    """A model whose prompt names the year and a covariate."""
    changes = {"sft.template": "{year}，{note}：", "sft.covariates": ["note"], "sft.epochs": 1}
    return run_sft(study, trained.pretrain, tmp_path_factory.mktemp("plain"), changes)


def test_transformers_alone_generates_the_same_words(folder, store, split_of):
    rows = split_of.rows("train").head(12)
    reader = Reader(*load(folder), store, 12)
    tiles = store.read(rows.tile.tolist())
    assert not store.valid(rows.tile.tolist()).all(), "a tile with no data is among them"
    inputs = plain_inputs(folder, tiles, rows[["year", "note"]].to_dict("records"))
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    suppressed = tokenizer.convert_tokens_to_ids(NEVER_ANSWERED)
    ids = model.generate(**inputs, max_new_tokens=16, do_sample=False, suppress_tokens=suppressed)
    words = tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert words == reader.greedy(rows)
    with torch.no_grad():
        assert model(**inputs).logits.isfinite().all()


@pytest.mark.parametrize(
    ("shape", "fields", "message"),
    [
        ((2, 7, 16, 16), [{"year": 2020, "note": "a"}] * 2, r"found \(2, 7, 16, 16\), expected \(tiles, 8, H, W\)"),
        ((2, 8, 12, 16), [{"year": 2020, "note": "a"}] * 2, "sides of at least 16 px"),
        ((2, 8, 16, 16), [{"year": 2020, "note": "a"}], "found 1 with"),
        ((2, 8, 16, 16), [{"note": "a"}] * 2, r"expected 2 \(a tile each\) with \['note', 'year'\]"),
        ((2, 8, 16, 16), None, r"found 2 with \[\]"),
    ],
)
def test_what_does_not_fit_is_named(folder, shape, fields, message):
    with pytest.raises(DataError, match=message):
        plain_inputs(folder, np.zeros(shape, np.int8), fields)
