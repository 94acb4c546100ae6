"""Fixtures that several test modules share. No network, seeds fixed."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from src.core.params import validate
from src.population.params import Params

ROOT = Path(__file__).parents[1]


@pytest.fixture
def make_params():
    """`make_params({"split.fold": 1})` -> the committed params.yaml with those keys changed, validated."""

    def make(changes: dict | None = None) -> Params:
        values = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        values["split"]["lock"] = None  # the committed one locks places of the sample
        for key, value in (changes or {}).items():
            *sections, name = key.split(".")
            target = values
            for section in sections:
                target = target[section]
            target[name] = value
        return validate(values, Params, where="params.yaml")

    return make
