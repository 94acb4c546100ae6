"""Plain transformers answers as the project's own reader does."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoTokenizer

from src.core.stage.errors import DataError
from src.population.models.inference import NEVER_ANSWERED, Reader
from src.population.models.model_folder import load
from src.population.models.plain_inputs import plain_inputs
from tests.population.conftest import run_sft
from tests.population.covaried import GDP, gdp, with_gdp


@pytest.fixture(scope="module")
def folder(study, trained, tmp_path_factory):
    """A model whose prompt names the year and a covariate."""
    place = tmp_path_factory.mktemp("plain")
    changes = GDP | {"prompt.fields": ["year"], "sft.covariates": "prompt", "sft.epochs": 1}
    return run_sft(with_gdp(study, place), trained.pretrain, place, changes)


def test_transformers_alone_generates_the_same_words(folder, store, split_of):
    rows = split_of.rows("train").head(12)
    rows = rows.assign(gdp=gdp(12))
    reader = Reader(*load(folder), store, 12)
    tiles = store.read(rows.tile.tolist())
    assert not store.valid(rows.tile.tolist()).all(), "a tile with no data is among them"
    inputs = plain_inputs(folder, tiles, rows[["year", "gdp"]].to_dict("records"))
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    suppressed = tokenizer.convert_tokens_to_ids(NEVER_ANSWERED)
    longest = len(reader.prompter.answers([-9999.99])[0])  # a model so little trained may not end by itself
    ids = model.generate(**inputs, max_new_tokens=longest, do_sample=False, suppress_tokens=suppressed)
    words = tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert words == reader.greedy(rows)
    with torch.no_grad():
        assert model(**inputs).logits.isfinite().all()


@pytest.mark.parametrize(
    ("shape", "fields", "message"),
    [
        ((2, 7, 16, 16), [{"year": 2020, "gdp": 1.5}] * 2, r"found \(2, 7, 16, 16\), expected \(tiles, 8, H, W\)"),
        ((2, 8, 12, 16), [{"year": 2020, "gdp": 1.5}] * 2, "sides of at least 16 px"),
        ((2, 8, 16, 16), [{"year": 2020, "gdp": 1.5}], "found 1 with"),
        ((2, 8, 16, 16), [{"gdp": 1.5}] * 2, r"expected 2 \(a tile each\) with \['year', 'gdp'\]"),
        ((2, 8, 16, 16), None, r"found 2 with \[\]"),
    ],
)
def test_what_does_not_fit_is_named(folder, shape, fields, message):
    with pytest.raises(DataError, match=message):
        plain_inputs(folder, np.zeros(shape, np.int8), fields)
