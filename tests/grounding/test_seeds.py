"""Runs of several seeds are pooled scene by scene, and files that are no such runs are refused."""

import json

import numpy as np
import pandas as pd
import pytest

from src.core.stage.errors import DataError
from src.grounding import seeds
from src.grounding.evaluation.predictors import PREDICTORS

BLOCKS = 12


def table(seed: int, gain: float = 4.0, **changes) -> pd.DataFrame:
    """Two scenes a block; opt_v3 has `gain` more than each other predictor, with a little noise of its own."""
    draw = np.random.default_rng(seed)
    rows = []
    for one in PREDICTORS:
        for number in range(2 * BLOCKS):
            level = 20 + number / 10
            if one.name == "opt_v3":
                level += gain + 0.01 * draw.normal()
            row = {"predictor": one.name, "scene": f"s{number:02}", "block": f"b{number // 2}"}
            rows.append(row | dict.fromkeys(seeds.SCORES, level))
    return pd.DataFrame(rows).assign(**changes)


def write(folder, seed: int, rows: pd.DataFrame) -> None:
    rows.to_parquet(folder / f"seed-{seed}.parquet", index=False)


def test_scenes_of_all_runs_are_pooled_and_blocks_stay_the_units(tmp_path, capsys):
    for seed, gain in enumerate((2.0, 4.0, 6.0)):
        write(tmp_path, seed, table(seed, gain).sample(frac=1, random_state=seed))
    result = seeds.main(str(tmp_path / "seed-*.parquet"), tmp_path / "pooled.json")
    pair = result["paired"]["opt_v3-opt_v2"]
    assert result["runs"] == 3 and pair["n"] == 3 * 2 * BLOCKS and pair["n_units"] == BLOCKS
    assert pair["psnr"] == pytest.approx(4, abs=0.02) and pair["psnr_low"] < pair["psnr"] < pair["psnr_high"]
    assert pair["psnr_by_run"] == pytest.approx([2, 4, 6], abs=0.02)
    assert result["opt_v2"]["test"]["psnr"] == pytest.approx(20 + (2 * BLOCKS - 1) / 20, abs=1e-3)
    assert json.loads((tmp_path / "pooled.json").read_text()) == result
    assert "opt_v3-opt_v2 +4.00 dB" in capsys.readouterr().out


def test_other_files_are_refused(tmp_path):
    pattern, out = str(tmp_path / "seed-*.parquet"), tmp_path / "pooled.json"
    write(tmp_path, 0, table(0))
    with pytest.raises(DataError, match="found 1 files, expected those of two runs or more"):
        seeds.main(pattern, out)
    write(tmp_path, 1, table(0))
    with pytest.raises(
        DataError, match=r"seed-1\.parquet: found the scores of .*seed-0\.parquet, expected those of an"
    ):
        seeds.main(pattern, out)
    write(tmp_path, 1, table(1).query("scene != 's03'"))
    with pytest.raises(DataError, match=r"seed-1\.parquet: found other scenes than in .*seed-0\.parquet"):
        seeds.main(pattern, out)
    write(tmp_path, 1, table(1).query("predictor != 'telea'"))
    with pytest.raises(DataError, match="found no predictions of telea"):
        seeds.main(pattern, out)
    write(tmp_path, 1, table(1).drop(columns="agreement"))
    with pytest.raises(DataError, match=r"seed-1\.parquet: agreement: found no such column"):
        seeds.main(pattern, out)
    assert not out.exists()
