"""Matching of labels with tiles by place and year; a similar name is only shown beside what found no partner."""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import numpy as np
import pandas as pd

from src.core.data.archive import refuse, squeeze
from src.core.geo.distances import geodesic_km
from src.core.stage.errors import DataError
from src.population.data import covariates

MAX_DISTANCE_KM = 20
KEY = ["province", "city", "year"]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Matching:
    """Four tables, each sorted by province, city, year, and the counts of what lags left out.

    samples: sample, tile, province, city (as the tile spells them), year (the label's), lat, lon,
        growth_rate, then the other label columns.
    unmatched_labels: province, city, year (as the label has them), candidate (the most similar unmatched tile as
        "province/city/year", or ""), row (in the spreadsheet).
    nearest: province, city, label_year, tile_year of the labels that took another year's tile than asked.
    outside: how many tiles, labels and (matched) labels without earlier covariates lie at the panel's ends, where a
        lag finds nothing; they are in no table.
    """

    samples: pd.DataFrame
    unmatched_tiles: pd.DataFrame
    unmatched_labels: pd.DataFrame
    nearest: pd.DataFrame
    outside: dict[str, int]


def match(
    tiles: pd.DataFrame,
    labels: pd.DataFrame,
    aliases: pd.DataFrame,
    match_year: Literal["exact", "nearest"],
    *,
    tile_lag: int = 0,
    lagged_columns: dict[str, str] | None = None,
    covariate_lag: int = 0,
) -> Matching:
    """Give every label its tile, and the earlier covariates of its place.

    Args:
        tiles: tile (int), province, city, year, lat, lon (the centre in degrees, NaN if unknown); one row at most
            for a place and year.
        labels: as `labels.read` returns them; without provinces (all "") the city alone is the place.
        match_year: with `nearest` a label may take another year's tile, so one tile may serve several labels.
        tile_lag: years by which the tile is older than the label.
        lagged_columns: column of the label file -> its name in `samples`, `covariate_lag` years older than the label.

    Raises:
        DataError: a place has two spellings, a city without province lies in two, two labels share a key, a label's
            coordinates lie over 20 km from its tile's centre, or nothing matches.
    """
    file, columns = labels.attrs.get("path", "labels"), lagged_columns or {}
    tiles = tiles.assign(place=_tile_places(tiles))
    labels = labels.assign(place=_label_places(labels, aliases, tiles.place.drop_duplicates(), file))
    tile_of = _tile_of(labels.place, labels.year - tile_lag, tiles, 0 if match_year == "exact" else None)
    found = tile_of >= 0
    if not found.any():
        raise _nothing_matches(tiles, labels, file)
    labels = covariates.with_earlier(labels, columns, covariate_lag)
    known = labels[list(columns.values())].notna().all(axis=1).to_numpy()
    if not (found & known).any():
        raise DataError(f"{file}: no label has both a tile and covariates of {covariate_lag} years earlier; add rows")

    samples = _samples(labels[found & known], tiles.iloc[tile_of[found & known]], file)
    nearest = samples[samples.year - tile_lag != samples.tile_year].rename(columns={"year": "label_year"})
    first = ["sample", "tile", *KEY, "lat", "lon", "growth_rate"]
    served = np.isin(np.arange(len(tiles)), tile_of)
    early, late = _at_the_ends(tiles, labels, tile_lag)
    free, unmatched = tiles[~served & ~late], labels[~found & ~early].reset_index(names="row")
    unmatched["candidate"] = _candidates(unmatched.place, unmatched.year - tile_lag, free)
    return Matching(
        samples=samples[first + [name for name in samples if name not in {*first, "row", "place", "tile_year"}]],
        unmatched_tiles=free[KEY].sort_values(KEY, ignore_index=True),
        unmatched_labels=unmatched[[*KEY, "candidate", "row"]].sort_values(KEY, ignore_index=True),
        nearest=nearest[["province", "city", "label_year", "tile_year"]].reset_index(drop=True),
        outside={
            "tiles": int((~served & late).sum()),
            "labels": int((~found & early).sum()),
            "without_covariates": int((found & ~known).sum()),
        },
    )


def _at_the_ends(tiles: pd.DataFrame, labels: pd.DataFrame, tile_lag: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the labels before their place's first tile, and of the tiles after its last label, `tile_lag` apart.

    A lagged panel has both by design, so neither counts as unmatched.
    """
    first, last = tiles.groupby("place").year.min(), labels.groupby("place").year.max()
    early, late = labels.year - tile_lag < labels.place.map(first), tiles.year + tile_lag > tiles.place.map(last)
    return early.to_numpy() & (tile_lag > 0), late.to_numpy() & (tile_lag > 0)


def _tile_places(tiles: pd.DataFrame) -> pd.Series:
    """province/city of each tile in the form in which names are compared."""
    names = tiles.province + "/" + tiles.city
    places = tiles.province.map(squeeze) + "/" + tiles.city.map(squeeze)
    first = names.groupby(places).transform("first")
    differs = names != first
    # Two places to the split, one in truth: its tiles could end in train and in test.
    pairs = zip(names[differs], first[differs], strict=True)
    refuse([f"data.root: {name!r} and {other!r} are one place; spell it in one way" for name, other in pairs])
    return places


def _label_places(labels: pd.DataFrame, aliases: pd.DataFrame, known: pd.Series, file: str) -> pd.Series:
    """The place each label means, after aliases; a city without province takes its tiles' province."""
    names = {}
    for kind in ("province", "city"):
        own, name = aliases[aliases.kind == kind], labels[kind].map(squeeze)
        found = own.found.map(squeeze)
        names[kind] = name.map(dict(zip(found, own.use.map(squeeze), strict=True))).fillna(name)
        if unused := own.found[~found.isin(name)].tolist():
            logger.warning("%s: no label has the %s %s, for which data.aliases gives another name; correct or remove "
                           "these aliases", file, kind, ", ".join(unused))  # fmt: skip
    parts = known.str.partition("/")
    homes = parts.groupby(2)[0].agg(list)  # city -> provinces
    home = names["city"].map(homes).where(labels.province == "")
    places = home.str[0].fillna(names["province"]) + "/" + names["city"]
    table = labels.assign(place=places, row=labels.index, home=home)
    table["first"] = table.groupby(["place", "year"]).row.transform("first")
    refuse(
        [
            f"{file}: row {row}, city: {city} has tiles in {' and '.join(provinces)}; add a column province"
            for row, city, provinces in table.loc[home.str.len() > 1, ["row", "city", "home"]].itertuples(index=False)
        ]
        + [
            f"{file}: row {label.row}: {label.city} {label.year} is the place and year of row {label.first} "
            "once aliases are applied; delete one of them or its alias"
            for label in table[table.row != table["first"]].itertuples()
        ]
    )
    return places


def _tile_of(places: pd.Series, years: pd.Series, tiles: pd.DataFrame, tolerance: int | None) -> np.ndarray:
    """(N,) position of each place's tile nearest in time, of two the earlier; -1 where none is within `tolerance`."""
    asked, dated = (
        pd.DataFrame({"place": place.to_numpy("str"), "year": year.to_numpy()})
        .reset_index(names=name)
        .sort_values("year")
        for name, place, year in (("label", places, years), ("tile", tiles.place, tiles.year))
    )
    found = pd.merge_asof(asked, dated, on="year", by="place", direction="nearest", tolerance=tolerance)
    return found.sort_values("label").tile.fillna(-1).to_numpy(int)


def _samples(labels: pd.DataFrame, served: pd.DataFrame, file: str) -> pd.DataFrame:
    """Matched `labels` beside the tiles `served` to them, row by row; sorted and numbered."""
    served, samples = served.reset_index(drop=True), labels.reset_index(names="row")
    if "lat" in samples:
        kilometres = geodesic_km(samples.lat, samples.lon, served.lat, served.lon)  # NaN where the centre is
        pairs = samples.assign(tile_lat=served.lat, tile_lon=served.lon, kilometres=kilometres)
        refuse(
            [
                f"{file}: row {label.row}, lat and lon: found ({label.lat:g}, {label.lon:g}) for {label.city}, "
                f"{label.kilometres:.0f} km from the centre of its tile ({label.tile_lat:g}, {label.tile_lon:g}); "
                f"expected at most {MAX_DISTANCE_KM} km; correct the row, or remove both columns to use the tiles' "
                "centres"
                for label in pairs[kilometres > MAX_DISTANCE_KM].itertuples()
            ]
        )
    else:
        samples = samples.assign(lat=served.lat, lon=served.lon)
    samples = samples.assign(tile_year=served.year, **served[["tile", "province", "city"]])
    samples = samples.sort_values(KEY, ignore_index=True)
    samples.insert(0, "sample", range(len(samples)))
    samples.attrs = {}  # or the file's path would travel into the store's parquet
    return samples


def _candidates(places: pd.Series, years: pd.Series, free: pd.DataFrame) -> list[str]:
    """The tile of `free`, those without a label, that each unmatched label may mean; "" where none is similar."""
    known = dict.fromkeys(free.place)
    likely = pd.Series([_similar(place, known) for place in places], dtype="str")
    names = [*free.province + "/" + free.city + "/" + free.year.astype(str), ""]
    return [names[position] for position in _tile_of(likely, years, free, None)]


def _similar(place: str, known: Collection[str]) -> str:
    """The one of the `known` places that `place` may mean: itself, a name that starts as it does, a similar one."""
    if place in known:
        return place
    for other in known:
        pairs = zip(place.partition("/"), other.partition("/"), strict=True)
        if all(one.startswith(two) or two.startswith(one) for one, two in pairs):
            return other
    # last, because difflib is slow
    texts = {other.partition("/")[2] if place.startswith("/") else other: other for other in known}
    return next((texts[text] for text in get_close_matches(place.strip("/"), texts, n=1)), "")


def _nothing_matches(tiles: pd.DataFrame, labels: pd.DataFrame, file: str) -> DataError:
    sides = [
        ", ".join("/".join(filter(None, map(str, key))) for key in side[KEY].head(3).itertuples(index=False))
        for side in (labels, tiles)
    ]
    return DataError(
        f"{file}: no label has a tile. Labels begin with {sides[0]}; tiles with {sides[1]}. Expected the same "
        "province, city and year; correct the names, map them in data.aliases or set data.match_year: nearest"
    )
