"""The table of records: what is accepted, what is refused by line and field, what stops everything."""

import datetime
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest

from src.core.stage.errors import DataError
from src.species.data import dates, observations
from src.species.params import Data

ACACIA = Path(__file__).parents[3] / "../shared/data/acacia/taxa_Acacia.csv"
TODAY = dates.moment("2025-06-30")[0]
GOOD = {
    "gbifID": "1",
    "decimalLatitude": "28.5",
    "decimalLongitude": "-81.4",
    "coordinateUncertaintyInMeters": "30",
    "eventDate": "2021-04-03",
    "year": "2021",
    "species": "Fictella audax",
    "taxonKey": "900000001",
}


def settings(**changes) -> Data:
    values = {"root": "x", "id": "gbifID", "modalities": [], "max_refused": 0.0, "minimum_records": 1}
    return Data(**(values | changes))


def write(folder: Path, *rows: dict, separator: str = ",") -> Path:
    """A CSV of GOOD rows with those changes, numbered from 1 where a row does not say its id."""
    lines = [separator.join(GOOD)]
    for number, row in enumerate(rows, start=1):
        cells = GOOD | {"gbifID": str(number)} | row
        lines.append(separator.join(f'"{cell}"' if separator in cell else cell for cell in cells.values()))
    (folder / "observations.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def read(folder: Path, **changes) -> observations.Records:
    return observations.read(folder, settings(**changes), TODAY)


def day(text: str) -> int:
    return (datetime.date.fromisoformat(text) - datetime.date(1970, 1, 1)).days


@pytest.mark.parametrize(
    ("event", "year", "first", "last"),
    [
        ("2021-04-03", "", "2021-04-03", "2021-04-03"),
        ("2021-04-03T23:30:00Z", "2021", "2021-04-03", "2021-04-03"),
        ("2021-04-03 07:15", "", "2021-04-03", "2021-04-03"),
        ("1963-03-08T14:07-0600", "", "1963-03-08", "1963-03-08"),
        ("2024-02", "2024.0", "2024-02-01", "2024-02-29"),
        ("2021", "", "2021-01-01", "2021-12-31"),
        ("", "2024.0", "2024-01-01", "2024-12-31"),
        ("2025", "", "2025-01-01", "2025-12-31"),
        ("2019-12-30/2020-01-02", "2020", "2019-12-30", "2020-01-02"),
        ("2007-11-13/15", "", "2007-11-13", "2007-11-15"),
        ("2007-11-13/12-02", "", "2007-11-13", "2007-12-02"),
        ("2009-02/10", "", "2009-02-01", "2009-10-31"),
        ("2009/2010", "", "2009-01-01", "2010-12-31"),
        ("2010-01-17T12:26Z/12:52:17Z", "2010", "2010-01-17", "2010-01-17"),
    ],
)
def test_the_days_a_date_allows(tmp_path, event, year, first, last):
    table = read(write(tmp_path, {"eventDate": event, "year": year})).table
    assert (table.first_day[0], table.last_day[0], table.year[0]) == (day(first), day(last), int(first[:4]))


@pytest.mark.parametrize(
    ("changes", "field", "why"),
    [
        ({"decimalLatitude": ""}, "decimalLatitude", "missing"),
        ({"decimalLongitude": "W81"}, "decimalLongitude", "not a number"),
        ({"decimalLatitude": "nan"}, "decimalLatitude", "not a number"),
        ({"decimalLatitude": "28,5"}, "decimalLatitude", "not a number"),
        ({"decimalLongitude": "-181"}, "decimalLongitude", "out of range, expected -180 to 180"),
        ({"decimalLatitude": "-91", "decimalLongitude": "28.5"}, "decimalLatitude", "swapped with the longitude?"),
        ({"decimalLatitude": "91", "decimalLongitude": "170"}, "decimalLatitude", "out of range, expected -90 to 90"),
        ({"decimalLatitude": "0", "decimalLongitude": "-0.0"}, "decimalLatitude", "0, 0 stands for an unknown place"),
        ({"coordinateUncertaintyInMeters": "-5"}, "coordinateUncertaintyInMeters", "negative"),
        ({"coordinateUncertaintyInMeters": "wide"}, "coordinateUncertaintyInMeters", "not a number"),
        ({"eventDate": "", "year": ""}, "eventDate", "missing"),
        ({"eventDate": "03/04/2021"}, "eventDate", "day and month cannot be told apart"),
        ({"eventDate": "3.4.2021"}, "eventDate", "day and month cannot be told apart"),
        ({"eventDate": "April 2021"}, "eventDate", "not an ISO 8601 date"),
        ({"eventDate": "2021/04"}, "eventDate", "not an ISO 8601 date"),
        ({"eventDate": "2021-02-29"}, "eventDate", "no such day in the calendar"),
        ({"eventDate": "2021-13"}, "eventDate", "no such day in the calendar"),
        ({"eventDate": "2021-04-00"}, "eventDate", "no such day in the calendar"),
        ({"eventDate": "", "year": "0000"}, "eventDate", "not an ISO 8601 date"),
        ({"eventDate": "2021-04-03/"}, "eventDate", "interval without an end"),
        ({"eventDate": "2021-04-03T25:99Z"}, "eventDate", "not an ISO 8601 date"),
        ({"eventDate": "2021-04-05/2021-04-03"}, "eventDate", "interval ends before it begins"),
        ({"year": "2020"}, "eventDate", "eventDate and year disagree"),
        ({"eventDate": "", "year": "21"}, "eventDate", "not a year"),
        ({"species": " "}, "species", "missing"),
        ({"species": "Fict\x07ella"}, "species", "control characters"),
        ({"taxonKey": "12x"}, "taxonKey", "not a whole number"),
    ],
)
def test_an_unusable_row_is_refused_by_line_and_field(tmp_path, changes, field, why):
    folder = write(tmp_path, {}, changes, {})
    records = read(folder, max_refused=0.5)
    assert records.table.gbif_id.tolist() == [1, 3] and (records.unusable, len(records.keys)) == (1, 3)
    (row,) = records.refused.itertuples(index=False)
    assert (row.line, row.field) == (3, field) and why in row.why
    observations.require_usable(records, settings(max_refused=0.34))
    with pytest.raises(DataError, match=rf"(?s)found 1 of 3 rows .*{field}.*or allow 0\.3334:\n  line 3: {field}"):
        observations.require_usable(records, settings(max_refused=0.33))


def test_future_dates_stop_whatever_is_allowed(tmp_path):
    folder = write(tmp_path, {}, {"eventDate": "2025-07-01", "year": ""}, {"eventDate": "2020/2026", "year": ""})
    with pytest.raises(DataError, match=r"found 2 after 2025-06-30.*line 3: 2025-07-01, line 4: 2020/2026"):
        read(folder, max_refused=0.9)
    here = day(datetime.date.today().isoformat())
    assert dates.today() in (here, here + 1)


def test_columns_swapped_throughout_stop(tmp_path):
    row = {"decimalLatitude": "-101.4", "decimalLongitude": "28.5"}
    with pytest.raises(DataError, match=r"3 of 4 beyond ±90 .* seem swapped: exchange their names"):
        read(write(tmp_path, row, row, row, {}), max_refused=0.9)


def test_a_swap_that_stays_in_range_is_warned_of(tmp_path, caplog):
    florida = {"decimalLatitude": "-81.4", "decimalLongitude": "28.5"}
    observations.warn_if_polar(read(write(tmp_path, florida, florida, {}, {})))
    assert not caplog.records  # half is not most
    records = read(write(tmp_path, florida, florida, florida, {}, {"species": ""}, {"species": ""}), max_refused=0.9)
    assert len(records.table) == 4
    observations.warn_if_polar(records)
    (told,) = caplog.records
    assert told.levelname == "WARNING"
    assert "found 3 of 4 usable records beyond 60 degrees of latitude (median -81.4, of decimalLongitude 28.5)" in (
        told.getMessage()
    )
    assert told.getMessage().endswith("are decimalLatitude and decimalLongitude swapped?")


def test_ids_keep_their_digits_and_are_there_once(tmp_path):
    large = "9007199254740993"  # as float64 it would be even
    records = read(write(tmp_path, {"gbifID": large}, {"gbifID": "4171912265.0"}))
    assert records.table.gbif_id.tolist() == [9007199254740993, 4171912265]
    with pytest.raises(DataError, match=r"found 2 rows whose id is there already \(line 3: 7, line 4: 7\).*imageIndex"):
        read(write(tmp_path, {"gbifID": "7"}, {"gbifID": "7"}, {"gbifID": "7", "species": ""}), max_refused=0.9)
    for wrong in ("", "x7", "-7", "1e9", "9" * 19):
        with pytest.raises(DataError, match=r"gbifID: found 1 that are no whole numbers .*line 3"):
            read(write(tmp_path, {}, {"gbifID": wrong}), max_refused=0.9)


def test_images_come_from_the_column_or_from_the_embeddings(tmp_path):
    folder = write(tmp_path, {}, {"species": ""}, {})
    records = read(folder, max_refused=0.5)
    table, beyond = observations.with_images(records, [(3, 2), (3, 0), (2, 1)])
    assert table["id"].tolist() == ["1_0", "3_0", "3_2"] and beyond == 1
    assert table["gbif_id"].tolist() == [1, 3, 3] and table["image_index"].dtype == "int64"
    with pytest.raises(DataError, match=r"embeddings of 1 observations that are not in the table \(4_0\)"):
        observations.with_images(records, [(4, 0), (1, 0)])

    text = (folder / "observations.csv").read_text().splitlines()
    lines = [f"{text[0]},imageIndex", f"{text[1]},0", f"{text[1]},2", f"{text[3]},1"]
    (folder / "observations.csv").write_text("\n".join(lines))
    records = read(folder, minimum_records=1)
    assert observations.with_images(records, [(1, 2)])[0]["id"].tolist() == ["1_0", "1_2", "3_1"]
    with pytest.raises(DataError, match=r"not in the table \(1_1\)"):
        observations.with_images(records, [(1, 1)])
    (folder / "observations.csv").write_text("\n".join([*lines, lines[2]]))
    with pytest.raises(DataError, match=r"line 5: 1 image 2\).*one row for each image"):
        read(folder)


def test_rare_species_are_named_and_count_records_not_images(tmp_path):
    other = {"species": "Simulatopsis rara"}
    folder = write(tmp_path, {}, other, {})
    text = (folder / "observations.csv").read_text().splitlines()
    images = [f"{text[0]},imageIndex", *(f"{line},0" for line in text[1:]), f"{text[2]},1"]
    (folder / "observations.csv").write_text("\n".join(images))
    records = read(folder, minimum_records=2)
    assert records.rare == {"Simulatopsis rara": 1} and records.unusable == 0
    assert records.table["gbif_id"].tolist() == [1, 3]
    assert records.refused[["line", "field", "found"]].to_numpy().tolist() == [
        [3, "species", "Simulatopsis rara"],
        [5, "species", "Simulatopsis rara"],
    ]
    observations.require_usable(records, settings(minimum_records=2))
    with pytest.raises(DataError, match="species: found none with 9 records or more among 4 usable rows"):
        observations.require_usable(read(folder, minimum_records=9), settings(minimum_records=9))


def test_blanks_and_zero_uncertainty_are_unknown(tmp_path):
    rows = [{"coordinateUncertaintyInMeters": text} for text in ("", "0", "12.5")]
    table = read(write(tmp_path, *rows, {"taxonKey": ""})).table
    assert table["uncertainty_m"].isna().tolist() == [True, True, False, False] and table["uncertainty_m"][2] == 12.5
    assert table["taxon_key"].tolist() == [900000001] * 3 + [-1]


def test_tabs_parquet_and_commas_read_alike(tmp_path):
    rows = [{}, {"species": 'Fictella "audax"'}, {"eventDate": "2020-05", "year": ""}]
    one = read(write(tmp_path, *rows, separator="\t")).table
    assert one["species"][1] == 'Fictella "audax"'
    (tmp_path / "pq").mkdir()
    frame = pd.read_csv(tmp_path / "observations.csv", sep="\t", quoting=3)
    frame["eventDate"] = frame["eventDate"].astype(object)
    frame.to_parquet(tmp_path / "pq" / "observations.parquet")
    pd.testing.assert_frame_equal(read(tmp_path / "pq").table, one)
    stamps = frame.assign(eventDate=pd.to_datetime(frame["eventDate"], format="ISO8601"), year=[2021, 2021, None])
    stamps.to_parquet(tmp_path / "pq" / "observations.parquet")
    assert read(tmp_path / "pq").table["last_day"].tolist() == [day("2021-04-03")] * 2 + [day("2020-05-01")]


def test_a_file_that_is_no_such_table(tmp_path):
    path = write(tmp_path, {}, {}) / "observations.csv"
    text = path.read_text()
    for content, message in (
        (text + "5,28\n", "line 4: found 2 cells, expected the 8"),
        (text.replace("species", "name"), "header: found no species"),
        (text.replace("gbifID", "occurrence"), "found no gbifID.*data.id says"),
        (text.replace("eventDate", "when").replace("year", "annus"), "found no eventDate or year"),
        (text.replace("taxonKey", "species"), "species: found 2 columns of this name"),
        (text.splitlines()[0], "found no rows below the header"),
        ("", "header: found no gbifID"),
        (text.replace(",", ";"), "header: found the separator ;, expected commas or tabs"),
        (text.replace(",", '";"'), "header: found the separator ;, expected commas or tabs"),
        (text.replace("audax", "audáx").encode("latin-1"), "not UTF-8"),
        (text + '6,"28', "found no table"),
    ):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(DataError, match=message):
            read(tmp_path)
    (tmp_path / "observations.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"found observations.csv and observations.parquet"):
        read(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match="found no table"):
        read(tmp_path)


def test_a_blank_line_and_a_line_break_in_quotes_keep_the_line_numbers(tmp_path):
    folder = write(tmp_path, {}, {}, {"species": ""})
    lines = (folder / "observations.csv").read_text().splitlines()
    lines[1:2] = [lines[1].replace("Fictella audax", '"Fictella\naudax"'), ""]
    (folder / "observations.csv").write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    assert read(folder, max_refused=0.9).refused[["line", "field"]].to_numpy().tolist() == [
        [3, "species"],
        [6, "species"],
    ]


def test_the_acacia_records(tmp_path):
    if not ACACIA.exists():
        pytest.skip(f"{ACACIA} is absent")
    shutil.copy(ACACIA, tmp_path / "observations.csv")
    started = time.perf_counter()
    records = read(tmp_path, id=None, max_refused=0.01, minimum_records=2)
    seconds = time.perf_counter() - started
    assert (len(records.keys), records.unusable, len(records.table)) == (19100, 170, 18924)
    assert sorted(records.rare.values()) == [1] * 6 and records.table["species"].nunique() == 30
    assert records.table["gbif_id"].iloc[0] == 1 and records.table["gbif_id"].max() <= 19100
    assert (records.table["last_day"] - records.table["first_day"] >= 364).all()
    observations.require_usable(records, settings(max_refused=0.01))
    with pytest.raises(DataError, match=r"found 170 of 19100 .*1 x decimalLatitude: missing.*170 x species: missing"):
        observations.require_usable(records, settings())
    assert seconds < 5
