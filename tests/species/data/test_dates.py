"""Dates by themselves: times of day, and intervals that are none."""

import pytest

from src.species.data import dates

DAY = dates.moment("2009-02-12")[0]


@pytest.mark.parametrize(
    "clock",
    ["00", "23", "07:15", "0715", "235959", "23:59:60Z", "12:26:17.25Z", "12:26:17,25+05:30", "14:07-0600", "24:00",
     "24:00:00Z", "2400", "12+14"],
)  # fmt: skip
def test_times_of_day_change_no_day(clock):
    for separator in "T ":
        assert dates.days(f"2009-02-12{separator}{clock}", "") == (DAY, DAY, DAY)
    assert dates.days(f"2009-02-12T{clock}/13T{clock}", "") == (DAY, DAY + 1, DAY + 1)


@pytest.mark.parametrize(
    "clock",
    ["25:99Z", "25", "24:01", "24:00:01", "23:60", "2360", "12:30:61", "12:30+24:00", "12:30+05:60", "7:15", "", "Z"],
)
def test_times_that_no_clock_shows_are_refused(clock):
    for text in (f"2009-02-12T{clock}", f"2009-02-12T{clock}/2009-02-13", f"2009-02-12/2009-02-13T{clock}"):
        with pytest.raises(dates.NotADate, match="not an ISO 8601 date"):
            dates.days(text, "")


def test_an_interval_of_two_times_is_one_day():
    assert dates.days("2009-02-12T12:26Z/12:52:17Z", "") == (DAY, DAY, DAY)
    for end in ("12:99Z", "25:00"):
        with pytest.raises(dates.NotADate):
            dates.days(f"2009-02-12T12:26Z/{end}", "")


@pytest.mark.parametrize("text", ["2009-02-12/", "2009-02/", "2009/", "2009-02-12T10:00/"])
@pytest.mark.parametrize("year", ["", "2009"])
def test_an_interval_without_end_is_not_one_day(text, year):
    with pytest.raises(dates.NotADate, match="interval without an end"):
        dates.days(text, year)


@pytest.mark.parametrize(
    "text", ["/2009-02-12", "/", "2009-02-12/..", "../2009-02-12", "2009/2010/2011", "2009-02-12//"]
)
def test_what_is_no_interval_is_refused(text):
    with pytest.raises(dates.NotADate):
        dates.days(text, "")
