"""Columns of a table of records as checked values: ids, places, days and names.

Ids that are no numbers or occur twice, days in the future and swapped columns raise DataError, for no row is at fault
alone. Every other cell that cannot be used goes into `faults`, a list of tables field, found, why, indexed by line.
"""

import math
import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from src.core.stage.errors import DataError
from src.species.data import dates
from src.species.data.observation_ids import some

NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
INTEGER = re.compile(r"([0-9]{1,15})\.0*|([0-9]{1,19})")  # of longer ones, a decimal number has lost digits
LARGEST = np.iinfo(np.int64).max
LARGEST_IMAGE = 999_999
LATITUDE, LONGITUDE, UNCERTAINTY = "decimalLatitude", "decimalLongitude", "coordinateUncertaintyInMeters"
TAXON, IMAGE = ("taxonKey", "speciesKey"), ("imageIndex", "image_index")
COLUMNS = [LATITUDE, LONGITUDE, UNCERTAINTY, "eventDate", "year", "species", *TAXON, *IMAGE]

Faults = list[pd.DataFrame]


def require_columns(path: Path, cells: pd.DataFrame, name: str | None) -> None:
    """Raise DataError if a needed column is missing, that of the ids (`name`) among them, or if there is no row."""
    missing = [one for one in (name, LATITUDE, LONGITUDE, "species") if one and one not in cells]
    if "eventDate" not in cells and "year" not in cells:
        missing.append("eventDate or year")
    if missing:
        advice = "; data.id says how the ids' column is called" if name in missing else ""
        raise DataError(
            f"{path}: header: found no {', '.join(missing)}, expected names as GBIF writes them, separated by commas "
            f"or tabs; rename the columns{advice}"
        )
    if cells.empty:
        raise DataError(f"{path}: found no rows below the header, expected records; bring some")


def read_keys(path: Path, cells: pd.DataFrame, name: str | None) -> pd.DataFrame:
    """gbif_id from the column `name`, or counted from 1, and image_index where a column says it; int64."""
    column = next((one for one in IMAGE if one in cells), None)
    numbers = _integers(path, cells[name], LARGEST) if name else range(1, len(cells) + 1)
    keys = pd.DataFrame({"gbif_id": numbers}, index=cells.index)
    if column:
        keys["image_index"] = _integers(path, cells[column], LARGEST_IMAGE)
    if (again := keys.duplicated()).any():
        repeated = keys[again].astype(str).agg(" image ".join, axis=1)
        places = [f"{keys.index.name} {line}: {key}" for line, key in repeated.items()]
        raise DataError(
            f"{path}: {name or 'id'}: found {again.sum()} rows whose id is there already ({some(places)}), expected "
            f"one row for each {'image' if column else 'record'}; remove the repeated rows"
            + ("" if column else ", or add a column imageIndex")
        )
    return keys


def read_places(path: Path, cells: pd.DataFrame, faults: Faults) -> pd.DataFrame:
    """lat and lon in degrees, uncertainty_m NaN where unknown; float64."""
    lat, lon = (cells[name].map(_number) for name in (LATITUDE, LONGITUDE))
    swapped = (lat.abs() > 90) & (lat.abs() <= 180) & (lon.abs() <= 90)
    if swapped.sum() > max(1, (lat.notna() & lon.notna()).sum() / 2):
        raise DataError(
            f"{path}: {LATITUDE}: found {swapped.sum()} of {len(cells)} beyond ±90 where {LONGITUDE} is within it; the "
            "two columns seem swapped: exchange their names in the header"
        )
    for values, limit, elsewhere in ((lat, 90, swapped), (lon, 180, False)):
        text = cells[values.name]
        _refuse(faults, text, values.isna() & (text != ""), "not a number")
        _refuse(faults, text, text == "", "missing")
        _refuse(faults, text, (values.abs() > limit) & ~elsewhere, f"out of range, expected -{limit} to {limit}")
    both = (cells[LATITUDE] + ", " + cells[LONGITUDE]).rename(LATITUDE)
    _refuse(faults, both, swapped, "out of range, swapped with the longitude?")
    _refuse(faults, both, (lat == 0) & (lon == 0), "0, 0 stands for an unknown place")
    text = cells.get(UNCERTAINTY, pd.Series("", index=cells.index))
    uncertainty = text.map(_number)
    _refuse(faults, text, uncertainty.isna() & (text != ""), "not a number")
    _refuse(faults, text, uncertainty < 0, "negative")
    uncertainty = uncertainty.mask(uncertainty == 0)  # Darwin Core: zero is no value of this term
    return pd.DataFrame({"lat": lat, "lon": lon, "uncertainty_m": uncertainty}, dtype="float64")


def read_days(path: Path, cells: pd.DataFrame, faults: Faults, today: int) -> pd.DataFrame:
    """first_day and last_day in days since 1970-01-01, and the first day's year; int64."""
    blank = pd.Series("", index=cells.index)
    event, year = (cells.get(name, blank) for name in ("eventDate", "year"))
    parsed = [_days_or_why(*pair) for pair in zip(event, year, strict=True)]
    days = pd.DataFrame(parsed, cells.index, ["first_day", "last_day", "last_begin", "why"])
    found = event.where(year == "", event + ", year " + year).where(event != "", year)
    found = found.rename("eventDate" if "eventDate" in cells else "year")
    _refuse(faults, found, days["why"] != "", days["why"])
    future = days["last_begin"] > today
    if future.any():
        late = [f"{cells.index.name} {line}: {text}" for line, text in found[future].items()]
        raise DataError(
            f"{path}: eventDate: found {future.sum()} after {dates.on(today)}, the latest day anywhere ({some(late)}), "
            "expected none, or the result would depend on the day of the run; correct or remove them"
        )
    year = days["first_day"].to_numpy().astype("M8[D]").astype("M8[Y]").astype("int64") + 1970
    return days[["first_day", "last_day"]].assign(year=year)


def read_names(cells: pd.DataFrame, faults: Faults) -> pd.DataFrame:
    """species, and taxon_key int64, -1 where unknown."""
    names = cells["species"].str.normalize("NFC")  # else one name could be two
    _refuse(faults, names, names == "", "missing")
    _refuse(faults, names, ~names.map(str.isprintable), "control characters")
    keys = pd.Series(-1, index=cells.index)
    if column := next((one for one in TAXON if one in cells), None):
        keys = cells[column].map(lambda text: _integer(text, LARGEST)).astype("int64")
        _refuse(faults, cells[column], (keys < 0) & (cells[column] != ""), "not a whole number")
    return pd.DataFrame({"species": names.astype("str"), "taxon_key": keys})


def _refuse(faults: Faults, found: pd.Series, bad: pd.Series, why: str | pd.Series) -> None:
    """Add the `bad` cells of `found`, whose name is their field's, to the faults."""
    facts = {"field": found.name, "found": found.str.slice(0, 80), "why": why}
    faults.append(pd.DataFrame(facts, found.index, dtype=object)[bad])


def _integers(path: Path, text: pd.Series, largest: int) -> pd.Series:
    values = text.map(lambda cell: _integer(cell, largest)).astype("int64")
    wrong = values < 0
    if wrong.any():
        found = [f"{text.index.name} {line}: {cell!r}" for line, cell in text[wrong].items()]
        raise DataError(
            f"{path}: {text.name}: found {wrong.sum()} that are no whole numbers up to {largest} ({some(found)}); "
            "correct them"
        )
    return values


@cache
def _days_or_why(event_date: str, year: str) -> tuple[int, int, int, str]:
    """`dates.days` and no reason, or zeros and why there are none."""
    try:
        return *dates.days(event_date, year), ""
    except dates.NotADate as error:
        return 0, 0, 0, str(error)


def _number(text: str) -> float:
    """NaN where it is none, or not finite."""
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else math.nan


def _integer(text: str, largest: int) -> int:
    """-1 where it is none, or too large."""
    match = INTEGER.fullmatch(text)
    value = int(match[1] or match[2]) if match else -1
    return value if value <= largest else -1
