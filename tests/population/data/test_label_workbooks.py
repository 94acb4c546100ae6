"""Labels in Excel files: formats of cells, formulas, damaged files and those made to exhaust memory."""

import re
import zipfile

import openpyxl
import pytest

from src.core.data import tables
from src.core.stage.errors import DataError, DependencyError
from src.population.data import labels
from tests.population.data.conftest import HEADER, rows


def with_member(path, name, content):
    """Replace one member of the Excel file `path`."""
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, old in (members | {name: content(members[name])}).items():
            archive.writestr(member, old)
    return path


def test_a_percent_format_is_refused_because_the_value_is_a_hundredth(xlsx):
    path = xlsx(HEADER, ["A", "x", 2018, 0.052], change=lambda sheet: setattr(sheet["D2"], "number_format", "0.0%"))
    with pytest.raises(DataError, match=r"row 2, growth_rate: found '5\.2%'"):
        labels.read(path)


def test_an_excel_file_without_a_cell(xlsx):
    with pytest.raises(DataError, match="no column names in row 1"):
        labels.read(xlsx())


@pytest.mark.parametrize("content", [b"", b"city,year\n", b"PK\x03\x04 broken", b"\xd0\xcf\x11\xe0 old Excel"])
def test_not_a_spreadsheet(tmp_path, content):
    path = tmp_path / "labels.xlsx"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"labels\.xlsx: not a readable Excel workbook"):
        labels.read(path)


def test_an_excel_file_that_lacks_its_workbook(xlsx):
    path = xlsx(HEADER, ["A", "x", 2018, 1])
    with_member(path, "xl/workbook.xml", lambda old: old[: len(old) // 2])
    with pytest.raises(DataError, match="not a readable Excel workbook"):
        labels.read(path)


def test_formulas_without_stored_results_are_named(xlsx):
    path = xlsx(HEADER, ["A", "x", 2018, 1], ["A", "y", 2018, "=1+1"])
    with pytest.raises(DataError, match="formulas without stored results in D3"):
        labels.read(path)


def test_formulas_with_stored_results_are_read(xlsx):
    path = xlsx(HEADER, ["A", "x", 2018, "=1+1"])
    with_member(path, "xl/worksheets/sheet1.xml", lambda old: re.sub(rb"</f><v ?/?>(</v>)?", b"</f><v>2</v>", old))
    assert rows(labels.read(path)) == [(2, "A", "x", 2018, 2.0)]


ENTITIES = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize("member", ["xl/worksheets/sheet1.xml", "xl/workbook.xml"])
def test_an_entity_bomb_is_refused(xlsx, member):
    path = xlsx(HEADER, ["A", "x", 2018, 1])
    with_member(path, member, lambda old: ENTITIES + re.sub(rb"^<\?xml[^>]*>", b"", old))
    with pytest.raises(DataError, match="EntitiesForbidden"):
        labels.read(path)


def test_an_entity_bomb_in_shared_strings_is_refused(xlsx):
    path = xlsx(HEADER, ["A", "x", 2018, 1])
    kind = b"application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
    entry = b'<Override PartName="/xl/sharedStrings.xml" ContentType="' + kind + b'"/></Types>'
    with_member(path, "[Content_Types].xml", lambda old: old.replace(b"</Types>", entry))
    strings = b'<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><si><t>&b;</t></si></sst>'
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("xl/sharedStrings.xml", ENTITIES + strings)
    with pytest.raises(DataError, match="EntitiesForbidden"):
        labels.read(path)


def test_an_integer_too_long_for_a_float_is_refused(xlsx):
    path = xlsx(HEADER, ["A", "x", 2018, 123.5])
    with_member(path, "xl/worksheets/sheet1.xml", lambda old: old.replace(b"123.5", b"9" * 400))
    with pytest.raises(DataError, match="row 2, growth_rate: found 9999"):
        labels.read(path)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(xlsx):
    path = xlsx(HEADER, ["A", "x", 2018, 1])
    with_member(path, "xl/styles.xml", lambda old: b" " * 20_000_000)
    with pytest.raises(DataError, match=r"unpacks to .* times its size"):
        labels.read(path)


def test_a_row_number_beyond_the_sheet_does_not_make_the_reader_pad_for_ever(xlsx, monkeypatch):
    monkeypatch.setattr(tables, "MAX_SHEET_ROWS", 1000)  # Excel's million takes seconds
    path = xlsx(HEADER, ["A", "x", 2018, 1])
    far = b'<row r="99999999999"><c r="A9999999"><v>1</v></c></row></sheetData>'
    with_member(path, "xl/worksheets/sheet1.xml", lambda old: old.replace(b"</sheetData>", far))
    assert len(labels.read(path)) == 1


@pytest.mark.parametrize("claim", [b"A1:B1", b"A1:XFD1048576"])
def test_the_size_that_a_sheet_claims_is_not_believed(xlsx, claim):
    path = xlsx(HEADER, ["A", "x", 2018, 1])
    with_member(path, "xl/worksheets/sheet1.xml", lambda old: old.replace(b"A1:D2", claim))
    assert rows(labels.read(path)) == [(2, "A", "x", 2018, 1.0)]


def test_a_sheet_too_wide_is_refused(xlsx):
    with pytest.raises(DataError, match="found 1001 columns, expected at most 1000"):
        labels.read(xlsx([f"c{number}" for number in range(1001)], [1]))


def test_openpyxl_without_defusedxml_is_refused(xlsx, monkeypatch):
    monkeypatch.setattr(openpyxl, "DEFUSEDXML", False)
    with pytest.raises(DependencyError, match="pip install defusedxml"):
        labels.read(xlsx(HEADER, ["A", "x", 2018, 1]))
