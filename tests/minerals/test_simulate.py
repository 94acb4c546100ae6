"""The stage `simulate`: the same in, the same out, and truth that belongs to its scene."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.minerals import ingest, simulate
from src.minerals.data import cube_files, truth
from src.minerals.mapping.minerals import MINERALS, NAMES
from tests.conftest import minerals_params
from tests.minerals.study import contents

SMALL = {"scenes": 4, "side_px": 32, "barren": 0.5}
COPPER = [number for number, mineral in enumerate(MINERALS) if mineral.copper]


def run(out: Path, dry_run: bool = False, **changes) -> Path:
    params = minerals_params({f"simulate.{key}": value for key, value in (SMALL | changes).items()})
    simulate.main(params, Namespace(library=Path("data/sample/usgs_minerals")), Namespace(out=out), dry_run)
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return run(tmp_path_factory.mktemp("simulate") / "simulated")


def test_the_same_params_give_the_same_bytes(folder, tmp_path):
    assert contents(run(tmp_path / "again")) == contents(folder)
    other = contents(run(tmp_path / "other", seed=1))
    assert other["scene_01.img"] != (folder / "scene_01.img").read_bytes()


def test_a_scene_is_the_same_whatever_their_number(folder, tmp_path):
    more = run(tmp_path / "more", scenes=5, barren=0.0)
    altered = [path for path in folder.glob("scene_*.img") if path.read_bytes() == (more / path.name).read_bytes()]
    assert len(altered) == 2  # the two that are not barren here


def test_truth_is_the_dominant_mineral_of_the_abundances(folder):
    copper = []
    for path in ingest.find(folder):
        assert cube_files.open_cube(path, None, None, None).shape == (32, 32, 224)
        classes = truth.read(folder / "truth", path.stem, (32, 32))
        shares = truth.read_abundance(folder / "abundance" / f"{path.stem}.tif", (32, 32))[..., : len(NAMES)]
        named = classes > 0
        assert (shares[named].argmax(-1) == classes[named] - 1).all() and (shares[named].max(-1) >= 0.2).all()
        assert (shares[~named].max(-1) < 0.2).all()
        copper.append(bool(shares[..., COPPER].any()))
    assert sorted(copper) == [False, False, True, True]  # half of the scenes are barren


def test_every_output_says_that_it_is_simulated(folder):
    about = json.loads((folder / "source.json").read_text())
    assert about["simulated"] is True and about["settings"]["snr"] == 200
    assert "simulated" in (folder / "scene_01.hdr").read_text()
    assert pd.read_csv(folder / "truth/classes.csv")["mineral"].tolist() == ["background", *NAMES]
    assert (folder / "overview.png").stat().st_size > 10_000


def test_scenes_lie_beside_each_other_and_never_on_each_other(folder):
    places = [cube_files.open_cube(path, None, None, None).place for path in ingest.find(folder)]
    easts = np.array([place.transform[2] for place in places])
    assert {place.crs for place in places} == {"EPSG:32611"} and (np.diff(easts) > 32 * 15.5).all()


def test_a_dry_run_writes_nothing(tmp_path):
    assert not run(tmp_path / "dry", dry_run=True).exists()
