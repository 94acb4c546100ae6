"""New tiles through a model folder alone: the numbers of evaluate, and refusals of what it was not trained on."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from src.core.stage import files
from src.core.stage.errors import BandwiseError, DataError, ParamsError
from src.population import predict
from src.population.models.inference import Reader
from src.population.models.model_folder import load
from tests.pipelines import ROOT
from tests.population.conftest import run_sft
from tests.population.covaried import GDP, gdp, with_gdp
from tests.tiles import random_pixels, write_geotiff, write_npy, zip_folder

LINEAR = {"quantisation": "linear", "scale": 0.02}


@pytest.fixture
def raw(study):
    return study.tiles.parent / "raw"


@pytest.fixture
def one(tmp_path):
    """`one(pixels, tags)` -> folder with a single tile."""

    def one(pixels, tags=None, name="2020_C.tif", **options):
        write_geotiff(tmp_path / "new" / "P" / "C" / name, pixels, LINEAR if tags is None else tags, **options)
        return tmp_path / "new"

    return one


def test_the_same_tiles_give_what_evaluate_reads(raw, trained, store, split_of, tmp_path):
    predict.main(trained.sft, raw, tmp_path / "out.csv", batch_size=5)
    table = pd.read_csv(tmp_path / "out.csv", keep_default_na=False, na_values={"text_value": [""]})
    assert list(table) == ["tile_id", "province", "city", "year", "head", "text", "text_value"]
    assert table.tile_id.tolist() == store.tiles.tile_id.tolist(), "unlabelled tiles too"
    rows = split_of.samples
    reader = Reader(*load(trained.sft), store, 64)
    found = table.set_index("tile_id").loc[rows.tile_id]
    np.testing.assert_allclose(found["head"], reader.head(rows), rtol=0, atol=6e-5)
    assert found["text"].tolist() == reader.greedy(rows)
    assert found["head"].std() > 1


def test_intervals_are_those_of_the_models_own_evaluation(raw, trained, tmp_path, capsys):
    known = {"model_sha256": files.tree_sha256([trained.sft]), "level": 0.9}
    known |= {"groups": {"head": {"added": 2.5, "guarantee": "no guarantee: elsewhere"}}}
    file = tmp_path / "prediction_intervals.json"
    files.write_json(file, known)
    predict.main(trained.sft, raw, tmp_path / "out.csv", intervals=file)
    table = pd.read_csv(tmp_path / "out.csv")
    np.testing.assert_allclose(table.head_high - table["head"], 2.5, atol=2e-4)
    np.testing.assert_allclose(table["head"] - table.head_low, 2.5, atol=2e-4)
    assert "90% intervals, no guarantee: elsewhere" in capsys.readouterr().out
    for changes, message in (
        ({"model_sha256": "other"}, "model_sha256: found other"),
        ({"groups": {"head": {"refused": "expected at least 19 places"}}}, "at least 19 places"),
    ):
        files.write_json(file, known | changes)
        with pytest.raises(DataError, match=message):
            predict.main(trained.sft, raw, tmp_path / "none.csv", intervals=file)
    assert not (tmp_path / "none.csv").exists()


def test_a_zip_a_model_moved_elsewhere_and_a_second_run_change_no_byte(raw, trained, tmp_path):
    model = shutil.copytree(trained.sft, tmp_path / "elsewhere" / "model")
    zipped = zip_folder(tmp_path / "raw.zip", raw)
    for name, root, folder in (("a", raw, trained.sft), ("b", zipped, model), ("c", zipped, model)):
        predict.main(folder, root, tmp_path / f"{name}.csv")
    texts = {(tmp_path / f"{name}.csv").read_bytes() for name in "abc"}
    assert len(texts) == 1


def test_larger_tiles_are_read_in_their_middle(raw, one, trained, store, tmp_path):
    inner = store.view(7)
    pixels = random_pixels(1, bands=8, height=22, width=24)
    pixels[:, 3:19, 4:20] = inner
    predict.main(trained.sft, one(pixels), tmp_path / "larger.csv")
    predict.main(trained.sft, raw, tmp_path / "all.csv")
    larger, everything = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("larger", "all"))
    assert larger["head"][0] == pytest.approx(everything["head"][7], abs=2e-4)


def test_another_scale_is_another_unit_of_the_same_values(one, trained, store, tmp_path):
    pixels = (store.view(2) // 2 * 2).astype(np.int8)
    predict.main(trained.sft, one(pixels), tmp_path / "a.csv")
    halved = write_geotiff(tmp_path / "half" / "P" / "C" / "2020_C.tif", pixels // 2, LINEAR | {"scale": 0.04})
    predict.main(trained.sft, halved.parents[2], tmp_path / "b.csv")
    a, b = (pd.read_csv(tmp_path / f"{name}.csv") for name in "ab")
    assert a["head"][0] == pytest.approx(b["head"][0], abs=2e-4)


def test_tiles_without_a_tag_are_read_as_in_training(one, trained, store, tmp_path):
    predict.main(trained.sft, one(store.view(2)), tmp_path / "tagged.csv")
    write_npy(tmp_path / "bare" / "P" / "C" / "2020_C.npy", np.asarray(store.view(2)))
    predict.main(trained.sft, tmp_path / "bare", tmp_path / "bare.csv")
    assert (tmp_path / "bare.csv").read_bytes() == (tmp_path / "tagged.csv").read_bytes()


def test_other_tiles_than_the_models_are_refused(one, trained, tmp_path):
    good = random_pixels(0, bands=8, height=16)
    for pixels, tags, message in (
        (good, {"quantisation": "alphaearth"}, r"quantisation.* alphaearth.*trained on linear with scale 0\.02"),
        (good.astype(np.float32), {"quantisation": "none"}, "quantisation.* none.*trained on linear"),
        (random_pixels(0, bands=8, height=15, width=16), LINEAR, "smallest tile has 15 px, the model reads 16"),
        (random_pixels(0, bands=7, height=16), LINEAR, "7"),
        (random_pixels(0, bands=9, height=16), LINEAR, "9"),
    ):
        with pytest.raises(DataError, match=message):
            predict.main(trained.sft, one(pixels, tags), tmp_path / "out.csv")
        assert not (tmp_path / "out.csv").exists()


def test_tiles_unlike_those_of_training_are_refused(one, trained, store, tmp_path):
    settings = load(trained.sft)[2]
    assert settings.band_names and settings.pixel_size == pytest.approx(0.04)
    for options, message in (
        ({"band_names": settings.band_names[::-1]}, r"band 1: found 'A07', expected 'A00' as in training"),
        ({"pixel_size": 0.05}, r"pixel size: found 0\.05 \(EPSG:4326\), expected 0\.04 as in training"),
    ):
        with pytest.raises(DataError, match=message):
            predict.main(trained.sft, one(store.view(2), **options), tmp_path / "out.csv")


def test_a_tile_without_data_where_the_model_looks_is_refused(one, trained, tmp_path):
    pixels = random_pixels(0, bands=8, height=22)
    pixels[:, 3:19, 3:19] = -128
    with pytest.raises(DataError, match=r"P/C/2020: found no valid pixel in the centre 16 px \(1 such tiles\)"):
        predict.main(trained.sft, one(pixels), tmp_path / "out.csv")


def test_no_tile_no_model_no_place_to_write(one, trained, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"found no \.tif"):
        predict.main(trained.sft, tmp_path / "empty", tmp_path / "out.csv")
    with pytest.raises(BandwiseError, match=r"bandwise\.json"):
        predict.main(tmp_path / "empty", tmp_path / "empty", tmp_path / "out.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(BandwiseError, match=r"out\.csv"):
        predict.main(trained.sft, one(random_pixels(0, bands=8, height=16)), tmp_path / "file" / "out.csv")


@pytest.fixture(scope="module")
def reads_gdp(study, trained, tmp_path_factory):
    """A model that reads a covariate in its prompt and in its head."""
    folder = tmp_path_factory.mktemp("gdp")
    changes = GDP | {"prompt.fields": ["year"], "sft.covariates": "both", "sft.epochs": 1}
    return run_sft(with_gdp(study, folder), trained.pretrain, folder, changes)


@pytest.fixture
def lagged(reads_gdp, tmp_path):
    """`lagged(covariate_lag, tile_lag)` -> the same model as if trained with lags of so many years."""

    def lagged(covariate_lag=0, tile_lag=0):
        folder = shutil.copytree(reads_gdp, tmp_path / f"lag{covariate_lag}-{tile_lag}")
        settings = files.read_json(folder / "bandwise.json")
        settings["covariates"]["lag_years"], settings["tile_lag_years"] = covariate_lag, tile_lag
        files.write_json(folder / "bandwise.json", settings)
        return folder

    return lagged


@pytest.mark.parametrize(("covariate_lag", "tile_lag"), [(0, 0), (10, 0), (10, 3)])
def test_covariates_are_those_of_lag_years_before(lagged, raw, store, tmp_path, covariate_lag, tile_lag):
    """Tiles are of 2020: with a tile lag of 3 years predictions are for 2023, from covariates of 2013."""
    table = store.tiles[["province", "city"]].assign(gdp=gdp(len(store)))
    known = 2020 + tile_lag - covariate_lag
    decoys = [table.assign(year=known + years, gdp=-5.0) for years in (-10, 10)]
    table = pd.concat([*decoys, table.assign(year=known)]).sample(frac=1, random_state=0)
    table.to_csv(tmp_path / "gdp.csv", index=False)
    model = lagged(covariate_lag, tile_lag)
    predict.main(model, raw, tmp_path / "out.csv", tmp_path / "gdp.csv")
    found = pd.read_csv(tmp_path / "out.csv")
    rows = store.tiles.assign(sample=store.tiles.tile, gdp=gdp(len(store)), year=2020 + tile_lag)
    reader = Reader(*load(model), store, 16)
    np.testing.assert_allclose(found["head"], reader.head(rows), rtol=0, atol=6e-5)
    assert found["text"].tolist() == reader.greedy(rows) and (found.year == 2020 + tile_lag).all()


def test_a_missing_covariate_is_named(reads_gdp, lagged, raw, store, tmp_path):
    with pytest.raises(DataError, match=r"reads \['gdp'\]; give a file of them with --covariates"):
        predict.main(reads_gdp, raw, tmp_path / "out.csv")
    keys = store.tiles[["province", "city", "year"]]
    for model, table, message in (
        (reads_gdp, keys, r"no column 'gdp', found province, city, year"),
        (reads_gdp, pd.concat([keys, keys.iloc[[3]]]).assign(gdp=1), r"row 51: P0/C\d\d/2020 is already in row 5"),
        (reads_gdp, keys.assign(gdp=1).iloc[:-2], r"no row or a blank for P\d/C\d\d/2020 \(2 such rows\)"),
        (reads_gdp, keys.assign(gdp=["", *[1] * (len(keys) - 1)]), r"a blank for P0/C00/2020 \(1 such rows\)"),
        (reads_gdp, keys.assign(gdp=["many", *[1] * (len(keys) - 1)]), r"gdp: found 'many', expected numbers"),
        (lagged(10), keys.assign(gdp=1), r"blank for P0/C00/2010 \(49 .*of that year, 10 years before the prediction"),
    ):  # fmt: skip
        table.to_csv(tmp_path / "gdp.csv", index=False)
        with pytest.raises(DataError, match=message):
            predict.main(model, raw, tmp_path / "out.csv", tmp_path / "gdp.csv")
    assert not (tmp_path / "out.csv").exists()


def test_an_unparsable_answer_leaves_its_value_empty(one, trained, store, tmp_path, monkeypatch):
    answers = iter(["预测值：3.25‰", "about 3"])
    monkeypatch.setattr(Reader, "greedy", lambda self, rows: [next(answers) for _ in range(len(rows))])
    folder = one(store.view(2))
    write_geotiff(folder / "P" / "C" / "2021_C.tif", store.view(3), LINEAR)
    predict.main(trained.sft, folder, tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert lines[1].endswith(",预测值：3.25‰,3.2500") and lines[2].endswith(",about 3,")


def asked(*arguments):
    return predict.PARSER.parse_args(["--model", "m", "--out", "o", *arguments])


def test_errors_of_core_are_in_the_words_of_the_user(trained, tmp_path):
    write_geotiff(tmp_path / "tiles" / "P" / "C" / "2000_C.tif", random_pixels(0, bands=3))
    given = predict.PARSER.parse_args(
        ["--model", str(trained.sft), "--tiles", str(tmp_path / "tiles"), "--out", str(tmp_path / "a.csv")]
    )
    with pytest.raises(DataError) as caught:
        predict.command(given)
    assert "model.bands" in str(caught.value) and not re.search(r"`\w+`", str(caught.value))


def test_the_command_line_takes_one_source_and_its_own_options(trained, raw, tmp_path, capsys):
    for arguments, message in (
        ([], "one of the arguments --tiles --raster is required"),
        (["--tiles", "t", "--raster", "r"], "not allowed with"),
        (["--raster", "r", "--stride", "0"], "--stride: found 0, expected at least 1"),
        (["--tiles", "t", "--batch-size", "-1"], "--batch-size: found -1"),
    ):
        with pytest.raises(SystemExit) as stop:
            asked(*arguments)
        assert stop.value.code == 2 and message in capsys.readouterr().err
    for arguments, message in (
        (["--tiles", "t", "--year", "2020"], "--year: not used with --tiles"),
        (["--tiles", "t", "--stride", "8"], "--stride: not used with --tiles"),
        (["--raster", "r", "--covariates", "c.csv"], "--covariates: not used with --raster"),
    ):
        with pytest.raises(ParamsError, match=message):
            predict.command(asked(*arguments))
    given = ["--model", str(trained.sft), "--tiles", str(raw), "--out", str(tmp_path / "out.csv")]
    predict.command(predict.PARSER.parse_args(given))
    assert len(pd.read_csv(tmp_path / "out.csv")) > 40


def test_help_needs_neither_torch_nor_transformers():
    program = (
        "import contextlib, runpy, sys\n"
        "sys.argv = ['predict', '--help']\n"
        "with contextlib.suppress(SystemExit):\n"
        "    runpy.run_module('src.population.predict', run_name='__main__')\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--raster" in done.stdout and "--stride" in done.stdout
