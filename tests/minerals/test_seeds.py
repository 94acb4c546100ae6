"""Spread of the scores of words over runs with other seeds, and files that are no such runs."""

import json

import pytest

from src.core.stage.errors import DataError
from src.minerals import seeds


def write(folder, seed, yes_no, listed=0.8, ends="", **changes):
    """Metrics of a run, as far as they are read; the blank image is not asked for a list."""
    scores = {"scored_against": "map" if ends else "truth", "tiles": 4, "blocks": 2, "audit": {"blocks": 5}}
    scores["bands"] = {f"alteration{ends}": {"balanced_accuracy": yes_no}, f"minerals{ends}": {"micro_f1": listed}}
    scores["bands_blank"] = {f"alteration{ends}": {"balanced_accuracy": 0.5}}
    scores["unmixing"] = {"map": {"macro_f1": 0.7}}
    (folder / f"seed-{seed}.json").write_text(json.dumps(scores | changes))


@pytest.mark.parametrize("ends", ["", "_map"], ids=["truth", "map"])
def test_each_score_of_words_has_its_mean_and_spread(tmp_path, capsys, ends):
    for seed, yes_no in enumerate((0.9, 0.7, 0.8)):
        write(tmp_path, seed, yes_no, ends=ends)
    result = seeds.main(str(tmp_path / "seed-*.json"), tmp_path / "spread.json")
    assert result["bands"]["alteration.balanced_accuracy"] == {"mean": 0.8, "sd": 0.1, "low": 0.7, "high": 0.9, "J": 3}
    assert result["bands"]["minerals.micro_f1"]["sd"] == 0 and result["runs"] == 3
    assert set(result) == {"runs", "scored_against", "bands", "bands_blank"}
    assert set(result["bands_blank"]) == {"alteration.balanced_accuracy"}
    assert json.loads((tmp_path / "spread.json").read_text()) == result
    assert "model on all bands " in (said := capsys.readouterr().out) and "0.800 ± 0.100 [0.700, 0.900]" in said


def test_other_files_are_refused(tmp_path):
    pattern, out = str(tmp_path / "seed-*.json"), tmp_path / "spread.json"
    write(tmp_path, 0, 0.9)
    with pytest.raises(DataError, match="found 1 files, expected the metrics of two runs or more"):
        seeds.main(pattern, out)
    write(tmp_path, 1, 0.9)
    with pytest.raises(DataError, match=r"seed-1.json: found the scores of .*seed-0.json, expected others: another"):
        seeds.main(pattern, out)
    write(tmp_path, 1, 0.8, tiles=5)
    with pytest.raises(
        DataError, match=r"seed-1.json: tiles: found 5, in .*seed-0.json 4; expected runs with one split"
    ):
        seeds.main(pattern, out)
    write(tmp_path, 1, 0.8, bands={})
    with pytest.raises(DataError, match=r"seed-1.json: bands.alteration.balanced_accuracy: found none"):
        seeds.main(pattern, out)
    assert not out.exists()
