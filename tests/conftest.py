"""Fixtures that several test modules share. No network, seeds fixed."""

import gc

import pytest

from src.core.stage.params import validate
from src.grounding import params as grounding
from src.minerals import params as minerals
from src.population import params as population
from src.species import params as species
from tests.pipelines import values_of


@pytest.fixture
def make_params():
    """`make_params({"split.fold": 1})` -> the committed params.yaml with those keys changed, validated."""
    return make_population_params


def make_population_params(changes: dict | None = None) -> population.Params:
    """The committed params.yaml with those keys changed, validated; it locks no place, unlike the committed one."""
    return validate(values_of("population", {"split.lock": None} | (changes or {})), population.Params, "params.yaml")


def species_params(changes: dict | None = None) -> species.Params:
    """`species_params({"split.squares": 3})` -> the committed params of species with those keys changed, validated."""
    return validate(values_of("species", changes), species.Params, where="params.yaml")


def minerals_params(changes: dict | None = None) -> minerals.Params:
    """`minerals_params({"split.test": 0.3})` -> the committed params of minerals with those keys changed, validated."""
    return validate(values_of("minerals", changes), minerals.Params, where="params.yaml")


def grounding_params(changes: dict | None = None) -> grounding.Params:
    """`grounding_params({"split.test": 0.3})` -> the committed params with those keys changed, validated."""
    return validate(values_of("grounding", changes), grounding.Params, where="params.yaml")


def pytest_collection_finish() -> None:
    """Everything imported so far stays: every training asks for a full collection, which took half a second."""
    gc.freeze()
