"""DVC's own run-cache gives back the store of the params that made it, and no other."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from src.core.data.tile_store import Store
from src.core.stage import files
from tests.tiles import random_pixels, write_geotiff

ROOT = Path(__file__).parents[2]


@pytest.fixture
def repository(tmp_path):
    """A git and DVC repository with the committed preprocess stage, three tiles of 8 x 8 px and their labels."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for number, city in enumerate(("Lanzhou", "Tianshui", "Handan")):
        write_geotiff(tmp_path / "tiles" / "Gansu" / city / f"2018_{city}.tif", random_pixels(number), lat=30 + number)
    labels = "province,city,year,growth_rate\nGansu,Lanzhou,2018,1\nGansu,Tianshui,2018,2\nGansu,Handan,2018,3\n"
    (tmp_path / "labels.csv").write_text(labels)
    (tmp_path / "aliases.csv").write_text("kind,found,use\n")
    yaml = YAML()
    stages = yaml.load(ROOT / "dvc.yaml")["stages"]
    yaml.dump({"stages": {"preprocess": stages["preprocess"]}}, tmp_path / "dvc.yaml")
    dvc(tmp_path, "init", "--quiet", git=True)
    return tmp_path


def dvc(folder, *arguments, git=False):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if git:
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def repro(folder, tile_px):
    """Side of the tiles that `dvc repro` leaves with this `data.tile_px`, sha256 of the store, and what DVC said."""
    yaml = YAML()
    values = yaml.load(ROOT / "params.yaml")
    values["data"] |= {"root": "tiles", "labels": "labels.csv", "aliases": "aliases.csv", "tile_px": tile_px}
    values["model"]["bands"] = 4
    yaml.dump(values, folder / "params.yaml")
    said = dvc(folder, "repro")
    store = folder / "data" / "population" / "tiles"
    return Store.open(store).height, files.tree_sha256([store]), said


@pytest.mark.slow
def test_another_tile_px_makes_another_store_and_going_back_gives_the_old_one(repository):
    """With a key named `size` DVC restored the store of 8 px in place of the one of 6 (dvc#10296)."""
    whole, first, _ = repro(repository, None)
    cropped, second, said = repro(repository, 6)
    assert (whole, cropped) == (8, 6) and first != second
    assert "Running stage 'preprocess'" in said
    back, third, said = repro(repository, None)
    assert (back, third) == (whole, first)
    assert "is cached - skipping run" in said
