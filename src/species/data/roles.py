"""Role and kind of every observation: training, held-out squares and years, and the buffer between them.

An observation's day is an interval. It tests if all of it lies in the test's years, and is known if all of it lies
`gap_days` or more before them; validation is made in the same way, one year earlier, from what is known.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from src.core.geo.distances import nearest_km
from src.core.splits.squares import assign_squares, choose_squares, name_cells
from src.core.stage.errors import DataError
from src.species.params import Split

ROLES = ("train", "validation", "test", "buffer", "uncertain")
ROLE_OF = {  # (place, period) -> role and kind; all other pairs are buffer
    ("open", "train"): ("train", ""),
    ("open", "validation"): ("validation", "temporal"),
    ("open", "test"): ("test", "temporal"),
    ("test square", "train"): ("test", "spatial"),
    ("test square", "test"): ("test", "both"),
    ("validation square", "train"): ("validation", "spatial"),
    ("validation square", "validation"): ("validation", "both"),
}


@dataclass(frozen=True)
class Roles:
    """Squares, and the role of every observation.

    Attributes:
        table: split.parquet: id, role, kind, square, cell, nearest_train_km, in the order of the observations.
        squares: use (test | validation), lat, lon of the centre, points (records) and species, test squares first.
        facts: demonstration (there is no buffer), unknown_uncertainty (how many observations), and how many are in the
            buffer for which reason.
    """

    table: pd.DataFrame
    squares: pd.DataFrame
    facts: dict[str, Any]


def draw(observations: pd.DataFrame, split: Split, where: str) -> Roles:
    """Choose squares and give every observation of a store's index its role; errors name the file `where`.

    Raises:
        DataError: no square can hold split.minimum records, fewer squares fit than asked for, or a period, role or
            kind is left empty.
    """
    lat, lon = observations[["lat", "lon"]].to_numpy().T
    period = periods(observations["first_day"].to_numpy(), observations["last_day"].to_numpy(), split)
    certain = ~(observations["uncertainty_m"].to_numpy() > split.max_uncertainty_m)
    _require_periods(observations, period, certain, split, where)

    usable = observations[certain & (period != "")].drop_duplicates("gbif_id")
    squares = _choose(usable, split, where)
    square, near = assign_squares(lat, lon, squares, side_km=split.side_km, buffer_km=split.buffer_km)
    place = np.where(near, "near", "open").astype(object)
    place[square >= 0] = squares["use"].to_numpy()[square[square >= 0]] + " square"
    pairs = [ROLE_OF.get(pair, ("buffer", "")) for pair in zip(place, period, strict=True)]
    role, kind = (np.array(values, dtype=object) for values in zip(*pairs, strict=True))
    role[~certain], kind[~certain] = "uncertain", ""

    table = pd.DataFrame({"id": observations["id"].to_numpy(), "role": role, "kind": kind, "square": square})
    table["cell"] = name_cells(lat, lon, side_km=split.side_km, seed=split.seed)
    train, held_out = role == "train", np.isin(role, ["validation", "test"])
    table["nearest_train_km"] = np.nan
    table.loc[held_out, "nearest_train_km"] = nearest_km(lat[held_out], lon[held_out], lat[train], lon[train])
    _require_one_role(observations, table, where)
    _require_kinds(table, where)

    buffer, dated = role == "buffer", period != ""
    return Roles(
        table=table,
        squares=squares,
        facts={
            "demonstration": split.buffer_km == 0,
            "unknown_uncertainty": int(observations["uncertainty_m"].isna().sum()),
            "buffer": {
                "near a square": int((buffer & near).sum()),
                "before training or in a gap of days": int((buffer & ~near & ~dated).sum()),
                "in a square, of a year that is not used there": int((buffer & ~near & dated).sum()),
            },
        },
    )


def names(table: pd.DataFrame) -> pd.Series:
    """ "train", "test/spatial" and so on, from role and kind."""
    return (table["role"] + "/" + table["kind"]).str.rstrip("/")


def periods(first_day: np.ndarray, last_day: np.ndarray, split: Split) -> np.ndarray:
    """(N,) str period of each interval: train, validation, test, or "" between them and before training; days are
    (N,) int64 since 1970-01-01, both inclusive."""
    begin, validation, test = (first_of(year) for year in (split.train_from, split.test_from - 1, split.test_from))
    trains = (first_day >= begin) & (last_day < validation - split.gap_days)
    validates = (first_day >= validation) & (last_day < test - split.gap_days)
    return np.select([trains, validates, first_day >= test], ["train", "validation", "test"], "")


def first_of(year: int) -> int:
    """1 January, in days since 1970-01-01."""
    return int(np.datetime64(f"{year:04d}-01-01", "D").astype(np.int64))


def _choose(usable: pd.DataFrame, split: Split, where: str) -> pd.DataFrame:
    count, most = split.squares + split.validation_squares, split.maximum_share * len(usable)
    if split.minimum > most:
        raise DataError(
            f"{where}: split.minimum {split.minimum} is more than split.maximum_share {split.maximum_share:g} x "
            f"{len(usable)} records = {int(most)}, so no square can hold as many; lower one or raise the other"
        )
    try:
        squares = choose_squares(
            *usable[["lat", "lon"]].to_numpy().T,
            usable["species"].to_numpy(dtype=str),
            side_km=split.side_km,
            apart_km=split.apart_km,
            count=count,
            minimum=split.minimum,
            maximum=most,
            seed=split.seed,
            spread=split.spread,
        ).rename(columns={"classes": "species"})
    except DataError as error:
        raise DataError(
            f"{where}: split.squares {split.squares} + split.validation_squares {split.validation_squares}: {error} "
            "(numbers of squares are of split.squares and split.validation_squares together; see also split.side_km, "
            "split.apart_km, split.minimum and split.maximum_share)"
        ) from error
    squares.insert(0, "use", np.where(np.arange(count) < split.squares, "test", "validation"))
    return squares


def _require_periods(
    observations: pd.DataFrame, period: np.ndarray, certain: np.ndarray, split: Split, where: str
) -> None:
    first, last = observations["first_day"].to_numpy()[certain], observations["last_day"].to_numpy()[certain]
    if not certain.any():
        raise DataError(
            f"{where}: uncertainty_m: found none of {len(certain)} observations within split.max_uncertainty_m "
            f"{split.max_uncertainty_m:g}; raise it"
        )
    found = observations.loc[certain, "year"]
    years = f"found records of {found.min()} to {found.max()}"
    if not (period[certain] == "test").any():
        raise DataError(
            f"{where}: year: {years}, expected some of split.test_from {split.test_from} or later; lower it, to "
            f"{found.max()} for example"
        )
    for name, start, year in (
        ("validation", split.test_from - 1, split.test_from),
        ("train", split.train_from, split.test_from - 1),
    ):
        if (period[certain] == name).any():
            continue
        dated = (first >= first_of(start)) & (last < first_of(year))
        if not dated.any():
            raise DataError(
                f"{where}: year: {years}, expected some from {start} to {year - 1} for {name}; choose another "
                "split.train_from or split.test_from"
            )
        coarse = int((dated & (last - first >= 364)).sum())
        raise DataError(
            f"{where}: first_day, last_day: found {dated.sum()} observations from {start} to {year - 1}, {coarse} of "
            f"them known by their year alone, and none for {name}, which ends split.gap_days {split.gap_days} before "
            f"{year}; set split.gap_days: 0, or bring dates"
        )


def _require_one_role(observations: pd.DataFrame, table: pd.DataFrame, where: str) -> None:
    """Raise DataError if images of one record, which are of one place and day, have several roles."""
    several = (table["role"] + table["kind"]).groupby(observations["gbif_id"].to_numpy()).nunique()
    if (several > 1).any():
        raise DataError(
            f"{where}: gbif_id: found {int((several > 1).sum())} records, {several.idxmax()} for example, whose images "
            "have several roles, expected one; give all images of a record the same place and date"
        )


def _require_kinds(table: pd.DataFrame, where: str) -> None:
    counts = names(table).value_counts()
    for name in ("train", *(f"{role}/{kind}" for role in ("validation", "test") for kind in ("temporal", "spatial"))):
        if name not in counts:
            raise DataError(
                f"{where}: found no observation for {name} (found {counts.sort_index().to_dict()}), expected some; "
                "choose fewer or smaller squares, a narrower buffer or other years"
            )
