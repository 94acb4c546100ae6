"""Faults of tiles and labels that preprocess names, all at once, and nothing half-written."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from src.core.data.quantisation import NODATA
from src.core.stage.errors import DataError, StorageError
from src.population import preprocess
from tests.population import cities
from tests.population.cities import YEARS, tile, write_labels
from tests.tiles import random_pixels, write_geotiff, zip_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return cities.write_project(tmp_path)


@pytest.fixture
def run(project, make_params):
    return partial(cities.run, make_params)


def assert_nothing_left(project):
    allowed = {"tiles", "labels.csv", "aliases.csv", "logs"}
    assert {path.name for path in project.iterdir()} <= allowed


def test_too_many_unmatched_stop_the_stage_and_are_listed(run, project):
    write_labels(project, ["Gansu,Lanzhou,2018,1", "Gansu,Lanzou,2019,2"])
    with pytest.raises(DataError, match=r"5 tiles and 1 label without.*max_unmatched 5.*unmatched\.csv") as caught:
        run({"data.max_unmatched": 5})
    assert "label Gansu/Lanzou 2019 (candidate: Gansu/Lanzhou/2019)" in str(caught.value)
    assert len(Path("logs/preprocess/unmatched.csv").read_text().splitlines()) == 7
    assert_nothing_left(project)
    assert len(run({"data.max_unmatched": 6}).samples) == 1


def test_dry_run_checks_and_writes_nothing(run, project, capsys):
    run(dry_run=True)
    assert "6 tiles of 3 places" in capsys.readouterr().out
    write_labels(project, ["Gansu,Lanzhou,2018,1"])
    with pytest.raises(DataError, match="without --dry-run"):
        run(dry_run=True)
    assert {path.name for path in project.iterdir()} == {"tiles", "labels.csv", "aliases.csv"}


def test_one_run_names_the_faults_of_all_kinds(run, project):
    """A label with a wrong number has a tile all the same, so its tile is not among the unmatched."""
    rows = ["Gansu,Lanzhou,2018,n/a", "Gansu,Lanzhou,2019,", "Gansu,Tianshui,2018,1", "Gansu,Tianshu,2019,2"]
    write_labels(project, [*rows, "Gansu,Tianshui,2018,3"])
    write_geotiff(tile(project, "Hebei", "Handan"), random_pixels(0, bands=5))
    for dry_run in (True, False):
        with pytest.raises(DataError) as caught:
            run(dry_run=dry_run)
        lines = [line.partition(", expected")[0].partition(" (")[0] for line in str(caught.value).splitlines()]
        assert lines == [
            "found faults of 3 kinds: cells of the labels, tiles, matching",
            "labels.csv: row 2, growth_rate: found 'n/a'",
            "labels.csv: row 3, growth_rate: found a blank",
            "labels.csv: row 6: Gansu/Tianshui/2018 is already in row 4; delete one of them",
            "tiles/Hebei/Handan/2018_Handan.tif: bands: found 5",
            "data.labels and data.root: found 3 tiles and 1 label without partner",
            "  tile Gansu/Tianshui 2019",
            "  tile Hebei/Handan 2018",
            "  tile Hebei/Handan 2019",
            "  label Gansu/Tianshu 2019",
        ]
    assert_nothing_left(project)


def test_up_to_twenty_unmatched_of_each_kind_are_shown(run, project):
    write_labels(project, ["Gansu,Lanzhou,2018,1", *[f"Utah,City {number},2018,1" for number in range(21)]])
    with pytest.raises(DataError, match="found 5 tiles and 21 labels without partner") as caught:
        run(dry_run=True)
    assert [str(caught.value).count(f"\n  {kind} ") for kind in ("tile", "label")] == [5, 20]


def test_inputs_other_than_those_of_params_are_named(run, project, caplog):
    run({"data.root": "./tiles/", "data.labels": "others.xlsx"}, dry_run=True)
    (message,) = caplog.messages
    assert "--labels is labels.csv, but data.labels in params.yaml is others.xlsx, which dvc repro reads" in message


def test_all_bad_files_are_named_at_once_before_any_pixel_is_read(run, project, monkeypatch):
    monkeypatch.setattr(preprocess.tiles.raster, "read_crop", lambda *_: pytest.fail("pixels were read"))
    tile(project, year=2018).write_bytes(b"")
    tile(project, year=2019).write_text("<VRTDataset/>")
    write_geotiff(tile(project, city="Tianshui"), random_pixels(0, bands=5))
    write_geotiff(tile(project, "Hebei", "Handan"), random_pixels(0).astype("int16"))
    with pytest.raises(DataError) as caught:
        run()
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["tiles/Gansu/Lanzhou/2018_Lanzhou.tif", "format"],
        ["tiles/Gansu/Lanzhou/2019_Lanzhou.tif", "format"],
        ["tiles/Gansu/Tianshui/2018_Tianshui.tif", "bands"],
        ["tiles/Hebei/Handan/2018_Handan.tif", "dtype"],
    ]
    assert_nothing_left(project)


def test_all_bad_pixels_are_named_at_once_and_nothing_is_left(run, project):
    for year in YEARS:
        write_geotiff(tile(project, year=year), np.full((4, 8, 8), NODATA, np.int8))
    with pytest.raises(DataError, match=r"2018_Lanzhou\.tif: pixels: .*\n.*2019_Lanzhou\.tif: pixels: "):
        run()
    assert_nothing_left(project)


def test_errors_in_a_zip_name_the_zip_and_not_the_temporary_folder(run, project):
    tile(project).write_bytes(b"")
    zip_folder(project / "tiles.zip", project / "tiles")
    with pytest.raises(DataError, match=r"^tiles\.zip/Gansu/Lanzhou/2018_Lanzhou\.tif: "):
        run(tiles="tiles.zip")


def test_a_file_where_the_folder_should_be_is_a_storage_error(run, project):
    (project / "blocked").write_text("")
    with pytest.raises(StorageError, match="blocked/store: cannot write"):
        run(out="blocked/store")
    assert (project / "blocked").read_text() == ""


def test_a_full_disk_exits_74_and_leaves_nothing(project, make_params):
    (project / "params.yaml").write_text(json.dumps(make_params({"model.bands": 4}).model_dump()))
    code = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "sys.argv = ['preprocess', '--params', 'params.yaml', '--tiles', 'tiles', '--labels', 'labels.csv',"
        "'--aliases', 'aliases.csv', '--out', 'store'];"
        "runpy.run_module('src.population.preprocess', run_name='__main__')"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 74, done.stderr
    assert "store: cannot write" in done.stderr and "Traceback" not in done.stderr
    (project / "params.yaml").unlink()
    assert_nothing_left(project)
