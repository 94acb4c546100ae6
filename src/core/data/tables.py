"""Tables of users, .csv, .xlsx or .parquet: all cells of a small one, or columns of a large one as text.

Sizes are checked before parsing, XML entities are refused (defusedxml), formulas are not computed: a formula without
a stored result is an error. Records are read as text, because guessed types would change ids of 19 digits.
"""

import csv
import datetime
import logging
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from src.core.stage.errors import BandwiseError, DataError, DependencyError, StorageError

MAX_SHEET_BYTES = 64 * 2**20  # uncompressed; 660 labelled tiles are 0.3 MB of XML
MAX_SHEET_RATIO = 200  # uncompressed / file size; spreadsheets reach about 20, bombs 1000
MAX_SHEET_ROWS = 2**20  # Excel's own limit; a cell that claims a later row would make the reader pad up to it
MAX_SHEET_COLUMNS = 1000
MAX_RECORDS_BYTES = 2**30  # about two million records of 50 columns
MAX_RECORDS = 5_000_000
EXACT = 2**53  # from here on a float does not hold every whole number


@dataclass(frozen=True)
class Sheet:
    """`header` as stripped NFKC text; `rows` as (number, cells) but for empty ones, counted from 2 (Parquet: 1)."""

    path: Path
    header: list[str]
    rows: list[tuple[int, list[Any]]]

    def columns(self, names: list[str], needed: list[str], advice: str = "add it") -> dict[str, int]:
        """Name -> position of those of `names` that the header has, in any case; DataError if a `needed` one lacks."""
        header = [heading.casefold() for heading in self.header]
        if missing := [name for name in needed if name not in header]:
            raise DataError(f"{self.path}: no column {missing[0]!r}, found {', '.join(self.header)}; {advice}")
        return {name: header.index(name) for name in names if name in header}


def read_sheet(path: Path) -> Sheet:
    """A UTF-8 .csv file, the first sheet of an .xlsx file, or a .parquet file.

    A cell is None or text, of .xlsx also an int, float, bool or date; a number that Excel shows as a percentage is
    returned as the text shown (`5.2%`), because its value is 100 times smaller. Columns of Parquet that hold no single
    values, such as the geometry of GeoParquet, are left out, as is the index that pandas adds.

    Raises:
        StorageError: the file cannot be read.
        DataError: it is not such a table, is too large, has two columns of one name (Parquet) or a line with more or
            fewer cells than the header (CSV), or holds formulas without stored results (Excel).
    """
    path = Path(path)
    readers = {".csv": _csv_rows, ".xlsx": _xlsx_rows, ".parquet": _parquet_rows}  # the header is the first row
    if (suffix := path.suffix.lower()) not in readers:
        raise DataError(
            f"{path}: found a file named *{path.suffix}, expected {', '.join(readers)}; save it as one of them"
        )
    try:
        with _as_table(path):
            header, *rows = [[_stripped(cell) for cell in row] for row in readers[suffix](path)] or [[]]
    except OSError as error:
        raise StorageError(f"{path}: cannot read: {error.strerror or error}; check the path") from error
    if not any(header):
        raise DataError(f"{path}: found no column names in row 1; put them there")
    numbered = enumerate(rows, start=1 if suffix == ".parquet" else 2)
    filled = [(number, row) for number, row in numbered if any(cell is not None for cell in row)]
    # as text like all cells: LibreOffice stores 2018 as 2018.0
    return Sheet(path, [unicodedata.normalize("NFKC", _text(cell)).strip() for cell in header], filled)


def read_records(path: Path, columns: list[str]) -> pd.DataFrame:
    """(N, those of `columns` that are there) stripped text, "" where blank, of a .csv or .parquet file.

    The index is called line (CSV; that of a record's end, the header is line 1) or row (Parquet, counted from 1).

    Raises:
        DataError: not such a table, too large, a row with too many or too few cells, or a column twice.
    """
    with _as_table(path):
        return _parquet_records(path, columns) if path.suffix == ".parquet" else _csv_records(path, columns)


@contextmanager
def _as_table(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}); save it as UTF-8, in Excel as 'CSV UTF-8'") from error
    except (csv.Error, pa.ArrowException) as error:
        raise DataError(f"{path}: found no table ({error}); save it again") from error


def _stripped(cell: Any) -> Any:
    return cell.strip() or None if isinstance(cell, str) else cell


def _csv_lines(path: Path, most: int) -> Iterator[tuple[int, list[str]]]:
    """Number of the last line, and cells, of every row; a header with tabs makes a table of tabs without quotes."""
    if (size := path.stat().st_size) > most:
        raise DataError(f"{path}: bytes: found {size}, expected at most {most}; divide the table")
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        tabs = "\t" in first
        if ";" in first and "," not in first and not tabs:
            raise DataError(f"{path}: header: found the separator ;, expected commas or tabs; save it with one of them")
        file.seek(0)
        style = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {"delimiter": ","}
        reader = csv.reader(file, strict=True, **style)
        header = next(reader, [])
        yield reader.line_num, header
        for row in reader:
            if header and any(row) and len(row) != len(header):
                raise DataError(
                    f"{path}: line {reader.line_num}: found {len(row)} cells, expected the {len(header)} of the "
                    "header; correct the line, or quote what holds a separator"
                )
            yield reader.line_num, row


def _csv_rows(path: Path) -> Iterator[list[str]]:
    return (cells for _, cells in _csv_lines(path, MAX_SHEET_BYTES))


def _csv_records(path: Path, columns: list[str]) -> pd.DataFrame:
    rows = _csv_lines(path, MAX_RECORDS_BYTES)
    header = [name.strip() for name in next(rows)[1]]
    at = {name: header.index(name) for name in _present(path, header, columns)}
    cells, lines = {name: [] for name in at}, []
    for line, row in rows:
        if not any(row):
            continue  # a blank line
        if len(lines) == MAX_RECORDS:
            raise DataError(f"{path}: rows: found more than {MAX_RECORDS}; divide the table")
        lines.append(line)
        for name, column in at.items():
            cells[name].append(row[column].strip())
    return pd.DataFrame(cells, index=pd.Index(lines, name="line", dtype="int64"), dtype=object)


def _xlsx_rows(path: Path) -> list[list[Any]]:
    if not openpyxl.DEFUSEDXML:
        raise DependencyError(
            "openpyxl would parse XML without defusedxml: pip install defusedxml and unset OPENPYXL_DEFUSEDXML"
        )
    with path.open("rb") as file:
        try:
            _check_unpacked_size(path, file)
            return _first_sheet(path, file)
        except (BandwiseError, OSError):
            raise
        except Exception as error:  # openpyxl has no error of its own for a broken workbook
            cause = error.__cause__ or error  # it wraps what the XML parser says in advice on the source files
            raise DataError(
                f"{path}: not a readable Excel workbook ({type(cause).__name__}: {cause}); "
                "open it in a spreadsheet program and save it as .xlsx again"
            ) from error


def _check_unpacked_size(path: Path, file: Any) -> None:
    # an .xlsx is a zip: its declared sizes bound what is unpacked, because zipfile stops at them
    with zipfile.ZipFile(file) as archive:
        total = sum(member.file_size for member in archive.infolist())
    ratio = total / max(1, path.stat().st_size)
    if total > MAX_SHEET_BYTES or ratio > MAX_SHEET_RATIO:
        raise DataError(
            f"{path}: unpacks to {total} bytes, {ratio:.0f} times its size; expected at most {MAX_SHEET_BYTES} bytes "
            f"and {MAX_SHEET_RATIO} times: this is not a table of labels"
        )


def _first_sheet(path: Path, file: Any) -> list[list[Any]]:
    values, formulas = (
        openpyxl.load_workbook(file, read_only=True, data_only=data_only, keep_links=False)
        for data_only in (True, False)
    )
    if len(values.sheetnames) > 1:
        logging.info("%s: reads the sheet %r and none of the others", path, values.worksheets[0].title)
    sheets = [book.worksheets[0] for book in (values, formulas)]
    for sheet in sheets:
        sheet.reset_dimensions()  # the stated size is only a claim
    width = len(next(sheets[0].iter_rows(max_row=1), ()))
    if width > MAX_SHEET_COLUMNS:
        raise DataError(f"{path}: found {width} columns, expected at most {MAX_SHEET_COLUMNS}")
    rows, uncached = [], []
    both = (sheet.iter_rows(max_row=MAX_SHEET_ROWS, max_col=width or 1) for sheet in sheets)
    for cells, sources in zip(*both, strict=True):
        pairs = zip(cells, sources, strict=True)
        uncached += [source.coordinate for cell, source in pairs if cell.value is None and source.data_type == "f"]
        rows.append([_shown(cell) for cell in cells])
    if uncached:
        more = f" and {len(uncached) - 10} more" * (len(uncached) > 10)
        raise DataError(
            f"{path}: found formulas without stored results in {', '.join(uncached[:10])}{more}, expected values; "
            "open the file in a spreadsheet program and save it, or paste the values"
        )
    return rows


def _shown(cell: Any) -> Any:
    if isinstance(cell.value, int | float) and "%" in cell.number_format:
        return f"{100 * cell.value:g}%"
    return cell.value


def _parquet_rows(path: Path) -> list[list[str]]:
    table = _parquet_records(path)
    return [list(table.columns), *table.to_numpy().tolist()]


def _parquet_records(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """As `read_records` returns them; without `columns` all that are not nested, within a sheet's limits."""
    most_rows, most_bytes = (MAX_SHEET_ROWS, MAX_SHEET_BYTES) if columns is None else (MAX_RECORDS, MAX_RECORDS_BYTES)
    with pq.ParquetFile(path) as file:
        kinds = {field.name: field.type for field in file.schema_arrow}
        several = [name for name, kind in kinds.items() if pa.types.is_nested(kind) or "binary" in str(kind)]
        if columns is None:
            columns = [name for name in kinds if name not in several and not name.startswith("__index_level_")]
            if several:
                logging.info("%s: leaves out what holds no single values: %s", path, ", ".join(several))
        names = _present(path, file.schema_arrow.names, columns)
        if several := [name for name in names if name in several]:
            kind = kinds[several[0]]
            raise DataError(f"{path}: {several[0]}: found {kind}, expected text, numbers or dates; convert it")
        # The footer's own sizes, before anything is unpacked.
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        parts = [group.column(column) for group in groups for column in range(group.num_columns)]
        unpacked = sum(part.total_uncompressed_size for part in parts if part.path_in_schema in names)
        if file.metadata.num_rows > most_rows or unpacked > most_bytes:
            raise DataError(
                f"{path}: found {file.metadata.num_rows} rows and {unpacked} bytes unpacked, expected at most "
                f"{most_rows} and {most_bytes}; divide the table"
            )
        table = file.read(columns=names)
    cells = {name: [_text(value) for value in table[name].to_pylist()] for name in names}
    return pd.DataFrame(cells, index=pd.RangeIndex(1, len(table) + 1, name="row"), dtype=object)


def _present(path: Path, header: list[str], columns: list[str]) -> list[str]:
    names = [name for name in columns if name in header]
    if twice := [name for name in names if header.count(name) > 1]:
        raise DataError(f"{path}: {twice[0]}: found {header.count(twice[0])} columns of this name; leave one")
    return names


def _text(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, datetime.date):  # a datetime is one too
        return value.isoformat()
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        value = int(value)  # a blank in a column of whole numbers makes them floats
    return str(value).strip()
