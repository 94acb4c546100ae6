"""Store, split and predictions read together: rows, classes, and what was made for another split."""

import numpy as np
import pandas as pd
import pytest

from src.core.stage.errors import DataError, StorageError
from src.species.data import task
from src.species.evaluation import predictions
from tests.species.study import write_study


def test_rows_and_classes_are_those_of_the_split(tmp_path):
    study = task.read(*write_study(tmp_path))
    assert set(study.train) | set(study.held_out) == set(range(120)) and len(study.train) == 72
    assert (study.rows("test", "spatial") % 5 == 4).all()
    assert len(study.rows("validation")) == 24
    species = study.observations["species"].to_numpy()
    assert list(study.classes) == sorted(set(species[study.train]))
    assert (study.classes[study.targets(study.train)] == species[study.train]).all()


def test_a_species_that_never_trains_is_no_class(tmp_path):
    store, split = write_study(tmp_path)
    index = pd.read_parquet(store / "index.parquet")
    row = np.flatnonzero(pd.read_parquet(split / "split.parquet")["role"] == "test")[0]
    for name in ("Aaa prima", "Mmm media", "Zzz ultima"):
        index.loc[row, "species"] = name
        index.to_parquet(store / "index.parquet", index=False)
        study = task.read(store, split)
        assert name not in study.classes
        assert study.targets(np.array([row]))[0] == -1
        assert (study.targets(study.held_out[study.held_out != row]) >= 0).all()


def test_a_split_of_another_store_is_refused(tmp_path):
    store, split = write_study(tmp_path)
    table = pd.read_parquet(split / "split.parquet")
    table[::-1].to_parquet(split / "split.parquet", index=False)
    with pytest.raises(DataError, match="run the split stage again"):
        task.read(store, split)


def test_predictions_come_back_and_belong_to_their_split(tmp_path):
    store, split = write_study(tmp_path)
    study = task.read(store, split)
    values = np.log(np.full((len(study.held_out), 4), 0.25))
    values[0] = np.nan
    predictions.write(tmp_path, study, {"both": values, "majority": values})
    found = predictions.read(tmp_path, study)
    assert list(found) == ["both", "majority"]
    np.testing.assert_array_equal(found["both"], values.astype(np.float32))
    with pytest.raises(StorageError, match=r"predictions\.safetensors"):
        predictions.read(tmp_path / "nowhere", study)

    # the same rows are held out, and one more trained: its model may have seen what a buffer keeps apart
    table = pd.read_parquet(split / "split.parquet")
    table.loc[0, "role"] = "buffer"
    table.to_parquet(split / "split.parquet", index=False)
    with pytest.raises(DataError, match="found another one than of this split's 71 training rows, 48 held-out"):
        predictions.read(tmp_path, task.read(store, split))


def test_predictions_over_other_species_are_refused(tmp_path):
    """As many species in another order: every column would be taken for another one's."""
    store, split = write_study(tmp_path)
    study = task.read(store, split)
    predictions.write(tmp_path, study, {"majority": np.zeros((len(study.held_out), 4))})
    index = pd.read_parquet(store / "index.parquet")
    index["species"] = index["species"].replace("Planta a", "Planta z")
    index.to_parquet(store / "index.parquet", index=False)
    with pytest.raises(DataError, match="and 4 species; run the stage"):
        predictions.read(tmp_path, task.read(store, split))


def test_known_and_new_places_weigh_alike(tmp_path):
    study = task.read(*write_study(tmp_path))
    rows = np.concatenate([study.rows("validation", "temporal"), study.rows("validation", "spatial")[:2]])
    weights = study.balance(rows)
    assert weights.mean() == pytest.approx(1) and weights[-2:].sum() == pytest.approx(weights[:-2].sum())
    assert (study.balance(study.rows("validation", "temporal")) == 1).all() and len(study.balance(rows[:0])) == 0
