"""Covariates come from the place's own row of some years earlier, or not at all."""

import numpy as np
import pandas as pd
import pytest

from src.core.stage.errors import DataError
from src.population.data import labels
from src.population.data.covariates import with_earlier
from src.population.data.matching import match


def label_table(rows: list[tuple]) -> pd.DataFrame:
    """Columns province, city, year, growth_rate, gdp; the index is the spreadsheet's row."""
    table = pd.DataFrame(rows, columns=["province", "city", "year", "growth_rate", "gdp"])
    table.index = pd.RangeIndex(2, len(rows) + 2, name="row")
    table.attrs["path"] = "labels.csv"
    return table


PANEL = [
    ("A", "x", 2018, 1.0, 10.0),
    ("A", "x", 2019, 2.0, 20.0),
    ("A", "x", 2021, 4.0, 40.0),
    ("A", "y", 2019, 5.0, 50.0),
    ("A", "y", 2020, 6.0, 60.0),
]
PLACES = ["x", "x", "x", "y", "y"]


def lagged(table: pd.DataFrame, places: list[str], names: list[str], lag_years: int) -> pd.DataFrame:
    return with_earlier(table.assign(place=places), {name: name for name in names}, lag_years)[names]


def test_values_are_those_of_the_same_place_one_step_earlier():
    taken = lagged(label_table(PANEL), PLACES, ["gdp", "growth_rate"], 1)
    np.testing.assert_array_equal(taken.gdp, [np.nan, 10, np.nan, np.nan, 50])
    np.testing.assert_array_equal(taken.growth_rate, [np.nan, 1, np.nan, np.nan, 5])
    assert lagged(label_table(PANEL), PLACES, ["gdp"], 0).gdp.tolist() == [10, 20, 40, 50, 60]
    turned = label_table(PANEL).iloc[::-1]
    again = lagged(turned, PLACES[::-1], ["gdp"], 1)
    np.testing.assert_array_equal(again.gdp[::-1], taken.gdp)


def test_refusals_name_row_and_column():
    table = label_table(PANEL)
    with pytest.raises(DataError, match=r"labels.csv: data.covariates: no column 'rain', found year, growth_rate, gdp"):
        lagged(table, PLACES, ["rain"], 1)
    blank = table.copy()
    blank.loc[2, "gdp"] = np.nan
    with pytest.raises(DataError, match=r"labels.csv: row 2, gdp: blank, expected a number"):
        lagged(blank, PLACES, ["gdp"], 1)
    assert lagged(blank, PLACES, ["gdp"], 2).gdp.notna().sum() == 1  # the blank one is not needed
    with pytest.raises(DataError, match="expected for some place two that are 7 apart"):
        lagged(table, PLACES, ["gdp"], 7)
    with pytest.raises(DataError, match="gdp: found 'much', expected numbers"):
        lagged(table.assign(gdp=["10", "much", "3", "4", "5"]), PLACES, ["gdp"], 1)


def test_a_blank_cell_of_a_file_is_found(tmp_path):
    file = tmp_path / "labels.csv"
    for last in ("5", ""):  # "": the whole column is blank
        file.write_text(f"city,year,growth_rate,gdp\nx,2018,1,\nx,2019,2,{last}\n", encoding="utf-8")
        with pytest.raises(DataError, match="row 2, gdp: blank"):
            lagged(labels.read(file), ["x", "x"], ["gdp"], 1)


def tile_table(*keys: tuple) -> pd.DataFrame:
    rows = [
        {"tile": n, "province": p, "city": c, "year": y, "lat": 30.0, "lon": 120.0} for n, (p, c, y) in enumerate(keys)
    ]
    return pd.DataFrame(rows)


def test_a_lagged_panel_leaves_its_ends_out_and_says_how_many():
    tiles = tile_table(*[("A", "x", year) for year in (2018, 2019, 2020)], ("A", "y", 2019), ("A", "y", 2020))
    aliases = pd.DataFrame(columns=["kind", "found", "use"])
    matching = match(
        tiles, label_table(PANEL), aliases, "exact", tile_lag=1, lagged_columns={"gdp": "gdp_lag1"}, covariate_lag=1
    )
    # x 2019 and y 2020 have a tile of the year before and covariates of it; x 2021 has the tile alone.
    assert matching.samples[["city", "year", "gdp_lag1", "gdp"]].values.tolist() == [
        ["x", 2019, 10.0, 20.0], ["y", 2020, 50.0, 60.0],
    ]  # fmt: skip
    assert matching.samples.tile.map(tiles.set_index("tile").year).tolist() == [2018, 2019]
    # At the ends of each place's own years: x 2018 and y 2019 want earlier tiles, y's tile of 2020 a later label.
    assert matching.outside == {"tiles": 1, "labels": 2, "without_covariates": 1}
    assert len(matching.unmatched_labels) == 0
    assert matching.unmatched_tiles.values.tolist() == [["A", "x", 2019]]
