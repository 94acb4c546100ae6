"""New tiles through a model folder alone: the numbers of evaluate, and refusals of what it was not trained on."""

import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from src.core.errors import BandwiseError, DataError, ParamsError
from src.population import predict
from src.population.inference import Reader
from src.population.model import load
from tests.population.conftest import CONTROL, ROOT, run_sft
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
def with_note(study, trained, tmp_path_factory):
    changes = {"sft.template": "{year} {note}?", "sft.covariates": ["note"], "sft.epochs": 1}
    return run_sft(study, trained.pretrain, tmp_path_factory.mktemp("note"), changes)


def test_covariates_come_from_a_csv_and_stay_text(with_note, raw, store, split_of, tmp_path):
    table = store.tiles[["province", "city", "year"]].assign(note=[CONTROL, "coast", "x"] * 16 + ["coast"])
    table.sample(frac=1, random_state=0).to_csv(tmp_path / "notes.csv", index=False)
    predict.main(with_note, raw, tmp_path / "out.csv", tmp_path / "notes.csv")
    found = pd.read_csv(tmp_path / "out.csv")
    rows = store.tiles.assign(sample=store.tiles.tile, note=table.note)
    expected = Reader(*load(with_note), store, 16).head(rows)
    np.testing.assert_allclose(found["head"], expected, rtol=0, atol=6e-5)


def test_a_missing_covariate_is_named(with_note, raw, store, tmp_path):
    with pytest.raises(DataError, match=r"names \['note'\]; give a file of them with --covariates"):
        predict.main(with_note, raw, tmp_path / "out.csv")
    keys = store.tiles[["province", "city", "year"]]
    for table, message in (
        (keys, r"no column 'note', found province, city, year"),
        (pd.concat([keys, keys.iloc[[3]]]).assign(note="x"), r"row 51: P0/C\d\d/2020 is already in row 5"),
        (keys.assign(note="x").iloc[:-2], r"no row or a blank for P\d/C\d\d/2020 \(2 such tiles\)"),
        (keys.assign(note=["", *["x"] * (len(keys) - 1)]), r"no row or a blank for P0/C00/2020 \(1 such tiles\)"),
    ):
        table.to_csv(tmp_path / "notes.csv", index=False)
        with pytest.raises(DataError, match=message):
            predict.main(with_note, raw, tmp_path / "out.csv", tmp_path / "notes.csv")
    assert not (tmp_path / "out.csv").exists()


def test_an_unparsable_answer_leaves_its_value_empty(one, trained, store, tmp_path, monkeypatch):
    answers = iter(["预测值：3.25‰", "about 3"])
    monkeypatch.setattr(predict.Reader, "greedy", lambda self, rows: [next(answers) for _ in range(len(rows))])
    folder = one(store.view(2))
    write_geotiff(folder / "P" / "C" / "2021_C.tif", store.view(3), LINEAR)
    predict.main(trained.sft, folder, tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert lines[1].endswith(",预测值：3.25‰,3.2500") and lines[2].endswith(",about 3,")


def asked(*arguments):
    return predict.PARSER.parse_args(["--model", "m", "--out", "o", *arguments])


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
