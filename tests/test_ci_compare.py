"""CI's comparison of metrics: differences that pass, and violations that are named."""

import copy
import importlib.util
import json
from types import SimpleNamespace

import pytest

from src.population.evaluation import predictors as population
from src.species.evaluation import predictors as species
from tests.pipelines import ROOT

spec = importlib.util.spec_from_file_location("compare", ROOT / ".ci/compare.py")
compare = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compare)

BY_FILE = json.loads((ROOT / ".ci/tolerances.json").read_text())
TOLERANCES = compare.tolerances_of("metrics/population.json")
SPECIES = compare.tolerances_of("metrics/species.json")
COMMITTED = {
    "audit": {"shared_places": 0, "nearest_train_test_km": 101.25},
    "ridge": {"r2": 0.3, "pearson_r": None, "n": 130},
    "head": {"r2": 0.3, "r2_low": 0.1, "r2_high": 0.5, "mae": 9.0, "n": 130},
    "text": {"r2": 0.2, "r2_low": 0.0, "r2_high": 0.4, "n": 130, "parse_rate": 1.0},
}


def found(**changes):
    """Violations after `group__field=value` changes of the committed metrics."""
    produced = copy.deepcopy(COMMITTED)
    for name, value in changes.items():
        group, field = name.split("__")
        produced[group][field] = value
    return compare.violations(produced, COMMITTED, TOLERANCES)


@pytest.mark.parametrize(
    "changes",
    [{}, {"ridge__r2": 0.3009}, {"head__r2": 0.5, "head__mae": 11.0, "head__r2_low": -1.0}, {"text__parse_rate": 0.99}],
)
def test_what_may_differ(changes):
    assert found(**changes) == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"audit__shared_places": 1}, "audit.shared_places: found 1, expected 0 within 0"),
        ({"audit__nearest_train_test_km": 101.2501}, "audit.nearest_train_test_km: found 101.2501"),
        ({"ridge__r2": 0.302}, "ridge.r2: found 0.302, expected 0.3 within 0.001"),
        ({"ridge__pearson_r": 0.0}, "ridge.pearson_r: found 0.0, expected None"),
        ({"ridge__extra": 1}, "ridge.extra: found 1, expected None"),
        ({"head__r2": 0.09}, "head.r2: found 0.09, expected 0.1 to 0.5"),
        ({"head__r2": 0.51}, "head.r2: found 0.51, expected 0.1 to 0.5"),
        ({"head__r2": None}, "head.r2: found None, expected 0.1 to 0.5"),
        ({"head__n": 129}, "head.n: found 129, expected 130"),
        ({"text__parse_rate": 0.98}, "text.parse_rate: found 0.98, expected at least 0.99"),
    ],
)
def test_what_is_named(changes, line):
    (only,) = found(**changes)
    assert only.startswith(line)


def test_groups_that_come_or_go_are_named():
    less = {name: COMMITTED[name] for name in ("audit", "ridge", "head")}
    assert compare.violations(less, COMMITTED, TOLERANCES) == ["text: in one of the two only"]
    assert compare.violations(COMMITTED, less, TOLERANCES) == ["text: in one of the two only"]


def test_an_interval_that_was_not_given_is_no_licence():
    committed = {"head": {"r2": 0.3, "r2_low": None, "r2_high": None, "n": 5}}
    assert compare.violations(committed, committed, TOLERANCES) == ["head.r2: found 0.3, expected None to None"]


def test_main_compares_with_the_last_commit(tmp_path, monkeypatch, capsys):
    def show(command, **options):
        if command[2].endswith("dvc.lock"):
            return SimpleNamespace(stdout=b"stages: {}")
        return SimpleNamespace(stdout=(json.dumps(COMMITTED) if "population" in command[2] else "{}").encode())

    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci/tolerances.json").write_text(json.dumps(BY_FILE))
    (tmp_path / "metrics").mkdir()
    monkeypatch.setattr(compare, "ROOT", tmp_path)
    monkeypatch.setattr(compare.subprocess, "run", show)
    for metrics in compare.LOCKS:
        (tmp_path / metrics).write_text("{}")
    (tmp_path / "metrics/population.json").write_text(json.dumps(COMMITTED))
    assert compare.main() == 0
    (tmp_path / "metrics/population.json").write_text(json.dumps(COMMITTED | {"audit": {}}))
    assert compare.main() == 1
    assert "metrics/population.json: audit.shared_places: found None" in capsys.readouterr().out


@pytest.mark.parametrize(("found", "wrong"), [(0.93, 0), (1.0, 0), (0.92, 1), (None, 1)])
def test_each_kind_of_test_has_its_own_main_score(found, wrong):
    kind = {"n": 128, "accuracy": 0.5, "balanced_accuracy": 0.97, "balanced_accuracy_low": 0.93}
    committed = {"bands": {"alteration": kind | {"balanced_accuracy_high": 1.0}}}
    produced = {"bands": {"alteration": committed["bands"]["alteration"] | {"balanced_accuracy": found}}}
    tolerances = compare.tolerances_of("metrics/minerals.json")
    assert len(compare.violations(produced, committed, tolerances)) == wrong


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"opt_v3": {"test": {"n": 16, "psnr": 28.9}}}, None),
        ({"opt_v3": {"test": {"n": 16, "psnr": 30.1}}}, "opt_v3.test.psnr: found 30.1, expected 28 to 30"),
        ({"opt_v3": {"test": {"n": 15, "psnr": 29.0}}}, "opt_v3.test.n: found 15"),
        ({"opt_v2": {"test": {"n": 16, "psnr": 24.002}}}, "opt_v2.test.psnr: found 24.002, expected 24.0 within 0.001"),
        ({"data": {"opt_v2": "given"}}, "data.opt_v2: found given"),
        ({"references": {"noise": {"agreement": 0.01}}}, "references.noise.agreement: found 0.01"),
        ({"kinds": {"holes": {"opt_v3": 20.0}}}, None),
    ],
)
def test_images_of_networks_stay_in_their_interval_and_those_of_closed_forms_stay(change, line):
    committed = {
        "data": {"opt_v2": "synthetic"},
        "opt_v3": {"test": {"n": 16, "psnr": 29.0, "psnr_low": 28, "psnr_high": 30}},
        "opt_v2": {"test": {"n": 16, "psnr": 24.0}},
        "references": {"noise": {"agreement": 0.0}},
        "kinds": {"holes": {"opt_v3": 30.0}},
    }
    found = compare.violations(committed | change, committed, compare.tolerances_of("metrics/grounding.json"))
    assert [one.startswith(line) for one in found] == ([True] if line else [])


@pytest.mark.parametrize(
    ("kind", "score", "line"),
    [
        ("temporal", 0.7, None),
        ("temporal", 0.71, "vision.temporal.top1: found 0.71, expected 0.5 to 0.7"),
        ("both", 0.55, None),
        ("both", 0.61, "vision.both.top1: found 0.61, expected 0.5 within 0.1"),
    ],
)
def test_accuracies_stay_in_their_interval_or_near_where_there_is_none(kind, score, line):
    committed = {
        "vision": {
            "temporal": {"n": 400, "top1": 0.6, "top1_low": 0.5, "top1_high": 0.7},
            "both": {"n": 20, "top1": 0.5, "top1_low": None, "top1_high": None},
        }
    }
    produced = copy.deepcopy(committed)
    produced["vision"][kind]["top1"] = score
    found = compare.violations(produced, committed, SPECIES)
    assert found == ([line] if line else [])
    del produced["vision"][kind]
    assert f"vision.{kind}: in one of the two only" in compare.violations(produced, committed, SPECIES)


@pytest.mark.parametrize("metrics", sorted(compare.LOCKS))  # of the pipelines that have run
def test_the_committed_metrics_agree_with_themselves(metrics):
    committed = json.loads((ROOT / metrics).read_text(encoding="utf-8"))
    assert compare.violations(committed, committed, compare.tolerances_of(metrics)) == []


@pytest.mark.parametrize(
    ("listed", "tolerances", "score", "trained"),
    [
        (population, TOLERANCES, "r2", lambda scores: scores | {"parse_rate": 1.0}),
        (species, SPECIES, "top1", lambda scores: {"temporal": scores}),
    ],
)
def test_the_kind_in_the_list_of_predictors_decides_how_a_group_is_compared(listed, tolerances, score, trained):
    def scores(value):
        group = trained({score: value, f"{score}_low": 0.1, f"{score}_high": 0.5, "n": 9})
        return {one.name: group for one in listed.PREDICTORS}

    moved = compare.violations(scores(0.4), scores(0.3), tolerances)
    closed = sorted(one.name for one in listed.PREDICTORS if one.kind == "closed form")
    assert [line.split(".")[0] for line in moved] == closed


def test_closed_forms_are_those_that_no_machine_moves():
    assert TOLERANCES["closed_form"] == {
        "null", "mean", "year_mean", "previous_year", "place_mean", "place_trend", "province_year", "latlon", "gp",
        "covariates", "ridge", "pls", "forest",
    }  # fmt: skip
    assert SPECIES["closed_form"] == {"audit", "majority", "location", "location_season"}


def test_a_score_of_no_listed_predictor_is_named():
    both = COMMITTED | {"knn": COMMITTED["head"]}
    assert compare.violations(both, both, TOLERANCES) == ["knn: scored, but not in the list of predictors"]
    new = {"forest": {"temporal": {"n": 9, "top1": 0.6, "top1_low": 0.5, "top1_high": 0.7}}}
    assert compare.violations(new, new, SPECIES) == ["forest: scored, but not in the list of predictors"]


def test_plain_values_are_exact():
    committed = json.loads((ROOT / "metrics/population.json").read_text(encoding="utf-8"))
    other = committed | {"fold": committed["fold"] + 1}
    assert compare.violations(other, committed, TOLERANCES) == [f"fold: found {other['fold']}, expected 0 within 0"]


def test_a_lock_of_other_code_is_named():
    lock = b"""
stages:
  pca:
    deps:
    - {path: data/x, md5: 0}
    - {path: src/a.py, md5: 0cc175b9c0f1b6a831c399e269772661}
"""
    assert compare.stale("dvc.lock", lock, lambda path: b"a") == []
    assert compare.stale("dvc.lock", lock, lambda path: b"b") == [
        "dvc.lock: pca: src/a.py changed after it ran; run dvc repro and commit what it writes"
    ]
