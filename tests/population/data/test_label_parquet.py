"""Labels in Parquet files: read like CSV whatever the types of the columns, and what is refused."""

import json
import logging
import struct

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src.core.data import tables
from src.core.stage.errors import DataError, StorageError
from src.population.data import labels
from tests.population.data.conftest import HEADER, rows

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
