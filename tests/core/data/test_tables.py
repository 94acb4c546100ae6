"""Columns of records as text, from CSV and Parquet; sheets are tested with the labels of population."""

import pandas as pd
import pytest

from src.core.data import tables
from src.core.stage.errors import DataError

COLUMNS = ["id", "found", "name"]


def test_records_are_text_that_shows_what_the_file_holds(tmp_path):
    ids = [4171912265123456789, 2, 3]  # a float64 would round the first
    frame = pd.DataFrame({"id": ids, "found": [2021, None, 2.5], "name": [" a ", None, "007"], "other": [1, 2, 3]})
    frame.to_parquet(tmp_path / "records.parquet")
    (tmp_path / "records.csv").write_text('id,found,name\n4171912265123456789,2021, a \n\n2,,\n3,2.5,"007"\n')
    expected = {"id": ["4171912265123456789", "2", "3"], "found": ["2021", "", "2.5"], "name": ["a", "", "007"]}
    for name, numbers in (("records.parquet", [1, 2, 3]), ("records.csv", [2, 4, 5])):
        found = tables.read_records(tmp_path / name, [*COLUMNS, "absent"])
        assert found.to_dict("list") == expected and found.index.tolist() == numbers


def test_a_line_break_in_a_cell_moves_the_lines_below(tmp_path):
    (tmp_path / "records.csv").write_text('id,name\n1,"two\nlines"\n2,b\n')
    assert tables.read_records(tmp_path / "records.csv", ["id"]).index.tolist() == [3, 4]


@pytest.mark.parametrize(("column", "kind"), [([b"x"], "binary"), ([[1, 2]], "list"), ([{"a": 1}], "struct")])
def test_a_column_without_single_values_is_named(tmp_path, column, kind):
    pd.DataFrame({"id": [1], "name": column}).to_parquet(tmp_path / "records.parquet")
    with pytest.raises(DataError, match=rf"records\.parquet: name: found {kind}.*, expected text, numbers or dates"):
        tables.read_records(tmp_path / "records.parquet", COLUMNS)


@pytest.mark.parametrize("name", ["records.csv", "records.parquet"])
def test_more_records_than_memory_takes_are_refused(tmp_path, monkeypatch, name):
    frame = pd.DataFrame({"id": range(3)})
    frame.to_csv(tmp_path / "records.csv", index=False)
    frame.to_parquet(tmp_path / "records.parquet")
    monkeypatch.setattr(tables, "MAX_RECORDS", 2)
    with pytest.raises(DataError, match=r"found (more than 2|3 rows).*divide the table"):
        tables.read_records(tmp_path / name, COLUMNS)
