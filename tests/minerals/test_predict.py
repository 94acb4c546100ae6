"""One command on a scene: the numbers of the stages, bounded reading, and every bad input named."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import scipy.io

from src.core.stage import params as params_file
from src.core.stage import run
from src.core.stage.errors import DataError, ParamsError, StorageError
from src.minerals import bands, ingest, predict, split
from src.minerals import map as map_stage
from src.minerals.data import cube_files
from src.minerals.data.simulated_spectra import WAVELENGTHS
from src.minerals.mapping.minerals import MINERALS, NAMES
from src.minerals.params import Params
from src.minerals.report import scene_verdict
from tests.minerals.cubes import scene, write_envi

LIBRARY = Path("data/sample/usgs_minerals")


def raster(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


def test_the_map_is_that_of_the_stages(cubes, params_yaml, call, tmp_path):
    params = params_file.read(params_yaml, Params)
    paths = SimpleNamespace(root=cubes, library=LIBRARY)
    for name, stage in {"store": ingest, "bands": bands, "split": split, "map": map_stage}.items():
        stage.main(params, paths, SimpleNamespace(out=tmp_path / name))
        setattr(paths, name, tmp_path / name)
    for number in range(3):
        out = call("--cube", cubes / f"s{number}.hdr", "--thresholds", paths.map / "thresholds.json")
        for name in ("minerals", "fit", "depth", "iron"):
            assert (out / f"{name}.tif").read_bytes() == (paths.map / name / f"s{number}.tif").read_bytes()
    assert len(np.unique(raster(out / "minerals.tif"))) > 4, "a map of nothing would be equal too"


def test_the_folder_holds_shares_and_altered_tiles_of_its_own_map(cubes, call, capsys):
    out = call("--cube", cubes / "s1.hdr")
    said = capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == predict.WRITTEN - {"answers.csv"}
    classes, summary = raster(out / "minerals.tif")[0], json.loads((out / "summary.json").read_text())
    known = classes[classes != 255]
    assert summary["no_data"] == pytest.approx((classes == 255).mean()) and (classes[:7, :9] == 255).all()
    assert summary["background"] == pytest.approx((known == 0).mean())
    for number, mineral in enumerate(MINERALS, 1):
        assert summary["minerals"][mineral.name] == pytest.approx((known == number).mean())
    copper = [number for number, mineral in enumerate(MINERALS, 1) if mineral.copper]
    tiles = [np.isin(tile[tile != 255], copper).mean() > 0.1 for tile in (classes[:32], classes[32:])]
    assert summary["tiles"] == {
        "tile_px": 32, "count": 2, "altered": sum(tiles), "altered_share": sum(tiles) / 2, "pixels_in_no_tile": 0
    }  # fmt: skip
    assert summary["pixels_with_data"] == 64 * 32 - 7 * 9 and "in no tile" not in said
    verdict = said.splitlines()[0]
    assert verdict.startswith("s1.hdr: minerals of the map on ") and f"{sum(tiles)} of 2 tiles altered" in verdict
    with rasterio.open(out / "minerals.tif") as dataset:
        assert dataset.crs.to_epsg() == 32611 and dataset.transform.c == 494000
    call("--cube", cubes / "s1.hdr")  # its own folder may be written again


def test_a_tile_with_little_data_and_a_scene_smaller_than_a_tile_are_no_tile(cubes, call, capsys):
    values = scene(1)
    values[:32, :20] = -1
    write_envi(cubes / "..", "less", values, dtype=np.float32, reflectance_scale_factor=None, data_ignore_value=-1)
    out = call("--cube", cubes / "../less.hdr")
    tiles = json.loads((out / "summary.json").read_text())["tiles"]
    assert tiles["count"] == 1 and tiles["pixels_in_no_tile"] == 32 * 12
    assert f"in no tile: {100 * 384 / (64 * 32 - 640):.1f} % of the pixels with data" in capsys.readouterr().out
    default = "pipelines/minerals/params.yaml"
    capsys.readouterr()
    out = call("--cube", cubes / "s1.hdr", "--params", default)
    assert json.loads((out / "summary.json").read_text())["tiles"] == {
        "tile_px": 64, "count": 0, "altered": 0, "altered_share": None, "pixels_in_no_tile": 64 * 32 - 7 * 9
    }  # fmt: skip
    assert "no tile of 64 px with enough data fits into it: lower tiles.tile_px" in capsys.readouterr().out


def test_the_last_tiles_end_at_the_edge_of_the_scene(params_yaml):
    settings = params_file.read(params_yaml, Params).tiles
    classes = np.zeros((70, 40), np.uint8)
    classes[64:, 32:] = 1 + NAMES.index("kaolinite")  # 48 pixels in the corner, of a tile's 1024
    classes[64:, 24:32] = 1 + NAMES.index("alunite")
    places = [(top, left) for top, left, _ in scene_verdict.whole_tiles(classes, settings)]
    assert places == [(0, 0), (0, 8), (32, 0), (32, 8), (38, 0), (38, 8)]
    tiles = scene_verdict.summarise(classes, settings.model_copy(update={"altered": 0.06}))["tiles"]
    assert tiles["pixels_in_no_tile"] == 0 and tiles["count"] == 6
    assert tiles["altered"] == 1, "copper-related are 96 pixels of the last tile, 48 of its neighbour"
    classes[:, 32:] = 255
    assert scene_verdict.summarise(classes, settings)["tiles"]["pixels_in_no_tile"] == 0
    classes[:34, 2:] = 255  # the tiles from line 38 on alone have data enough, the left one
    found = scene_verdict.summarise(classes, settings)["tiles"]
    assert found["count"] == 2 and found["pixels_in_no_tile"] == 32 * 2
    assert not list(scene_verdict.whole_tiles(classes[:31], settings))


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0, "0.0 %"),
        (1 / 8100, "<0.1 % (1 pixel)"),
        (4 / 8100, "<0.1 % (4 pixels)"),
        (5 / 8100, "0.1 %"),
        (1, "100.0 %"),
    ],
)
def test_few_pixels_are_not_hidden_by_rounding(share, said):
    assert scene_verdict.percent(share, 8100) == said


def test_no_data_is_named_on_the_command_line(tmp_path, call):
    stored = np.rint(scene(0)[:40] * 10000).astype(np.int16)
    assert (stored[:7, :9] == -10000).all()
    path = write_envi(tmp_path, "bare", stored)
    out = call("--cube", path, "--nodata", "-10000")
    classes = raster(out / "minerals.tif")[0]
    assert (classes[:7, :9] == 255).all() and (classes == 255).sum() == 63
    out = call("--cube", path, out=tmp_path / "without")
    assert (raster(out / "minerals.tif") != 255).all()


def test_lines_are_read_in_blocks_whose_size_changes_nothing(cubes, call, tmp_path, monkeypatch):
    whole = call("--cube", cubes / "s0.hdr", out=tmp_path / "whole")
    monkeypatch.setattr(cube_files, "BLOCK_BYTES", 4 * 32 * 224 * 5)
    read, opened = [], cube_files.open_cube

    def watched(*arguments):
        cube = opened(*arguments)
        inner = cube.read
        object.__setattr__(cube, "read", lambda first, last: read.append(last - first) or inner(first, last))
        return cube

    monkeypatch.setattr(cube_files, "open_cube", watched)
    blocks = call("--cube", cubes / "s0.hdr", out=tmp_path / "blocks")
    assert max(read) == 5 and sum(read) == 2 * 64, "checked once, mapped once"
    np.testing.assert_array_equal(raster(whole / "minerals.tif"), raster(blocks / "minerals.tif"))
    np.testing.assert_allclose(raster(whole / "fit.tif"), raster(blocks / "fit.tif"), atol=1e-5)


def test_a_sensor_without_visible_light_is_shown_in_grey_and_its_rules_are_said(cubes, call, capsys, monkeypatch):
    infrared = WAVELENGTHS > 1440
    header = {"wavelength": [f"{nm:.2f}" for nm in WAVELENGTHS[infrared]], "data_ignore_value": -1}
    header |= {"reflectance_scale_factor": None}
    write_envi(cubes / "..", "infrared", scene(1)[..., infrared], dtype=np.float32, **header)
    drawn = []
    monkeypatch.setattr(predict, "beside", lambda picture, titles, path: drawn.append((picture, titles)))
    out = call("--cube", cubes / "../infrared.hdr")
    (picture, titles), said = drawn[0], capsys.readouterr().out
    assert titles[0] == "reflectance at 2200 nm" and (picture.rgb == picture.rgb[..., :1]).all()
    assert picture.rgb.std() > 0.1
    assert "rule left out, the sensor has no band for it: chlorophyll at 680 nm" in said and "iron.tif is empty" in said
    assert np.isnan(raster(out / "iron.tif")).all() and (raster(out / "minerals.tif") % 255 > 0).any()


def test_thresholds_of_the_map_are_those_of_each_mineral(cubes, call, tmp_path):
    limits = dict.fromkeys(NAMES, 0.03)
    paths = {}
    for name, changed in (("low", {}), ("high", {"kaolinite": 2.0})):
        paths[name] = tmp_path / f"{name}.json"
        paths[name].write_text(json.dumps({"feature fit": limits | changed}))
    low, high = (
        raster(call("--cube", cubes / "s0.hdr", "--thresholds", path, out=tmp_path / name) / "minerals.tif")[0]
        for name, path in paths.items()
    )
    kaolinite = 1 + NAMES.index("kaolinite")
    assert (low == kaolinite).sum() > 50
    np.testing.assert_array_equal(high, np.where(low == kaolinite, 0, low))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"other": {}}, "feature fit: found none, expected thresholds.json of the map"),
        ([], "feature fit: found none"),
        ({"feature fit": dict.fromkeys(NAMES[1:], 0.1)}, "alunite is not in both"),
        ({"feature fit": dict.fromkeys((*NAMES, "gold"), 0.1)}, "gold is not in both"),
        ({"feature fit": dict.fromkeys(NAMES, 0)}, "alunite: found 0, expected a number above 0"),
        ({"feature fit": dict.fromkeys(NAMES, "x")}, "found 'x', expected a number above 0"),
    ],
)
def test_thresholds_of_something_else_are_refused(cubes, call, tmp_path, content, said):
    path = tmp_path / "thresholds.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=said):
        call("--cube", cubes / "s0.hdr", "--thresholds", path)
    assert not (tmp_path / "out").exists()


STORED = np.rint(scene(0)[8:14] * 10000).astype(np.int16)


@pytest.mark.parametrize(
    ("values", "header", "said"),
    [
        (STORED, {"reflectance_scale_factor": None}, "found int16 and no scale, .*; set --scale"),
        (STORED, {"wavelength": None}, "expected one for each of 224 bands; .* set --wavelengths to it"),
        (STORED[..., :3], {"wavelength": [480, 560, 660]}, "found 3 bands, expected a hyperspectral cube"),
        (STORED * 0, {}, "found 0 or no data in every band and pixel"),
        (STORED // 100, {"reflectance_scale_factor": 1}, "Radiance.*per cent: set --scale: 100"),
        (STORED, {"reflectance_scale_factor": 1}, "Set --scale: 10000"),
        (STORED, {"reflectance_scale_factor": 1e8}, "The scale seems too large: correct --scale"),
        (STORED[..., :100], {"wavelength": WAVELENGTHS[:100]}, "alunite: left shoulder 2025-2075 nm: found no band"),
        (STORED[..., ::6], {"wavelength": WAVELENGTHS[::6]}, "found no band"),
        (STORED[..., ::4], {"wavelength": WAVELENGTHS[::4]}, "found no band between, expected one every 30 nm"),
    ],
)
def test_a_cube_that_cannot_be_mapped_is_named(tmp_path, call, values, header, said):
    header = {key: [f"{nm:.2f}" for nm in value] if key == "wavelength" and value is not None else value
              for key, value in header.items()}  # fmt: skip
    path = write_envi(tmp_path, "scene", values, **header)
    with pytest.raises(DataError, match=said):
        call("--cube", path)
    assert not (tmp_path / "out").exists()


def test_a_mat_file_takes_scale_and_wavelengths_from_the_command_line(tmp_path, call, cubes):
    stored = np.rint(scene(0)[8:] * 10000).astype(np.int16)
    scipy.io.savemat(tmp_path / "scene.mat", {"cube": stored})
    (tmp_path / "nm.csv").write_text("wavelength,fwhm\n" + "".join(f"{nm / 1000:.5f},0.00955\n" for nm in WAVELENGTHS))
    out = call("--cube", tmp_path / "scene.mat", "--scale", 10000, "--wavelengths", tmp_path / "nm.csv")
    other = call("--cube", cubes / "s0.hdr", out=tmp_path / "other")
    classes, expected = raster(out / "minerals.tif")[0], raster(other / "minerals.tif")[0, 8:]
    assert (classes == expected)[:, 9:].mean() > 0.99  # wavelengths are rounded otherwise


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        (["--cube", "none.hdr"], StorageError, "none.hdr: no such file; correct --cube"),
        (["--cube", "scene.img"], DataError, r"found \*.img, expected .hdr"),
        (["--cube", "scene.hdr", "--scale", "0"], ParamsError, "--scale: found 0, expected a number above 0"),
        (["--cube", "scene.hdr", "--scale", "100"], ParamsError, "--scale: found 100, .*scene.hdr itself says 10000"),
        (["--cube", "scene.hdr", "--nodata", "nan"], ParamsError, "--nodata: found nan, which is no data"),
        (["--cube", "own.hdr", "--nodata", "0"], ParamsError, "--nodata: found 0, .*own.hdr itself says -1; leave it"),
        (["--spectra", "a.csv", "--nodata", "0"], ParamsError, "--nodata: not used with --spectra"),
        (["--cube", "scene.hdr", "--library", "none"], StorageError, "expected a library of spectra.csv"),
        (["--cube", "scene.hdr", "--wavelengths", "none"], StorageError, "none: no such file"),
        (["--cube", "scene.hdr", "--thresholds", "none"], StorageError, "none: cannot read"),
        (["--cube", "scene.hdr", "--out", "."], ParamsError, "expected a new or empty folder"),
        (["--cube", "scene.hdr", "--out", "scene.img"], ParamsError, "--out: found the file"),
        (["--spectra", "none.csv"], StorageError, "none.csv: cannot read"),
        (["--spectra", "none.npz"], StorageError, "none.npz: no such file; correct --spectra"),
        (["--spectra", "a.csv", "--scale", "100"], ParamsError, "--scale: not used with --spectra"),
        (["--spectra", "a.csv", "--wavelengths", "b"], ParamsError, "--wavelengths: not used with --spectra"),
        (["--spectra", "scene.hdr", "--out", "scene.hdr"], ParamsError, "--out: found .*which is there already"),
    ],
)
def test_options_and_files_that_do_not_go_together_are_named(tmp_path, call, monkeypatch, options, error, said):
    write_envi(tmp_path, "scene", STORED)
    write_envi(tmp_path, "own", STORED, data_ignore_value=-1)
    before = {path.name for path in tmp_path.iterdir()}
    values = {text for text in options if text.startswith("-") or text.isdigit() or text == "nan"}
    options = [options[0], *(text if text in values else tmp_path / text for text in options[1:])]
    with pytest.raises(error, match=said):
        call(*options)
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_cube_without_a_folder_to_write_is_refused(params_yaml):
    given = predict.PARSER.parse_args(["--cube", "scene.hdr", "--params", str(params_yaml)])
    code, message = run.outcome(lambda: predict.command(given), "minerals.predict")
    assert code == ParamsError.exit_code and message == "--out: missing; name a folder for the maps"
