"""Labels as users bring them: one row per city and year, or one column per year, in .xlsx, .csv or .parquet.

Nothing is guessed: a blank, `n/a`, a percentage or a duplicate is an error that names the row the
spreadsheet shows. Growth rates are in per mille per year. Every reader raises StorageError if it cannot read its file.
"""

import math
import re
import unicodedata
from pathlib import Path
from typing import Any

import pandas as pd

from src.core.data.archive import refuse, squeeze
from src.core.data.tables import Sheet, read_sheet
from src.core.stage.errors import DataError

NAMES = {  # field -> column names it goes by
    "province": ("province", "省份"),
    "city": ("city", "城市"),
    "year": ("year", "年份"),
    "growth_rate": ("growth_rate", "人口自然增长率", "label"),
    "lat": ("lat",),
    "lon": ("lon",),
}
FIELDS = {spelling: field for field, spellings in NAMES.items() for spelling in spellings}
RESERVED = {"sample", "tile", "tile_id", "tile_year", "place", "row"}  # columns set beside the labels
YEAR = re.compile(r"([12][0-9]{3})年?")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
UNSAFE_NAME = re.compile(r"[/\\\x00-\x1f\x7f]|^\.{1,2}$|<\|.*\|>")  # path parts, control characters and tokens


def read(path: Path, faults: list[str] | None = None) -> pd.DataFrame:
    """Labels in long form, whatever form the file has.

    Columns: province ("" where the file has none), city, year (int64), growth_rate (float64), lat, lon (float64,
    degrees) where the file has them, then its other columns under their own names: code as text, the rest as int64,
    float64 or text. The index `row` is the row number in the spreadsheet; `attrs["path"]` is the file.

    In the wide form a blank year cell means that the year was not observed.

    Args:
        faults: takes what is wrong with cells, for the caller to raise; a wrong number is NaN, and a row with a wrong
            name or year is left out. None: they are raised here.

    Raises:
        DataError: it is not a spreadsheet, lacks a known column, or a cell is not what its column needs.
    """
    table = read_sheet(path)
    columns, years = _columns(table)
    problems, records = [], []
    for row, cells in table.rows:
        base = {"row": row, "province": ""} | {name: cells[position] for name, position in columns.items()}
        base |= {name: read_cell(name, base[name], row, problems) for name in columns if name in NAMES}
        if not years:
            records.append(base)
        for year, position in years.items():
            if cells[position] is not None:
                rate = read_cell("growth_rate", cells[position], row, problems, column=table.header[position])
                records.append({**base, "year": year, "growth_rate": rate})
    records = [record for record in records if None not in (record["province"], record["city"], record["year"])]
    records = _without_duplicates(records, problems)
    problems = [f"{table.path}: {problem}" for problem in problems]
    if faults is None or not records:
        nothing = f"{table.path}: found no label under the column names, expected one row for each city"
        refuse(problems or [nothing] * (not records))
    else:
        faults += problems
    return _frame(table.path, records)


def read_covariates(path: Path, names: list[str]) -> pd.DataFrame:
    """The columns `names` of a table (as of labels) beside its keys province, city and year, typed as by `read`.

    Raises DataError if a column is missing, a key is no key, or two rows have the same one.
    """
    table = read_sheet(path)
    header = [FIELDS.get(heading.casefold(), heading) for heading in table.header]
    keys = ["province", "city", "year"]
    missing = [name for name in [*keys, *names] if name not in header]
    if missing:
        raise DataError(f"{path}: no column {missing[0]!r}, found {', '.join(table.header)}; add it")
    problems, records = [], []
    for row, cells in table.rows:
        fields = dict(zip(header, cells, strict=True))
        record = {name: read_cell(name, fields[name], row, problems) for name in keys}
        records.append({"row": row} | {name: fields[name] for name in names} | record)
    if not problems:
        _without_duplicates(records, problems)
    refuse([f"{path}: {problem}" for problem in problems])
    frame = pd.DataFrame({key: [record[key] for record in records] for key in keys})
    return frame.assign(**{name: _covariate([record[name] for record in records], frame.index) for name in names})


def read_points(path: Path) -> pd.DataFrame:
    """The columns lat and lon (float64, degrees) of a table (as of labels); DataError if there are no coordinates."""
    problems: list[str] = []
    points = read_columns(read_sheet(path), {"lat": "lat", "lon": "lon"}, problems, advice="add it, in degrees")
    refuse([f"{path}: {problem}" for problem in problems])
    if not points:
        raise DataError(f"{path}: found no row, expected one for each place")
    return pd.DataFrame(points, dtype="float64")


def read_aliases(path: Path) -> pd.DataFrame:
    """Spellings in labels that mean another name in tiles: columns kind (province | city), found, use.

    Raises DataError if a column or cell is missing, a kind is unknown, or one spelling has two meanings.
    """
    table = read_sheet(path)
    if sorted(table.header) != ["found", "kind", "use"]:
        raise DataError(f"{path}: found the columns {', '.join(table.header)}; expected kind, found, use")
    problems, meanings = [], {}
    for row, cells in table.rows:
        alias = dict(zip(table.header, cells, strict=True))
        if alias["kind"] not in ("province", "city"):
            problems.append(f"row {row}, kind: found {alias['kind']!r}, expected province or city")
        problems += [f"row {row}, {key}: blank, expected a name" for key in ("found", "use") if alias[key] is None]
        known = meanings.setdefault((alias["kind"], squeeze(str(alias["found"]))), (row, alias))[0]
        if known != row and not problems:
            problems.append(f"row {row}, found: {alias['found']!r} already has a meaning in row {known}")
    refuse([f"{path}: {problem}" for problem in problems])
    return pd.DataFrame([alias for _, alias in meanings.values()], columns=["kind", "found", "use"]).astype("str")


def _columns(table: Sheet) -> tuple[dict[str, int], dict[int, int]]:
    """Field -> column position, and for the wide form year -> column position."""
    columns: dict[Any, int] = {}
    for position, heading in enumerate(table.header):
        year = YEAR.fullmatch(heading)
        key = int(year[1]) if year else FIELDS.get(heading.casefold(), heading)
        if key in columns:
            raise DataError(f"{table.path}: found two columns for {key}; remove or rename one of them")
        if key in RESERVED:
            raise DataError(f"{table.path}: found a column named {key}, which the store uses itself; rename it")
        if heading:  # a column without a name belongs to nobody
            columns[key] = position

    years = {key: columns.pop(key) for key in list(columns) if isinstance(key, int)}
    form = ["city"] if years else ["city", "year", "growth_rate"]
    found = ", ".join(heading for heading in table.header if heading)
    missing = [" | ".join(NAMES[field]) for field in form if field not in columns]
    if missing:
        raise DataError(
            f"{table.path}: found the columns {found}; expected also {' and '.join(missing)} "
            "(one row per city and year: city, year, growth_rate; or one column per year); rename or add them"
        )
    if years and {"year", "growth_rate"} & columns.keys():
        raise DataError(
            f"{table.path}: found the columns {found}; expected either year and growth_rate or one column per "
            "year, not both; remove one of the two"
        )
    if ("lat" in columns) != ("lon" in columns):
        raise DataError(f"{table.path}: found only one of the columns lat and lon; add the other or remove it")
    return columns, years


def read_columns(
    sheet: Sheet, kinds: dict[str, str], problems: list[str], optional: tuple[str, ...] = (), advice: str = "add it"
) -> list[dict[str, Any]]:
    """A record for each row with the columns that `kinds` maps to what `read_cell` calls a field.

    What is wrong with cells goes into `problems`; raises DataError if a column that is not `optional` is missing.
    """
    at = sheet.columns(list(kinds), [name for name in kinds if name not in optional], advice)
    return [
        {name: read_cell(kinds[name], cells[column], row, problems, name) for name, column in at.items()}
        for row, cells in sheet.rows
    ]


def read_cell(field: str, cell: Any, row: int, problems: list[str], column: str | None = None) -> Any:
    """The cell as its field needs it; what is wrong goes into `problems`."""
    reader, expected = {
        "province": (_name, "a name without /, \\, control characters or control tokens"),
        "city": (_name, "a name without /, \\, control characters or control tokens"),
        "year": (_year, "a year such as 2018"),
        "growth_rate": (_number, "a plain number in per mille per year"),
        "lat": (lambda cell: _number(cell, 90), "degrees from -90 to 90"),
        "lon": (lambda cell: _number(cell, 180), "degrees from -180 to 180"),
        "place": (_text, "a name"),
        "number": (_number, "a plain number"),
    }[field]
    value = reader(cell)
    if value is None:
        found = "a blank" if cell is None else repr(cell)
        problems.append(
            f"row {row}, {column or field}: found {found}, expected {expected}; correct the cell or delete the row"
        )
    return value


def _name(cell: Any) -> str | None:
    text = _text(cell)
    # NFKC first: ＜｜im_start｜＞ and ／ become what the matching and the tokenizer would see.
    return None if text is None or UNSAFE_NAME.search(unicodedata.normalize("NFKC", text)) else text


def _year(cell: Any) -> int | None:
    year = YEAR.fullmatch(unicodedata.normalize("NFKC", _text(cell) or ""))
    return int(year[1]) if year else None


def _number(cell: Any, bound: float = math.inf) -> float | None:
    if isinstance(cell, bool) or not NUMBER.fullmatch(str(cell)):
        return None
    number = float(str(cell))  # through text, because float() of a 400-digit integer raises
    return number if math.isfinite(number) and abs(number) <= bound else None


def _text(cell: Any) -> str | None:
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return None if cell is None else str(cell)


def _without_duplicates(records: list[dict[str, Any]], problems: list[str]) -> list[dict[str, Any]]:
    """The first of `records` of each place and year; `problems` takes the others."""
    first: dict[tuple[str, str, int], dict] = {}
    for record in records:
        key = (squeeze(record["province"]), squeeze(record["city"]), record["year"])
        if first.setdefault(key, record) is not record:
            name = "/".join(part for part in (record["province"], record["city"], str(record["year"])) if part)
            problems.append(f"row {record['row']}: {name} is already in row {first[key]['row']}; delete one of them")
    return list(first.values())


def _frame(path: Path, records: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(records).set_index("row")
    known = [field for field in NAMES if field in frame]
    others = [column for column in frame if column not in NAMES]
    frame = frame[known + others].astype({"year": "int64", "growth_rate": "float64"})
    for column in others:
        as_type = _as_text if column == "code" else _covariate
        frame[column] = as_type([record[column] for record in records], frame.index)
    frame.attrs["path"] = str(path)
    return frame


def _covariate(cells: list[Any], index: pd.Index) -> pd.Series:
    """int64 or float64 where every filled cell is a number, else text; blanks stay missing.

    Text with a leading zero (a county's 06037) is a code, not a number.
    """
    numbers = [math.nan if cell is None else _number(cell) for cell in cells]
    codes = any(isinstance(cell, str) and re.match(r"0[0-9]", cell) for cell in cells)
    if codes or None in numbers:
        return _as_text(cells, index)
    whole = all(re.fullmatch(r"[+-]?[0-9]{1,15}", str(cell)) for cell in cells)
    return pd.Series(numbers, index, "int64" if whole else "float64")


def _as_text(cells: list[Any], index: pd.Index) -> pd.Series:
    return pd.Series([_text(cell) for cell in cells], index, "str")
