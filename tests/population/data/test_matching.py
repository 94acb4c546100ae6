"""Matching: which label finds which tile, and what is reported or refused."""

import math

import pandas as pd
import pytest

from src.core.stage.errors import DataError
from src.population.data.matching import KEY, match


def tile_table(*places, lat=30.0, lon=120.0):
    """One tile for each (province, city, year); tile numbers are 100, 101, … so that positions are not numbers."""
    table = pd.DataFrame(places, columns=["province", "city", "year"])
    return table.assign(tile=range(100, 100 + len(table)), lat=lat, lon=lon)


def label_table(*rows, **columns):
    """One label for each (province, city, year, growth_rate); rows count from 2 as in a spreadsheet."""
    table = pd.DataFrame(rows, columns=["province", "city", "year", "growth_rate"])
    table.index = pd.RangeIndex(2, 2 + len(table), name="row")
    table.attrs["path"] = "labels.xlsx"
    return table.assign(**columns)


def aliases(*rows):
    return pd.DataFrame(rows, columns=["kind", "found", "use"], dtype="str")


def tuples(frame):
    return [tuple(row) for row in frame.itertuples(index=False)]


def test_same_names_and_years_match_in_a_fixed_order():
    tiles = tile_table(("B", "x", 2018), ("A", "x", 2019), ("A", "x", 2018))
    labels = label_table(("B", "x", 2018, 1.0), ("A", "x", 2018, 2.0), ("A", "x", 2019, 3.0), gdp=[7, 8, 9])
    for rows in ([0, 1, 2], [2, 0, 1]):
        matching = match(tiles, labels.iloc[rows], aliases(), "exact")
        assert tuples(matching.samples) == [
            (0, 102, "A", "x", 2018, 30.0, 120.0, 2.0, 8),
            (1, 101, "A", "x", 2019, 30.0, 120.0, 3.0, 9),
            (2, 100, "B", "x", 2018, 30.0, 120.0, 1.0, 7),
        ]
    assert list(matching.samples.columns) == ["sample", "tile", *KEY, "lat", "lon", "growth_rate", "gdp"]
    assert matching.samples.attrs == {}
    assert len(matching.unmatched_tiles) == len(matching.unmatched_labels) == len(matching.nearest) == 0


def test_spaces_and_width_do_not_matter_but_the_tile_spells_the_name():
    matching = match(
        tile_table(("New York", "St. Louis", 2018)),
        label_table((" NewYork", "Ｓt.Louis", 2018, 1.0)),
        aliases(),
        "exact",
    )
    assert tuples(matching.samples[["province", "city"]]) == [("New York", "St. Louis")]


def test_a_suffix_or_a_case_is_not_guessed_but_is_the_candidate():
    tiles = tile_table(
        ("北京市", "北京市", 2018), ("河北", "石家庄", 2018), ("A", "Bergen", 2018), ("A", "match", 2018)
    )
    labels = label_table(
        ("北京", "北京", 2018, 1.0), ("河北", "石家庄", 2017, 1.0), ("A", "Bergan", 2018, 1.0), ("Z", "q", 2018, 1.0),
        ("A", "match", 2018, 1.0),
    )  # fmt: skip
    matching = match(tiles, labels, aliases(), "exact")
    assert tuples(matching.unmatched_labels) == [
        ("A", "Bergan", 2018, "A/Bergen/2018", 4),
        ("Z", "q", 2018, "", 5),
        ("北京", "北京", 2018, "北京市/北京市/2018", 2),
        ("河北", "石家庄", 2017, "河北/石家庄/2018", 3),
    ]
    assert tuples(matching.unmatched_tiles) == [
        ("A", "Bergen", 2018), ("北京市", "北京市", 2018), ("河北", "石家庄", 2018)
    ]  # fmt: skip


def test_aliases_resolve_names():
    matching = match(
        tile_table(("北京市", "北京市", 2018)),
        label_table(("北京", "北 京", 2018, 1.0)),
        aliases(("province", "北京", "北京市"), ("city", "北京", "北京市")),
        "exact",
    )
    assert len(matching.samples) == 1


def test_two_labels_that_aliases_make_one_are_refused():
    labels = label_table(("A", "x", 2018, 1.0), ("A", "y", 2018, 1.0))
    with pytest.raises(DataError, match=r"labels\.xlsx: row 3: y 2018 is the place and year of row 2"):
        match(tile_table(("A", "x", 2018)), labels, aliases(("city", "y", "x")), "exact")


def test_without_provinces_the_city_decides():
    tiles = tile_table(("A", "x", 2018), ("B", "y", 2018), ("C", "y", 2019))
    matching = match(tiles, label_table(("", "x", 2018, 1.0)), aliases(), "exact")
    assert tuples(matching.samples[["province", "city"]]) == [("A", "x")]
    with pytest.raises(DataError, match="row 3, city: y has tiles in B and C; add a column province"):
        match(tiles, label_table(("", "x", 2018, 1.0), ("", "y", 2018, 1.0)), aliases(), "exact")


def test_the_nearest_year_of_the_same_place_the_earlier_of_two():
    tiles = tile_table(("A", "x", 2016), ("A", "x", 2020), ("A", "y", 2018), ("A", "z", 2018))
    labels = label_table(("A", "x", 2018, 1.0), ("A", "x", 2019, 2.0), ("A", "x", 2020, 3.0), ("A", "y", 1990, 4.0))
    matching = match(tiles, labels, aliases(), "nearest")
    assert tuples(matching.samples[["tile", "year", "growth_rate"]]) == [
        (100, 2018, 1.0), (101, 2019, 2.0), (101, 2020, 3.0), (102, 1990, 4.0)
    ]  # fmt: skip
    assert tuples(matching.nearest) == [("A", "x", 2018, 2016), ("A", "x", 2019, 2020), ("A", "y", 1990, 2018)]
    assert tuples(matching.unmatched_tiles) == [("A", "z", 2018)]


def test_exact_never_takes_another_year():
    tiles = tile_table(("A", "x", 2016), ("A", "x", 2017))
    matching = match(tiles, label_table(("A", "x", 2016, 1.0), ("A", "x", 2018, 2.0)), aliases(), "exact")
    assert tuples(matching.samples[["tile", "year"]]) == [(100, 2016)]
    assert tuples(matching.unmatched_labels) == [("A", "x", 2018, "A/x/2017", 3)]
    assert tuples(matching.unmatched_tiles) == [("A", "x", 2017)]


def test_label_coordinates_near_the_tile_are_kept_and_far_ones_refused():
    tiles = tile_table(("A", "x", 2018), ("A", "y", 2018))
    near = label_table(("A", "x", 2018, 1.0), ("A", "y", 2018, 1.0), lat=[30.1, 30.0], lon=[120.0, 120.2])  # 11, 19 km
    assert tuples(match(tiles, near, aliases(), "exact").samples[["lat", "lon"]]) == [(30.1, 120.0), (30.0, 120.2)]
    swapped = near.assign(lat=[30.1, 30.19], lon=[120.0, 120.0])  # 21 km
    with pytest.raises(DataError, match=r"row 3, lat and lon: found \(30\.19, 120\) for y, 21 km") as error:
        match(tiles, swapped, aliases(), "exact")
    assert "row 2" not in str(error.value)


def test_a_tile_without_coordinates_takes_the_labels_or_none():
    tiles = tile_table(("A", "x", 2018), lat=math.nan, lon=math.nan)
    label = label_table(("A", "x", 2018, 1.0))
    assert match(tiles, label, aliases(), "exact").samples.lat.isna().all()
    samples = match(tiles, label.assign(lat=[1.0], lon=[2.0]), aliases(), "exact").samples
    assert tuples(samples[["lat", "lon"]]) == [(1.0, 2.0)]


def test_one_place_spelled_in_two_ways_is_refused():
    tiles = tile_table(("A", "St Louis", 2018), ("A", "StLouis", 2019))
    with pytest.raises(DataError, match="'A/StLouis' and 'A/St Louis' are one place"):
        match(tiles, label_table(("A", "St Louis", 2018, 1.0)), aliases(), "exact")


def test_a_tile_with_its_own_label_is_no_candidate():
    tiles = tile_table(("A", "Bergen", 2018), ("A", "Berg", 2018), ("A", "Bergen", 2016))
    labels = label_table(("A", "Bergen", 2018, 1.0), ("A", "Bergan", 2018, 1.0), ("A", "Berg", 2018, 1.0))
    assert tuples(match(tiles, labels, aliases(), "exact").unmatched_labels) == [
        ("A", "Bergan", 2018, "A/Bergen/2016", 3)
    ]
    assert match(tiles[:2], labels, aliases(), "exact").unmatched_labels.candidate.tolist() == [""]


def test_an_alias_of_no_label_is_named(caplog):
    renamed = aliases(("city", "y", "x"), ("city", "q", "x"), ("province", "B B", "A"))
    match(tile_table(("A", "x", 2018)), label_table(("A", "y", 2018, 1.0)), renamed, "exact")
    assert caplog.messages == [
        f"labels.xlsx: no label has the {name}, for which data.aliases gives another name; correct or remove "
        "these aliases"
        for name in ("province B B", "city q")
    ]


def test_nothing_matches_shows_both_sides():
    with pytest.raises(DataError, match=r"Labels begin with A/x/2018; tiles with 甲/乙/2017"):
        match(tile_table(("甲", "乙", 2017)), label_table(("A", "x", 2018, 1.0)), aliases(), "exact")
