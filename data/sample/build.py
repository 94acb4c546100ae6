"""Build the committed sample: 660 US counties as GeoTIFF tiles in a zip, and two Excel label files.

    python data/sample/build.py [path of tiles.npz]

Writes us_counties.zip (<state>/<county>/1980_<county>.tif), labels.xlsx (growth 1980-1990) and
labels_panel.xlsx (growth of 1960-1970, 1970-1980, 1980-1990) beside this file. Two runs give the
same bytes. README.md beside it says what the data are and are not.
"""

import argparse
import io
import re
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
from openpyxl import Workbook
from rasterio.io import MemoryFile
from rasterio.transform import from_origin
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[2] / "shared/data/us_counties/tiles.npz"
YEAR = 1980
PIXEL_DEGREES = 0.04
NODATA = -128
COLUMNS = ("province", "city", "year", "lat", "lon", "growth_rate")
ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say; the build's own time would change the bytes
UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f]|^\.|[. ]$')  # what some file system refuses in a name


def main(source: Path, out: Path) -> None:
    """Read the counties from `source` (.npz) and write the three files into the folder `out`."""
    with np.load(source, allow_pickle=False) as arrays:
        counties = {name: arrays[name] for name in arrays.files}
    order = check_names(counties["state"], counties["county"])
    write_tiles(out / "us_counties.zip", counties, order)
    write_labels(out / "labels.xlsx", counties, order, [1980])
    write_labels(out / "labels_panel.xlsx", counties, order, [1960, 1970, 1980])


def check_names(states: np.ndarray, counties: np.ndarray) -> list[int]:
    """Row numbers sorted by (state, county), after checking that every name can be a folder's.

    Raises:
        ValueError: a name is unsafe as a file name, or two places would share a folder on a file system
            that ignores case or be one place to the label matching, which ignores inner spaces.
    """
    seen: dict[str, str] = {}
    for state, county in zip(states, counties, strict=True):
        place = f"{state}/{county}"
        if UNSAFE.search(state) or UNSAFE.search(county):
            raise ValueError(f"{place}: unsafe as a file name; rename it in the source")
        key = unicodedata.normalize("NFKC", place).replace(" ", "").casefold()
        if key in seen:
            raise ValueError(f"{place}: clashes with {seen[key]}; rename one of them in the source")
        seen[key] = place
    return sorted(range(len(states)), key=lambda row: (states[row], counties[row]))


def write_tiles(path: Path, counties: dict[str, np.ndarray], order: list[int]) -> None:
    """Write every tile as <state>/<county>/1980_<county>.tif into the zip `path`."""
    members = {}
    for row in tqdm(order, desc="tiles", unit="tile"):
        state, county = counties["state"][row], counties["county"][row]
        members[f"{state}/{county}/{YEAR}_{county}.tif"] = geotiff(
            counties["tiles"][row],
            float(counties["lat"][row]),
            float(counties["lon"][row]),
            float(counties["scale"]),
        )
    write_zip(path, members)


def geotiff(tile: np.ndarray, lat: float, lon: float, scale: float) -> bytes:
    """One tile (64, H, W) int8, row 0 north, centred on (lat, lon) in degrees, as GeoTIFF bytes.

    Pixel interleave: neighbouring bands then share a strip, and 660 tiles take 7.5 MB instead of 10.
    """
    bands, height, width = tile.shape
    west, north = lon - PIXEL_DEGREES * width / 2, lat + PIXEL_DEGREES * height / 2
    profile = {
        "driver": "GTiff",
        "count": bands,
        "height": height,
        "width": width,
        "dtype": "int8",
        "nodata": NODATA,
        "crs": "EPSG:4326",
        "transform": from_origin(west, north, PIXEL_DEGREES, PIXEL_DEGREES),
        "compress": "deflate",
        "predictor": 2,
        "zlevel": 9,
        "interleave": "pixel",
    }
    with MemoryFile() as memory:
        with memory.open(**profile) as dataset:
            dataset.write(tile)
            dataset.descriptions = [f"A{band:02d}" for band in range(bands)]
            dataset.update_tags(quantisation="linear", scale=repr(scale))
        return memory.read()


def write_labels(path: Path, counties: dict[str, np.ndarray], order: list[int], years: list[int]) -> None:
    """Write one row per county and year: mean growth of the following decade, per mille per year.

    1000 * ln(after / before) / 10 years = 100 * ln(after / before).
    """
    workbook = Workbook()
    sheet = workbook.active
    sheet.title = "labels"
    sheet.append(COLUMNS)
    for row in order:
        for year in years:
            before, after = (counties[f"p{decade % 100}"][row] for decade in (year, year + 10))
            sheet.append(
                [
                    str(counties["state"][row]),
                    str(counties["county"][row]),
                    year,
                    float(counties["lat"][row]),
                    float(counties["lon"][row]),
                    float(100 * np.log(after / before)),
                ]
            )
    sheet.freeze_panes = "A2"
    for column, width in zip("ABCDEF", (22, 22, 8, 12, 12, 14), strict=True):
        sheet.column_dimensions[column].width = width
    buffer = io.BytesIO()
    workbook.save(buffer)
    write_zip(path, _without_time(buffer))


def _without_time(xlsx: io.BytesIO) -> dict[str, bytes]:
    """The members of an Excel file with the times in docProps/core.xml set to ZIP_TIME."""
    with zipfile.ZipFile(xlsx) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["docProps/core.xml"] = re.sub(
        rb">\d{4}-\d\d-\d\dT[\d:]+Z<", b">1980-01-01T00:00:00Z<", members["docProps/core.xml"]
    )
    return members


def write_zip(path: Path, members: dict[str, bytes]) -> None:
    """A zip whose bytes depend on names and contents alone. Excel wants [Content_Types].xml first: it sorts so."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, ZIP_TIME)
            entry.create_system = 3  # Unix, or Windows would write another byte
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, members[name], compresslevel=9)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, nargs="?", default=SOURCE, help="default: ../shared/data/…/tiles.npz")
    parser.add_argument("--out", type=Path, default=HERE, help="default: beside this file")
    arguments = parser.parse_args()
    main(arguments.source, arguments.out)
