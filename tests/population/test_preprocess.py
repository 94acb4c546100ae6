"""The store that preprocess writes, and tiles that do not go together."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio import Affine

from src.core.data.quantisation import NODATA, Quantisation
from src.core.stage import files
from src.core.stage.errors import DataError
from tests.population import cities
from tests.population.cities import CITIES, YEARS, tile, write_labels
from tests.tiles import random_pixels, write_geotiff, write_npy, zip_folder


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return cities.write_project(tmp_path)


@pytest.fixture
def run(project, make_params):
    return partial(cities.run, make_params)


def test_store_holds_every_tile_with_its_own_label(run):
    store = run()
    assert store.tiles.tile_id.tolist() == [f"{p}/{c}/{y}" for p, c in CITIES for y in YEARS]
    for row in store.samples.itertuples():
        number = [city for _, city in CITIES].index(row.city)
        np.testing.assert_array_equal(store.view(row.tile), random_pixels(10 * number + row.year))
        assert row.tile_id == store.tiles.tile_id[row.tile]
        assert row.growth_rate == row.year - 2015 + 0.5
        assert row.lat == pytest.approx(30 + 2 * number - 0.16)
    assert len(store.samples) == 6
    assert store.quantisation == Quantisation("alphaearth")
    assert store.valid(range(6)).all()
    store.verify()


def test_zip_and_folder_give_the_same_bytes_twice(run, project):
    run(out="folder")
    zip_folder(project / "tiles.zip", project / "tiles")
    run(tiles="tiles.zip", out="zipped")
    assert files.tree_sha256([Path("folder")]) == files.tree_sha256([Path("zipped")])


def test_crop_is_the_smallest_tile_or_tile_px(run, project):
    pixels = random_pixels(0, height=11, width=12)
    write_geotiff(tile(project), pixels)
    np.testing.assert_array_equal(run().view(0), pixels[:, 1:9, 2:10])
    np.testing.assert_array_equal(run({"data.tile_px": 6}).view(0), pixels[:, 2:8, 3:9])
    assert json.loads(Path("store/matching.json").read_text())["crop"] == {
        "size": 6,
        "smallest_side": 8,
        "largest_side": 12,
    }
    with pytest.raises(DataError, match=r"found 8 x 8 px, expected at least `tile_px` 9"):
        run({"data.tile_px": 9})


def test_no_data_is_masked_and_counted(run, project):
    pixels = random_pixels(0)
    pixels[1, :4] = NODATA
    write_geotiff(tile(project), pixels, nodata=NODATA)
    store = run()
    assert store.tiles.valid_fraction.tolist() == [0.5, 1, 1, 1, 1, 1]
    np.testing.assert_array_equal(store.valid([0])[0], np.arange(8)[:, None].repeat(8, 1) >= 4)


def test_identical_tiles_share_a_hash_and_others_do_not(run, project):
    write_geotiff(tile(project), random_pixels(2019))  # as Lanzhou's 2019
    hashes = run().tiles.sha256
    assert hashes[0] == hashes[1] and hashes.nunique() == 5


def test_flipped_tiles_are_counted(run, project):
    write_geotiff(tile(project), random_pixels(2018)[:, ::-1], transform=Affine(0.04, 0, 116, 0, 0.04, 30 - 0.32))
    np.testing.assert_array_equal(run().view(0), random_pixels(2018))
    assert json.loads(Path("store/matching.json").read_text())["flipped"] == ["Gansu/Lanzhou/2018"]


def test_places_by_year_are_reported(run, project):
    tile(project, "Hebei", "Handan", 2019).unlink()
    run({"data.max_unmatched": 1})
    facts = json.loads(Path("store/matching.json").read_text())
    assert facts["places"]["Hebei/Handan"] == {"tiles": [2018], "labels": [2018]}
    assert facts["places"]["Gansu/Lanzhou"] == {"tiles": [2018, 2019], "labels": [2018, 2019]}
    assert facts["unmatched_labels"][0]["city"] == "Handan" and facts["unmatched_labels"][0]["year"] == 2019


def test_a_label_takes_another_years_tile_only_where_asked(run, project):
    write_labels(project, ["Gansu,Lanzhou,2018,1", "Gansu,Lanzhou,2030,2"])
    store = run({"data.match_year": "nearest", "data.max_unmatched": 99})
    assert store.samples.set_index("year").tile_id.to_dict() == {
        2018: "Gansu/Lanzhou/2018",
        2030: "Gansu/Lanzhou/2019",
    }
    nearest = json.loads(Path("store/matching.json").read_text())["nearest"]
    assert nearest == [{"province": "Gansu", "city": "Lanzhou", "label_year": 2030, "tile_year": 2019}]


def retag(project, tags, cities=CITIES):
    for number, (province, city) in enumerate(CITIES):
        if (province, city) in cities:
            for year in YEARS:
                write_geotiff(tile(project, province, city, year), random_pixels(year), tags, lat=30 + 2 * number)


def test_quantisation_is_never_assumed(run, project):
    retag(project, {}, CITIES[:1])
    with pytest.raises(DataError, match=r"2018_Lanzhou\.tif: quantisation: found no tag"):
        run()
    assert run({"data.quantisation": "alphaearth"}).quantisation == Quantisation("alphaearth")


def test_tag_and_param_in_conflict_are_refused(run):
    with pytest.raises(DataError, match=r"found the tag alphaearth, `quantisation` says linear with scale 0\.5"):
        run({"data.quantisation": "linear", "data.scale": 0.5})


def test_linear_scales_come_from_tags_and_must_agree(run, project):
    retag(project, {"quantisation": "linear", "scale": 0.5})
    assert run().quantisation == Quantisation("linear", 0.5)
    retag(project, {"quantisation": "linear", "scale": 0.25}, CITIES[2:])
    with pytest.raises(DataError, match=r"linear with scale 0\.5 in 4 tiles, linear with scale 0\.25 in 2 tiles"):
        run()


def make_float(project, value=0.5):
    for number, (province, city) in enumerate(CITIES):
        for year in YEARS:
            pixels = random_pixels(year).astype(np.float32) / 100
            pixels[0, 0, 0] = value
            write_geotiff(tile(project, province, city, year), pixels, {}, lat=30 + 2 * number)


def test_float_tiles_are_stored_as_float16_without_quantisation(run, project):
    make_float(project)
    with pytest.raises(DataError, match="found no tag"):
        run()
    store = run({"data.quantisation": "none"})
    assert store.dtype == np.float16 and store.quantisation == Quantisation("none")
    with pytest.raises(DataError, match="floats hold values already"):
        run({"data.quantisation": "alphaearth"})


def test_nan_is_no_data_only_where_said(run, project):
    make_float(project, np.nan)
    with pytest.raises(DataError, match=r"or `nan_is_nodata`: true"):
        run({"data.quantisation": "none"})
    store = run({"data.quantisation": "none", "data.nan_is_nodata": True})
    assert (store.valid(range(6)).sum(axis=(1, 2)) == 63).all()
    assert np.isfinite(store.read(range(6))).all()


def test_int8_and_float_tiles_are_refused_together(run, project):
    retag(project, {"quantisation": "none"})
    write_geotiff(tile(project), random_pixels(0).astype(np.float32), {"quantisation": "none"})
    with pytest.raises(DataError, match=r"found int8 .* and float .* tiles"):
        run()


def test_pixel_sizes_may_differ_by_one_per_cent(run, project):
    write_geotiff(tile(project), random_pixels(0), lat=30, pixel_size=0.0403)
    run()
    write_geotiff(tile(project), random_pixels(0), lat=30, pixel_size=0.0405)
    with pytest.raises(DataError, match=r"pixel size: found 0\.04 in .* and 0\.0405 in .*2018_Lanzhou"):
        run()


def test_bands_in_another_order_are_refused(run, project):
    for year, names in zip(YEARS, (("A", "B", "C", "D"), ("A", "C", "B", "D")), strict=True):
        with rasterio.open(tile(project, year=year), "r+") as dataset:
            dataset.descriptions = names
    with pytest.raises(DataError, match=r"2019_Lanzhou\.tif: band 2: found 'C', expected 'B'"):
        run()


def test_npy_tiles_without_coordinates_are_stored_with_unknown_position(run, project):
    tile(project).unlink()
    write_npy(tile(project, suffix=".npy"), random_pixels(7), {"quantisation": "alphaearth"})
    store = run()
    np.testing.assert_array_equal(store.view(0), random_pixels(7))
    assert store.tiles.lat.isna().tolist() == [True] + 5 * [False]
    assert store.tiles.half_diagonal_km.isna()[0]


def test_two_tiles_for_one_key_are_refused(run, project):
    write_npy(tile(project, suffix=".npy"), random_pixels(7), {"quantisation": "alphaearth"})
    with pytest.raises(DataError, match="a second tile for Gansu/Lanzhou 2018"):
        run()
