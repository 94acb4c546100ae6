"""A table of records -> observations whose id, place, date and name can be used, and the list of the others."""

import logging
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from src.core.data import tables
from src.core.stage.errors import DataError
from src.species.data import record_columns
from src.species.data.observation_ids import SHOWN, make_ids, some
from src.species.data.record_columns import COLUMNS, LATITUDE, LONGITUDE
from src.species.params import Data

NAMES = ("observations.csv", "observations.parquet")
POLAR = 60  # degrees of latitude, beyond which hardly a record of a species lies

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Records:
    """Usable and refused records of the table at `path`.

    Attributes:
        table: one row a usable record, in the table's order: the columns of `keys`, lat, lon, uncertainty_m, first_day,
            last_day, year, species, taxon_key.
        refused: line, field, found, why; records that cannot be used, then species with too few records.
        keys: gbif_id and, where the table has such a column, image_index of every record, the refused ones too.
        unusable: number of rows refused for place, date or name.
        rare: species with too few records -> how many.
    """

    path: Path
    table: pd.DataFrame
    refused: pd.DataFrame
    keys: pd.DataFrame
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
    path = find(root)
    named = [data.id] if data.id else []
    cells = tables.read_records(path, [*named, *COLUMNS])
    record_columns.require_columns(path, cells, data.id)
    keys = record_columns.read_keys(path, cells, data.id)
    faults: list[pd.DataFrame] = []
    places = record_columns.read_places(path, cells, faults)
    days = record_columns.read_days(path, cells, faults, today)
    table = pd.concat([keys, places, days, record_columns.read_names(cells, faults)], axis=1)
    refused = pd.concat(faults).sort_index(kind="stable")
    unusable = refused.index.unique()
    table = table.drop(index=unusable)
    counts = table.drop_duplicates("gbif_id")["species"].value_counts()
    of_species = table["species"].map(counts)
    few = of_species < data.minimum_records
    why = [f"{count} records, data.minimum_records is {data.minimum_records}" for count in of_species[few]]
    rare = pd.DataFrame({"field": "species", "found": table["species"][few], "why": why}, dtype=object)
    return Records(
        path=path,
        table=table[~few].reset_index(drop=True),
        refused=pd.concat([refused, rare]).rename_axis("line").reset_index(),
        keys=keys,
        unusable=len(unusable),
        rare=counts[counts < data.minimum_records].sort_index().to_dict(),
    )


def find(root: Path) -> Path:
    """The one table below `root`; raises DataError where there is none or both."""
    found = [Path(root) / name for name in NAMES if (Path(root) / name).is_file()]
    if len(found) != 1:
        raise DataError(
            f"{root}: table: found {' and '.join(path.name for path in found) or 'none'}, expected one of "
            f"{' or '.join(NAMES)}; bring one"
        )
    return found[0]


def require_usable(records: Records, data: Data) -> None:
    """Raise DataError if too many records have no usable place, date or name, or if nothing is left."""
    allowed, number = data.max_refused, records.unusable
    refused = records.refused[~records.refused["why"].str.contains("data.minimum_records", regex=False)]
    if number > allowed * len(records.keys):
        reasons = refused.groupby(["field", "why"], sort=True).size()
        counts = "; ".join(f"{rows} x {field}: {why}" for (field, why), rows in reasons.items())
        unit = "row" if records.path.suffix == ".parquet" else "line"
        shown = [f"  {unit} {row.line}: {row.field}: found {row.found!r}: {row.why}" for row in refused.itertuples()]
        raise DataError(
            f"{records.path}: found {number} of {len(records.keys)} rows without a usable place, date or name "
            f"({counts}), expected a share of at most data.max_refused {allowed:g}; correct them, or allow "
            f"{math.ceil(1e4 * number / len(records.keys)) / 1e4:g}:\n" + "\n".join(shown[:SHOWN])
        )
    if records.table.empty:
        raise DataError(
            f"{records.path}: species: found none with {data.minimum_records} records or more among "
            f"{len(records.keys) - number} usable rows; lower data.minimum_records or bring more records"
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

    Without a column of images, a record has those of which there is an embedding, (gbif_id, image_index) in
    `embedded`, and image 0 where there is none.

    Raises:
        DataError: an embedding's record is not in the table.
    """
    table = records.table
    images = pd.DataFrame(sorted(embedded), columns=["gbif_id", "image_index"], dtype="int64")
    ids = make_ids(images["gbif_id"], images["image_index"])
    unknown = ids[images.merge(records.keys, "left", indicator=True)["_merge"] == "left_only"]
    if len(unknown):
        raise DataError(
            f"{records.path}: id: found embeddings of {len(unknown)} observations that are not in the table "
            f"({some(unknown.tolist())}), expected none; add their records or remove their embeddings"
        )
    if "image_index" not in table:
        table = table.merge(images, "left")
        table.insert(1, "image_index", table.pop("image_index").fillna(0).astype("int64"))
    table.insert(0, "id", make_ids(table["gbif_id"], table["image_index"]))
    return table, int((~ids.isin(table["id"])).sum())
