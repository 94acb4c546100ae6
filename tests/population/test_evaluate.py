"""Scores, predictions and refusals of the evaluate stage."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from src.core.evaluation import regression_scores
from src.core.stage import files
from src.core.stage.errors import DataError
from src.population import pca
from src.population.evaluation import final_test
from tests.population.evaluated import GROUPS


def test_metrics_hold_every_group_with_null_interval_and_audit(scored):
    found = json.loads(scored.metrics.read_text())
    for group in [*GROUPS, "mean", "year_mean", "province_year", "latlon", "gp", "ridge", "pls", "forest", "boosting"]:
        expected = {"r2", "r2_low", "r2_high", "mae", "mae_low", "mae_high", "rmse", "pearson_r", "spearman_r"}
        expected |= {"bias", "n", "r2_within_year", "r2_within_year_low", "r2_between_place", "r2_change", "r2_oos"}
        expected |= {"n_units", "method", "label", "morans_i", "icc_place", "icc_block", "n_effective"}
        assert expected <= set(found[group]), group
        assert found[group]["n"] == 48 and found[group]["n_units"] == 12
        assert found[group]["r2_low"] <= found[group]["r2"] <= found[group]["r2_high"]
    assert found["mean"]["r2_oos"] == 0 and found["mean"]["r2"] <= 0
    assert found["ridge"]["r2"] > 0.8 and found["ridge"]["setting"]["penalty"] > 0
    null = found["null"]["ridge"]
    assert null["draws"] == 7 and null["p_value"] == 1 / 8 and null["r2_null_max"] < null["r2"]
    assert found["audit"]["nearest_train_test_km"] == 123.4 and found["audit"]["pca_difference"] == 0
    assert found["units"]["n_units"] == 12 and found["units"]["unit"] == "block"
    assert found["text"]["parse_rate"] < 0.9 and found["dpo"]["parse_rate"] == 1.0
    assert "parse_rate" not in found["head"] and "parse_rate" not in found["text_expectation"]
    assert found["transductive"] is False and found["kind"] == "exploratory" and found["final"] is None
    best = found["best_baseline_on_validation"]
    for pair in ("head_minus_ridge", "dpo_minus_text", f"head_minus_{best}"):
        assert {"r2", "r2_low", "r2_high", "mae", "mae_low", "mae_high", "sd"} <= set(found["paired"][pair])
    assert found["validation"]["head"]["n"] == 16
    assert set(found["controls"]) == {"swapped", "blank", "prompt_only"}
    assert found["controls"]["swapped"]["head"]["r2"] < 0.1 < found["head"]["r2"]
    known = found["prediction_intervals"]
    assert (
        known["groups"]["head"]["guarantee"].startswith("no guarantee")
        and known["groups"]["head"]["calibration_places"] == 16
    )
    assert known["groups"]["head"]["coverage"] > 0.6 and known["groups"]["head"]["regions"] == {}


def test_a_level_beyond_the_places_is_refused_with_the_number_needed(run):
    out = run(changes={"evaluate.level": 0.95})
    part = json.loads(out.metrics.read_text())["prediction_intervals"]["groups"]["head"]
    assert part["refused"].startswith("params.yaml: evaluate.level: found 0.95 with") and "coverage" not in part
    assert "expected at least 19 places" in part["refused"] and "lower evaluate.level or" in part["refused"]
    assert "expected at least 19 places" in (out.out / "index.html").read_text(encoding="utf-8")


def test_final_scores_the_locked_places_and_no_other(run, monkeypatch):
    opened = {"date": "2026-01-02", "commit": "0" * 40, "attempts": 5, "provinces": ["a"]}
    monkeypatch.setattr(final_test, "opening", lambda path, facts: opened)
    out = run("last", final=True)
    found = json.loads(out.metrics.read_text())
    assert (found["kind"], found["final"], found["head"]["n"]) == ("final", opened, 4)
    assert found["head"]["r2_low"] is None and found["units"]["method"].startswith("none: 1 units")
    table = pd.read_parquet(out.out / "predictions.parquet")
    assert set(table.split) == {"validation", "locked"} and set(table.block[table.split == "locked"]) == {"b03"}
    html = (out.out / "index.html").read_text(encoding="utf-8")
    assert "opened on 2026-01-02 after 5 attempts" in html
    assert "after at least 5 attempts" in (out.out / "model_card.md").read_text(encoding="utf-8")


def test_locked_places_are_in_no_file_of_a_usual_run(scored):
    table = pd.read_parquet(scored.out / "predictions.parquet")
    assert set(table.split) == {"validation", "test"} and "b03" not in set(table.block)


def test_null_and_crossed_ridge_belong_to_the_scored_rows(scored):
    found = json.loads(scored.metrics.read_text())
    samples = pd.read_parquet(scored.folder / "split" / "samples.parquet")
    test = samples[samples.role == "test"].set_index("sample")
    null = pd.read_parquet(scored.folder / "baselines" / "null.parquet").set_index("sample").loc[test.index]
    scores = [regression_scores.scores(test.growth_rate.to_numpy(), null[draw].to_numpy())["r2"] for draw in null]
    assert found["null"]["ridge"]["r2_null_mean"] == pytest.approx(np.mean(scores), abs=1e-6)
    # Ridge fits: its intervals, joined to the right rows, hold the labels, and are far narrower than the labels' range.
    part = found["prediction_intervals"]["groups"]["ridge"]
    assert part["coverage"] > 0.75 and part["mean_width"] < 0.3 * np.ptp(scored.y)
    table = pd.read_parquet(scored.out / "predictions.parquet").query("split == 'test'")
    assert ((table.ridge_low < table.ridge) & (table.ridge < table.ridge_high)).mean() > 0.9


def test_baselines_of_another_split_are_refused(run):
    choices = run.folder / "baselines" / "choices.json"
    files.write_json(choices, files.read_json(choices) | {"split_hash": "other"})
    with pytest.raises(DataError, match=r"choices\.json: split_hash: found other, expected abc"):
        run()


def test_a_baseline_that_is_neither_predicted_nor_left_out_with_a_reason_is_named(run):
    path = run.folder / "baselines" / "predictions.parquet"
    pd.read_parquet(path).drop(columns="forest").to_parquet(path)
    with pytest.raises(DataError, match=r"predictions\.parquet: found no column 'forest' and no reason"):
        run()


def test_a_pca_of_other_tiles_is_refused(run, make_params):
    split = pd.read_parquet(run.folder / "split" / "split.parquet")
    path = run.folder / "split" / "split.parquet"
    before = path.read_bytes()
    split.assign(role="train").to_parquet(path)
    pca.main(make_params(), SimpleNamespace(tiles=run.folder / "tiles", split=run.folder / "split"),
             SimpleNamespace(out=run.folder / "pca"))  # fmt: skip
    path.write_bytes(before)
    with pytest.raises(DataError, match=r"pca\.safetensors: leakage audit"):
        run()


def test_predictions_alone_give_the_scores_again(scored):
    found = json.loads(scored.metrics.read_text())
    table = pd.read_parquet(scored.out / "predictions.parquet")
    leading = ["tile_id", "province", "city", "year", "lat", "lon", "block", "task", "split_seed", "fold", "seed"]
    assert list(table.columns[:16]) == [*leading, "unit", "n_train", "n_test", "split", "y"]
    inside = table.y.between(table.head_low, table.head_high)[table.split == "test"].mean()
    assert inside == pytest.approx(found["prediction_intervals"]["groups"]["head"]["coverage"])
    assert table.split.value_counts().to_dict() == {"test": 48, "validation": 16}
    assert (table.fold == 2).all()
    assert (table.year == table.tile_id.str[-4:].astype(int)).all()  # not the baseline of that name
    test = table[table.split == "test"]
    assert test.text.isna().sum() == round((1 - found["text"]["parse_rate"]) * 48)
    mean = scored.y[(scored.split.role == "train").to_numpy()].mean()
    for group in ("head", "text", "ridge", "mean"):
        again = regression_scores.rounded(
            regression_scores.scores(test.y.to_numpy(), test[group].fillna(mean).to_numpy())
        )
        assert again == {key: found[group][key] for key in again}


def test_labels_and_answers_belong_to_their_tile(scored):
    table = pd.read_parquet(scored.out / "predictions.parquet").set_index("tile_id")
    expected = pd.Series(scored.y, index=scored.split.tile_id)
    roles = scored.split.set_index("tile_id").role
    assert np.array_equal(table.y, expected[table.index]) and (table.split == roles[table.index]).all()
    assert np.abs(table["head"] - table.y).max() < 8 < table.y.std() * 4


def test_the_printed_scores_say_how_many_answers_were_read(scored):
    lines = {words[0]: words for words in map(str.split, scored.printed.splitlines()) if words}
    assert "answers parsed" in scored.printed and lines["text"][-1] == "0.833" and lines["dpo"][-1] == "1.000"
    assert lines["head"][-1] == lines["ridge"][-1] == "–"


def test_same_bytes_twice(run, scored):
    again = run("again")
    for name in ("metrics", "out", "plots"):
        assert files.tree_sha256([getattr(scored, name)]) == files.tree_sha256([getattr(again, name)]), name


def test_a_model_of_another_split_is_refused_and_nothing_is_written(run):
    files.write_json(run.folder / "dpo" / "bandwise.json", {"split_hash": "other", "pretrained_on": "train"})
    with pytest.raises(DataError, match=r"dpo/bandwise\.json: split_hash: found other, expected abc"):
        run()
    assert not (run.folder / "run").exists()


def test_a_split_of_another_store_is_refused(run):
    split = pd.read_parquet(run.folder / "split" / "split.parquet")
    split.iloc[:-1].to_parquet(run.folder / "split" / "split.parquet")
    with pytest.raises(DataError, match="found 95 tiles, expected the 96"):
        run()


def test_a_diverged_head_is_an_error_and_not_the_train_mean(run):
    honest = run.fake.group_predictions

    def diverged(*arguments):
        values = honest(*arguments)
        values.loc[3, "head"] = np.nan
        return values

    run.fake.group_predictions = diverged
    with pytest.raises(DataError, match="head: found 1 of 64 predictions that are not finite"):
        run()
    assert not (run.folder / "run").exists()


def test_predictions_of_no_listed_predictor_are_an_error(run):
    path = run.folder / "baselines" / "predictions.parquet"
    table = pd.read_parquet(path)
    table.assign(knn=1.0).to_parquet(path)
    with pytest.raises(
        DataError, match=r"found predictions of 'knn', expected names of .*predictors\.py; add an entry"
    ):
        run()
    table.to_parquet(path)
    honest = run.fake.group_predictions
    run.fake.group_predictions = lambda *arguments: honest(*arguments).assign(text_beam=1.0)
    with pytest.raises(DataError, match="found predictions of 'text_beam'"):
        run()
    assert not (run.folder / "run").exists()


def test_units_are_places_where_places_were_split(run):
    facts = files.read_json(run.folder / "split" / "split.json") | {"unit": "place", "method": "place"}
    files.write_json(run.folder / "split" / "split.json", facts)
    assert json.loads(run().metrics.read_text())["units"]["n_units"] == 48


def test_dry_run_writes_nothing(run, capsys):
    run(dry_run=True)
    assert not (run.folder / "run").exists()
    assert "48 test" in capsys.readouterr().out


def test_a_split_of_other_tiles_is_refused(run):
    run.split.assign(tile_id="other/" + run.split.tile_id).to_parquet(run.folder / "split" / "split.parquet")
    with pytest.raises(DataError, match=r"split\.parquet: tile_id: found 96 tiles, expected the 96 of the store"):
        run()
