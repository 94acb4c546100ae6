"""The list of predictors is whole: what params may ask for is in it, and nothing outside it passes."""

import json
from typing import get_args

import pytest

from src.core.stage.errors import DataError
from src.population.evaluation import predictors
from src.population.params import Baselines
from tests.pipelines import ROOT


def test_every_entry_has_a_name_and_title_of_its_own():
    for part in ("name", "title"):
        values = [getattr(predictor, part) for predictor in predictors.PREDICTORS]
        assert len(set(values)) == len(values) and all(values)
    assert not set(predictors.BY_NAME) & {*predictors.KEYS, *predictors.WRITTEN}
    assert {name for pair in predictors.PAIRS.values() for name in pair} <= set(predictors.BY_NAME)


def test_the_networks_that_params_may_name_are_those_of_the_list():
    (networks,) = get_args(Baselines.model_fields["networks"].annotation)
    assert set(get_args(networks)) == {group.name for group in predictors.PREDICTORS if group.kind == "network"}


def test_the_committed_metrics_hold_every_predictor_of_the_list(make_params):
    """All but those whose needs the committed params and sample do not meet, and these are named here."""
    params, metrics = make_params(), json.loads((ROOT / "metrics/population.json").read_text(encoding="utf-8"))
    assert params.split.task != "next_year" and not params.data.covariates
    unmet = {"past labels", "covariates", "several years"}  # the sample's labels are of one year
    expected = [group.name for group in predictors.PREDICTORS if group.fit is None or group.needs not in unmet]
    assert set(params.baselines.networks) <= set(expected)
    assert [group.name for group in predictors.scored(metrics)] == expected


def test_names_come_in_the_order_of_the_list_and_unknown_ones_raise():
    found = predictors.in_table(["y", "ridge", "text_blank", "head_low", "answer_dpo", "head"], "table")
    assert [predictor.name for predictor in found] == ["head", "ridge"]
    with pytest.raises(DataError, match="metrics: found predictions of 'knn', expected names of src/population"):
        predictors.scored({"knn": {"r2": 0.1}, "ridge": {"r2": 0.2}, "units": {"unit": "block"}})
    with pytest.raises(DataError, match="file: found predictions of 'knn'"):
        predictors.in_table(["y", "knn"], "file")
