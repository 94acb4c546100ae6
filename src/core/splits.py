"""Which tiles train, validate and test: by place, or by spatial block with a buffer.

A place (province/city) with all its years is never divided. `split_blocks` moves whole squares of a
latitude/longitude grid and leaves out what lies too near to a held-out tile (Roberts et al. 2017,
"Cross-validation strategies for data with temporal, spatial, hierarchical, or phylogenetic structure");
`split_places` moves places and knows no distance.

Ids are sorted before anything is drawn, so neither row order nor hash order can change a split.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from pyproj import Geod
from sklearn.neighbors import BallTree

from src.core import files
from src.core.errors import DataError, ParamsError

ROLES = ("train", "validation", "test", "buffer")
VALIDATION_SHARE = 15 / 80  # of what the test fold leaves: with five folds 65 / 15 / 20
EARTH_RADIUS_KM = 6371.0088
WGS84 = Geod(ellps="WGS84")


def split_blocks(
    tiles: pd.DataFrame, *, degrees: float, buffer_km: float, folds: int, fold: int, seed: int
) -> pd.DataFrame:
    """Roles by whole blocks of `degrees` x `degrees`, the held-out ones surrounded by a buffer.

    Test keeps all its tiles. A place with a tile nearer than `buffer_km` to a test tile leaves validation,
    and one nearer than that to a test or validation tile leaves training: their role is `buffer`.

    Args:
        tiles: one row per tile with tile_id, place, lat, lon (degrees), half_diagonal_km.
        degrees: side of a block.
        buffer_km: geodesic distance between tile centres.

    Returns:
        DataFrame with the index of `tiles` and the columns block (str) and role (str).

    Raises:
        ParamsError: `buffer_km` is below the largest tile diagonal, so that tiles could share ground.
        DataError: a tile has no coordinates, there are too few blocks, or a role is left without a tile.
    """
    _require_coordinates(tiles)
    diagonal_km = 2 * tiles["half_diagonal_km"].max()
    if buffer_km < diagonal_km:
        raise ParamsError(
            f"params.yaml: split.buffer_km: found {buffer_km:g}, expected at least {diagonal_km:.4g} "
            f"(the largest tile's diagonal in km, index.parquet), or tiles of two roles share ground; "
            f"raise split.buffer_km"
        )
    block = _block_of_place(tiles, degrees)
    advice = "lower split.block_degrees or split.folds"
    role = _draw_roles(block, f"blocks of {degrees:g} degrees", folds, fold, seed, advice)
    role = _buffered(tiles, role, buffer_km)
    for name in ROLES[:3]:
        if not (role == name).any():
            raise DataError(
                f"index.parquet: {block.nunique()} blocks of {degrees:g} degrees leave no {name} tile "
                f"outside the buffer of {buffer_km:g} km (fold {fold} of {folds}), expected at least one; "
                f"bring more tiles or lower split.buffer_km"
            )
    return pd.DataFrame({"block": block, "role": role}, index=tiles.index)


def split_places(tiles: pd.DataFrame, *, degrees: float, folds: int, fold: int, seed: int) -> pd.DataFrame:
    """Roles by place, without a buffer; `block` is there for the reader ("" without coordinates).

    Args and returns are those of `split_blocks`; lat and lon may be NaN.

    Raises:
        DataError: there are too few places for the folds and a validation set.
    """
    role = _draw_roles(tiles["place"], "places", folds, fold, seed, "lower split.folds or bring more places")
    located = tiles[["lat", "lon"]].notna().all(axis=1)
    block = pd.Series("", index=tiles.index, dtype=object)
    block[located] = _block_of_place(tiles[located], degrees)
    return pd.DataFrame({"block": block, "role": role}, index=tiles.index)


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


def assign_blocks(lat: np.ndarray, lon: np.ndarray, degrees: float) -> np.ndarray:
    """South-west corner "lat,lon" of the grid square that holds each point.

    Args:
        lat, lon: (N,) degrees; longitudes 360 degrees apart are the same.
        degrees: side of a square.

    Returns:
        (N,) str, for example "35,-95".
    """
    south = np.floor(np.asarray(lat, float) / degrees) * degrees
    west = np.floor(((np.asarray(lon, float) + 180) % 360 - 180) / degrees) * degrees
    # + 0.0 turns -0.0 into 0.0, which would otherwise print as another block
    return np.array([f"{s:.6g},{w:.6g}" for s, w in zip(south + 0.0, west + 0.0, strict=True)], dtype=object)


def draw_folds(units: np.ndarray, sizes: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """A fold for each unit, so that the folds' summed sizes are close.

    Units come in an order drawn by `seed` from their sorted ids, and each goes to the fold that is smallest
    so far. Larger ones (by powers of two) come first, which lets the small ones even out the sums.

    Args:
        units: (U,) distinct ids.
        sizes: (U,) tiles in each.

    Returns:
        (U,) int64 fold of each unit, in the order given.
    """
    units, sizes = np.asarray(units), np.asarray(sizes)
    order = np.argsort(units)[np.random.default_rng(seed).permutation(len(units))]
    order = order[np.argsort(-np.frexp(sizes[order])[1], kind="stable")]
    fold_of = np.empty(len(units), dtype=np.int64)
    totals = np.zeros(folds, dtype=np.int64)
    for unit in order:
        fold_of[unit] = totals.argmin()
        totals[fold_of[unit]] += sizes[unit]
    return fold_of


def draw_validation(units: np.ndarray, sizes: np.ndarray, share: float, seed: list[int]) -> np.ndarray:
    """Units for validation: in an order drawn by `seed`, each that still fits into `share` is taken.

    Where none fits, the smallest is taken.

    Args:
        units: (U,) distinct ids, at least two.
        sizes: (U,) tiles in each.
        share: fraction of all tiles that is not exceeded.

    Returns:
        (U,) bool.
    """
    units, sizes = np.asarray(units), np.asarray(sizes)
    order = np.argsort(units)[np.random.default_rng(seed).permutation(len(units))]
    taken = np.zeros(len(units), dtype=bool)
    room = share * sizes.sum()
    for unit in order:
        if sizes[unit] <= room:
            taken[unit] = True
            room -= sizes[unit]
    if not taken.any():
        taken[order[sizes[order].argmin()]] = True
    return taken


def pairs_within(
    lat: np.ndarray,
    lon: np.ndarray,
    other_lat: np.ndarray,
    other_lon: np.ndarray,
    radius_km: np.ndarray | float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of points not farther apart than `radius_km` on the WGS84 ellipsoid.

    A haversine BallTree proposes pairs, Karney's geodesic (pyproj) decides.

    Args:
        lat, lon: (N,) degrees.
        other_lat, other_lon: (M,) degrees.
        radius_km: scalar, or (N,) one for each of the first points.

    Returns:
        Index into the first points, index into the others, and distance in km, (P,) each.
    """
    tree = BallTree(_radians(other_lat, other_lon), metric="haversine")
    radius_km = np.broadcast_to(np.asarray(radius_km, float), len(lat))
    # the sphere is wrong by at most 0.6 %; 2 % more never misses a pair
    near = tree.query_radius(_radians(lat, lon), 1.02 * radius_km / EARTH_RADIUS_KM)
    i = np.repeat(np.arange(len(lat)), [len(found) for found in near])
    j = np.concatenate([*near, np.empty(0, np.int64)]).astype(np.int64)
    km = WGS84.inv(np.asarray(lon)[i], np.asarray(lat)[i], np.asarray(other_lon)[j], np.asarray(other_lat)[j])[2]
    km = np.asarray(km, float) / 1000
    inside = km <= radius_km[i]
    return i[inside], j[inside], km[inside]


def nearest_km(lat: np.ndarray, lon: np.ndarray, other_lat: np.ndarray, other_lon: np.ndarray) -> np.ndarray:
    """Geodesic distance of each point to the nearest of the others, (N,) float64 km; inf if there are none."""
    nearest = np.full(len(lat), np.inf)
    if len(lat) and len(other_lat):
        tree = BallTree(_radians(other_lat, other_lon), metric="haversine")
        on_sphere = tree.query(_radians(lat, lon))[0][:, 0] * EARTH_RADIUS_KM
        i, _, km = pairs_within(lat, lon, other_lat, other_lon, 1.02 * on_sphere + 1e-6)
        np.minimum.at(nearest, i, km)
    return nearest


def _draw_roles(unit: pd.Series, what: str, folds: int, fold: int, seed: int, advice: str) -> pd.Series:
    """Role of each tile from its unit: test = `fold`, validation = VALIDATION_SHARE of the rest."""
    counts = unit.value_counts().sort_index()
    units, sizes = counts.index.to_numpy(), counts.to_numpy()
    if len(units) < max(folds, 3):
        raise DataError(
            f"index.parquet: found {len(units)} {what}, expected at least {max(folds, 3)} "
            f"(split.folds is {folds}; train, validation and test need one each); {advice}"
        )
    rest = draw_folds(units, sizes, folds, seed) != fold
    if rest.sum() < 2:
        raise DataError(
            f"index.parquet: of {len(units)} {what}, fold {fold} of {folds} leaves {rest.sum()}, "
            f"expected at least 2 (training and validation); {advice}"
        )
    # a stream of its own for every fold; [seed, 0] would repeat the stream of draw_folds
    validation = units[rest][draw_validation(units[rest], sizes[rest], VALIDATION_SHARE, [seed, 1 + fold])]
    role = pd.Series("test", index=unit.index, dtype=object)
    role[unit.isin(units[rest])] = "train"
    role[unit.isin(validation)] = "validation"
    return role


def _buffered(tiles: pd.DataFrame, role: pd.Series, buffer_km: float) -> pd.Series:
    """`role` where places of validation, then of training, too near to held-out tiles became `buffer`."""
    role = role.copy()
    for inner, held_out in (("validation", ["test"]), ("train", ["test", "validation"])):
        mine, others = tiles[role == inner], tiles[role.isin(held_out)]
        km = nearest_km(*mine[["lat", "lon"]].to_numpy().T, *others[["lat", "lon"]].to_numpy().T)
        # years of a place may be centred differently: one too near takes the others along
        near = mine["place"][km < buffer_km]
        role[tiles["place"].isin(near)] = "buffer"
    return role


def _block_of_place(tiles: pd.DataFrame, degrees: float) -> pd.Series:
    """Block of each tile's place: the one that holds the first of its tiles in order of tile_id."""
    first = tiles.sort_values("tile_id").drop_duplicates("place")
    blocks = assign_blocks(first["lat"].to_numpy(), first["lon"].to_numpy(), degrees)
    return tiles["place"].map(dict(zip(first["place"], blocks, strict=True)))


def _require_coordinates(tiles: pd.DataFrame) -> None:
    missing = tiles.loc[tiles[["lat", "lon", "half_diagonal_km"]].isna().any(axis=1), "tile_id"].sort_values()
    if len(missing):
        raise DataError(
            f"index.parquet: lat, lon, half_diagonal_km: {len(missing)} tiles without coordinates "
            f"({', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}), expected a number for each: "
            f".npy tiles without coordinates refuse spatial splits; give lat, lon, crs and transform in each "
            f"tile's sidecar JSON, or set split.method: place"
        )


def _radians(lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    return np.radians(np.column_stack([lat, lon]).astype(float))
