"""The audit of embeddings and their statistics: by hand, against plain loops, and with planted copies."""

import numpy as np
import pandas as pd
import pytest

from src.core.data import embedding_statistics
from src.core.data.embedding_store import EmbeddingStore, EmbeddingWriter
from src.core.splits import embedding_audit
from src.core.stage.errors import DataError

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
    standard = (values[present] - mean) / sd
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


@pytest.mark.parametrize(
    ("noise", "refused"), [(0.03, True), (0.06, True), (0.1, True), (0.2, True), (0.5, False), (1.0, False)]
)
def test_a_label_behind_noise_is_refused(points, tmp_path, noise, refused):
    """Its vector, and noise whose standard deviation is that share of the vector's."""
    generator, codes = np.random.default_rng(5), np.unique(points["species"], return_inverse=True)[1]
    vectors = generator.normal(0, 4, (9, 64))[codes]
    vectors *= 4 / vectors[:180].std(axis=0)
    store = write_store(tmp_path / "store", 7 + vectors + 4 * noise * generator.normal(size=vectors.shape))
    found = audit(store, points)
    assert found["language"]["within_label_share"] == pytest.approx(noise**2 / (1 + noise**2), rel=0.05)
    assert found["language"]["shared"] == 0 and (found["language"]["near_identical"] > 0) == (noise == 0.03)
    lines = embedding_audit.violations(found, [])
    assert len(lines) == refused + (noise == 0.03)
    if refused:
        assert "within_label_share: language hardly varies within a species (found 0.0" in lines[0]
        assert (
            "a model reads the label" in lines[0]
            and "leave language out of `modalities`, or name it in `shared_embeddings`" in lines[0]
        )
    assert embedding_audit.violations(found, ["language"]) == []


def test_the_share_within_labels_is_that_by_hand(values, tmp_path):
    """Against means and sums of squares as they are written; a label of one row, and no other role, says anything."""
    role = np.array(["train"] * 200 + ["test"] * 60 + ["buffer"] * 40)
    label = np.array(["c", "a", "b", "a"] * 50 + ["a", "d"] * 50)
    label[17] = "single"
    values[:200] += (np.unique(label[:200], return_inverse=True)[1] * 2.0)[:, None].astype(np.float16)
    values[:, 5] = 3
    store = write_store(tmp_path / "store", values, missing=[2, 8, 210])
    points = pd.DataFrame({"role": role, "species": label})
    rows = np.delete(np.arange(200), [2, 8])
    data = values[rows].astype(float)
    sd = data.std(axis=0)
    data = (data - data.mean(axis=0)) / np.where(sd == 0, 1, sd)
    data, names = data[rows != 17], label[rows[rows != 17]]
    within = sum(np.square(data[names == name] - data[names == name].mean(axis=0)).sum() for name in "abc")
    expected = within / (len(data) - 3) / (np.square(data - data.mean(axis=0)).sum() / (len(data) - 1))
    assert 0.2 < expected < 0.9
    assert audit(store, points)["language"]["within_label_share"] == pytest.approx(expected, abs=1e-6)
    shuffled = points.assign(species=np.random.default_rng(0).permutation(label))
    assert audit(store, shuffled)["language"]["within_label_share"] == pytest.approx(1, abs=0.03)
    each = points.assign(species=np.arange(300).astype(str))
    assert audit(store, each)["language"]["within_label_share"] is None
    assert embedding_audit.violations(audit(store, each), []) == []


def test_constant_embeddings_are_near_identical_and_not_divided_by_zero(values, points, tmp_path):
    store = write_store(tmp_path / "store", np.full_like(values, 1.5))
    found = audit(store, points)["language"]
    assert found["shared"] == 100 and found["nearest_difference"] == 0 and found["within_label_share"] is None


def test_statistics_of_other_rows_are_caught(values, points, tmp_path):
    store = write_store(tmp_path / "store", values)
    mean, sd = embedding_statistics.fit_statistics(store, "language", np.arange(280))
    found = embedding_audit.audit(store, points, {"language_mean": mean, "language_sd": sd}, label="species")
    (line,) = embedding_audit.violations(found, ["language"])  # sharing excuses embeddings, not statistics
    assert line.startswith("language_mean, language_sd: found") and "expected 0" in line
