"""A small project to preprocess: three cities, two years, tiles of four bands whose pixels say which they are."""

import argparse
from pathlib import Path

from src.core.data.tile_store import Store
from src.population import preprocess
from tests.tiles import random_pixels, write_geotiff

CITIES = (("Gansu", "Lanzhou"), ("Gansu", "Tianshui"), ("Hebei", "Handan"))
YEARS = (2018, 2019)


def write_project(folder: Path) -> Path:
    """Tiles, labels and aliases below `folder`."""
    for number, (province, city) in enumerate(CITIES):
        for year in YEARS:
            write_geotiff(tile(folder, province, city, year), random_pixels(10 * number + year), lat=30 + 2 * number)
    write_labels(folder, [f"{province},{city},{year},{year - 2015}.5" for province, city in CITIES for year in YEARS])
    (folder / "aliases.csv").write_text("kind,found,use\n")
    return folder


def tile(folder: Path, province: str = "Gansu", city: str = "Lanzhou", year: int = 2018, suffix: str = ".tif") -> Path:
    return folder / "tiles" / province / city / f"{year}_{city}{suffix}"


def write_labels(folder: Path, rows: list[str]) -> None:
    text = "\n".join(["province,city,year,growth_rate", *rows]) + "\n"
    (folder / "labels.csv").write_text(text, encoding="utf-8")


def run(make_params, changes: dict | None = None, dry_run: bool = False, tiles="tiles", out="store") -> Store | None:
    """The stage in the working directory; its store, if it wrote one."""
    inputs = argparse.Namespace(tiles=Path(tiles), labels=Path("labels.csv"), aliases=Path("aliases.csv"))
    given = {"model.bands": 4, "data.root": tiles, "data.labels": "labels.csv", "data.aliases": "aliases.csv"}
    params = make_params(given | (changes or {}))
    preprocess.main(params, inputs, argparse.Namespace(out=Path(out)), dry_run)
    return None if dry_run else Store.open(Path(out))
