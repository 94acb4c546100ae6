"""What the committed run on the simulation, whose truth is known, has to show; CI compares each new run with it."""

import json

import pytest

from tests.conftest import ROOT

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
def test_shuffled_embeddings_are_at_chance(name, kind):
    shuffled, n = MODELS[name]["shuffled"][kind], MODELS[name]["n"][kind]
    likely = max(MODELS[name]["chance"][kind], MODELS[name]["majority"][kind])
    assert shuffled["mean"] < likely + 2 * (likely / n) ** 0.5 + 0.01
    assert shuffled["greatest"] < MODELS[name]["split"][kind] / 4


@pytest.mark.parametrize("name", ["location", "language", "vision_pooled"])
def test_without_a_buffer_and_with_random_records_scores_rise(name):
    spatial = MODELS[name]["split"]["spatial"]
    assert MODELS[name]["no_buffer"] > spatial + 0.02
    assert MODELS[name]["no_buffer_same_size"]["mean"] > spatial + 0.01
    assert MODELS[name]["random"]["least"] > spatial + 0.15


def test_the_audit_found_nothing():
    audit = SCORES["audit"]
    for key in ("shared_records", "uncertain_in_use", "misplaced_points", "points_near_squares"):
        assert audit[key] == 0, key
    assert audit["square_gap_km"] >= 15 and audit["nearest_train_test_spatial_km"] >= 5
    for found in audit["embeddings"].values():
        assert found["shared"] == found["near_identical"] == found["statistics_difference"] == 0
