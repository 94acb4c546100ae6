"""The p-value of the model among runs on permuted labels, and what is not such a run."""

import json

import pytest

from src.core.stage.errors import DataError
from src.population import model_null


def write(path, permutation, r2, **changes):
    scores = {"permutation": permutation, "params_sha256": "same"}
    scores |= {"mean": {"r2": -0.1}} | {group: {"r2": r2} for group in model_null.GROUPS} | changes
    path.write_text(json.dumps(scores))
    return path


def test_the_observed_run_counts_among_its_permutations(tmp_path):
    true = write(tmp_path / "true.json", 0, 0.3)
    for draw, r2 in enumerate((0.1, -0.2, 0.31, 0.0, -0.1), start=1):
        write(tmp_path / f"run{draw}.json", draw, r2)
    result = model_null.main(true, str(tmp_path / "run*.json"), tmp_path / "null.json")
    assert result["draws"] == [1, 2, 3, 4, 5]
    assert result["head"]["p_value"] == pytest.approx(2 / 6, abs=1e-6)
    assert json.loads((tmp_path / "null.json").read_text()) == result


def test_other_runs_are_refused(tmp_path):
    true = write(tmp_path / "true.json", 0, 0.3)
    run = write(tmp_path / "run1.json", 1, 0.1)
    out, pattern = tmp_path / "null.json", str(tmp_path / "run*.json")
    with pytest.raises(DataError, match="found no file"):
        model_null.main(true, str(tmp_path / "none*"), out)
    with pytest.raises(DataError, match="permutation: found 1, expected 0"):
        model_null.main(run, pattern, out)
    write(tmp_path / "run2.json", 1, 0.1)
    with pytest.raises(DataError, match=r"run2.json: permutation: found that of .*run1.json"):
        model_null.main(true, pattern, out)
    write(tmp_path / "run2.json", 0, 0.1)
    with pytest.raises(DataError, match="found 0, true labels"):
        model_null.main(true, pattern, out)
    write(tmp_path / "run2.json", 2, 0.1, mean={"r2": -0.3})
    with pytest.raises(DataError, match=r"run2.json: mean: differs"):
        model_null.main(true, pattern, out)
    write(tmp_path / "run2.json", 2, 0.1, params_sha256="other")
    with pytest.raises(DataError, match=r"run2.json: params_sha256: differs"):
        model_null.main(true, pattern, out)
    assert not out.exists()
