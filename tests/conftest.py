"""Fixtures that several test modules share. No network, seeds fixed."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from src.core.stage.params import validate
from src.population import params as population
from src.species import params as species

ROOT = Path(__file__).parents[1]


@pytest.fixture
def make_params():
    """`make_params({"split.fold": 1})` -> the committed params.yaml with those keys changed, validated."""
    return make_population_params


def make_population_params(changes: dict | None = None) -> population.Params:
    """The committed params.yaml with those keys changed, validated; it locks no place."""
    values = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["split"]["lock"] = None  # the committed one locks places of the sample
    _change(values, changes)
    return validate(values, population.Params, where="params.yaml")


def species_params(changes: dict | None = None) -> species.Params:
    """`species_params({"split.squares": 3})` -> the committed params of species with those keys changed, validated."""
    path = ROOT / "pipelines/species/params.yaml"
    values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    _change(values, changes)
    return validate(values, species.Params, where=path.name)


def _change(values: dict, changes: dict | None) -> None:
    for key, value in (changes or {}).items():
        *sections, name = key.split(".")
        target = values
        for section in sections:
            target = target[section]
        target[name] = value
