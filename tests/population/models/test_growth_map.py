"""A large raster through a trained model: the numbers of single tiles, blended, in their place on the map."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio import Affine

from src.core.data import large_raster
from src.core.data.quantisation import NODATA
from src.core.data.sliding_windows import Grid
from src.core.stage.errors import BandwiseError, DataError, ParamsError
from src.population import predict
from src.population.models import growth_map
from src.population.models.inference import Reader
from src.population.models.model_folder import load
from tests.population.conftest import BANDS, SCALE, SIDE, run_sft
from tests.population.covaried import GDP, with_gdp
from tests.population.test_predict import LINEAR
from tests.tiles import random_pixels, write_geotiff

NORTH_UP = Affine(0.04, 0, -100, 0, -0.04, 45)


@pytest.fixture(scope="module")
def scene():
    """(8, 53, 75) int8, smooth in means as places are, with a hole and a strip of no data."""
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[:53, :75]
    phase = rng.uniform(0, 6, (2, BANDS, 1, 1))
    means = 50 * np.sin(rows / 9 + phase[0]) * np.cos(columns / 11 + phase[1])
    pixels = (means + rng.integers(-25, 26, means.shape)).clip(-127, 127).astype(np.int8)
    pixels[:, 20:50, 18:47] = NODATA
    pixels[3, :, 70:] = NODATA
    return pixels


@pytest.fixture
def mapped(trained, tmp_path):
    """`mapped(pixels, **options)` -> the map's values, and what its file says of them."""

    def mapped(pixels, tags=LINEAR, year=None, stride=None, batch_size=16, **options):
        path = write_geotiff(tmp_path / "big.tif", pixels, tags, **({"transform": NORTH_UP} | options))
        predict.map_raster(trained.sft, path, tmp_path / "map.tif", year, stride, batch_size)
        with rasterio.open(tmp_path / "map.tif") as dataset:
            facts = ("crs", "transform", "nodata", "descriptions", "dtypes")
            said = {name: getattr(dataset, name) for name in facts}
            return dataset.read(1), SimpleNamespace(**said, tags=dataset.tags())

    return mapped


def heads(folder, windows):
    """Growth rates of single tiles (N, C, 16, 16), with no part of the mapping."""
    network, tokenizer, settings = load(folder)
    windows = np.stack(windows)
    store = SimpleNamespace(read=lambda rows: windows[rows], valid=lambda rows: (windows[rows] != NODATA).all(axis=1))
    rows = pd.DataFrame({"tile": np.arange(len(windows)), "year": 0})
    return Reader(network, tokenizer, settings, store, 64).head(rows)


def naive(folder, pixels, stride):
    """The map from all windows in memory: every pixel the triangle-weighted mean, every cell the mean by weight."""
    _, height, width = pixels.shape
    tops, lefts = (sorted({*range(0, length - SIDE, stride), length - SIDE}) for length in (height, width))
    places = [(top, left) for top in tops for left in lefts]
    places = [p for p in places if (pixels[:, p[0] : p[0] + SIDE, p[1] : p[1] + SIDE] != NODATA).all(0).any()]
    windows = [pixels[:, top : top + SIDE, left : left + SIDE] for top, left in places]
    centred = SIDE / 2 - np.abs(np.arange(SIDE) + 0.5 - SIDE / 2)
    total, weight = np.zeros((2, height, width))
    for (top, left), window, value in zip(places, windows, heads(folder, windows), strict=True):
        share = np.outer(centred, centred) * (window != NODATA).all(0).mean()
        total[top : top + SIDE, left : left + SIDE] += share * value
        weight[top : top + SIDE, left : left + SIDE] += share
    result = np.full((-(-height // stride), -(-width // stride)), np.nan)
    for row, column in np.ndindex(result.shape):
        cell = np.s_[row * stride : (row + 1) * stride, column * stride : (column + 1) * stride]
        if (pixels[(slice(None), *cell)] != NODATA).all(0).any():
            result[row, column] = total[cell].sum() / weight[cell].sum()
    return result


@pytest.mark.parametrize("stride", [None, 16, 5])
def test_the_map_is_the_blend_of_single_windows(scene, trained, mapped, stride):
    found, _ = mapped(scene, stride=stride)
    expected = naive(trained.sft, scene, stride or 8)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert np.isnan(expected).any() == (stride != 16) and np.nanstd(expected) > 1


def test_a_repeated_pattern_gives_the_value_of_its_window_everywhere(trained, mapped):
    block = random_pixels(4, bands=BANDS, height=8) // 2
    found, _ = mapped(np.tile(block, (1, 6, 7)))
    (value,) = heads(trained.sft, [np.tile(block, (1, 2, 2))])
    assert found.shape == (6, 7)
    np.testing.assert_allclose(found, value, rtol=0, atol=1e-4)


def test_moved_content_moves_the_map(scene, mapped):
    """By whole strides: two cells up and one to the left."""
    still, _ = mapped(scene[:, :48, :64])
    moved, _ = mapped(scene[:, 16:48, 8:64])
    # A cell at an edge has lost windows that lay across it; inside, the same windows cover the same place.
    np.testing.assert_allclose(moved[1:-1, 1:-1], still[3:-1, 2:-1], rtol=0, atol=1e-4)
    assert np.nanmax(np.abs(moved[1:-1, 1:-1] - still[1:-3, 1:-2])) > 1


def test_cells_without_a_valid_pixel_stay_no_data(scene, mapped):
    found, dataset = mapped(scene)
    expected = np.ones((7, 10), bool)
    expected[3:6, 3:5] = False  # of rows 20 to 49, columns 18 to 46: the cells that lie wholly inside
    assert np.isnan(dataset.nodata)
    np.testing.assert_array_equal(np.isfinite(found)[:, :9], expected[:, :9])
    assert np.isnan(found[:, 9]).all(), "columns 72 to 74 lack a band"


def test_the_map_lies_where_the_raster_lies(scene, mapped):
    utm = Affine(30, 0, 412_345, 0, -20, 4_498_765)
    with pytest.raises(DataError, match=r"pixel size: found 30 \(EPSG:32650\), expected 0\.04"):
        mapped(scene, crs="EPSG:32650", transform=utm)
    transform = Affine(0.04, 0, -100.02, 0, -0.0399, 45.01)
    found, dataset = mapped(scene, stride=6, transform=transform, year=2021)
    assert found.shape == (9, 13)
    assert dataset.crs == rasterio.CRS.from_epsg(4326)
    assert dataset.transform == Affine(0.04 * 6, 0, -100.02, 0, -0.0399 * 6, 45.01)
    assert dataset.descriptions == ("population growth rate, per mille per year",)
    assert dataset.tags.items() >= {"window_px": "16", "stride_px": "6", "year": "2021"}.items()
    assert dataset.dtypes == ("float32",)


def test_a_south_up_raster_gives_the_same_map(scene, mapped):
    north, dataset = mapped(scene)
    south_up = Affine(0.04, 0, -100, 0, 0.04, 45 - 0.04 * 53)
    south, other = mapped(scene[:, ::-1], transform=south_up)
    np.testing.assert_array_equal(north, south)
    assert other.transform.almost_equals(dataset.transform, 1e-9) and other.transform.e < 0


def test_batches_strips_and_blocks_change_nothing(scene, mapped, monkeypatch):
    expected, _ = mapped(scene)
    found, _ = mapped(scene, batch_size=3, tiled=True, blockxsize=16, blockysize=16, interleave="pixel")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    for limit in (1, BANDS * SIDE * 29):
        monkeypatch.setattr(growth_map, "MAX_STRIP_BYTES", limit)
        found, _ = mapped(scene)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_a_second_run_changes_no_byte(scene, trained, mapped, tmp_path):
    mapped(scene)
    first = (tmp_path / "map.tif").read_bytes()
    mapped(scene)
    assert (tmp_path / "map.tif").read_bytes() == first


def test_tags_and_units_are_read_as_for_tiles(scene, mapped):
    even = np.where(scene == NODATA, NODATA, scene // 2 * 2).astype(np.int8)
    half = np.where(scene == NODATA, NODATA, scene // 2).astype(np.int8)
    expected, _ = mapped(even)
    np.testing.assert_allclose(mapped(half, LINEAR | {"scale": 2 * SCALE})[0], expected, rtol=0, atol=2e-4)
    np.testing.assert_array_equal(mapped(even, {"note": "none"})[0], expected)


@pytest.mark.parametrize("limit", [1, 2**28])
def test_one_valid_pixel_makes_its_cell_and_no_other(tmp_path, monkeypatch, limit):
    """Also in cells that two strips share; without a network."""
    monkeypatch.setattr(growth_map, "MAX_STRIP_BYTES", limit)
    valid = np.random.default_rng(0).random((53, 75)) < 0.02
    path = write_geotiff(tmp_path / "a.tif", np.where(valid, 1, NODATA).astype(np.int8)[None])
    grid, out = Grid(53, 75, 16, 7), tmp_path / "map.tif"
    growth_map.write_growth(
        large_raster.read_header(path, 1), grid, lambda strip, rows: np.full(len(rows), 3.5), out, {}
    )
    expected = np.full(grid.cells, np.nan, np.float32)
    for row, column in np.argwhere(valid):
        expected[row // 7, column // 7] = 3.5
    assert 10 < np.isnan(expected).sum() < expected.size - 10
    with rasterio.open(out) as dataset:
        np.testing.assert_allclose(dataset.read(1), expected, rtol=1e-6)


def test_memory_does_not_grow_with_the_raster(tmp_path, monkeypatch):
    """Peak of a raster 16 times higher, and of a wider one in bounded strips; without a network."""
    monkeypatch.setattr(growth_map, "MAX_STRIP_BYTES", 2**18)
    peaks, largest = [], 0
    read_window = large_raster.read_window

    def watched(header, dataset, top, left, height, width):
        nonlocal largest
        largest = max(largest, header.bands * height * width)
        return read_window(header, dataset, top, left, height, width)

    monkeypatch.setattr(large_raster, "read_window", watched)
    for height, width in ((128, 1024), (2048, 1024), (128, 8192)):
        path = write_geotiff(tmp_path / "a.tif", np.full((BANDS, height, width), 3, np.int8), tiled=True)
        header = large_raster.read_header(path, BANDS)
        tracemalloc.start()
        growth_map.write_growth(
            header, Grid(height, width, 64, 32), lambda strip, rows: np.ones(len(rows)), tmp_path / "map.tif", {}
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert largest <= 2**18
    assert max(peaks) < 1.5 * peaks[0] and max(peaks) < 4 * 2**18, peaks


def test_rasters_unlike_the_tiles_of_training_are_refused(scene, trained, mapped, tmp_path):
    names = load(trained.sft)[2].band_names
    for pixels, tags, options, message in (
        (scene, {"quantisation": "alphaearth"}, {}, r"big\.tif: quantisation is alphaearth, the model was trained on"),
        (scene[:7], LINEAR, {}, r"big\.tif: bands: found 7, expected 8"),
        (scene, LINEAR, {"band_names": names[::-1]}, r"big\.tif: band 1: found 'A07', expected 'A00' as in training"),
        (scene[:, :15], LINEAR, {}, r"big\.tif: size: found 15 x 75 px, the model reads 16 x 16"),
        (scene, LINEAR, {"crs": None}, r"big\.tif: crs"),
    ):
        with pytest.raises(DataError, match=message):
            mapped(pixels, tags, **options)
        assert not (tmp_path / "map.tif").exists()


def test_strides_files_and_folders_that_cannot_be(scene, trained, tmp_path, mapped):
    for stride in (0, 17):
        with pytest.raises(ParamsError, match=rf"stride: found {stride} px, expected 1 to 16"):
            mapped(scene, stride=stride)
    path = write_geotiff(tmp_path / "big.tif", scene, LINEAR, transform=NORTH_UP)
    with pytest.raises(ParamsError, match="which is the raster; give another file"):
        predict.map_raster(trained.sft, path, tmp_path / ".." / tmp_path.name / "big.tif")
    for model, raster, out, message in (
        (tmp_path, path, tmp_path / "map.tif", r"bandwise\.json"),
        (trained.sft, tmp_path / "none.tif", tmp_path / "map.tif", r"none\.tif"),
        (trained.sft, path, path / "map.tif", r"map\.tif"),
    ):
        with pytest.raises(BandwiseError, match=message):
            predict.map_raster(model, raster, out)


@pytest.fixture(scope="module")
def with_year(study, trained, tmp_path_factory):
    changes = {"sft.template": "{year}?", "prompt.fields": ["year"], "sft.epochs": 1}
    return run_sft(study, trained.pretrain, tmp_path_factory.mktemp("year"), changes)


def test_a_prompt_with_a_year_needs_it_and_reads_it(scene, with_year, tmp_path, monkeypatch):
    path = write_geotiff(tmp_path / "big.tif", scene, LINEAR, transform=NORTH_UP)
    with pytest.raises(ParamsError, match=r"--year: missing; the model's prompt names \{year\}"):
        predict.map_raster(with_year, path, tmp_path / "map.tif")
    maps = []
    for year in (1980, 2020):
        predict.map_raster(with_year, path, tmp_path / "map.tif", year)
        with rasterio.open(tmp_path / "map.tif") as dataset:
            maps.append(dataset.read(1))
    assert np.nanmax(np.abs(maps[0] - maps[1])) > 0


def test_what_differs_from_place_to_place_is_no_part_of_a_map(study, trained, scene, tmp_path):
    path = write_geotiff(tmp_path / "big.tif", scene, LINEAR, transform=NORTH_UP)
    for changes, named in (
        (GDP | {"sft.covariates": "prompt"}, "gdp"),
        (GDP | {"sft.covariates": "head"}, "gdp"),
        ({"prompt.fields": ["city", "year"]}, "city"),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        model = run_sft(with_gdp(study, folder), trained.pretrain, folder, changes | {"sft.epochs": 1})
        with pytest.raises(DataError, match=rf"the model reads \['{named}'\], which a raster does not hold"):
            predict.map_raster(model, path, tmp_path / "map.tif", 2020)
