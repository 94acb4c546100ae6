"""One command on a scene or on spectra: the numbers of the stages, bounded reading, and every bad input named."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import rasterio
import scipy.io

from src.core.stage import params as params_file
from src.core.stage import run
from src.core.stage.errors import DataError, ParamsError, StorageError
from src.minerals import bands, ingest, predict, split
from src.minerals import map as map_stage
from src.minerals.data import cube_files, simulated_geology, simulated_spectra, spectral_library
from src.minerals.data.simulated_spectra import WAVELENGTHS
from src.minerals.mapping.minerals import MINERALS, NAMES
from src.minerals.params import Params
from tests.minerals.cubes import write_envi

LIBRARY = Path("data/sample/usgs_minerals")
KNOWN = spectral_library.read(LIBRARY)
PLACE = ["UTM", 1, 1, 494000, 4156000, 15, 15, 11, "North", "WGS-84"]
NM = np.arange(400.0, 2501, 10)


def scene(seed: int) -> np.ndarray:
    """(64, 32, 224) float32 reflectance of altered ground, with no data in one corner."""
    generator = np.random.default_rng(seed)
    ground = simulated_geology.draw(generator, 64, False)
    cube = simulated_spectra.measure(ground, simulated_spectra.endmembers(KNOWN, generator), 0.3, 200, generator)
    cube = cube[:, :32]
    cube[:7, :9] = -1
    return cube


@pytest.fixture(scope="module")
def cubes(tmp_path_factory):
    """Folder of three scenes that lie apart, as float32 without scale, -1 where there is no data."""
    folder = tmp_path_factory.mktemp("cubes")
    for number in range(3):
        place = [*PLACE[:3], PLACE[3] + 9000 * (number - 1), *PLACE[4:]]  # s1 lies at PLACE
        header = {"reflectance_scale_factor": None, "data_ignore_value": -1, "map_info": place}
        write_envi(folder, f"s{number}", scene(number), dtype=np.float32, **header)
    return folder


@pytest.fixture(scope="module")
def params_yaml(tmp_path_factory):
    """The pipeline's params with tiles of 32 px and no truth."""
    text = Path("pipelines/minerals/params.yaml").read_text(encoding="utf-8")
    for old, new in (("tile_px: 64", "tile_px: 32"), ("truth: truth ", "truth: ")):
        assert old in text
        text = text.replace(old, new)
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def call(params_yaml, tmp_path):
    """`call("--cube", path, ...)` runs the command in-process, a cube into out/; returns that folder."""

    def call(*options, out=tmp_path / "out"):
        options = [str(option) for option in options]
        if "--cube" in options and "--out" not in options:
            options += ["--out", str(out)]
        if "--params" not in options:
            options += ["--params", str(params_yaml)]
        predict.command(predict.PARSER.parse_args(options))
        return out

    return call


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
    assert {path.name for path in out.iterdir()} == predict.WRITTEN
    classes, summary = raster(out / "minerals.tif")[0], json.loads((out / "summary.json").read_text())
    known = classes[classes != 255]
    assert summary["no_data"] == pytest.approx((classes == 255).mean()) and (classes[:7, :9] == 255).all()
    assert summary["background"] == pytest.approx((known == 0).mean())
    for number, mineral in enumerate(MINERALS, 1):
        assert summary["minerals"][mineral.name] == pytest.approx((known == number).mean())
    copper = [number for number, mineral in enumerate(MINERALS, 1) if mineral.copper]
    tiles = [np.isin(tile[tile != 255], copper).mean() > 0.1 for tile in (classes[:32], classes[32:])]
    assert summary["tiles"] == {"tile_px": 32, "count": 2, "altered": sum(tiles), "altered_share": sum(tiles) / 2}
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
    assert json.loads((out / "summary.json").read_text())["tiles"]["count"] == 1
    default = "pipelines/minerals/params.yaml"
    capsys.readouterr()
    out = call("--cube", cubes / "s1.hdr", "--params", default)
    assert json.loads((out / "summary.json").read_text())["tiles"] == {
        "tile_px": 64, "count": 0, "altered": 0, "altered_share": None
    }  # fmt: skip
    assert "no tile of 64 px with enough data fits into it: lower tiles.tile_px" in capsys.readouterr().out


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
    before = {path.name for path in tmp_path.iterdir()}
    options = [options[0], *(tmp_path / text if not text.startswith("-") and not text.isdigit() else text
                             for text in options[1:])]  # fmt: skip
    with pytest.raises(error, match=said):
        call(*options)
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_cube_without_a_folder_to_write_is_refused(params_yaml):
    given = predict.PARSER.parse_args(["--cube", "scene.hdr", "--params", str(params_yaml)])
    code, message = run.outcome(lambda: predict.command(given), "minerals.predict")
    assert code == ParamsError.exit_code and message == "--out: missing; name a folder for the maps"


def sensed(nm: np.ndarray) -> dict[str, np.ndarray]:
    """The first reference of each mineral, and flat grey, at wavelengths (nm) of even spacing."""
    spectra = KNOWN.at(nm, np.full(len(nm), nm[1] - nm[0]))
    return {name: spectra[KNOWN.rows(name, "reference")[0]] for name in NAMES} | {"grey": np.full(len(nm), 0.4)}


def write_table(path: Path, nm: np.ndarray, spectra: dict[str, np.ndarray], first: str = "wavelength") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if first:
            writer.writerow([first, *spectra])
        for row in np.column_stack([nm, *spectra.values()]):
            writer.writerow(["" if np.isnan(value) else f"{value:.6f}" for value in row])
    return path


def named(call, path) -> pd.DataFrame:
    out = path.with_name("named.csv")
    call("--spectra", path, "--out", out)
    return pd.read_csv(out, keep_default_na=False).set_index("name")


@pytest.mark.parametrize("step", [1, 5, 10])
def test_references_are_named_at_the_tables_own_wavelengths(call, tmp_path, capsys, step):
    nm = np.arange(400.0, 2501, step)
    table = named(call, write_table(tmp_path / "a.csv", nm, sensed(nm)))
    wrong = [name for name in NAMES if table.loc[name, "mineral"] != name]
    assert not wrong and table.loc["grey", "mineral"] == "none" and table.loc["grey", "fit"] == ""
    assert (pd.to_numeric(table.loc[list(NAMES), "fit"]) > 0.99).all()
    assert capsys.readouterr().out.splitlines()[0].startswith("a.csv: 8 of 9 spectra hold a mineral of the map: 1 ")


def test_micrometres_any_order_npz_and_no_header_say_the_same(call, tmp_path, capsys):
    spectra = sensed(NM)
    expected = named(call, write_table(tmp_path / "a.csv", NM, spectra))
    turned = {name: values[::-1] for name, values in spectra.items()}
    pd.testing.assert_frame_equal(named(call, write_table(tmp_path / "b.csv", NM[::-1] / 1000, turned)), expected)
    arrays = {"wavelengths": NM, "spectra": np.round(np.stack(list(spectra.values())), 6)}
    np.savez(tmp_path / "c.npz", **arrays, names=list(spectra))
    pd.testing.assert_frame_equal(named(call, tmp_path / "c.npz"), expected)
    np.savez(tmp_path / "d.npz", **arrays)
    bare = [named(call, tmp_path / "d.npz"), named(call, write_table(tmp_path / "e.csv", NM, spectra, first=""))]
    for table in bare:
        assert table.index.tolist() == [f"spectrum {number}" for number in range(1, 10)]
        assert table["mineral"].tolist() == expected["mineral"].tolist()
    assert (tmp_path / "named.csv").exists() and "400 to 2500 nm" in capsys.readouterr().out


def test_a_mixture_has_a_runner_up_and_none_its_nearest(call, tmp_path):
    spectra = sensed(NM)
    mixed = {"mixed": 0.5 * spectra["kaolinite"] + 0.5 * spectra["montmorillonite"]}
    mixed["traces"] = 0.02 * spectra["kaolinite"] + 0.98 * spectra["grey"]
    table = named(call, write_table(tmp_path / "a.csv", NM, mixed))
    assert table["mineral"].tolist() == ["kaolinite", "none"]
    assert table["runner_up"].tolist() == ["montmorillonite", "kaolinite"]


def test_a_gap_in_wavelengths_leaves_out_rules_or_minerals_and_says_so(call, tmp_path, capsys):
    spectra = sensed(NM)
    for name, gap, column, said in (
        ("rule", (NM > 1465) & (NM < 1510), "rules_left_out", "OH at 1480 nm"),
        ("mineral", (NM > 2280) & (NM < 2330), "not_tried", "calcite: 2280-2330 nm: found no band between"),
    ):
        path = write_table(tmp_path / f"{name}.csv", NM[~gap], {key: values[~gap] for key, values in spectra.items()})
        table = named(call, path)
        assert (table[column].str.contains(said)).all() and said in capsys.readouterr().out
        assert table.loc["alunite", "mineral"] == "alunite"
    assert table.loc["calcite", "mineral"] == "none" and table.loc["kaolinite", "mineral"] == "kaolinite"
    short = NM < 2400
    path = write_table(tmp_path / "short.csv", NM[short], {key: values[short] for key, values in spectra.items()})
    table = named(call, path)
    assert "chlorite: right shoulder 2410-2445 nm: found no band" in table.loc["alunite", "not_tried"]


def test_blank_cells_concern_their_own_spectrum(call, tmp_path):
    spectra = sensed(NM)
    whole = named(call, write_table(tmp_path / "a.csv", NM, spectra))
    blank = spectra["calcite"].copy()
    blank[(NM > 2280) & (NM < 2360)] = np.nan
    nothing = np.where(NM < 1200, 0.4, np.nan)
    table = named(call, write_table(tmp_path / "b.csv", NM, spectra | {"calcite": blank, "nothing": nothing}))
    others = [name for name in spectra if name != "calcite"]
    pd.testing.assert_frame_equal(table.loc[others], whole.loc[others])
    assert table.loc["calcite", "mineral"] == "none" and "calcite: " in table.loc["calcite", "not_tried"]
    assert table.loc["nothing", "mineral"] == "not measured"
    with pytest.raises(DataError, match=r"c.csv: found no spectrum with values where a mineral absorbs"):
        call("--spectra", write_table(tmp_path / "c.csv", NM, {"nothing": nothing}))


def test_negative_noise_in_bands_of_water_vapour_is_left_out(call, tmp_path):
    spectra = sensed(NM)
    noisy = {name: np.where((NM >= 1790) & (NM <= 1990), -0.3, values) for name, values in spectra.items()}
    table = named(call, write_table(tmp_path / "a.csv", NM, noisy))
    assert all(table.loc[name, "mineral"] == name for name in NAMES)


ONE = {"rock": np.linspace(0.2, 0.5, len(NM))}


@pytest.mark.parametrize(
    ("nm", "spectra", "said"),
    [
        (NM, {"rock": 100 * ONE["rock"]}, "rock at 410 nm: found 20.* 0 to 1.5; per cent. Divide by 100"),
        (NM, {"rock": 10000 * ONE["rock"]}, "found 20.*times 10000. Divide by 10000"),
        (NM, {"rock": ONE["rock"] - 0.3}, "rock at 410 nm: found -0.09.*; leave blank what was not measured"),
        (NM, {"rock": np.where(NM == 2200, np.inf, 0.3)}, "rock at 2200 nm: found inf"),
        (1e7 / NM, ONE, "wavelength of band 1: found 25000 nm, expected 300 to 3000 nm"),
        (np.where(NM == 500, 510, NM), ONE, "found two bands at 510 nm"),
        (np.where(NM == 500, np.nan, NM), ONE, "row 12, column 1: found no wavelength"),
        (NM[:5], {"rock": ONE["rock"][:5]}, "found 5 wavelengths, expected a spectrum of at least 20"),
        (NM, {}, "found wavelengths alone"),
    ],
)
def test_values_and_wavelengths_that_are_wrong_are_named(call, tmp_path, nm, spectra, said):
    path = write_table(tmp_path / "a.csv", nm, spectra)
    with pytest.raises(DataError, match=f"a.csv.*{said}"):
        call("--spectra", path, "--out", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wavelength,a\n400,x\n", "row 2, column 2 'a': found 'x', expected a number"),
        ('wavelength,a\n400,"0,5"\n', "found '0,5', expected a number with a decimal point"),
        ("wavelength,a\n400,0.5,0.6\n", "line 2: found 3 cells, expected the 2 of the header"),
        ("wavelength;a\n400;0.5\n", "found the separator ;"),
        ("", "found no column names in row 1"),
        ("wavelength,a\n", "found 0 wavelengths"),
    ],
)
def test_a_table_that_is_none_is_named(call, tmp_path, text, said):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        call("--spectra", tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"wavelengths": NM, "spectra": np.array([[0.5] * len(NM)], object)}, "found no arrays of plain numbers"),
        (
            {"wavelengths": NM, "spectra": ONE["rock"][None], "names": np.array([1], object)},
            "no arrays of plain numbers",
        ),
        ({"wavelengths": NM, "spectra": np.stack([ONE["rock"]] * 3, 1)}, r"expected \(N, 211\).*; transpose it"),
        ({"wavelengths": NM, "spectra": ONE["rock"][None], "names": ["a", "b"]}, r"names: found \(2,\)"),
        ({"spectra": ONE["rock"][None]}, "wavelengths: found none"),
        ({"wavelengths": NM}, "spectra: found none"),
        ({"wavelengths": NM, "spectra": np.array([["a"] * len(NM)])}, "spectra: found <U1, expected numbers"),
    ],
)
def test_npz_with_objects_or_without_its_arrays_is_refused(call, tmp_path, arrays, said):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=said):
        call("--spectra", tmp_path / "a.npz")


def test_a_file_that_is_no_npz_is_named(call, tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=r"a.npz: found no arrays of plain numbers"):
        call("--spectra", tmp_path / "a.npz")
