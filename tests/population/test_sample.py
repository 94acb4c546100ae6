"""The committed sample: what build.py makes of the source, and labels that find their tiles."""

import io
import math
import zipfile

import numpy as np
import pytest
import rasterio

from data.sample import build
from src.population.data import labels

SAMPLE = build.HERE
needs_source = pytest.mark.skipif(not build.SOURCE.exists(), reason="../shared/data/us_counties is absent")


@pytest.fixture(scope="module")
def source():
    with np.load(build.SOURCE, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.fixture(scope="module")
def committed():
    """Member name -> (pixels, description of the file) of every tile in the committed zip."""
    tiles = {}
    with zipfile.ZipFile(SAMPLE / "us_counties.zip") as archive:
        for name in archive.namelist():
            with rasterio.open(io.BytesIO(archive.read(name))) as dataset:
                facts = dict(dataset.profile) | {"bounds": dataset.bounds, "names": dataset.descriptions}
                tiles[name] = dataset.read(), facts | dataset.tags()
    return tiles


@needs_source
def test_zip_holds_the_source_tile_of_every_county(source, committed):
    assert len(committed) == len(source["tiles"]) == 660
    for row, (state, county) in enumerate(zip(source["state"], source["county"], strict=True)):
        pixels, facts = committed[f"{state}/{county}/1980_{county}.tif"]
        np.testing.assert_array_equal(pixels, source["tiles"][row])
        assert np.float32(facts["scale"]) == source["scale"]
        bounds = facts["bounds"]
        centre = (bounds.bottom + bounds.top) / 2, (bounds.left + bounds.right) / 2
        assert centre == pytest.approx((source["lat"][row], source["lon"][row]), abs=1e-9)


def test_every_tile_has_the_layout_that_users_bring(committed):
    for pixels, facts in committed.values():
        assert (pixels.shape, pixels.dtype) == ((64, 16, 16), np.int8)
        assert (facts["nodata"], facts["crs"].to_epsg(), facts["compress"]) == (-128, 4326, "deflate")
        assert facts["quantisation"] == "linear"
        assert facts["names"] == tuple(f"A{band:02d}" for band in range(64))
        transform = facts["transform"]
        assert (transform.a, transform.e) == (0.04, -0.04)  # row 0 north


@needs_source
@pytest.mark.parametrize(("file", "years"), [("labels.xlsx", [1980]), ("labels_panel.xlsx", [1960, 1970, 1980])])
def test_labels_are_the_census_growth(source, file, years):
    table = labels.read(SAMPLE / file)
    rates = {(row.province, row.city, row.year): row.growth_rate for row in table.itertuples()}
    assert len(rates) == 660 * len(years)
    for row, place in enumerate(zip(source["state"], source["county"], strict=True)):
        for year in years:
            after, before = (int(source[f"p{decade - 1900}"][row]) for decade in (year + 10, year))
            assert rates[(*place, year)] == pytest.approx(1000 * math.log(after / before) / 10, rel=1e-12)


def test_every_label_has_its_tile_and_the_reverse(committed):
    table = labels.read(SAMPLE / "labels.xlsx")
    names = {f"{row.province}/{row.city}/{row.year}_{row.city}.tif" for row in table.itertuples()}
    assert names == set(committed)
    assert len(labels.read_aliases(SAMPLE / "aliases.csv")) == 0


def test_the_zip_is_small_enough_for_git():
    assert (SAMPLE / "us_counties.zip").stat().st_size <= 10_000_000
    assert (SAMPLE / "labels_panel.xlsx").stat().st_size <= 200_000


@needs_source
def test_building_again_gives_the_committed_labels(tmp_path, source):
    order = build.check_names(source["state"], source["county"])
    build.write_labels(tmp_path / "labels.xlsx", source, order, [1980])
    assert (tmp_path / "labels.xlsx").read_bytes() == (SAMPLE / "labels.xlsx").read_bytes()


def test_tiles_are_written_the_same_twice(tmp_path):
    counties = {
        "state": np.array(["B", "A"]),
        "county": np.array(["C", "C"]),
        "tiles": np.arange(2 * 64 * 16, dtype=np.int8).reshape(2, 64, 4, 4),
        "lat": np.array([1.0, 2.0]),
        "lon": np.array([3.0, 4.0]),
        "scale": np.float32(0.1),
    }
    for name in ("one.zip", "two.zip"):
        build.write_tiles(tmp_path / name, counties, [1, 0])
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.namelist() == ["A/C/1980_C.tif", "B/C/1980_C.tif"]


@pytest.mark.parametrize("county", ["..", "a/b", "con:", "a\\b", "trailing.", "Saint  Mary", "SAINT MARY"])
def test_unsafe_and_clashing_names_stop_the_build(county):
    with pytest.raises(ValueError, match=r"unsafe|clashes with X/Saint Mary"):
        build.check_names(np.array(["X", "X"]), np.array(["Saint Mary", county]))
