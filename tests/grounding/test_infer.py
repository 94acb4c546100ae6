"""One command on a raster of any size or a folder: what is written, bounded memory, and every bad input named."""

import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import rasterio

from src.core.stage import run
from src.core.stage.files import read_arrays
from src.grounding import infer
from src.grounding.models import denoiser, whole_scene
from tests.grounding.pair_files import REAL, images, write_pair, write_raster, write_tile
from tests.grounding.scenes import scene
from tests.grounding.small_models import write


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write(tmp_path_factory.mktemp("models") / "ground")


@pytest.fixture
def pair(tmp_path):
    return write_pair(tmp_path / "in", "a")


def call(*options) -> tuple[int, str]:
    return run.outcome(lambda: infer.command(infer.PARSER.parse_args([*map(str, options)])), "grounding.infer")


def refine(pair, model, out, *more):
    code, message = call("--sar", pair[0], "--optical", pair[1], "--model", model, "--out", out, "--samples", 2, *more)
    assert code == 0, message
    return out


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


def test_the_command_gives_mean_and_spread_of_what_the_whole_scene_gives(pair, model, tmp_path):
    out = refine(pair, model, tmp_path / "out", "--seed", 3)
    sar, optical = images(0)
    guess = (np.rint(optical * 10_000) / 10_000).astype(np.float32)
    one = scene(side=40, sar=sar.clip(-25, 0), first_guess=guess, missing=np.zeros((40, 40), bool))
    drawn = whole_scene.refine_scene(one, denoiser.load(model)[0], steps=2, overlap=8, samples=2, seed=3)
    np.testing.assert_allclose(read(out / "opt_v3.tif"), drawn.mean(0), atol=1e-5)
    np.testing.assert_allclose(read(out / "spread.tif"), drawn.std(0, ddof=1), atol=1e-5)
    assert np.abs(drawn.mean(0) - guess).mean() > 1e-3
    with rasterio.open(out / "opt_v3.tif") as dataset, rasterio.open(pair[1]) as given:
        assert dataset.crs == given.crs and dataset.transform == given.transform
        assert dataset.descriptions == ("B02", "B03", "B04", "B08") and dataset.units == ("reflectance",) * 4
        assert np.isnan(dataset.nodata) and dataset.dtypes[0] == "float32" and dataset.tags()["scale"] == "1"
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert {path.name for path in out.iterdir()} == infer.results.WRITTEN


def test_the_same_command_gives_the_same_bytes_and_another_seed_others(pair, model, tmp_path):
    first, again = (refine(pair, model, tmp_path / name) for name in ("first", "again"))
    for name in infer.results.WRITTEN:
        assert (first / name).read_bytes() == (again / name).read_bytes()
    before = (first / "opt_v3.tif").read_bytes()
    assert (refine(pair, model, first, "--seed", 1) / "opt_v3.tif").read_bytes() != before


def test_layout_of_the_files_and_their_units_change_nothing(pair, model, tmp_path):
    expected = read(refine(pair, model, tmp_path / "out") / "opt_v3.tif")
    sar, optical = read(pair[0]), read(pair[1])
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16, "interleave": "pixel"}
    order = [3, 0, 2, 1]
    moved = write_raster(tmp_path / "s1.tif", 10 ** (sar[::-1] / 10), ("VH", "VV"), **tiled)
    shifted = write_raster(tmp_path / "s2.tif", optical[order] + np.int16(1000), **tiled)
    out = refine(
        (moved, shifted), model, tmp_path / "other", "--sar-scale", "linear", "--offset", -1000, "--bands",
        "B08", "B02", "B04", "B03",
    )  # fmt: skip
    np.testing.assert_allclose(read(out / "opt_v3.tif"), expected, atol=1e-5)


def test_holes_are_filled_and_no_radar_is_no_data(model, tmp_path, capsys):
    sar, optical = images(0)
    sar[:, :, 36:] = np.nan
    numbers = np.rint(optical * 10_000).astype(np.int16)
    numbers[:, 10:14, 10:20] = -1
    pair = write_pair(tmp_path / "in", "a", sar=sar, optical=numbers, optical_options={"nodata": -1})
    out = refine(pair, model, tmp_path / "out")
    refined = read(out / "opt_v3.tif")
    assert np.isnan(refined[..., 36:]).all() and np.isfinite(refined[..., :36]).all()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["filled_share"] == pytest.approx(40 / (40 * 36)) and summary["no_data_share"] == pytest.approx(0.1)
    assert "2.8% of refined pixels had no first guess, 10.0% no data" in capsys.readouterr().out


def test_one_sample_has_no_spread(pair, model, tmp_path):
    code, _ = call("--sar", pair[0], "--optical", pair[1], "--model", model, "--out", tmp_path / "o", "--samples", 1)
    assert code == 0 and {path.name for path in (tmp_path / "o").iterdir()} == infer.results.WRITTEN - {"spread.tif"}


def test_memory_does_not_grow_with_the_rasters_height(model, tmp_path, monkeypatch):
    monkeypatch.setattr(whole_scene, "refiner", lambda *rest: lambda first_guess, missing, sar, noise: first_guess)
    peaks = {}
    for height in (200, 2000):
        sar, optical = (np.tile(image, (1, height // 40, 1)) for image in images(0))
        pair = write_pair(tmp_path / str(height), "a", sar=sar, optical=optical)
        del sar, optical
        tracemalloc.start()
        out = refine(pair, model, tmp_path / f"out{height}")
        peaks[height] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        np.testing.assert_allclose(read(out / "opt_v3.tif"), read(pair[1]) / 10_000, atol=1e-6)
    assert peaks[2000] < 1.5 * peaks[200] and peaks[2000] < 2000 * 40 * 4 * 4


def test_a_model_of_simulated_scenes_and_of_another_product_warns(pair, tmp_path, capsys):
    sar = {"product": "GRD", "coefficient": "gamma0", "clip_db": [-25.0, 0.0]}
    refine(pair, write(tmp_path / "m", simulated=True, opt_v2="synthetic", sar=sar), tmp_path / "out")
    said = capsys.readouterr().out
    assert "trained on simulated scenes" in said and "by degrading the truth" in said
    assert "data.sar.product: the radar image is RTC, the model was trained on GRD" in said
    assert "data.sar.coefficient" not in said


BAD_PAIRS = {
    "crs": ({"optical_options": {"crs": "EPSG:32631"}}, 65, "crs: found EPSG:32630, and EPSG:32631"),
    "transform": ({"optical_options": {"transform": (10, 0, 0, 0, -10, 0)}}, 65, "transform: found"),
    "small": ({"side": 12}, 65, "size: found 12 x 12 px, the model reads 16 x 16; use a larger one"),
    "linear": ({"sar": 10 ** (images(0)[0] / 10)}, 65, "data.sar.scale"),
    "numbers": ({"optical": np.full((4, 40, 40), 30_000, np.int16) + np.arange(40, dtype=np.int16)}, 65, "reflectance"),
    "nan": ({"sar": np.full((2, 40, 40), np.nan, np.float32)}, 65, "nothing but no data"),
    "unnamed": ({"optical_options": {"names": None}}, 65, "expected B02 once"),
}


@pytest.mark.parametrize("name", BAD_PAIRS)
def test_a_bad_pair_is_named_and_leaves_nothing(name, model, tmp_path):
    changes, expected, words = BAD_PAIRS[name]
    sar, optical = write_pair(tmp_path / "in", "a", **changes)
    code, message = call("--sar", sar, "--optical", optical, "--model", model, "--out", tmp_path / "out")
    assert code == expected and words in message and str(tmp_path / "in") in message
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_rasters_of_other_sizes_and_models_of_other_bands_are_named(pair, model, tmp_path):
    other = write_raster(tmp_path / "b.tif", images(0)[1][:, :30], ("B02", "B03", "B04", "B08"))
    code, message = call("--sar", pair[0], "--optical", other, "--model", model, "--out", tmp_path / "out")
    assert code == 65 and "size: found (40, 40) px, and (30, 40) in b.tif" in message
    fewer = write(tmp_path / "fewer")
    transformer = denoiser.load(fewer)[0].transformer
    three_bands = dict(transformer.config) | {"in_channels": 7, "out_channels": 3}
    type(transformer).from_config(three_bands).save_pretrained(fewer / "transformer")
    code, message = call("--sar", pair[0], "--optical", pair[1], "--model", fewer, "--out", tmp_path / "out")
    assert code == 65 and "channels: found 7 in and 3 out, expected 9 and 4" in message
    code, message = call("--sar", pair[0], "--optical", pair[1], "--model", tmp_path / "no", "--out", tmp_path / "out")
    assert code == 74 and "no/grounding.json" in message


def test_a_full_disk_leaves_nothing_half_written(pair, model, tmp_path, monkeypatch):
    def fails(*rest, **options):
        raise rasterio.errors.RasterioIOError("no space left")

    monkeypatch.setattr("rasterio.shutil.copy", fails)
    code, _ = call("--sar", pair[0], "--optical", pair[1], "--model", model, "--out", tmp_path / "out")
    assert code == 74 and [path.name for path in tmp_path.iterdir()] == ["in"]


def test_an_overlap_as_large_as_the_window_is_named(pair, model, tmp_path):
    params = tmp_path / "params.yaml"
    params.write_text(infer.PARSER.get_default("params").read_text().replace("overlap_px: 8", "overlap_px: 16"))
    options = ["--sar", pair[0], "--optical", pair[1], "--model", model, "--out", tmp_path / "out", "--params", params]
    expected = "infer.overlap_px: found 16, expected less than the model's window of 16 px; lower it"
    assert call(*options) == (2, expected)


def test_options_that_do_not_go_together(pair, model, tmp_path):
    known = ["--model", model, "--out", tmp_path / "out"]
    assert call("--sar", pair[0], *known) == (2, "--optical: missing; name the first guess that belongs to --sar")
    assert "--optical: not used with --input-dir" in call("--input-dir", tmp_path, "--optical", pair[1], *known)[1]
    both = ["--sar", pair[0], "--optical", pair[1]]
    assert "--first-guess: not used with --sar" in call(*both, "--first-guess", tmp_path, *known)[1]
    assert "--scale: found 0, expected a number above 0" in call(*both, *known, "--scale", 0)[1]
    code, message = call(*both, "--model", model, "--out", tmp_path / "in")
    assert code == 2 and "expected a new or empty folder" in message and pair[0].is_file()


def test_a_folder_with_bad_scenes_refines_the_others_and_lists_what_failed(model, tmp_path, capsys):
    folder, out = tmp_path / "tiles", tmp_path / "out"
    guess = np.rint(images(5)[1] * 10_000)
    for name, seed in (("a", 0), ("c", 1)):
        write_tile(folder, name, seed, arrays={"opt_v2": guess})
    write_tile(folder, "b")
    code, message = call("--input-dir", folder, "--model", model, "--out", out, "--samples", 2)
    assert code == 65 and "1 of 3 scenes failed" in message and "b.npz: opt_v2: missing" in message
    assert sorted(path.name for path in out.iterdir()) == ["a", "c", "failed.csv"]
    table = pd.read_csv(out / "failed.csv")
    assert table["scene"].tolist() == ["b"] and table["exit_code"].tolist() == [65]
    assert read(out / "a" / "opt_v3.tif").shape == (4, 40, 40)
    write_tile(folder, "b", arrays={"opt_v2": guess})
    assert call("--input-dir", folder, "--model", model, "--out", out, "--samples", 2) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == ["a", "b", "c"]


def test_a_first_guess_of_four_bands_beside_a_truth_of_more(pair, model, tmp_path):
    optical = read(pair[1])
    order = ("B8A", "B08", "B04", "B03", "B02")
    write_raster(pair[1], np.concatenate([optical[3:], optical[::-1]]))
    write_raster(tmp_path / "v2" / "a.tif", optical + np.int16(50), ("B02", "B03", "B04", "B08"))
    options = ["--input-dir", tmp_path / "in", "--first-guess", tmp_path / "v2", "--bands", *order]
    assert call(*options, "--model", model, "--out", tmp_path / "out", "--samples", 1) == (0, "")
    shown = read_arrays(tmp_path / "out" / "a" / "preview.safetensors")
    np.testing.assert_allclose(shown["truth"], optical / 10_000, atol=1e-6)
    np.testing.assert_allclose(shown["first_guess"], (optical + 50) / 10_000, atol=1e-6)


def test_a_real_pair_whose_files_name_no_bands(model, tmp_path):
    tile = "38D_378R_2_3.tif"
    sar, optical = (REAL / "terramesh" / sensor / tile for sensor in ("S1RTC", "S2L2A"))
    if not sar.is_file():
        pytest.skip("no real data")
    names = [*(f"B0{number}" for number in range(1, 9)), "B8A", "B09", "B11", "B12"]
    options = ["--sar-bands", "VV", "VH", "--bands", *names]
    out = refine((sar, optical), model, tmp_path / "out", *options)
    with rasterio.open(out / "opt_v3.tif") as dataset, rasterio.open(sar) as given:
        assert dataset.shape == given.shape and dataset.crs == given.crs and np.isfinite(dataset.read()).all()


def test_a_first_guess_that_is_not_there_is_a_storage_error(pair, model, tmp_path):
    (tmp_path / "v2").mkdir()
    code, message = call(
        "--input-dir", tmp_path / "in", "--first-guess", tmp_path / "v2", "--model", model, "--out", tmp_path / "out"
    )
    assert code == 74 and "a.tif: no such file" in message
    assert call("--input-dir", tmp_path / "no", "--model", model, "--out", tmp_path / "out")[0] == 74
