"""Cells of an .xlsx or .csv file as the spreadsheet shows them, with its own row numbers.

Size limits come before parsing, XML entities are refused (defusedxml), formulas are never computed:
a cell whose formula has no stored result is an error, not a blank.
"""

import csv
import logging
import unicodedata
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openpyxl
from openpyxl.utils import get_column_letter

from src.core.stage.errors import BandwiseError, DataError, DependencyError, StorageError

MAX_BYTES = 64 * 2**20  # uncompressed; 660 labelled tiles are 0.3 MB of XML
MAX_RATIO = 200  # uncompressed / file size; spreadsheets reach about 20, bombs 1000
MAX_ROWS = 2**20  # Excel's own limit; a cell that claims a later row would make the reader pad up to it
MAX_COLUMNS = 1000


@dataclass(frozen=True)
class Table:
    """`header` as stripped NFKC text; `rows` as (number the spreadsheet shows, cells), empty rows left out."""

    path: Path
    header: list[str]
    rows: list[tuple[int, list[Any]]]


def read(path: Path) -> Table:
    """The first sheet of an .xlsx file, or a UTF-8 .csv file.

    A cell is None, str, int, float, bool or a date; a number that Excel shows as a percentage is
    returned as the text shown (`5.2%`), because its value is 100 times smaller.

    Raises:
        StorageError: the file cannot be read.
        DataError: it is not a spreadsheet, is too large, or holds formulas without stored results.
    """
    path = Path(path)
    readers = {".xlsx": _read_xlsx, ".csv": _read_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: found a file named *{path.suffix}, expected .xlsx or .csv; save it as one of them")
    try:
        rows = reader(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot read: {error.strerror or error}; check the path") from error
    numbered = [(number, row) for number, row in enumerate(rows, start=1) if any(cell is not None for cell in row)]
    if not numbered or numbered[0][0] != 1:
        raise DataError(f"{path}: found no column names in row 1; put them there")
    header = [_heading(cell) for cell in numbered[0][1]]
    return Table(path, header, [(number, [*row, *[None] * len(header)][: len(header)]) for number, row in numbered[1:]])


def _heading(cell: Any) -> str:
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)  # LibreOffice stores 2018 as 2018.0
    return "" if cell is None else unicodedata.normalize("NFKC", str(cell)).strip()


def _read_csv(path: Path) -> list[list[str | None]]:
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path}: found {path.stat().st_size} bytes, expected at most {MAX_BYTES}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [[cell.strip() or None for cell in row] for row in csv.reader(file, strict=True)]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}); in Excel save it as 'CSV UTF-8'") from error
    except csv.Error as error:
        raise DataError(f"{path}: not a comma-separated table: {error}") from error


def _read_xlsx(path: Path) -> list[list[Any]]:
    if not openpyxl.DEFUSEDXML:
        raise DependencyError(
            "openpyxl would parse XML without defusedxml: pip install defusedxml and unset OPENPYXL_DEFUSEDXML"
        )
    with path.open("rb") as file:
        try:
            _check_archive(path, file)
            return _xlsx_rows(path, file)
        except (BandwiseError, OSError):
            raise
        except Exception as error:  # openpyxl has no error of its own for a broken workbook
            cause = error.__cause__ or error  # it wraps what the XML parser says in advice on the source files
            raise DataError(
                f"{path}: not a readable Excel workbook ({type(cause).__name__}: {cause}); "
                "open it in a spreadsheet program and save it as .xlsx again"
            ) from error


def _check_archive(path: Path, file: Any) -> None:
    """An .xlsx is a zip: its declared sizes bound what is unpacked, because zipfile stops at them."""
    with zipfile.ZipFile(file) as archive:
        total = sum(member.file_size for member in archive.infolist())
    ratio = total / max(1, path.stat().st_size)
    if total > MAX_BYTES or ratio > MAX_RATIO:
        raise DataError(
            f"{path}: unpacks to {total} bytes, {ratio:.0f} times its size; expected at most {MAX_BYTES} bytes "
            f"and {MAX_RATIO} times: this is not a table of labels"
        )


def _xlsx_rows(path: Path, file: Any) -> list[list[Any]]:
    books = [
        openpyxl.load_workbook(file, read_only=True, data_only=data_only, keep_links=False)
        for data_only in (True, False)
    ]
    if len(books[0].sheetnames) > 1:
        logging.info("%s: reads the sheet %r and none of the others", path, books[0].worksheets[0].title)
    shown, formulas = (book.worksheets[0] for book in books)
    for sheet in (shown, formulas):
        sheet.reset_dimensions()  # the stated size is only a claim
    width = len(next(shown.iter_rows(max_row=1), ()))
    if width > MAX_COLUMNS:
        raise DataError(f"{path}: found {width} columns, expected at most {MAX_COLUMNS}")
    limits = {"max_row": MAX_ROWS, "max_col": width or 1}
    rows, uncached = [], []
    for number, (cells, sources) in enumerate(
        zip(shown.iter_rows(**limits), formulas.iter_rows(**limits), strict=True), start=1
    ):
        for column, (cell, source) in enumerate(zip(cells, sources, strict=True), start=1):
            if cell.value is None and source.data_type == "f":
                uncached.append(f"{get_column_letter(column)}{number}")
        rows.append([_shown(cell) for cell in cells])
    if uncached:
        raise DataError(
            f"{path}: found formulas without stored results in {_some(uncached)}, expected values; "
            "open the file in a spreadsheet program and save it, or paste the values"
        )
    return rows


def _shown(cell: Any) -> Any:
    value = cell.value
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, int | float) and "%" in cell.number_format:
        return f"{100 * value:g}%"
    return value


def _some(items: list[str], limit: int = 10) -> str:
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
