"""Mistakes in params.yaml of species, and their messages."""

import pytest

from src.core.stage.errors import ParamsError
from tests.conftest import species_params


def test_the_committed_params_are_valid():
    assert species_params().split.test_from == 2025


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split.buffer_km": 20.0}, "reaches beyond apart_km 15"),
        ({"split.train_from": 2024}, "at least two years after train_from"),
        ({"split.spread": 0.0}, "split.spread: found 0.0"),
        ({"data.modalities": ["radar"]}, "data.modalities"),
        ({"train.models": ["langauge"]}, "train.models"),
        ({"train.dropout.language": 1.0}, "train.dropout.language"),
        ({"evaluate.frequency": [20, 5]}, "expected ascending numbers"),
        ({"simulate.observations": 100}, "at least 10 for each of 227 species"),
        ({"train.learning_rate": 1.0}, "train.learning_rate: unknown parameter"),
    ],
)
def test_what_is_refused(change, message):
    with pytest.raises(ParamsError, match=message):
        species_params(change)
