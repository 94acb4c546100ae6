"""Roles of tiles: by whole units with a buffer around the held-out ones, and by time.

All tiles of a place have one role, except in a split by time: `split_years` separates the past from the future, and
`combine` keeps the rows for which place and year are both new. Validation is always made like the test.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from src.core.geo.distances import assign_blocks, nearest_km
from src.core.splits.folds import draw_roles, require_roles
from src.core.stage import files
from src.core.stage.errors import DataError, ParamsError

ROLES = ("train", "validation", "test", "buffer", "locked")


def split_with_buffer(
    tiles: pd.DataFrame,
    unit: pd.Series,
    what: str,
    advice: str,
    *,
    buffer_km: float,
    folds: int,
    fold: int,
    seed: int,
    keep_from: pd.DataFrame,
) -> pd.Series:
    """Roles by whole units, such as blocks or regions. Test keeps all its tiles.

    A place with a tile within `buffer_km` (geodesic, between centres) of a test tile leaves validation, and one within
    that of a test or validation tile leaves training: their role is `buffer` (Roberts et al. 2017, "Cross-validation
    strategies for data with temporal, spatial, hierarchical, or phylogenetic structure").

    Args:
        tiles: one row each, with place, lat, lon (degrees) and half_diagonal_km, none missing (`require_coordinates`).
        unit, what, advice: each tile's unit, and the rest as in `draw_roles`.
        keep_from: lat, lon of locked tiles, from which training and validation keep the same distance.

    Raises:
        ParamsError: `buffer_km` is below the largest tile diagonal, so that tiles could share ground.
        DataError: there are too few units, or a role is left without a tile.
    """
    diagonal_km = 2 * tiles["half_diagonal_km"].max()
    if buffer_km < diagonal_km:
        raise ParamsError(
            f"params.yaml: `buffer_km`: found {buffer_km:g}, expected at least {diagonal_km:.4g} "
            f"(the largest tile's diagonal in km, index.parquet), or tiles of two roles share ground; "
            f"raise `buffer_km`"
        )
    role = draw_roles(unit, what, folds, fold, seed, advice)
    test, points, locked = role == "test", *(rows[["lat", "lon"]].to_numpy(float) for rows in (tiles, keep_from))
    for inner, held_out in (("validation", ["test"]), ("train", ["test", "validation"])):
        mine = (role == inner).to_numpy()
        others = np.concatenate([points[role.isin(held_out)], locked])
        # years of a place may be centred differently: one too near takes the others along
        near = tiles["place"][mine][nearest_km(*points[mine].T, *others.T) <= buffer_km]
        role[tiles["place"].isin(near)] = "buffer"
    held_out = "the test fold or locked tiles" if len(locked) else "the test fold"
    if not role.isin(["train", "validation"]).any():
        raise DataError(
            f"index.parquet: lat, lon: all {tiles['place'][~test].nunique()} places outside the test fold lie within "
            f"`buffer_km` = {buffer_km:g} km of {held_out}, expected some to learn from; "
            f"lower `buffer_km` or bring places farther away"
        )
    what = f"index.parquet: {what} outside the buffer of {buffer_km:g} km around {held_out}"
    require_roles(role, what, "lower `buffer_km`, choose another `fold` or bring more tiles")
    return role


def split_years(years: np.ndarray, *, origin: int, horizon: int, step: int) -> np.ndarray:
    """Roles for a forecast made at `origin` from the years before it.

    Test is the year `horizon` steps after the last known year. Validation is the last known year, and training ends
    `horizon` steps before it. All other years are `buffer` (Tashman 2000, "Out-of-sample tests of forecasting
    accuracy", International Journal of Forecasting 16, on rolling origins).

    Args:
        years: (N,) int.
        origin: the first unknown year.
        horizon: steps from the last known year to the predicted one, at least 1.
        step: years, see `panel_step`.

    Raises:
        DataError: training, validation or test has no year.
    """
    years = np.asarray(years)
    role = np.full(len(years), "buffer", dtype=object)
    role[years < origin - horizon * step] = "train"
    role[years == origin - step] = "validation"
    role[years == origin + (horizon - 1) * step] = "test"
    what = f"samples.parquet: year: {np.unique(years).tolist()}, `origin` {origin}, `horizon` {horizon}"
    require_roles(role, what, "leave `origin` blank, lower `horizon` or bring more years")
    return role


def feasible_origins(years: np.ndarray, horizon: int, step: int) -> list[int]:
    """Origins, ascending, for which `split_years` finds a year for all roles; raises DataError if there is none."""
    found = np.unique(years).tolist()
    origins = [year - (horizon - 1) * step for year in found]
    origins = [origin for origin in origins if origin - step in found and found[0] < origin - horizon * step]
    if not origins:
        raise DataError(
            f"samples.parquet: year: `horizon` {horizon} is beyond the panel: found the years {found}, expected a "
            f"panel over at least {2 * horizon} steps of {step} years, with a year {horizon} steps after an earlier "
            f"one and years to train on {horizon} steps before that; lower `horizon` or bring more years"
        )
    return origins


def panel_step(years: np.ndarray) -> int:
    """The smallest difference between two years of the panel; raises DataError if it has one year alone."""
    distinct = np.unique(years)
    if len(distinct) < 2:
        raise DataError(
            f"samples.parquet: year: task without years: found {distinct.tolist()}, expected at least two distinct "
            "ones; predict new places (`task`) or bring more years"
        )
    return int(np.diff(distinct).min())


def combine(place_roles: pd.Series, year_roles: pd.Series) -> pd.Series:
    """Roles when place and year must both be new: the role on which both splits (of one index) agree, else `buffer`.

    The test years of a locked place are locked. Raises DataError if training, validation or test is left empty.
    """
    role = place_roles.where(place_roles == year_roles, "buffer")
    role = role.mask((place_roles == "locked") & (year_roles == "test"), "locked")
    what = f"samples.parquet: {len(role)} rows whose place and year have the same role"
    require_roles(role, what, "choose another `fold` or `origin`, or bring more places with those years")
    return role


def read_split(folder: Path, tile_ids: pd.Series) -> pd.DataFrame:
    """The table the split stage wrote, one row per tile of the store whose `tiles["tile_id"]` are given.

    Raises:
        StorageError: the file cannot be read.
        DataError: it is not a table, or was drawn for other tiles.
    """
    path = Path(folder) / "split.parquet"
    split = files.read_table(path)
    if list(split["tile_id"]) != list(tile_ids):
        raise DataError(
            f"{path}: tile_id: found {len(split)} tiles, expected the {len(tile_ids)} of the store, in its order; "
            f"run the split stage again"
        )
    return split


def blocks_of_places(tiles: pd.DataFrame, degrees: float) -> pd.Series:
    """Block of each tile's place: that of the first of its tiles in order of tile_id; "" without coordinates."""
    first = tiles.dropna(subset=["lat", "lon"]).sort_values("tile_id").drop_duplicates("place")
    blocks = assign_blocks(first["lat"].to_numpy(), first["lon"].to_numpy(), degrees)
    return tiles["place"].map(pd.Series(blocks, index=first["place"], dtype=object)).fillna("")


def require_regions(place: pd.Series, region: pd.Series) -> None:
    """Raise DataError unless there are two regions and every place lies in one."""
    missing = sorted(set(place[region.isna() | (region == "")]))
    if missing:
        raise DataError(
            f"index.parquet: `region`: {len(missing)} places without a region ({', '.join(missing[:5])}), expected "
            f"one for each; complete them or split by blocks (`method`)"
        )
    regions_of = pd.DataFrame({"place": place, "region": region}).drop_duplicates().sort_values(["place", "region"])
    divided = regions_of[regions_of["place"].duplicated(keep=False)]
    if len(divided):
        name, regions = divided["place"].iloc[0], ", ".join(divided["region"].iloc[:2])
        raise DataError(
            f"index.parquet: `region`: {divided['place'].nunique()} places in two regions ({name}: {regions}), "
            f"expected one for each place; correct the region"
        )
    if regions_of["region"].nunique() < 2:
        raise DataError(
            f"index.parquet: `region`: the region {regions_of['region'].iloc[0]} holds all {len(regions_of)} places, "
            f"expected at least two regions; bring places of other regions, or leave `lock` blank and "
            f"split by blocks (`method`)"
        )


def require_coordinates(tiles: pd.DataFrame) -> None:
    """Raise DataError if a tile (tile_id) has no lat, lon or half_diagonal_km."""
    missing = tiles.loc[tiles[["lat", "lon", "half_diagonal_km"]].isna().any(axis=1), "tile_id"].sort_values()
    if len(missing):
        raise DataError(
            f"index.parquet: lat, lon, half_diagonal_km: {len(missing)} tiles without coordinates "
            f"({', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}), expected a number for each: "
            f".npy tiles without coordinates refuse spatial splits; give crs and transform in each "
            f"tile's sidecar JSON, or split by place (`method`)"
        )
