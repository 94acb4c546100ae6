"""Label files that tests write, and the rows that are read back."""

import openpyxl
import pytest

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
