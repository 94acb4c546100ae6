"""One list of predictors: nothing is scored, drawn or compared that it does not name."""

from typing import get_args

import numpy as np
import pytest
from safetensors.numpy import save_file

from src.core.splits import point_audit
from src.core.stage import files
from src.core.stage.errors import DataError
from src.species.baselines import embedding_blocks
from src.species.data import task
from src.species.evaluation import predictions
from src.species.evaluation.predictors import INPUTS, MAIN, PAIRS, PREDICTORS, TITLES, require_complete
from src.species.params import Train
from tests.pipelines import ROOT
from tests.species.study import write_study


def test_every_predictor_has_its_own_name_and_title_and_a_known_kind():
    assert len(TITLES) == len(set(TITLES.values())) == len(PREDICTORS)
    assert {one.kind for one in PREDICTORS} == {"trained", "fitted", "closed form"}
    assert {one.fit for one in PREDICTORS if one.kind == "trained"} == {"network"}
    assert {*MAIN, *np.ravel(PAIRS)} <= set(TITLES)


def test_committed_metrics_hold_every_predictor():
    scores = files.read_json(ROOT / "metrics/species.json")
    assert set(TITLES) <= set(scores) and set(TITLES) == set(scores["validation"])


def test_what_trains_is_what_params_may_ask_for():
    (choice,) = get_args(Train.model_fields["models"].annotation)
    assert get_args(choice) == tuple(INPUTS)


def test_the_baselines_on_embeddings_are_those_whose_modalities_are_stored():
    assert embedding_blocks([]) == {}
    assert embedding_blocks(["vision_pooled"]) == {
        ("vision_pooled",): {"logistic": "logistic_vision", "neighbours": "knn_vision"}
    }
    assert len(embedding_blocks(["language", "vision_pooled", "vision"])) == 3


def test_a_predictor_that_the_list_does_not_name_is_neither_written_nor_read(tmp_path):
    study = task.read(*write_study(tmp_path))
    values = np.zeros((len(study.held_out), 4))
    with pytest.raises(DataError, match=r"predictions of new, expected names that src/species/evaluation/predictors"):
        predictions.write(tmp_path, study, {"majority": values, "new": values})
    assert not (tmp_path / predictions.NAME).exists()
    predictions.write(tmp_path, study, {"majority": values})
    arrays = files.read_arrays(tmp_path / predictions.NAME)
    save_file(arrays | {"new": values}, tmp_path / predictions.NAME)
    with pytest.raises(DataError, match=r"predictions\.safetensors: found predictions of new"):
        predictions.read(tmp_path, study)


def test_the_audit_knows_the_kinds_of_test_that_the_split_makes():
    assert tuple(task.KINDS) == point_audit.KINDS


def test_a_predictor_that_could_be_fitted_and_is_absent_is_named():
    modalities, trained = ("language", "vision_pooled"), ("language", "vision")
    every = {one.name for one in PREDICTORS} - {"both"}  # not asked for
    require_complete(every, modalities, trained)
    with pytest.raises(DataError, match=r"found none of 'knn' .* expected those of the stage baselines"):
        require_complete(every - {"knn"}, modalities, trained)
    blind = {one.name for one in PREDICTORS if not {"language", "vision_pooled"} & set(one.needs)}
    require_complete(blind, (), ())
