import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import r2_score

from src.core.stage.errors import DataError, ParamsError
from src.population import folds

PLACES, FOLDS = 60, 3


def write_variant(folder, head_noise, seed=0, drop=None, split_seed=0, model_seed=0):
    """predictions.parquet of three folds; the head errs by `head_noise`, ridge by 2."""
    generator = np.random.default_rng(seed)
    y = generator.normal(9, 5, PLACES)
    number = np.arange(PLACES)
    for fold in range(FOLDS):
        rows = pd.DataFrame({"province": "p", "city": [f"c{n}" for n in number], "year": 1980, "y": y})
        rows["block"] = [f"b{n // 2}" for n in number]
        rows["fold"], rows["mean"] = fold, 9.0 + fold
        rows["split_seed"], rows["seed"], rows["n_train"], rows["n_test"] = split_seed, model_seed, 20, 10
        rows["task"], rows["unit"] = "new_place", "block"
        rows["split"] = np.where(number // 2 % FOLDS == fold, "test", "validation")
        for group in ("head", "text", "dpo", "text_expectation", "ridge"):
            rows[group] = y + generator.normal(0, head_noise if group == "head" else 2.0, PLACES)
        rows = rows[number % 5 > 0] if drop == fold else rows
        (folder / f"fold{fold}").mkdir(parents=True)
        rows.to_parquet(folder / f"fold{fold}" / "predictions.parquet")
    return str(folder / "fold*")


def test_pools_all_folds_and_names_the_winner_on_validation(tmp_path, capsys):
    variants = {"good": write_variant(tmp_path / "good", 0.5), "bad": write_variant(tmp_path / "bad", 6.0)}
    result = folds.main(variants, tmp_path / "folds.json")
    good, bad = result["variants"]["good"], result["variants"]["bad"]
    assert good["n"] == PLACES and good["n_units"] == 30 and len(good["per_fold"]) == FOLDS
    assert good["paired"]["head_minus_ridge"]["r2_low"] > 0 > bad["paired"]["head_minus_ridge"]["r2_high"]
    assert good["paired"]["head_minus_ridge"]["n_units"] == 30
    assert result["best_head_on_validation"] == "good"
    tables = [pd.read_parquet(tmp_path / "good" / f"fold{fold}" / "predictions.parquet") for fold in range(FOLDS)]
    test = pd.concat(tables).query("split == 'test'")
    assert good["pooled"]["head"]["r2"] == pytest.approx(r2_score(test.y, test["head"]), abs=1e-6)
    assert "best head on validation: good" in capsys.readouterr().out
    assert (tmp_path / "folds.json").exists()


def test_a_missing_answer_scores_as_the_mean_of_its_own_fold(tmp_path):
    pattern = write_variant(tmp_path / "a", 1.0)
    path = tmp_path / "a" / "fold2" / "predictions.parquet"
    table = pd.read_parquet(path).assign(text=np.nan)
    table.to_parquet(path)
    text = folds.main({"a": pattern}, tmp_path / "folds.json")["variants"]["a"]["per_fold"]["2"]["text"]
    test = table[table.split == "test"]
    assert text["mae"] == pytest.approx(np.abs(test.y - 11.0).mean(), abs=1e-6)


def test_a_place_tested_twice_is_refused(tmp_path):
    pattern = write_variant(tmp_path / "a", 1.0)
    again = pd.read_parquet(tmp_path / "a" / "fold0" / "predictions.parquet").assign(fold=1)
    again.to_parquet(tmp_path / "a" / "fold1" / "predictions.parquet")
    with pytest.raises(DataError, match="p/c0/1980: found in the test rows of two files"):
        folds.main({"a": pattern}, tmp_path / "folds.json")
    assert not (tmp_path / "folds.json").exists()


def test_a_block_in_two_test_folds_is_refused(tmp_path):
    pattern = write_variant(tmp_path / "a", 1.0)
    path = tmp_path / "a" / "fold1" / "predictions.parquet"
    table = pd.read_parquet(path)
    table.loc[table.block == "b1", "block"] = "b0"
    table.to_parquet(path)
    with pytest.raises(DataError, match="block b0: found in the test rows of 2 folds"):
        folds.main({"a": pattern}, tmp_path / "folds.json")


def test_a_place_tested_in_two_folds_in_different_years_is_refused(tmp_path):
    pattern = write_variant(tmp_path / "a", 1.0)
    path = tmp_path / "a" / "fold1" / "predictions.parquet"
    table = pd.read_parquet(path).assign(block="")
    table.loc[table.city == "c2", ["city", "year"]] = ["c0", 1990]
    table.to_parquet(path)
    with pytest.raises(DataError, match=r"place \('p', 'c0'\): found in the test rows of 2 folds"):
        folds.main({"a": pattern}, tmp_path / "folds.json")


def test_a_split_by_place_without_coordinates_pools_over_places(tmp_path):
    pattern = write_variant(tmp_path / "a", 1.0)
    for path in (tmp_path / "a").glob("*/predictions.parquet"):
        pd.read_parquet(path).assign(block="", unit="place").drop(columns="text_expectation").to_parquet(path)
    summary = folds.main({"a": pattern}, tmp_path / "folds.json")["variants"]["a"]
    assert (summary["n_units"], summary["unit"]) == (PLACES, "place")
    assert "text_expectation" not in summary["pooled"]


def test_chosen_takes_each_folds_better_variant_on_its_own_validation(tmp_path):
    variants = {"good": write_variant(tmp_path / "good", 0.5), "bad": write_variant(tmp_path / "bad", 6.0)}
    path = tmp_path / "good" / "fold1" / "predictions.parquet"
    table = pd.read_parquet(path)
    table.loc[table.split == "validation", "head"] += 30  # worse there, and only there
    table.to_parquet(path)
    result = folds.main(variants, tmp_path / "folds.json")
    taken = result["chosen"]["per_fold"]
    for fold, variant in (("0", "good"), ("1", "bad"), ("2", "good")):
        assert taken[fold]["head"] == result["variants"][variant]["per_fold"][fold]["head"]


def test_variants_on_other_rows_are_not_compared(tmp_path):
    variants = {"a": write_variant(tmp_path / "a", 1.0), "b": write_variant(tmp_path / "b", 1.0, drop=1)}
    with pytest.raises(DataError, match="--variant b: found 168 rows"):
        folds.main(variants, tmp_path / "folds.json")


def test_bad_variants(tmp_path):
    with pytest.raises(DataError, match="found no file"):
        folds.main({"a": str(tmp_path / "none*")}, tmp_path / "folds.json")
    for texts in (["a"], ["=x"], ["a=x", "a=y"]):
        with pytest.raises(ParamsError, match="expected a new NAME=PATTERN"):
            folds._variants(texts)


def test_the_training_mean_scores_exactly_zero_out_of_sample(tmp_path):
    summary = folds.main({"a": write_variant(tmp_path / "a", 1.0)}, tmp_path / "folds.json")["variants"]["a"]
    assert summary["pooled"]["mean"]["r2_oos"] == 0 and summary["pooled"]["mean"]["r2_oos_per_fold"] == [0, 0, 0]
    assert summary["pooled"]["mean"]["r2"] < 0  # the folds' means differ, and none is that of the test rows
    assert len(summary["pooled"]["head"]["r2_oos_per_fold"]) == FOLDS


def test_repeated_splits_and_seeds_are_told_apart(tmp_path):
    for split_seed in (0, 1):
        for model_seed in (0, 1):
            folder = tmp_path / "a" / f"{split_seed}{model_seed}"
            write_variant(folder, 1.0, seed=10 * split_seed + model_seed, split_seed=split_seed, model_seed=model_seed)
    summary = folds.main({"a": str(tmp_path / "a" / "*" / "fold*")}, tmp_path / "folds.json")["variants"]["a"]
    pair = summary["paired"]["head_minus_ridge"]
    assert summary["draws"] == 4 and summary["n"] == PLACES
    assert pair["splits"]["J"] == 2 * FOLDS  # the two seeds of a split are one draw of it
    assert pair["splits"]["low"] < 0 < pair["r2_low"]  # overlapping splits say less than their number
    assert pair["variance"]["n_splits"] == pair["variance"]["n_seeds"] == 2
    assert pair["variance"]["data"] > 0 and pair["variance"]["seed"] is not None
    alone = folds.main({"a": str(tmp_path / "a" / "00" / "fold*")}, tmp_path / "one.json")["variants"]["a"]
    assert alone["pooled"] == summary["pooled"]  # more draws never pool the same place twice
    assert alone["paired"]["head_minus_ridge"]["variance"]["seed"] is None
    assert "expected at least 5" in alone["paired"]["head_minus_ridge"]["splits"]["reason"]


def test_the_data_variance_is_that_of_resampled_units(tmp_path):
    write_variant(tmp_path / "a", 1.5)
    rows = pd.read_parquet(tmp_path / "a" / "fold0" / "predictions.parquet").query("split == 'test'")
    generator = np.random.default_rng(0)
    blocks = [part for _, part in rows.groupby("block")]
    drawn = []
    for _ in range(2000):
        taken = pd.concat([blocks[i] for i in generator.integers(len(blocks), size=len(blocks))])
        drawn.append(folds.r2_oos(taken, "head") - folds.r2_oos(taken, "ridge"))
    expected = np.var(drawn)
    assert 0.5 * expected < folds.variance_of(rows, ("head", "ridge"), "block") < 1.5 * expected


def test_rolling_origins_share_places(tmp_path):
    pattern = write_variant(tmp_path / "a", 1.0)
    for fold in range(FOLDS):
        path = tmp_path / "a" / f"fold{fold}" / "predictions.parquet"
        table = pd.read_parquet(path).assign(task="next_year", split="test", year=1980 + fold)
        pd.concat([table, table.assign(split="validation", year=1979 + fold)]).to_parquet(path)
    summary = folds.main({"a": pattern}, tmp_path / "folds.json")["variants"]["a"]
    assert summary["n"] == FOLDS * PLACES and summary["pooled"]["head"]["r2_within_year"] is not None


def test_a_baseline_that_a_fold_lacks_is_no_training_mean(tmp_path):
    pattern = write_variant(tmp_path / "a", 1.0)
    for fold in (0, 2):
        path = tmp_path / "a" / f"fold{fold}" / "predictions.parquet"
        pd.read_parquet(path).assign(mlp=1.0).to_parquet(path)
    with pytest.raises(DataError, match="mlp: found no number in fold 1"):
        folds.main({"a": pattern}, tmp_path / "folds.json")


def test_final_predictions_and_old_ones_are_no_folds(tmp_path):
    pattern = write_variant(tmp_path / "a", 1.0)
    for path in (tmp_path / "a").glob("*/predictions.parquet"):
        pd.read_parquet(path).replace({"split": {"test": "locked"}}).to_parquet(path)
    with pytest.raises(DataError, match="split: found locked, validation, expected test rows"):
        folds.main({"a": pattern}, tmp_path / "folds.json")
    for path in (tmp_path / "a").glob("*/predictions.parquet"):
        pd.read_parquet(path).drop(columns="task").to_parquet(path)
    with pytest.raises(DataError, match="no column 'task'"):
        folds.main({"a": pattern}, tmp_path / "folds.json")


def test_a_column_of_no_listed_predictor_is_an_error(tmp_path):
    pattern = write_variant(tmp_path / "a", 1.0)
    for path in (tmp_path / "a").glob("*/predictions.parquet"):
        pd.read_parquet(path).assign(knn=1.0).to_parquet(path)
    with pytest.raises(DataError, match=r"predictions of 'knn', expected names of src/population/evaluation/predict"):
        folds.main({"a": pattern}, tmp_path / "folds.json")
