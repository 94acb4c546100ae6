"""Retrieval: known ranks by hand, and what neither a constant nor shuffled pairs may find."""

import numpy as np
import pytest

from src.species.evaluation.retrieval import retrieve

ALONE = np.array(["a", "b", "c", "d"])


def test_ranks_by_hand():
    gallery = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], float)
    turned = np.roll(gallery, 1, axis=0)  # each query's partner is a quarter turn away: one nearer, two tie or further
    found = retrieve(turned, gallery, ALONE, 0)
    # Similarities of a query: 1 with another one's, 0 with its own and one more, -1: rank 1 + 1 + half of a tie.
    assert found["median_rank"] == 2.5 and found["recall_at_1"] == 0 and found["recall_at_5"] == 1
    found = retrieve(3 * gallery, gallery, ALONE, 0)
    assert found["recall_at_1"] == 1 and found["median_rank"] == 1 and found["species_at_1"] == 1
    assert found["count"] == 4


def test_chance_by_hand():
    species = np.array(["a"] * 3 + ["b"])
    chance = retrieve(np.eye(4), np.eye(4), species, 0)["chance"]
    assert chance == {"recall_at_1": 0.25, "recall_at_5": 1, "recall_at_10": 1, "median_rank": 2.5,
                      "species_at_1": 10 / 16}  # fmt: skip


def test_vectors_that_are_all_alike_find_nothing():
    found = retrieve(np.ones((40, 3)), np.ones((40, 3)), np.arange(40), 0)
    assert found["median_rank"] == found["chance"]["median_rank"] == 20.5
    assert found["recall_at_1"] == found["recall_at_10"] == 0
    assert retrieve(np.zeros((40, 3)), np.ones((40, 3)), np.arange(40), 0)["median_rank"] == 20.5


def test_a_shuffled_pairing_is_at_chance_whatever_the_vectors():
    generator = np.random.default_rng(0)
    vectors, species = generator.normal(size=(300, 16)), generator.integers(5, size=300)
    found = retrieve(vectors, vectors + 0.1 * generator.normal(size=vectors.shape), species, 0)
    assert found["recall_at_1"] > 0.9
    for name, value in found["chance"].items():
        tolerance = 20 if name == "median_rank" else 0.03
        assert found["shuffled"][name] == pytest.approx(value, abs=tolerance)


def test_finding_the_species_is_told_from_finding_the_observation():
    generator = np.random.default_rng(0)
    species = np.repeat(np.arange(10), 20)
    means = generator.normal(size=(10, 32))[species]
    noise = [0.05 * generator.normal(size=means.shape) for _ in range(2)]
    only_species = retrieve(means + noise[0], means + noise[1], species, 0)
    assert only_species["species_at_1"] == 1
    assert only_species["within_species"]["recall_at_1"] < 0.12
    assert only_species["within_species"]["chance"] == pytest.approx(1 / 20)
    assert only_species["recall_at_10"] > 5 * only_species["chance"]["recall_at_10"], "though it finds no observation"
    both = retrieve(means + noise[0], means + noise[0] + 0.1 * noise[1], species, 0)
    assert both["within_species"]["recall_at_1"] > 0.9


def test_blocks_change_nothing(monkeypatch):
    generator = np.random.default_rng(0)
    pair, species = generator.normal(size=(2, 50, 4)), generator.integers(6, size=50)
    whole = retrieve(*pair, species, 3)
    monkeypatch.setattr("src.species.evaluation.retrieval.BLOCK", 7)
    assert retrieve(*pair, species, 3) == whole


def test_species_of_one_record_and_no_record():
    found = retrieve(np.eye(4), np.eye(4), ALONE, 0)
    assert found["within_species"] == {"count": 0, "recall_at_1": None, "chance": None}
    assert retrieve(np.empty((0, 4)), np.empty((0, 4)), np.array([]), 0) is None
