"""Labels: the forms users bring, and what is refused with which message."""

import datetime
import json
import logging
import re
import struct
import zipfile

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src.core.data import tables
from src.core.stage.errors import DataError, DependencyError, StorageError
from src.population.data import labels

HEADER = ["province", "city", "year", "growth_rate"]


@pytest.fixture
def xlsx(tmp_path):
    def write(*rows, change=lambda sheet: None):
        workbook = openpyxl.Workbook()
        for row in rows:
            workbook.active.append(row)
        change(workbook.active)
        workbook.save(tmp_path / "labels.xlsx")
        return tmp_path / "labels.xlsx"

    return write


@pytest.fixture
def csv(tmp_path):
    def write(text, encoding="utf-8-sig", name="labels.csv"):
        (tmp_path / name).write_bytes(text.encode(encoding))
        return tmp_path / name

    return write


def rows(table):
    return [tuple(row) for row in table[["province", "city", "year", "growth_rate"]].itertuples()]


def with_member(path, name, content):
    """Replace one member of the Excel file `path`."""
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, old in (members | {name: content(members[name])}).items():
            archive.writestr(member, old)
    return path


def test_long_table_keeps_row_numbers_and_other_columns(xlsx):
    path = xlsx(
        [*HEADER, "code", "lat", "lon", "gdp", "note"],
        ["浙江省", " 杭州市 ", 2018, 5, 330100, 30.2, 120, 1, None],
        [],
        ["浙江省", "宁波市", "2019年", "-1.5e0", "06037", 29.9, 121, 2, "x"],
    )
    table = labels.read(path)
    assert rows(table) == [(2, "浙江省", "杭州市", 2018, 5.0), (4, "浙江省", "宁波市", 2019, -1.5)]
    assert list(table.columns) == [*HEADER, "lat", "lon", "code", "gdp", "note"]
    assert list(table.code) == ["330100", "06037"]
    assert (table.gdp.dtype, table.growth_rate.dtype, table.year.dtype) == ("int64", "float64", "int64")
    assert table.note.isna().tolist() == [True, False]
    assert table.attrs["path"] == str(path)


@pytest.mark.parametrize("header", ["城市,年份,人口自然增长率", "city,year,label", "City,Year,growth_rate"])
def test_column_names_in_both_languages(csv, header):
    assert rows(labels.read(csv(f"{header}\n北京市,2018,2.5\n"))) == [(2, "", "北京市", 2018, 2.5)]


def test_wide_table_has_one_label_for_each_filled_year(xlsx):
    path = xlsx(["省份", "城市", "2018年", 2019], ["北京", "北京", 1.5, None], ["河北", "石家庄", 2, 3])
    assert rows(labels.read(path)) == [
        (2, "北京", "北京", 2018, 1.5),
        (3, "河北", "石家庄", 2018, 2.0),
        (3, "河北", "石家庄", 2019, 3.0),
    ]


def test_covariates_are_numbers_only_where_every_filled_cell_is(csv):
    table = labels.read(csv("city,year,label,a,b,c\nx,2018,1,3,0.5,07\ny,2018,1,4,,11\n"))
    assert [str(table[name].dtype) for name in "abc"] == ["int64", "float64", "str"]
    assert list(table.c) == ["07", "11"]


@pytest.mark.parametrize("cell", [None, "n/a", "5.2%", "1,5", "nan", "inf", True, "1e999", "#DIV/0!"])
def test_a_growth_rate_that_is_no_number_is_named_with_its_row(xlsx, cell):
    path = xlsx(HEADER, ["A", "x", 2018, 1], ["A", "y", 2018, cell])
    found = "a blank" if cell is None else re.escape(repr(cell))
    with pytest.raises(DataError, match=rf"labels\.xlsx: row 3, growth_rate: found {found}, expected a plain") as error:
        labels.read(path)
    assert "row 2" not in str(error.value)


def test_a_percent_format_is_refused_because_the_value_is_a_hundredth(xlsx):
    path = xlsx(HEADER, ["A", "x", 2018, 0.052], change=lambda sheet: setattr(sheet["D2"], "number_format", "0.0%"))
    with pytest.raises(DataError, match=r"row 2, growth_rate: found '5\.2%'"):
        labels.read(path)


@pytest.mark.parametrize("year", [None, 2018.5, "18", "2018-19", datetime.date(2018, 1, 1), True])
def test_a_year_that_is_none_is_refused(xlsx, year):
    with pytest.raises(DataError, match="row 2, year: found"):
        labels.read(xlsx(HEADER, ["A", "x", year, 1]))


@pytest.mark.parametrize("city", [None, "../x", "..", "a\\b", "<|im_start|>", "＜｜im_start｜＞", "a／b", "a\nb"])
def test_an_unsafe_city_is_refused(csv, city):
    path = csv(f'province,city,year,growth_rate\nA,"{city or ""}",2018,1\n')
    with pytest.raises(DataError, match=r"row 2, city: found .*expected a name without"):
        labels.read(path)


def test_a_blank_province_is_refused_when_there_is_the_column(xlsx):
    with pytest.raises(DataError, match="row 3, province: found a blank"):
        labels.read(xlsx(HEADER, ["A", "x", 2018, 1], [None, "y", 2018, 1]))


@pytest.mark.parametrize(("lat", "lon"), [(91, 0), (0, 181), (None, 1), ("30N", 1)])
def test_coordinates_off_the_globe_are_refused(xlsx, lat, lon):
    with pytest.raises(DataError, match=r"row 2, (lat|lon): found .*expected degrees"):
        labels.read(xlsx([*HEADER, "lat", "lon"], ["A", "x", 2018, 1, lat, lon]))


def test_duplicates_are_named_after_normalising(xlsx):
    path = xlsx(HEADER, ["A", "St Louis", 2018, 1], ["B", "St Louis", 2018, 1], ["A", "StＬouis ", 2018, 2])
    with pytest.raises(DataError, match=r"row 4: A/StＬouis/2018 is already in row 2; delete") as error:
        labels.read(path)
    assert "row 3" not in str(error.value)


def test_many_problems_are_counted(xlsx):
    path = xlsx(HEADER, *[["A", f"x{number}", 2018, "n/a"] for number in range(50)])
    with pytest.raises(DataError, match=r"and 30 more \(50 in all\)"):
        labels.read(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("town,year,rate", r"found the columns town, year, rate; expected also city \| 城市 and growth_rate \|"),
        ("city,growth_rate", r"expected also year \| 年份"),
        ("year,2018", r"expected also city"),
        ("city,year,label,2018", "not both"),
        ("city,城市,year,label", "two columns for city"),
        ("city,2018,2018年", "two columns for 2018"),
        ("city,year,label,gdp,gdp", "two columns for gdp"),
        ("city,year,label,lat", "only one of the columns lat and lon"),
        ("city,year,label,tile", "column named tile"),
    ],
)
def test_columns_that_do_not_make_a_table(csv, header, message):
    with pytest.raises(DataError, match=message):
        labels.read(csv(header + "\n" + re.sub("[^,]+", "1", header) + "\n"))


def test_no_rows(csv):
    with pytest.raises(DataError, match="found no label under"):
        labels.read(csv("city,year,label\n"))
    with pytest.raises(DataError, match="no column names in row 1"):
        labels.read(csv("\ncity,year,label\nx,2018,1\n"))


def test_an_excel_file_without_a_cell(xlsx):
    with pytest.raises(DataError, match="no column names in row 1"):
        labels.read(xlsx())


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(StorageError, match=r"none\.xlsx: cannot read"):
        labels.read(tmp_path / "none.xlsx")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(StorageError, match=r"folder\.csv: cannot read"):
        labels.read(tmp_path / "folder.csv")


@pytest.mark.parametrize("content", [b"", b"city,year\n", b"PK\x03\x04 broken", b"\xd0\xcf\x11\xe0 old Excel"])
def test_not_a_spreadsheet(tmp_path, content):
    path = tmp_path / "labels.xlsx"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"labels\.xlsx: not a readable Excel workbook"):
        labels.read(path)


def test_other_suffix_and_encoding(csv):
    with pytest.raises(DataError, match=r"expected \.csv, \.xlsx, \.parquet"):
        labels.read(csv("city,year,label\n", name="labels.xls"))
    with pytest.raises(DataError, match=r"not UTF-8.*CSV UTF-8"):
        labels.read(csv("城市,年份,label\n北京,2018,1\n", encoding="gb18030"))


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


def test_a_row_longer_than_the_header_is_no_decimal_comma_cut_short(csv):
    with pytest.raises(DataError, match=r"labels\.csv: line 3: found 4 cells, expected the 3 of the header"):
        labels.read(csv("city,year,label\nx,2018,1\ny,2018,1,5\n"))
    with pytest.raises(DataError, match="found the separator ;, expected commas or tabs"):
        labels.read(csv("city;year;label\nx;2018;1,5\n"))


LABELS = {
    "province": ["浙江省", "浙江省", "云南省"],
    "city": [" 杭州市 ", "宁波市", "昆明市"],
    "year": [2018, 2019, 2019],
    "growth_rate": [5.2, -1.5, 0.0],
    "code": [330100, 330200, 530100],
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"code": ["330100", "330200", "530100"], "year": ["2018", "2019年", "2019"]},
        {"code": [330100.0, 330200.0, 530100.0], "year": [2018.0, 2019.0, 2019.0]},
        {"city": pd.Categorical(LABELS["city"])},
    ],
    ids=["numbers", "text", "floats", "categories"],
)
def test_parquet_and_csv_read_alike_whatever_types_the_columns_have(tmp_path, changes):
    pd.DataFrame(LABELS).to_csv(tmp_path / "labels.csv", index=False)
    expected = labels.read(tmp_path / "labels.csv")
    pd.DataFrame(LABELS | changes).to_parquet(tmp_path / "labels.parquet")
    found = labels.read(tmp_path / "labels.parquet")
    pd.testing.assert_frame_equal(found.reset_index(drop=True), expected.reset_index(drop=True))
    assert list(found.index) == [1, 2, 3]  # Parquet has no row of column names
    assert list(found.code) == ["330100", "330200", "530100"]


def test_a_wide_parquet_table_with_blanks_and_an_index(tmp_path):
    frame = pd.DataFrame(
        {"city": ["x", "gone", "y"], "2018": [1.5, 9, None], "2019": [2.0, 9, 3], "code": [1, 2, None]}
    )
    frame.drop(index=1).to_parquet(tmp_path / "labels.parquet")
    table = labels.read(tmp_path / "labels.parquet")
    assert rows(table) == [(1, "", "x", 2018, 1.5), (1, "", "x", 2019, 2.0), (2, "", "y", 2019, 3.0)]
    assert list(table.columns) == [*HEADER, "code"] and table.code.fillna("").tolist() == ["1", "1", ""]


def test_the_geometry_of_geoparquet_is_left_out_and_said(tmp_path, caplog):
    point = struct.pack("<BIdd", 1, 1, 120.0, 30.2)  # well-known binary
    boxes = [{"xmin": 120.0, "ymin": 30.2}] * 3
    table = pa.table(LABELS | {"geometry": [point] * 3, "bbox": boxes})
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": {"encoding": "WKB"}}}
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), tmp_path / "labels.parquet")
    with caplog.at_level(logging.INFO):
        read = labels.read(tmp_path / "labels.parquet")
    assert list(read.columns) == [*HEADER, "code"] and list(read.city) == ["杭州市", "宁波市", "昆明市"]
    assert "labels.parquet: leaves out what holds no single values: geometry, bbox" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"growth_rate": [5.2, None, 0.0]}, r"labels\.parquet: row 2, growth_rate: found a blank, expected a plain"),
        ({"growth_rate": ["5.2", "n/a", "0"]}, "row 2, growth_rate: found 'n/a'"),
        ({"year": pd.to_datetime(["2018-01-01"] * 3)}, "row 1, year: found '2018-01-01T00:00:00', expected a year"),
        ({"growth_rate": [True, False, True]}, "row 1, growth_rate: found 'True'"),
        ({"city": [b"x", b"y", b"z"]}, r"found the columns province, year, growth_rate, code; expected also city"),
    ],
)
def test_cells_of_parquet_that_are_refused(tmp_path, changes, message):
    pd.DataFrame(LABELS | changes).to_parquet(tmp_path / "labels.parquet")
    with pytest.raises(DataError, match=message):
        labels.read(tmp_path / "labels.parquet")


def test_parquet_files_that_are_no_table_of_labels(tmp_path, monkeypatch):
    path = tmp_path / "labels.parquet"
    with pytest.raises(StorageError, match=r"labels\.parquet: cannot read"):
        labels.read(path)
    for content in (b"", b"city,year\n", b"PAR1 broken PAR1"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"labels\.parquet: found no table"):
            labels.read(path)
    pq.write_table(pa.table([[1], [2]], names=["gdp", "gdp"]), path)
    with pytest.raises(DataError, match=r"labels\.parquet: gdp: found 2 columns of this name; leave one"):
        labels.read(path)
    pd.DataFrame(LABELS).to_parquet(path)
    monkeypatch.setattr(tables, "MAX_SHEET_ROWS", 2)
    with pytest.raises(DataError, match=r"found 3 rows and \d+ bytes unpacked, expected at most 2 and"):
        labels.read(path)


def test_aliases(csv):
    table = labels.read_aliases(csv("kind,found,use\ncity,北京,北京市\nprovince,内蒙古,内蒙古自治区\n"))
    assert [tuple(row) for row in table.itertuples(index=False)] == [
        ("city", "北京", "北京市"),
        ("province", "内蒙古", "内蒙古自治区"),
    ]
    assert len(labels.read_aliases(csv("kind,found,use\n"))) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind,from,to\n", "found the columns kind, from, to; expected kind, found, use"),
        ("kind,found,use\ntown,a,b\n", "row 2, kind: found 'town', expected province or city"),
        ("kind,found,use\ncity,a,\n", "row 2, use: blank"),
        ("kind,found,use\ncity,a b,c\ncity,ab,d\n", "row 3, found: 'ab' already has a meaning in row 2"),
    ],
)
def test_aliases_that_are_refused(csv, text, message):
    with pytest.raises(DataError, match=message):
        labels.read_aliases(csv(text))
