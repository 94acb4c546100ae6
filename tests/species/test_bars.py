"""Bars for the committed run on the simulation, whose truth is known; CI compares each new run with it."""

import json

import pytest

from tests.pipelines import ROOT

SCORES = json.loads((ROOT / "metrics/species.json").read_text(encoding="utf-8"))
MODELS = SCORES["controls"]["models"]


@pytest.mark.parametrize("group", ["language", "vision", "both"])
def test_known_places_are_easier_than_new_ones_and_both_beat_the_place_alone(group):
    temporal, spatial = (SCORES[group][kind]["top1"] for kind in ("temporal", "spatial"))
    assert temporal > spatial + 0.05
    assert spatial > SCORES["location"]["spatial"]["top1_high"] > SCORES["location"]["spatial"]["top1"]
    for kind in ("temporal", "spatial"):
        assert SCORES["paired"][f"{group}-location"][kind]["top1_low"] > 0


@pytest.mark.parametrize("name", ["language", "vision_pooled"])
@pytest.mark.parametrize("kind", ["temporal", "spatial"])
def test_shuffled_embeddings_score_what_independent_guesses_do(name, kind):
    shuffled, n = MODELS[name]["shuffled"][kind], MODELS[name]["n"][kind]
    likely = shuffled["if_independent"]
    assert abs(shuffled["mean"] - likely) < 3 * (likely / n / len(shuffled["draws"])) ** 0.5
    assert shuffled["greatest"] < MODELS[name]["split"][kind] / 4


@pytest.mark.parametrize("name", ["location", "language", "vision_pooled"])
def test_without_a_buffer_and_with_random_records_scores_rise(name):
    spatial = MODELS[name]["split"]["spatial"]
    assert MODELS[name]["no_buffer"] > spatial + 0.01
    assert MODELS[name]["no_buffer_same_size"]["mean"] > spatial + 0.01
    assert MODELS[name]["random"]["least"] > spatial + 0.05


def test_the_audit_found_nothing():
    audit = SCORES["audit"]
    counted = ("shared_records", "uncertain_in_use", "misplaced_points", "points_near_squares", "training_in_squares")
    for key in (*counted, "amiss_kinds"):
        assert audit[key] == 0, key
    assert audit["square_gap_km"] >= 15 and audit["nearest_train_test_spatial_km"] >= 5
    for found in audit["embeddings"].values():
        assert found["shared"] == found["near_identical"] == found["statistics_difference"] == 0
