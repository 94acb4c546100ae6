"""Matching of labels with tiles by place and year. Similar names never match.

They only give the candidate that the report shows beside an unmatched label.
"""

from collections import defaultdict
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
Place = tuple[str, str]  # (province, city), squeezed


@dataclass(frozen=True)
class Matching:
    """Four tables, each sorted by province, city, year, and the counts of what lags left out.

    samples: sample, tile, province, city (as the tile spells them), year (the label's), lat, lon,
        growth_rate, then the other label columns.
    unmatched_tiles: province, city, year.
    unmatched_labels: province, city, year (as the label has them), candidate (the most similar tile as
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
        tiles: tile (int), province, city, year, lat, lon (the centre in degrees, NaN if unknown).
        labels: as `labels.read` returns them; without provinces (all "") the city alone is the place.
        aliases: as `labels.read_aliases` returns them; applied to the labels' names.
        match_year: with `nearest` a label may take another year's tile of its place (of two as near the
            earlier), so one tile may serve several labels.
        tile_lag: years by which the tile is older than the label.
        lagged_columns: column of the label file -> its name in `samples`, `covariate_lag` years older than the label.

    Raises:
        DataError: a place has two spellings, a city without province lies in two, two tiles or two labels
            share a key, a label's coordinates lie over 20 km from its tile's centre, or nothing matches.
    """
    file = labels.attrs.get("path", "labels")
    years_of = _years_of(tiles)
    places = _places(labels, aliases, list(years_of), file)
    wanted = [(years_of.get(place, {}), year - tile_lag) for place, year in zip(places, labels.year, strict=True)]
    # (labels,) position of its tile, -1: none
    tile_of = np.array([years.get(_tile_year(years, year, match_year), -1) for years, year in wanted])
    found = tile_of >= 0
    if not found.any():
        raise _nothing_matches(tiles, labels, file)
    labels, known = _with_earlier(labels, places, lagged_columns or {}, covariate_lag, file)
    matched = found & known
    if not matched.any():
        raise DataError(f"{file}: no label has both a tile and covariates of {covariate_lag} years earlier; add rows")

    samples = _samples(labels[matched], tiles.iloc[tile_of[matched]], file)
    nearest = samples[samples.year - tile_lag != samples.tile_year].rename(columns={"year": "label_year"})
    early, late = _at_the_ends(labels, places, years_of, tile_lag, len(tiles))
    unmatched = labels[~found & ~early].reset_index(names="row")
    alone = [places[position] for position in np.flatnonzero(~found & ~early)]
    dated = zip(alone, unmatched.year - tile_lag, strict=True)
    unmatched["candidate"] = [_candidate(place, year, tiles, years_of) for place, year in dated]
    unserved = ~np.isin(np.arange(len(tiles)), tile_of)
    first = ["sample", "tile", *KEY, "lat", "lon", "growth_rate"]
    return Matching(
        samples=samples[first + [name for name in samples if name not in {*first, "row", "tile_year"}]],
        unmatched_tiles=_sorted(tiles[unserved & ~late], KEY),
        unmatched_labels=_sorted(unmatched, [*KEY, "candidate", "row"]),
        nearest=nearest[["province", "city", "label_year", "tile_year"]].reset_index(drop=True),
        outside={
            "tiles": int((unserved & late).sum()),
            "labels": int((~found & early).sum()),
            "without_covariates": int((found & ~known).sum()),
        },
    )


def _at_the_ends(
    labels: pd.DataFrame, places: list[Place], years_of: dict[Place, dict[int, int]], tile_lag: int, n_tiles: int
) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the labels before their place's first tile, and of the tiles after its last label, `tile_lag` apart.

    A lagged panel has both by design, so neither counts as unmatched. Without a lag no mask is True.
    """
    early, late = np.zeros(len(labels), bool), np.zeros(n_tiles, bool)
    if not tile_lag:
        return early, late
    last: dict[Place, int] = {}
    for row, (place, year) in enumerate(zip(places, labels.year, strict=True)):
        early[row] = place in years_of and year - tile_lag < min(years_of[place])
        last[place] = max(year, last.get(place, year))
    for place in last.keys() & years_of.keys():
        late[[tile for year, tile in years_of[place].items() if year + tile_lag > last[place]]] = True
    return early, late


def _with_earlier(
    labels: pd.DataFrame, places: list[Place], columns: dict[str, str], lag_years: int, file: str
) -> tuple[pd.DataFrame, np.ndarray]:
    """`labels` with the covariates of `lag_years` earlier under their new names, and which rows have them all."""
    if not columns:
        return labels, np.ones(len(labels), dtype=bool)
    if taken := [name for name in columns.values() if name in labels and name not in columns]:
        raise DataError(f"{file}: found a column named {taken[0]}, as the lagged covariate is called; rename it")
    earlier = covariates.lagged(labels, places, list(columns), lag_years)
    kept = labels.drop(columns=list(columns.values()), errors="ignore")
    return kept.join(earlier.rename(columns=columns)), earlier.notna().all(axis=1).to_numpy()


def _samples(labels: pd.DataFrame, served: pd.DataFrame, file: str) -> pd.DataFrame:
    """Matched `labels` beside the tiles `served` to them, row by row; sorted and numbered."""
    served, samples = served.reset_index(drop=True), labels.reset_index(names="row")
    if "lat" in samples:
        _check_distances(samples, served, file)
    else:
        samples = samples.assign(lat=served.lat, lon=served.lon)
    samples = samples.assign(tile=served.tile, province=served.province, city=served.city)
    samples = samples.assign(tile_year=served.year).sort_values(KEY, ignore_index=True)
    samples.insert(0, "sample", range(len(samples)))
    samples.attrs = {}  # or the file's path would travel into the store's parquet
    return samples


def _years_of(tiles: pd.DataFrame) -> dict[Place, dict[int, int]]:
    """Place -> year -> position in `tiles`."""
    years_of: dict[Place, dict[int, int]] = defaultdict(dict)
    spelling: dict[Place, str] = {}
    problems = []
    rows = zip(tiles.province, tiles.city, tiles.year, strict=True)
    for position, (province, city, year) in enumerate(rows):
        place, name = (squeeze(province), squeeze(city)), f"{province}/{city}"
        if spelling.setdefault(place, name) != name:
            # Two places to the split, one in truth: its tiles could end in train and in test.
            problems.append(f"data.root: {name!r} and {spelling[place]!r} are one place; spell it in one way")
        elif year in years_of[place]:
            problems.append(f"data.root: {name} {year}: found two tiles, expected one; remove the other")
        years_of[place][year] = position
    refuse(problems)
    return dict(years_of)


def _places(labels: pd.DataFrame, aliases: pd.DataFrame, known: list[Place], file: str) -> list[Place]:
    """The place each label means, after aliases; a city without province takes its tiles' province."""
    meaning = {
        (kind, squeeze(found)): squeeze(use)
        for kind, found, use in zip(aliases.kind, aliases.found, aliases.use, strict=True)
    }
    homes = defaultdict(list)
    for place in known:
        homes[place[1]].append(place)

    places, problems = [], []
    first: dict[tuple[Place, int], int] = {}
    for row, province, city, year in labels[KEY].itertuples():
        place = tuple(
            meaning.get((kind, squeeze(name)), squeeze(name)) for kind, name in (("province", province), ("city", city))
        )
        if not province and place[1] in homes:
            place = homes[place[1]][0]
            if len(homes[place[1]]) > 1:
                provinces = " and ".join(home[0] for home in homes[place[1]])
                problems.append(f"{file}: row {row}, city: {city} has tiles in {provinces}; add a column province")
        if (place, year) in first:
            problems.append(
                f"{file}: row {row}: {city} {year} is the place and year of row {first[place, year]} "
                "once aliases are applied; delete one of them or its alias"
            )
        first.setdefault((place, year), row)
        places.append(place)
    refuse(problems)
    return places


def _tile_year(years: dict[int, int], year: int, match_year: str) -> int:
    if match_year == "exact" or not years:
        return year
    return min(years, key=lambda tile_year: (abs(tile_year - year), tile_year))


def _check_distances(samples: pd.DataFrame, served: pd.DataFrame, file: str) -> None:
    """Raise DataError for labels over MAX_DISTANCE_KM (WGS84 geodesic) from their tile's known centre."""
    placed = served.lat.notna().to_numpy()
    samples, served = samples[placed], served[placed]
    kilometres = geodesic_km(samples.lat, samples.lon, served.lat, served.lon)
    refuse(
        [
            f"{file}: row {label.row}, lat and lon: found ({label.lat:g}, {label.lon:g}) for {label.city}, "
            f"{distance:.0f} km from the centre of its tile ({tile.lat:g}, {tile.lon:g}); expected at most "
            f"{MAX_DISTANCE_KM} km; correct the row, or remove both columns to use the tiles' centres"
            for label, tile, distance in zip(samples.itertuples(), served.itertuples(), kilometres, strict=True)
            if distance > MAX_DISTANCE_KM
        ]
    )


def _candidate(place: Place, year: int, tiles: pd.DataFrame, years_of: dict[Place, dict[int, int]]) -> str:
    """The tile that an unmatched label may mean: its place, a name that starts as it does, a similar one."""
    near = [place] if place in years_of else []
    near = near or [
        known
        for known in years_of
        if all(one.startswith(other) or other.startswith(one) for one, other in zip(known, place, strict=True))
    ]
    if not near:  # last, because difflib is slow
        texts = {"/".join(known if place[0] else known[1:]): known for known in years_of}
        near = [texts[text] for text in get_close_matches("/".join(filter(None, place)), texts, n=1)]
    if not near:
        return ""
    years = years_of[near[0]]
    tile = tiles.iloc[years[_tile_year(years, year, "nearest")]]
    return f"{tile.province}/{tile.city}/{tile.year}"


def _nothing_matches(tiles: pd.DataFrame, labels: pd.DataFrame, file: str) -> DataError:
    sides = [
        ", ".join("/".join(filter(None, map(str, key))) for key in side[KEY].head(3).itertuples(index=False))
        for side in (labels, tiles)
    ]
    return DataError(
        f"{file}: no label has a tile. Labels begin with {sides[0]}; tiles with {sides[1]}. Expected the same "
        "province, city and year; correct the names, map them in data.aliases or set data.match_year: nearest"
    )


def _sorted(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    frame = frame[columns].sort_values(KEY, ignore_index=True)
    frame.attrs = {}
    return frame
