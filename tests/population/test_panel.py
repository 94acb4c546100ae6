"""Tasks of time through the real stages: a panel of three labels for each tile, and one of a tile each year."""

import json
from argparse import Namespace

import numpy as np
import pandas as pd
import pytest

from src.core.stage.errors import DataError, ParamsError
from src.population import baselines, preprocess, split
from tests.population.conftest import small_params, write_study
from tests.tiles import random_pixels, write_geotiff

STATIC = {"data.match_year": "nearest", "baselines.networks": []}
FORECAST = STATIC | {"split.task": "next_year", "split.retrospective_tiles": True}


@pytest.fixture(scope="module")
def decades(tmp_path_factory):
    """Folders of a store whose tiles of 2020 serve the labels of 2000, 2010 and 2020, and what they were made from."""
    folder = tmp_path_factory.mktemp("decades")
    made = write_study(folder)
    labels = pd.read_csv(made.labels)
    generator = np.random.default_rng(0)
    panel = [
        labels.assign(year=year, growth_rate=labels.growth_rate + generator.normal(step, 1, len(labels)), gdp=year)
        for step, year in enumerate((2000, 2010, 2020))
    ]
    pd.concat(panel).to_csv(made.labels, index=False)
    preprocess.main(small_params(STATIC), made, Namespace(out=folder / "tiles"))
    return Namespace(folder=folder, tiles=folder / "tiles", made=made)


def run_split(decades, out, changes):
    split.main(small_params(changes), Namespace(tiles=decades.tiles), Namespace(out=out))
    return out


def test_a_forecast_from_tiles_of_later_is_refused_unless_said_to_be_retrospective(decades, tmp_path):
    with pytest.raises(ParamsError, match=r"data.tile_lag 0: split.task next_year knows nothing dated at or after"):
        small_params(FORECAST | {"split.retrospective_tiles": False})
    # A lag that is declared and not kept: the tiles are those of 2020, whatever the lag says.
    with pytest.raises(DataError, match=r"future_tiles: found \d+"):
        run_split(decades, tmp_path / "split", FORECAST | {"split.retrospective_tiles": False, "data.tile_lag": 1})
    assert not (tmp_path / "split").exists()
    out = run_split(decades, tmp_path / "split", FORECAST)
    summary, audit = (json.loads((out / name).read_text()) for name in ("split.json", "audit.json"))
    assert summary["origin"] == 2020 and summary["step_years"] == 10 and summary["retrospective_tiles"]
    assert summary["samples"] == {"train": 48, "validation": 48, "test": 48, "buffer": 0, "locked": 0}
    assert audit["future_labels"] == 0 and audit["future_tiles"] == 3 * 48 and audit["gap_years"] == 20
    assert not (out / "distances.png").exists()


def test_baselines_of_a_forecast_know_the_places_past_and_no_more(decades, tmp_path):
    folder = run_split(decades, tmp_path / "split", FORECAST)
    out = Namespace(out=tmp_path / "baselines", plots=tmp_path / "plots")
    inputs = Namespace(tiles=decades.tiles, split=folder)
    baselines.main(small_params(FORECAST), inputs, out)
    table = pd.read_parquet(out.out / "predictions.parquet").set_index("sample")
    samples = pd.read_parquet(folder / "samples.parquet").set_index("sample")
    test = samples[samples.role == "test"]
    past = samples[samples.year == 2010].set_index("place").growth_rate
    np.testing.assert_allclose(table.previous_year[test.index], past[test.place].to_numpy(), atol=1e-6)
    # A future label changes no prediction.
    path = folder / "samples.parquet"
    before = (out.out / "predictions.parquet").read_bytes()
    changed = pd.read_parquet(path)
    changed.loc[changed.role == "test", "growth_rate"] += 1e6
    changed.to_parquet(path)
    baselines.main(small_params(FORECAST), inputs, out)
    assert (out.out / "predictions.parquet").read_bytes() == before


def test_horizons_beyond_the_panel_and_a_test_label_as_covariate_are_refused(decades, tmp_path):
    with pytest.raises(DataError, match="horizon"):
        run_split(decades, tmp_path / "split", FORECAST | {"split.horizon": 2})
    with pytest.raises(ParamsError, match="knows no label of a test place"):
        small_params({"data.covariates": ["growth_rate"]})
    with pytest.raises(ParamsError, match=r"data.covariate_lag 0"):
        small_params(FORECAST | {"data.covariates": ["gdp"], "data.covariate_lag": 0})


def test_a_lag_means_one_thing_alone(decades, tmp_path):
    """Labels of every year and tiles of every tenth: a step would be a year for covariates and ten for the origin."""
    made = Namespace(**vars(decades.made))
    labels = pd.read_csv(made.labels)
    between = labels[labels.year == 2010].assign(year=2011)
    made.labels = tmp_path / "labels.csv"
    pd.concat([labels, between]).to_csv(made.labels, index=False)
    changes = {"data.covariates": ["gdp"], "data.max_unmatched": 1000, "data.match_year": "exact"}
    with pytest.raises(DataError, match=r"no label has both a tile and covariates|found steps of 1 years"):
        preprocess.main(small_params(changes), made, Namespace(out=tmp_path / "tiles"))
    assert not (tmp_path / "tiles").exists()


def test_constant_labels_are_refused(decades, tmp_path):
    folder = tmp_path / "constant"
    made = Namespace(**vars(decades.made))
    labels = pd.read_csv(made.labels).assign(growth_rate=3.0)
    made.labels = tmp_path / "labels.csv"
    labels.to_csv(made.labels, index=False)
    preprocess.main(small_params(STATIC), made, Namespace(out=folder))
    with pytest.raises(DataError, match="with 1 distinct"):
        run_split(Namespace(tiles=folder), tmp_path / "split", STATIC)


def test_a_tile_each_year_is_lagged_and_covariates_with_it(tmp_path):
    rows = []
    for number in range(12):
        for year in range(2016, 2021):
            path = tmp_path / "raw" / f"P{number % 3}" / f"C{number}" / f"{year}_C{number}.tif"
            write_geotiff(path, random_pixels(100 * number + year, 8, 16), lat=20.0 + 6 * number, lon=100.0)
            rows.append(f"P{number % 3},C{number},{year},{number + year / 10},{year}")
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(["province,city,year,growth_rate,gdp", *rows]), encoding="utf-8")
    (tmp_path / "aliases.csv").write_text("kind,found,use\n", encoding="utf-8")
    changes = {"data.tile_lag": 1, "data.covariates": ["gdp", "growth_rate"], "split.task": "next_year"}
    params = small_params(changes | {"data.max_unmatched": 0})
    made = Namespace(tiles=tmp_path / "raw", labels=labels, aliases=tmp_path / "aliases.csv")
    preprocess.main(params, made, Namespace(out=tmp_path / "tiles"))
    matching = json.loads((tmp_path / "tiles" / "matching.json").read_text())
    assert matching["outside"] == {"tiles": 12, "labels": 12, "without_covariates": 0}
    split.main(params, Namespace(tiles=tmp_path / "tiles"), Namespace(out=tmp_path / "split"))
    samples = pd.read_parquet(tmp_path / "split" / "samples.parquet")
    assert (samples.tile_year == samples.year - 1).all() and (samples.gdp_lag1 == samples.year - 1).all()
    assert np.allclose(samples.growth_rate_lag1, samples.growth_rate - 0.1)
    audit = json.loads((tmp_path / "split" / "audit.json").read_text())
    assert audit["future_tiles"] == audit["future_labels"] == 0 and audit["shared_places"] == 12
