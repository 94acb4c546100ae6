"""Cells of a GBIF-style table as text, each row under the number by which its file can be searched.

Text first, because a table reader that guesses types turns an id of 19 digits into another number.
"""

import csv
import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from src.core.stage.errors import DataError

MAX_BYTES = 2**30  # GBIF's simple CSV holds about two million records in this
MAX_ROWS = 5_000_000
NAMES = ("observations.csv", "observations.parquet")


def find(root: Path) -> Path:
    """The one table below `root`; raises DataError where there is none or both."""
    found = [Path(root) / name for name in NAMES if (Path(root) / name).is_file()]
    if len(found) != 1:
        raise DataError(
            f"{root}: table: found {' and '.join(path.name for path in found) or 'none'}, expected one of "
            f"{' or '.join(NAMES)}; bring one"
        )
    return found[0]


def read(path: Path, columns: list[str]) -> pd.DataFrame:
    """(N, those of `columns` that are there) stripped text, "" where blank.

    The index is called line (CSV, in which the header is line 1; a record with a line break inside has the number of
    its last line) or row (Parquet, counted from 1). A header with tabs makes a table of tabs without quotes, as GBIF
    sends them under the name .csv.

    Raises:
        DataError: not such a table, too large, a row with too many or too few cells, or a column twice.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise DataError(f"{path}: bytes: found {size}, expected at most {MAX_BYTES}; divide the table")
    try:
        return _read_parquet(path, columns) if path.suffix == ".parquet" else _read_csv(path, columns)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: found bytes that are not UTF-8 ({error}); save it as UTF-8") from error
    except (csv.Error, pa.ArrowException) as error:
        raise DataError(f"{path}: found no table ({error}); save it again") from error


def _read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        tabs = "\t" in first
        if ";" in first and "," not in first and not tabs:
            raise DataError(f"{path}: header: found the separator ;, expected commas or tabs; save it with one of them")
        file.seek(0)
        style = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {"delimiter": ","}
        reader = csv.reader(file, strict=True, **style)
        header = [name.strip() for name in next(reader, [])]
        at = {name: header.index(name) for name in _present(path, header, columns)}
        cells, lines = {name: [] for name in at}, []
        for row in reader:
            if not any(row):
                continue  # a blank line
            if len(row) != len(header):
                raise DataError(
                    f"{path}: line {reader.line_num}: found {len(row)} cells, expected the {len(header)} of the "
                    "header; correct the line, or quote what holds a separator"
                )
            if len(lines) == MAX_ROWS:
                raise DataError(f"{path}: rows: found more than {MAX_ROWS}; divide the table")
            lines.append(reader.line_num)
            for name, column in at.items():
                cells[name].append(row[column].strip())
    return pd.DataFrame(cells, index=pd.Index(lines, name="line", dtype="int64"), dtype=object)


def _read_parquet(path: Path, columns: list[str]) -> pd.DataFrame:
    with pq.ParquetFile(path) as file:
        names = _present(path, file.schema_arrow.names, columns)
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        # The footer's own sizes, before anything is unpacked.
        parts = [group.column(column) for group in groups for column in range(group.num_columns)]
        unpacked = sum(part.total_uncompressed_size for part in parts if part.path_in_schema in names)
        if file.metadata.num_rows > MAX_ROWS or unpacked > MAX_BYTES:
            raise DataError(
                f"{path}: found {file.metadata.num_rows} rows and {unpacked} bytes unpacked, expected at most "
                f"{MAX_ROWS} and {MAX_BYTES}; divide the table"
            )
        table = file.read(columns=names)
    cells = {name: [_text(path, name, value) for value in table[name].to_pylist()] for name in names}
    rows = pd.RangeIndex(1, len(table) + 1, name="row")
    return pd.DataFrame(cells, index=rows, dtype=object)


def _present(path: Path, header: list[str], columns: list[str]) -> list[str]:
    names = [name for name in columns if name in header]
    if twice := [name for name in names if header.count(name) > 1]:
        raise DataError(f"{path}: {twice[0]}: found {header.count(twice[0])} columns of this name; leave one")
    return names


def _text(path: Path, name: str, value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, datetime.date):  # a datetime is one too
        return value.isoformat()
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise DataError(f"{path}: {name}: found {type(value).__name__}, expected text, numbers or dates; convert it")
    return str(value).strip()
