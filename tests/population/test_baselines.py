import json
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file
from sklearn.linear_model import Ridge

from src.core.baselines.regression import band_summaries
from src.core.data.band_statistics import band_statistics
from src.core.data.tile_store import Store
from src.core.stage.errors import DataError
from src.population import baselines
from src.population.evaluation import fitted_baselines
from tests.population.conftest import contents, small_params
from tests.tiles import write_store

BANDS, SIDE, PLACES = 4, 8, 40
FAST = {
    "baselines.budget": 2,
    "baselines.networks": ["mlp"],
    "baselines.epochs": 2,
    "baselines.permutations": 4,
}
FACTS = {
    "new_place": {"task": "new_place", "origin": None, "horizon": None, "step_years": None},
    "next_year": {"task": "next_year", "origin": 2015, "horizon": 1, "step_years": 5},
}


def write_inputs(folder: Path, task: str = "new_place", years=(2000, 2005, 2010, 2015)) -> Namespace:
    """A store and a split of PLACES places: growth follows band 0, the place's province and the year.

    new_place: places are held out. next_year: years are, 2005 and 2010 being training and validation and 2000 buffer.
    """
    generator = np.random.default_rng(0)
    means = generator.integers(-60, 60, (PLACES, BANDS, 1, 1))
    pixels = (means + generator.integers(-20, 21, (PLACES, BANDS, SIDE, SIDE))).astype(np.int8)
    number = np.arange(PLACES)
    position = {"lat": 30.0 + number % 8, "lon": 100.0 + number // 8}
    province = np.array([f"P{place % 4}" for place in number])
    store = write_store(folder / "tiles", pixels, province=province, **position)

    panel = pd.DataFrame([(place, year) for place in number for year in years], columns=["tile", "year"])
    panel.insert(0, "sample", np.arange(len(panel)))
    facts = store.tiles.loc[panel.tile, ["tile_id", "province", "city", "lat", "lon"]].reset_index(drop=True)
    rows = panel.join(facts).assign(block="", tile_year=2020)
    rows["place"] = rows.province + "/" + rows.city
    rows["growth_rate"] = 0.1 * means[rows.tile, 0, 0, 0] + 0.2 * (rows.year - 2005) + 2.0 * (rows.tile % 4)
    rows["growth_rate"] += generator.normal(0, 0.3, len(rows))
    rows["gdp_lag1"] = rows.growth_rate + generator.normal(0, 0.1, len(rows))
    by_place = np.repeat(["train", "validation", "test", "locked", "buffer"], [20, 6, 6, 4, 4])
    if task == "new_place":
        rows["role"] = by_place[rows.tile]
    else:
        rows["role"] = rows.year.map({2000: "buffer", 2005: "train", 2010: "validation", 2015: "test"})

    split = folder / "split"
    split.mkdir()
    tiles = store.tiles[["tile", "tile_id"]].assign(place=rows.place[:: len(years)].to_numpy(), block="")
    tiles["role"] = by_place
    tiles.join(store.tiles[["lat", "lon"]]).to_parquet(split / "split.parquet", index=False)
    rows.to_parquet(split / "samples.parquet", index=False)
    (split / "split.json").write_text(json.dumps(FACTS[task] | {"hash": "h"}), encoding="utf-8")
    mean, sd = (array.astype(np.float32) for array in band_statistics(store, np.flatnonzero(by_place == "train")))
    save_file({"mean": mean, "sd": sd}, split / "statistics.safetensors")
    return Namespace(tiles=folder / "tiles", split=split)


def fit(inputs: Namespace, folder: Path, changes: dict | None = None) -> Namespace:
    """Run the stage: its folder, predictions, null and choices."""
    out = Namespace(out=folder / "out", plots=folder / "plots")
    baselines.main(small_params({"model.bands": BANDS} | FAST | (changes or {})), inputs, out)
    tables = [pd.read_parquet(out.out / f"{name}.parquet") for name in ("predictions", "null")]
    choices = json.loads((out.out / "choices.json").read_text(encoding="utf-8"))
    return Namespace(folder=folder, predictions=tables[0], null=tables[1], choices=choices)


def samples(inputs: Namespace) -> pd.DataFrame:
    return pd.read_parquet(inputs.split / "samples.parquet")


def change(inputs: Namespace, where, growth_rate) -> None:
    rows = samples(inputs)
    rows.loc[where(rows), "growth_rate"] = growth_rate
    rows.to_parquet(inputs.split / "samples.parquet", index=False)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Namespace:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def found(inputs, tmp_path_factory) -> Namespace:
    every = {"baselines.networks": ["mlp", "cnn", "resnet18"]}
    return fit(inputs, tmp_path_factory.mktemp("found"), every)


def test_every_label_held_out_has_a_prediction_of_every_baseline(inputs, found):
    rows = samples(inputs)
    held = rows[rows.role.isin(["validation", "test", "locked"])]
    assert found.predictions["sample"].tolist() == found.null["sample"].tolist() == held["sample"].tolist()
    assert found.predictions.role.tolist() == held.role.tolist()
    groups = ["mean", "year_mean", "province_year", "latlon", "gp", "ridge", "pls", "forest", "boosting"]
    groups += ["mlp", "cnn", "resnet18"]
    assert list(found.predictions) == ["sample", "role", *groups]
    fitted = [name for name, choice in found.choices.items() if isinstance(choice, dict) and "setting" in choice]
    assert fitted == groups
    left_out = {
        name: found.choices[name]["left_out"] for name in found.choices.keys() - {"split_hash", "budget", *groups}
    }
    assert set(left_out) == {"previous_year", "place_mean", "place_trend", "covariates"}
    assert left_out["covariates"] == "data.covariates is empty"
    assert list(found.null) == ["sample", "0", "1", "2", "3"]
    assert np.isfinite(found.predictions[groups]).all(axis=None) and np.isfinite(found.null).all(axis=None)
    assert (found.folder / "plots" / "networks.png").stat().st_size > 10_000
    curves = json.loads((found.folder / "plots" / "curves.json").read_text(encoding="utf-8"))
    assert [len(curves[kind]) for kind in curves] == [2, 2, 2]


def test_simple_baselines_by_hand(inputs, found):
    rows = samples(inputs)
    train = rows[rows.role == "train"]
    assert found.predictions["mean"].unique().round(5) == pytest.approx([train.growth_rate.mean()], abs=1e-5)
    held = rows.set_index("sample").loc[found.predictions["sample"]]
    by_year = train.groupby("year").growth_rate.mean()
    np.testing.assert_allclose(found.predictions.year_mean, held.year.map(by_year), atol=1e-6)


def test_what_knows_more_of_the_truth_predicts_better(inputs, found):
    rows = samples(inputs).set_index("sample").loc[found.predictions["sample"]]
    test = (rows.role == "test").to_numpy()
    error = ((found.predictions.drop(columns=["sample", "role"]).T - rows.growth_rate.to_numpy()).T ** 2)[test].mean()
    assert error["province_year"] < 0.9 * error["mean"] and error["year_mean"] < error["mean"]
    assert error["ridge"] < error["province_year"]
    assert error[["ridge", "pls", "forest", "boosting"]].max() < 0.7 * error["mean"]
    null = ((found.null.drop(columns="sample").T - rows.growth_rate.to_numpy()).T ** 2)[test].mean()
    assert error["ridge"] < 0.6 * null.min()


def test_every_baseline_tries_as_many_settings_and_keeps_the_best(inputs, found):
    rows = samples(inputs)
    y = rows.growth_rate[rows.role == "validation"].to_numpy()
    for name in found.predictions.columns[2:]:
        choice, prediction = found.choices[name], found.predictions[name][found.predictions.role == "validation"]
        assert len(choice["tried"]) == (1 if name in ("mean", "year_mean") else 2)
        errors = [tried["validation_mse"] for tried in choice["tried"]]
        best = choice["tried"][int(np.argmin(errors))]
        assert best == choice["setting"] | {"validation_mse": min(errors)}
        assert min(errors) == pytest.approx(np.mean((prediction - y) ** 2), rel=1e-4)
        assert choice["validation_r2"] == pytest.approx(1 - min(errors) / y.var())


def test_ridge_equals_scikit_learn_at_its_setting(inputs, found, tmp_path):
    one = fit(inputs, tmp_path, {"baselines.budget": 1, "baselines.networks": []})
    setting, rows = one.choices["ridge"]["setting"], samples(inputs)
    assert setting["features"] == "means"
    features = np.column_stack([band_summaries(Store.open(inputs.tiles), rows.tile.to_numpy(), SIDE)[:, 0], rows.year])
    train = (rows.role == "train").to_numpy()
    features = (features - features[train].mean(axis=0)) / features[train].std(axis=0)
    ridge = Ridge(setting["penalty"] * train.sum()).fit(features[train], rows.growth_rate[train])
    np.testing.assert_allclose(one.predictions.ridge, ridge.predict(features[one.predictions["sample"]]), atol=2e-6)
    assert not (one.folder / "plots" / "networks.png").exists()


def test_labels_of_test_and_locked_rows_change_not_a_byte(tmp_path):
    inputs = write_inputs(tmp_path)
    first = fit(inputs, tmp_path / "first", {"baselines.networks": ["mlp", "cnn"]})
    change(inputs, lambda rows: rows.role.isin(["test", "locked", "buffer"]), 1e6)
    again = fit(inputs, tmp_path / "again", {"baselines.networks": ["mlp", "cnn"]})
    assert contents(first.folder) == contents(again.folder)
    change(inputs, lambda rows: rows["sample"] == 0, 1e6)  # of a training row
    other = fit(inputs, tmp_path / "other", {"baselines.networks": []})
    assert not other.predictions.ridge.equals(first.predictions.ridge)


def test_next_year_forecasts_from_the_past_of_the_place(tmp_path):
    inputs = write_inputs(tmp_path, "next_year")
    rows = samples(inputs)
    dropped = (rows.place == rows.place[0]) & (rows.year < 2015)
    rows[~dropped].to_parquet(inputs.split / "samples.parquet", index=False)
    rows = rows[~dropped]
    # Nothing dated at or after the origin is read.
    change(inputs, lambda rows: rows.year >= 2015, 1e6)
    found = fit(inputs, tmp_path, {"baselines.networks": []})
    predictions = found.predictions.set_index("sample")
    y = rows.pivot(index="place", columns="year", values="growth_rate")
    by_hand = {  # of the test year 2015, from 2000, 2005 and 2010
        "previous_year": y[2010],
        "place_mean": (y[2000] + y[2005] + y[2010]) / 3,
        "place_trend": (y[2000] + y[2005] + y[2010]) / 3 + (y[2010] - y[2000]) / 10 * 10,
    }
    test = rows[rows.role == "test"].set_index("sample")
    for name, expected in by_hand.items():
        expected = test.place.map(expected).fillna(rows.growth_rate[rows.role == "train"].mean())
        np.testing.assert_allclose(predictions[name][test.index], expected, atol=1e-6)
        assert found.choices[name]["rows_without_past"] == 1 and found.choices[name]["setting"] == {}
    validation = rows[rows.role == "validation"].set_index("sample")  # 2010, from 2000 and 2005
    np.testing.assert_allclose(predictions.previous_year[validation.index], validation.place.map(y[2005]), atol=1e-6)
    trend = validation.place.map(2 * y[2005] - y[2000])
    np.testing.assert_allclose(predictions.place_trend[validation.index], trend, atol=1e-6)


def test_a_longer_horizon_forgets_the_last_years(tmp_path):
    inputs = write_inputs(tmp_path, "next_year")
    facts = FACTS["next_year"] | {"hash": "h", "origin": 2010, "horizon": 2}
    (inputs.split / "split.json").write_text(json.dumps(facts), encoding="utf-8")
    predictions = fit(inputs, tmp_path, {"baselines.networks": []}).predictions.set_index("sample")
    rows = samples(inputs)
    y = rows.pivot(index="place", columns="year", values="growth_rate")
    for role, last in (("test", 2005), ("validation", 2000)):
        part = rows[rows.role == role].set_index("sample")
        np.testing.assert_allclose(predictions.previous_year[part.index], part.place.map(y[last]), atol=1e-6)


def test_tasks_of_places_know_no_past_and_one_year_has_no_year(tmp_path, found):
    assert not {"previous_year", "place_mean", "place_trend", "covariates"} & set(found.predictions)
    one = fit(write_inputs(tmp_path, years=(2010,)), tmp_path, {"baselines.networks": []})
    assert "year_mean" not in one.predictions and "ridge" in one.predictions


def test_covariates_are_a_baseline_and_features(inputs, found, tmp_path):
    with_gdp = {"data.covariates": ["gdp"], "baselines.networks": ["mlp", "cnn"]}
    more = fit(inputs, tmp_path, with_gdp)
    r2 = {name: more.choices[name]["validation_r2"] for name in ("covariates", "ridge")}
    assert r2["covariates"] > 0.9
    assert r2["ridge"] > found.choices["ridge"]["validation_r2"]


def test_a_missing_covariate_is_named(tmp_path):
    inputs = write_inputs(tmp_path)
    rows = samples(inputs)
    rows.loc[0, "gdp_lag1"] = np.nan
    rows.to_parquet(inputs.split / "samples.parquet", index=False)
    with pytest.raises(DataError, match=r"gdp_lag1: found 1 rows without a number \(first: P0/city0/2020\)"):
        fit(inputs, tmp_path, {"data.covariates": ["gdp"]})
    with pytest.raises(DataError, match="no column 'income_lag1'"):
        fit(inputs, tmp_path, {"data.covariates": ["income"]})


def test_without_coordinates_the_map_is_left_out(tmp_path, capsys):
    inputs = write_inputs(tmp_path)
    samples(inputs).assign(lat=np.nan).to_parquet(inputs.split / "samples.parquet", index=False)
    found = fit(inputs, tmp_path, {"baselines.networks": []})
    assert not {"latlon", "gp"} & set(found.predictions)
    assert found.choices["gp"] == {"left_out": "a place has no coordinates"}
    printed = capsys.readouterr().out
    assert "gp: a place has no coordinates" in printed
    assert "scores are of validation; those of test come with evaluate" in printed


def test_a_year_without_training_label_has_the_mean_of_all():
    rows = pd.DataFrame({"year": [2018, 2018, 2019, 2019, 2018, 2020]})
    train = np.array([True] * 3 + [False] * 3)
    problem = SimpleNamespace(rows=rows, train=train, held=~train, y=np.array([1.0, 3, 8]), fixed=lambda found: found)
    assert fitted_baselines.fit_year_mean(problem).tolist() == [8.0, 2.0, 4.0]


def test_a_constant_column_of_training_says_nothing_elsewhere():
    columns, train = np.array([[2005.0, 1], [2005, 3], [2010, 2]]), np.array([True, True, False])
    assert fitted_baselines.standardised(columns, train).tolist() == [[0, -1], [0, 1], [0, 0]]


def test_dry_run_writes_nothing(inputs, tmp_path, capsys):
    out = Namespace(out=tmp_path / "out", plots=tmp_path / "plots")
    baselines.main(small_params(FAST), inputs, out, dry_run=True)
    assert not list(tmp_path.iterdir())
    assert "'train': 80" in capsys.readouterr().out
