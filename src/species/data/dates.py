"""The days that a record's date allows.

Darwin Core's eventDate is ISO 8601: a day, a month, a year, or an interval of them, whose end may leave out what it
shares with the beginning (2009-02-12/15). https://dwc.tdwg.org/terms/#dwc:eventDate
"""

import re
from datetime import date

import numpy as np

HOUR, MINUTE, SECOND = "(?:[01][0-9]|2[0-3])", "[0-5][0-9]", "(?:[0-5][0-9]|60)"  # 60 where a leap second is
MIDNIGHT = "24(?::?00(?::?00)?)?"  # at the day's end
CLOCK = rf"(?:{HOUR}(?::?{MINUTE}(?::?{SECOND}(?:[.,][0-9]+)?)?)?|{MIDNIGHT})(?:Z|[+-]{HOUR}(?::?{MINUTE})?)?"
MOMENT = re.compile(rf"(?!0000)[0-9]{{4}}(?:-[0-9]{{2}}(?:-[0-9]{{2}}(?:[T ]{CLOCK})?)?)?")
CLOCK_ALONE = re.compile(rf"(?=[0-9]{{2}}:){CLOCK}")
SHORT_END = re.compile(rf"([0-9]{{2}}(?:-[0-9]{{2}})?)(?:[T ]{CLOCK})?")
DAY_AND_MONTH = re.compile(r"[0-9]{1,2}([/.-])[0-9]{1,2}\1[0-9]{2,4}")
YEAR = re.compile(r"([0-9]{4})(?:\.0*)?")  # 2024.0 is what a spreadsheet or pandas makes of a column with blanks


class NotADate(ValueError):
    """Reason why a text is no date, without the text itself, so that equal reasons can be counted."""


def days(event_date: str, year: str) -> tuple[int, int, int]:
    """(first, last, begin of last) in days since 1970-01-01, both ends inclusive.

    The day is the one written, in the zone it was written in. `begin of last` is the first day of the interval's end:
    2025 begins on 1 January, so that a year that has not ended lies not in the future.

    Both texts may be "". The year is used where `event_date` is blank, and otherwise checked against it.

    Raises:
        NotADate: why not.
    """
    numeral = YEAR.fullmatch(year)
    if year and not numeral:
        raise NotADate("not a year")
    if not event_date and not year:
        raise NotADate("missing")
    begin, slash, end = (event_date or numeral[1]).partition("/")
    if DAY_AND_MONTH.fullmatch(event_date):
        raise NotADate("day and month cannot be told apart, expected year-month-day")
    if slash and not end:  # ISO 8601-2 has open intervals, which allow days without number
        raise NotADate("interval without an end")
    first, last = moment(begin)
    last_begin = first
    if end:
        last_begin, last = (first, last) if CLOCK_ALONE.fullmatch(end) else moment(complete_end(begin, end))
    if last < first:
        raise NotADate("interval ends before it begins")
    if numeral and not on(first).year <= int(numeral[1]) <= on(last).year:
        raise NotADate("eventDate and year disagree")
    return first, last, last_begin


def moment(text: str) -> tuple[int, int]:
    """First and last day of a day, month or year."""
    if not MOMENT.fullmatch(text):
        raise NotADate("not an ISO 8601 date")
    try:
        span = np.datetime64(text[:10])  # as long as the text says: a day, a month or a year
    except ValueError as error:
        raise NotADate("no such day in the calendar") from error
    first, after = (int(day.astype("M8[D]").astype(int)) for day in (span, span + 1))
    return first, after - 1


def complete_end(begin: str, end: str) -> str:
    """An interval's end, with the year and month that it may leave out filled in from the beginning."""
    short, begin = SHORT_END.fullmatch(end), begin[:10]
    if short is None or len(begin) - len(short[1]) < len("2009-"):  # 1999/05 may mean a month, or 1905
        return end
    return begin[: -len(short[1])] + short[1]


def on(day: int) -> date:
    """The date of a day since 1970-01-01."""
    return np.datetime64(day, "D").item()


def today() -> int:
    """The latest day that has begun anywhere on Earth (UTC+14), in days since 1970-01-01."""
    return int((np.datetime64("now", "h") + 14).astype("M8[D]").astype(int))
