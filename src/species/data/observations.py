"""A table of records -> observations whose id, place, date and name can be used, and the list of the others."""

import logging
import math
import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from src.core.data import tables
from src.core.stage.errors import DataError
from src.species.data import dates, gbif_table
from src.species.data.observation_ids import make_id
from src.species.params import Data

NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
INTEGER = re.compile(r"([0-9]{1,15})\.0*|([0-9]{1,19})")  # of longer ones, a decimal number has lost digits
LARGEST = np.iinfo(np.int64).max
LARGEST_IMAGE = 999_999
LATITUDE, LONGITUDE, UNCERTAINTY = "decimalLatitude", "decimalLongitude", "coordinateUncertaintyInMeters"
TAXON, IMAGE = ("taxonKey", "speciesKey"), ("imageIndex", "image_index")
SHOWN = 5
POLAR = 60  # degrees of latitude, beyond which hardly a record of a species lies

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Records:
    """What `read` found.

    Attributes:
        path: the table.
        table: one row a usable record, in the table's order: gbif_id, image_index (-1 where the table has no such
            column), lat, lon, uncertainty_m, first_day, last_day, year, species, taxon_key.
        refused: line, field, found, why; records that cannot be used, then species with too few records.
        known: (gbif_id, image_index) of every record, the refused ones too.
        count, unusable: rows of the table, and those of them refused for place, date or name.
        rare: species with too few records -> how many.
    """

    path: Path
    table: pd.DataFrame
    refused: pd.DataFrame
    known: frozenset[tuple[int, int]]
    count: int
    unusable: int
    rare: dict[str, int]


def read(root: Path, data: Data, today: int) -> Records:
    """Read and check the table below `root`.

    Swapped coordinates can be known as such only where a latitude lies beyond 90 degrees and the longitude within; of
    others `warn_if_polar` may tell.

    Args:
        today: days since 1970-01-01. A date after it is always an error and never a refused row, so that no result
            depends on the day of the run.

    Raises:
        DataError: a column is missing; an id is no number, or there twice; a date lies in the future; coordinates are
            swapped throughout.
    """
    path = gbif_table.find(root)
    named = [data.id] if data.id else []
    fields = [LATITUDE, LONGITUDE, UNCERTAINTY, "eventDate", "year", "species", *TAXON, *IMAGE]
    cells = tables.read_records(path, [*named, *fields])
    _require_columns(path, cells, named)
    keys = _keys(path, cells, data.id)
    faults: list[pd.DataFrame] = []
    table = pd.concat(
        [
            keys,
            _places(path, cells, faults),
            _days(path, cells, faults, today),
            _names(cells, faults),
        ],
        axis=1,
    )
    refused = pd.concat(faults).sort_index(kind="stable")
    unusable = refused.index.unique()
    table = table.drop(index=unusable)
    counts = table.drop_duplicates("gbif_id")["species"].value_counts().sort_index()
    rare = {name: int(count) for name, count in counts.items() if count < data.minimum_records}
    left_out = table["species"].isin(rare)
    why = [
        f"{rare[name]} records, data.minimum_records is {data.minimum_records}" for name in table["species"][left_out]
    ]
    refused = pd.concat([refused, _faults(table["species"], left_out, "species", why)])
    return Records(
        path=path,
        table=table[~left_out].reset_index(drop=True),
        refused=refused.rename_axis("line").reset_index(),
        known=frozenset(zip(keys["gbif_id"].tolist(), keys["image_index"].tolist(), strict=True)),
        count=len(cells),
        unusable=len(unusable),
        rare=rare,
    )


def require_usable(records: Records, data: Data) -> None:
    """Raise DataError if too many records have no usable place, date or name, or if nothing is left."""
    allowed, number = data.max_refused, records.unusable
    refused = records.refused[~records.refused["why"].str.contains("data.minimum_records", regex=False)]
    if number > allowed * records.count:
        reasons = refused.groupby(["field", "why"], sort=True).size()
        counts = "; ".join(f"{rows} x {field}: {why}" for (field, why), rows in reasons.items())
        unit = "row" if records.path.suffix == ".parquet" else "line"
        shown = [f"  {unit} {row.line}: {row.field}: found {row.found!r}: {row.why}" for row in refused.itertuples()]
        raise DataError(
            f"{records.path}: found {number} of {records.count} rows without a usable place, date or name "
            f"({counts}), expected a share of at most data.max_refused {allowed:g}; correct them, or allow "
            f"{math.ceil(1e4 * number / records.count) / 1e4:g}:\n" + "\n".join(shown[:SHOWN])
        )
    if records.table.empty:
        raise DataError(
            f"{records.path}: species: found none with {data.minimum_records} records or more among "
            f"{records.count - number} usable rows; lower data.minimum_records or bring more records"
        )


def warn_if_polar(records: Records) -> None:
    """Log a warning if most usable records lie where few do: Florida's are swapped and yet in range."""
    lat, lon = records.table["lat"], records.table["lon"]
    beyond = int((lat.abs() > POLAR).sum())
    if 2 * beyond > len(lat):
        logger.warning(
            f"{records.path}: {LATITUDE}: found {beyond} of {len(lat)} usable records beyond {POLAR} degrees of "
            f"latitude (median {lat.median():.4g}, of {LONGITUDE} {lon.median():.4g}), where few records lie: are "
            f"{LATITUDE} and {LONGITUDE} swapped?"
        )


def with_images(records: Records, embedded: Collection[tuple[int, int]]) -> tuple[pd.DataFrame, int]:
    """Observations, one for each image, and how many embeddings belong to refused records.

    Without a column of images, a record has those that `embedded` holds, and image 0 where it holds none.

    Args:
        embedded: (gbif_id, image_index) of every embedding.

    Raises:
        DataError: an embedding's record is not in the table.
    """
    table = records.table
    listed = bool((table["image_index"] >= 0).all())
    known = records.known if listed else frozenset(number for number, _ in records.known)
    unknown = sorted(key for key in embedded if (key if listed else key[0]) not in known)
    if unknown:
        raise DataError(
            f"{records.path}: id: found embeddings of {len(unknown)} observations that are not in the table "
            f"({some([make_id(*key) for key in unknown])}), expected none; add their records or remove their embeddings"
        )
    if not listed:
        images: dict[int, list[int]] = {}
        for number, image in sorted(embedded):
            images.setdefault(number, []).append(image)
        each = [images.get(number, [0]) for number in table["gbif_id"].tolist()]
        table = table.assign(image_index=each).explode("image_index", ignore_index=True)
        table["image_index"] = table["image_index"].astype("int64")
    keys = list(zip(table["gbif_id"].tolist(), table["image_index"].tolist(), strict=True))
    table.insert(0, "id", pd.Series([make_id(*key) for key in keys], dtype="str"))
    return table, len(set(embedded) - set(keys))


def some(items: list[str]) -> str:
    """The first few of a list, and how many more there are."""
    return ", ".join(items[:SHOWN]) + (f" and {len(items) - SHOWN} more" if len(items) > SHOWN else "")


def _require_columns(path: Path, cells: pd.DataFrame, named: list[str]) -> None:
    missing = [name for name in [*named, LATITUDE, LONGITUDE, "species"] if name not in cells]
    if "eventDate" not in cells and "year" not in cells:
        missing.append("eventDate or year")
    if missing:
        advice = "; data.id says how the ids' column is called" if named and named[0] in missing else ""
        raise DataError(
            f"{path}: header: found no {', '.join(missing)}, expected names as GBIF writes them, separated by commas "
            f"or tabs; rename the columns{advice}"
        )
    if cells.empty:
        raise DataError(f"{path}: found no rows below the header, expected records; bring some")


def _keys(path: Path, cells: pd.DataFrame, name: str | None) -> pd.DataFrame:
    """gbif_id and image_index; -1 where no column says it."""
    numbers = pd.Series(range(1, len(cells) + 1), index=cells.index)
    if name:
        numbers = _integers(path, cells[name], LARGEST)
    column = _first(cells, IMAGE)
    images = pd.Series(-1, index=cells.index) if column is None else _integers(path, cells[column], LARGEST_IMAGE)
    keys = pd.DataFrame({"gbif_id": numbers, "image_index": images}, dtype="int64")
    if (again := keys.duplicated()).any():
        places = [f"{keys.index.name} {line}: {key.gbif_id}" + f" image {key.image_index}" * (column is not None)
                  for line, key in zip(keys.index[again], keys[again].itertuples(), strict=True)]  # fmt: skip
        raise DataError(
            f"{path}: {name or 'id'}: found {again.sum()} rows whose id is there already ({some(places)}), expected "
            f"one row for each {'image' if column else 'record'}; remove the repeated rows"
            + ("" if column else ", or add a column imageIndex")
        )
    return keys


def _integers(path: Path, text: pd.Series, largest: int) -> pd.Series:
    values = pd.Series([_integer(cell, largest) for cell in text], index=text.index, dtype="int64")
    wrong = values < 0
    if wrong.any():
        found = [f"{text.index.name} {line}: {cell!r}" for line, cell in text[wrong].items()]
        raise DataError(
            f"{path}: {text.name}: found {wrong.sum()} that are no whole numbers up to {largest} ({some(found)}); "
            "correct them"
        )
    return values


def _places(path: Path, cells: pd.DataFrame, faults: list[pd.DataFrame]) -> pd.DataFrame:
    lat, lon = (cells[name].map(_number) for name in (LATITUDE, LONGITUDE))
    swapped = (lat.abs() > 90) & (lat.abs() <= 180) & (lon.abs() <= 90)
    if swapped.sum() > max(1, (lat.notna() & lon.notna()).sum() / 2):
        raise DataError(
            f"{path}: {LATITUDE}: found {swapped.sum()} of {len(cells)} beyond ±90 where {LONGITUDE} is within it; the "
            "two columns seem swapped: exchange their names in the header"
        )
    for name, values, limit in ((LATITUDE, lat, 90), (LONGITUDE, lon, 180)):
        _check_numbers(cells[name], values, faults)
        faults.append(_faults(cells[name], values.isna() & (cells[name] == ""), name, "missing"))
        beyond = (values.abs() > limit) & ~(swapped & (name == LATITUDE))
        faults.append(_faults(cells[name], beyond, name, f"out of range, expected -{limit} to {limit}"))
    both = cells[LATITUDE] + ", " + cells[LONGITUDE]
    faults.append(_faults(both, swapped, LATITUDE, "out of range, swapped with the longitude?"))
    faults.append(_faults(both, (lat == 0) & (lon == 0), LATITUDE, "0, 0 stands for an unknown place"))
    uncertainty = pd.Series(np.nan, index=cells.index)
    if UNCERTAINTY in cells:
        uncertainty = cells[UNCERTAINTY].map(_number)
        _check_numbers(cells[UNCERTAINTY], uncertainty, faults)
        faults.append(_faults(cells[UNCERTAINTY], uncertainty < 0, UNCERTAINTY, "negative"))
        uncertainty = uncertainty.mask(uncertainty == 0)  # Darwin Core: zero is no value of this term
    return pd.DataFrame({"lat": lat, "lon": lon, "uncertainty_m": uncertainty}, dtype="float64")


def _days(path: Path, cells: pd.DataFrame, faults: list[pd.DataFrame], today: int) -> pd.DataFrame:
    blank = pd.Series("", index=cells.index)
    event, year = (cells.get(name, blank) for name in ("eventDate", "year"))
    pairs = list(zip(event, year, strict=True))
    parsed = {pair: _days_or_why(*pair) for pair in sorted(set(pairs))}
    results = [parsed[pair] for pair in pairs]
    bad = pd.Series([isinstance(result, str) for result in results], index=cells.index)
    found = event.where(year == "", event + ", year " + year).where(event != "", year)
    why = [result for result in results if isinstance(result, str)]
    faults.append(_faults(found, bad, "eventDate" if "eventDate" in cells else "year", why))
    values = np.array([(0, 0, 0) if isinstance(result, str) else result for result in results], "int64")
    future = values[:, 2] > today
    if future.any():
        late = [f"{cells.index.name} {line}: {text}" for line, text in found[future].items()]
        raise DataError(
            f"{path}: eventDate: found {future.sum()} after {dates.on(today)}, the latest day anywhere ({some(late)}), "
            "expected none, or the result would depend on the day of the run; correct or remove them"
        )
    columns = {"first_day": values[:, 0], "last_day": values[:, 1]}
    years = [dates.on(day).year for day in values[:, 0].tolist()]
    return pd.DataFrame({**columns, "year": years}, index=cells.index, dtype="int64")


def _days_or_why(event_date: str, year: str) -> tuple[int, int, int] | str:
    try:
        return dates.days(event_date, year)
    except dates.NotADate as error:
        return str(error)


def _names(cells: pd.DataFrame, faults: list[pd.DataFrame]) -> pd.DataFrame:
    names = cells["species"].map(lambda text: unicodedata.normalize("NFC", text))  # else one name could be two
    faults.append(_faults(names, names == "", "species", "missing"))
    faults.append(_faults(names, ~names.map(str.isprintable), "species", "control characters"))
    keys = pd.Series(-1, index=cells.index)
    if column := _first(cells, TAXON):
        keys = pd.Series([_integer(cell, LARGEST) for cell in cells[column]], index=cells.index, dtype="int64")
        faults.append(_faults(cells[column], (keys < 0) & (cells[column] != ""), column, "not a whole number"))
    return pd.DataFrame({"species": names.astype("str"), "taxon_key": keys})


def _check_numbers(text: pd.Series, values: pd.Series, faults: list[pd.DataFrame]) -> None:
    faults.append(_faults(text, values.isna() & (text != ""), text.name, "not a number"))


def _faults(found: pd.Series, bad: pd.Series, field: str, why: str | list[str]) -> pd.DataFrame:
    """Rows of the list of the refused."""
    return pd.DataFrame({"field": field, "found": found[bad].str.slice(0, 80), "why": why}, dtype=object)


def _first(cells: pd.DataFrame, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in cells), None)


def _number(text: str) -> float:
    """NaN where it is none, or not finite."""
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else math.nan


def _integer(text: str, largest: int) -> int:
    """-1 where it is none, or too large."""
    match = INTEGER.fullmatch(text)
    value = int(match[1] or match[2]) if match else -1
    return value if value <= largest else -1
