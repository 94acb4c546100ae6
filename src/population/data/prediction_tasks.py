"""Prediction tasks (`split.task`), each with its own rule of what is known, and the role of each tile and label.

    new_place            no label of a test place is known; the calendar is shared
    next_year            places are shared; nothing dated at or after the origin is known
    new_place_and_year   neither the place nor the year is known
    change               new_place, of each label's deviation from its place's own mean

A role of a label is train, validation, test, buffer (known to nobody, unless as the past of its own place) or
locked (a place of the locked provinces). Tiles get roles for what is fitted on pixels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from src.core.data.tile_store import Store
from src.core.splits import locked_test, spatial_temporal
from src.core.splits.folds import draw_roles
from src.core.stage import files
from src.core.stage.errors import DataError, spelled
from src.population.params import WORDS, Split

FORECASTS = ("next_year", "new_place_and_year")
SAMPLES = "samples.parquet"


@dataclass(frozen=True)
class Roles:
    """`tiles` and `samples` with block and role; `facts` of how they were drawn, for split.json."""

    tiles: pd.DataFrame
    samples: pd.DataFrame
    facts: dict


def read_samples(folder: Path, tile_ids: pd.Series) -> pd.DataFrame:
    """One row per label with role and the task's target as `growth_rate`; DataError if drawn for another store."""
    spatial_temporal.read_split(folder, tile_ids)  # refuses a split of other tiles
    return files.read_table(Path(folder) / SAMPLES).sort_values("sample", ignore_index=True)


def place_names(table: pd.DataFrame) -> pd.Series:
    """(N,) names of the places: province/city, because two provinces may have a city of one name."""
    return table.province + "/" + table.city


def label_rows(store: Store, task: str) -> pd.DataFrame:
    """`store.samples` with place, tile_year and the target as growth_rate; DataError if `change` finds no two years."""
    samples = store.samples.sort_values("sample", ignore_index=True)
    year_of = store.tiles.set_index("tile").year
    samples = samples.assign(place=place_names(samples), tile_year=samples.tile.map(year_of))
    if task == "change":
        several = samples.groupby("place").year.transform("nunique") > 1
        if not several.any():
            raise DataError(
                f"{store.folder}/samples.parquet: year: found one label for each place, expected two or more for "
                "some, because split.task: change predicts deviations from a place's mean; bring more years"
            )
        if left_out := int((~several).sum()):
            print(f"split: change leaves out {left_out} labels of places with a single year")
        samples = samples[several].reset_index(drop=True)
        mean = samples.groupby("place").growth_rate.transform("mean")
        samples["growth_rate"] = samples.growth_rate - mean
    return samples


@spelled(WORDS)
def draw(store: Store, split: Split) -> Roles:
    """Roles of all tiles and labels; raises DataError for an impossible origin, and as `spatial_temporal` does."""
    tiles = store.tiles.assign(place=place_names(store.tiles))
    samples = label_rows(store, split.task)
    locked, forecast = _locked(tiles, split), split.task in FORECASTS
    places = tiles[locked].drop_duplicates("place")
    lock = {"locked": {"provinces": sorted(places.province.unique()), "places": len(places)}}
    tiles = tiles.assign(**_place_roles(tiles, locked, split))
    by_tile, years = tiles.set_index("tile"), np.unique(samples.year)
    samples["block"], of_place = samples.tile.map(by_tile.block), samples.tile.map(by_tile.role)
    step = spatial_temporal.panel_step(years) if forecast or len(years) > 1 else None
    facts = {name: getattr(split, name) for name in ("task", "method", "seed", "fold", "folds")}
    facts |= {"origin": None, "horizon": None, "step_years": step}
    if not forecast:
        return Roles(tiles, samples.assign(role=of_place), facts | lock)

    origins = spatial_temporal.feasible_origins(years, split.horizon, step)
    if split.task == "next_year" and split.origin is None and split.fold >= len(origins):
        raise DataError(
            f"{store.folder}/samples.parquet: split.fold: found {split.fold}, expected less than {len(origins)}: in "
            f"next_year it counts the origins back from the latest, and only {origins} leave years for all roles"
        )
    back = split.fold if split.task == "next_year" else 0
    origin = origins[-1 - back] if split.origin is None else split.origin
    if origin not in origins:
        raise DataError(
            f"{store.folder}/samples.parquet: split.origin: found {origin}, expected one of {origins}, which leave "
            f"a year for test, validation and training at split.horizon {split.horizon}; set one or leave it blank"
        )
    facts |= {"origin": int(origin), "origins": [int(year) for year in origins], "horizon": split.horizon}
    of_year = pd.Series(
        spatial_temporal.split_years(samples.year.to_numpy(), origin=origin, horizon=split.horizon, step=step),
        samples.index,
    )
    if split.task == "next_year":
        facts |= {"fold": len(origins) - 1 - origins.index(origin), "folds": len(origins)}
        role = of_year
    else:
        role = spatial_temporal.combine(of_place, of_year)
    # The past of a locked place is history, as that of any other; the years to predict are locked.
    in_locked = of_place == "locked"
    samples["role"] = role.where(~in_locked, np.where(of_year == "test", "locked", "buffer"))
    facts["years"] = {
        name: sorted(map(int, samples.year[samples.role == name].unique())) for name in spatial_temporal.ROLES
    }
    return Roles(tiles.assign(role=_tile_roles(tiles, samples, locked)), samples, facts | lock)


def _locked(tiles: pd.DataFrame, split: Split) -> pd.Series:
    """(len(tiles),) bool: True for tiles in locked provinces."""
    if split.lock is None:
        return pd.Series(False, index=tiles.index)
    places = tiles.drop_duplicates("place")
    locked = locked_test.check_lock(places.rename(columns={"province": "region"})[["place", "region"]], split.lock)
    return tiles.place.isin(places.place[locked.to_numpy()])


def _place_roles(tiles: pd.DataFrame, locked: pd.Series, split: Split) -> pd.DataFrame:
    """block and role of every tile by its place alone; where time separates, all unlocked places train."""
    provinces = split.method == "provinces"
    blocks = tiles.province if provinces else spatial_temporal.blocks_of_places(tiles, split.block_degrees)
    if split.task == "next_year":
        return pd.DataFrame({"block": blocks, "role": np.where(locked, "locked", "train")}, index=tiles.index)
    rest = tiles[~locked]
    draw = {"folds": split.folds, "fold": split.fold, "seed": split.seed}
    if split.method == "place":
        role = draw_roles(rest.place, "places", **draw, advice="lower `folds` or bring more places")
    else:
        spatial_temporal.require_coordinates(tiles)  # of the locked ones too, which training must not lie near
        what, advice = f"blocks of {split.block_degrees:g} degrees", "lower `block_degrees` or `folds`"
        if provinces:
            spatial_temporal.require_regions(rest.place, rest.province)
            names = sorted(rest.province.unique())
            what = f"regions ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})"
            advice = "lower `folds` or split by blocks (`method`)"
        draw |= {"buffer_km": split.buffer_km, "keep_from": tiles[locked]}
        role = spatial_temporal.split_with_buffer(rest, blocks[~locked], what, advice, **draw)
    return pd.DataFrame({"block": blocks, "role": role.reindex(tiles.index, fill_value="locked")})


def _tile_roles(tiles: pd.DataFrame, samples: pd.DataFrame, locked: pd.Series) -> pd.Series:
    """Role of each tile where time separates: that of its earliest use, train before validation before test."""
    first = {}
    for name in ("test", "validation", "train"):
        first |= dict.fromkeys(samples.tile[samples.role == name], name)
    return tiles.tile.map(first).fillna("buffer").mask(locked, "locked")
