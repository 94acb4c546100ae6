"""The audit of embeddings and their statistics: by hand, against plain loops, and with planted copies."""

import numpy as np
import pandas as pd
import pytest

from src.core import embedding_audit, embedding_statistics
from src.core.embeddings import EmbeddingStore, EmbeddingWriter
from src.core.errors import DataError

COUNT, WIDTH = 300, 24


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(2, 3, (COUNT, WIDTH)).astype(np.float16)


@pytest.fixture
def points():
    roles = np.array(["train"] * 180 + ["validation"] * 50 + ["test"] * 50 + ["buffer"] * 20)
    species = np.array([f"s{i}" for i in np.random.default_rng(1).integers(9, size=COUNT)])
    return pd.DataFrame({"role": roles, "species": species})


def write_store(folder, values, missing=(), shape=None):
    writer = EmbeddingWriter(folder, {"language": values.shape, **(shape or {})})
    writer.array("language")[:] = values
    rows = np.arange(len(values))
    rows[list(missing)] = -1
    index = pd.DataFrame({"id": np.arange(len(values)).astype(str), "language_row": rows})
    for name in shape or {}:
        index[f"{name}_row"] = -1
    writer.finish(index, {})
    return EmbeddingStore.open(folder)


def audit(store, points):
    mean, sd = embedding_statistics.fit_statistics(store, "language", np.flatnonzero(points["role"] == "train"))
    return embedding_audit.audit(store, points, {"language_mean": mean, "language_sd": sd}, label="species")


def test_statistics_are_those_of_present_training_rows(values, tmp_path, monkeypatch):
    values[:, 3] = 0.1
    store = write_store(tmp_path / "store", values, missing=[1, 7])
    rows = np.array([0, 1, 5, 7, 30, 31, 32, 200])
    present = np.array([0, 5, 30, 31, 32, 200])
    mean, sd = embedding_statistics.fit_statistics(store, "language", rows)
    expected = values[present].astype(np.float64)
    np.testing.assert_array_equal(mean, expected.mean(axis=0).astype(np.float32))
    np.testing.assert_allclose(sd[:3], expected.std(axis=0)[:3], rtol=1e-6)
    assert sd[3] == 1 and mean.dtype == sd.dtype == np.float32
    standard = embedding_statistics.standardise(values[present], mean, sd)
    np.testing.assert_allclose(standard.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(standard.std(axis=0), np.where(np.arange(WIDTH) == 3, 0, 1), atol=1e-5)
    monkeypatch.setattr(embedding_statistics, "CHUNK_BYTES", 8 * WIDTH * 4)  # chunks of four rows
    again = embedding_statistics.fit_statistics(store, "language", rows)
    np.testing.assert_allclose(again, [mean, sd], rtol=1e-6)
    assert again[1][3] == 1


def test_large_offsets_keep_their_spread(tmp_path):
    """float32 sums of squares would find a deviation of 0 or worse."""
    values = (30000 + 16 * np.random.default_rng(2).integers(-1, 2, (5000, 4))).astype(np.float16)
    store = write_store(tmp_path / "store", values)
    _, sd = embedding_statistics.fit_statistics(store, "language", np.arange(5000))
    np.testing.assert_allclose(sd, values.astype(float).std(axis=0), rtol=1e-6)


def test_statistics_of_nothing_or_of_infinity_are_refused(values, tmp_path):
    store = write_store(tmp_path / "store", values, missing=[4])
    with pytest.raises(DataError, match="language: found no training observation"):
        embedding_statistics.fit_statistics(store, "language", np.array([4]))
    values[9, 2] = np.inf
    store = write_store(tmp_path / "other", values)
    with np.errstate(invalid="ignore"), pytest.raises(DataError, match="not finite"):
        embedding_statistics.fit_statistics(store, "language", np.arange(20))


def test_clean_embeddings_pass_and_the_nearest_is_that_of_a_plain_loop(values, points, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_audit, "CHUNK_ROWS", 37)
    store = write_store(tmp_path / "store", values, missing=[3, 190, 240], shape={"vision": (1, 2, 2, 2, 3)})
    found = audit(store, points)["language"]
    assert found["shared"] == found["near_identical"] == found["labels_of_one"] == 0
    assert found["statistics_difference"] == 0 and found["labels"] == 9
    present = np.delete(np.arange(280), [3, 190, 240])
    train, held_out = present[present < 180], present[present >= 180]
    mean, sd = values[train].astype(float).mean(axis=0), values[train].astype(float).std(axis=0)
    standard = (values.astype(float) - mean) / sd
    apart = np.linalg.norm(standard[train][:, None] - standard[held_out][None], axis=2)
    least = (apart / np.linalg.norm(standard[held_out], axis=1)).min(axis=0)
    assert found["nearest_difference"] == pytest.approx(least.min(), abs=2e-6)
    assert embedding_audit.violations({"language": found}, []) == []
    other = audit(store, points.assign(role=np.where(points["role"] == "test", "buffer", points["role"])))
    assert other["language"]["nearest_difference"] >= found["nearest_difference"]


def test_copies_between_roles_are_counted(values, points, tmp_path):
    values[250], values[251] = values[3], values[3]  # two test rows of one training row
    values[200] = values[260]  # validation and test
    values[290] = values[5]  # in the buffer
    values[181] = values[182]  # within validation
    values[252] = values[9] + 0.01 * values[9]  # nearly: rounding and a hundredth
    store = write_store(tmp_path / "store", values)
    found = audit(store, points)
    assert found["language"]["shared"] == 4 and found["language"]["near_identical"] == 1
    assert found["language"]["nearest_difference"] == 0
    lines = embedding_audit.violations(found, [])
    assert len(lines) == 2 and "found 4 held-out observations with an embedding that another role has" in lines[0]
    assert "found 1 held-out observations with an embedding within 5%" in lines[1]
    assert embedding_audit.violations(found, ["language"]) == []


def test_missing_embeddings_are_no_copies_of_each_other(values, points, tmp_path):
    store = write_store(tmp_path / "store", values, missing=range(170, 240))
    assert audit(store, points)["language"]["shared"] == 0


def test_an_embedding_made_per_species_says_so(values, points, tmp_path):
    codes = np.unique(points["species"], return_inverse=True)[1]
    store = write_store(tmp_path / "store", values[codes])
    found = audit(store, points)
    assert found["language"]["shared"] == 100 and found["language"]["labels_of_one"] == 9
    (line,) = embedding_audit.violations(found, [])
    assert "language is the same for all records of a species (9 of 9" in line and "a model reads the label" in line
    assert embedding_audit.violations(found, ["language"]) == []


def test_constant_embeddings_are_near_identical_and_not_divided_by_zero(values, points, tmp_path):
    store = write_store(tmp_path / "store", np.full_like(values, 1.5))
    found = audit(store, points)["language"]
    assert found["shared"] == 100 and found["nearest_difference"] == 0


def test_statistics_of_other_rows_are_caught(values, points, tmp_path):
    store = write_store(tmp_path / "store", values)
    mean, sd = embedding_statistics.fit_statistics(store, "language", np.arange(280))
    found = embedding_audit.audit(store, points, {"language_mean": mean, "language_sd": sd}, label="species")
    (line,) = embedding_audit.violations(found, ["language"])  # sharing excuses embeddings, not statistics
    assert line.startswith("language_mean, language_sd: found") and "expected 0" in line
