"""Labels: the forms users bring, and what is refused with which message."""

import datetime
import re

import pytest

from src.core.stage.errors import DataError, StorageError
from src.population.data import labels
from tests.population.data.conftest import HEADER, rows


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


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(StorageError, match=r"none\.xlsx: cannot read"):
        labels.read(tmp_path / "none.xlsx")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(StorageError, match=r"folder\.csv: cannot read"):
        labels.read(tmp_path / "folder.csv")


def test_other_suffix_and_encoding(csv):
    with pytest.raises(DataError, match=r"expected \.csv, \.xlsx, \.parquet"):
        labels.read(csv("city,year,label\n", name="labels.xls"))
    with pytest.raises(DataError, match=r"not UTF-8.*CSV UTF-8"):
        labels.read(csv("城市,年份,label\n北京,2018,1\n", encoding="gb18030"))


def test_a_row_longer_than_the_header_is_no_decimal_comma_cut_short(csv):
    with pytest.raises(DataError, match=r"labels\.csv: line 3: found 4 cells, expected the 3 of the header"):
        labels.read(csv("city,year,label\nx,2018,1\ny,2018,1,5\n"))
    with pytest.raises(DataError, match="found the separator ;, expected commas or tabs"):
        labels.read(csv("city;year;label\nx;2018;1,5\n"))


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
