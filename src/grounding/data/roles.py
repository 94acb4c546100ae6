"""Roles of scenes: given by their sidecars, or drawn by spatial blocks.

pretrain scenes teach the generator, ground scenes its adapters; validation scenes choose, test scenes score. Where
sidecars say `train`, these scenes are divided into pretrain and ground, by blocks where places are known.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from pyproj import Transformer
from pyproj.exceptions import CRSError, ProjError

from src.core.geo.distances import geodesic_km, nearest_km
from src.core.splits import squares
from src.core.stage.errors import DataError
from src.grounding.data.pairs import Pair
from src.grounding.data.scene_store import ROLES
from src.grounding.params import Split

BUFFER = "buffer"
TRAIN = "train"  # of sidecars: pretrain and ground
HELD_OUT_FIRST = ("test", "validation", "ground", "pretrain")  # each keeps its distance from those before it


def assign(pairs: Sequence[Pair], split: Split) -> pd.DataFrame:
    """One row a scene, in the order given: name, role (of ROLES, or BUFFER), block, lat, lon, half_diagonal_km.

    Roles are drawn only where no sidecar gives one; then a scene whose centre lies nearer than `buffer_km`, or than
    the largest scene's diagonal, to a scene of a role that is held out from it, is in the buffer.

    Raises:
        DataError: roles are given for some scenes only; scenes without place cannot be drawn; too few blocks; a role
            drawn is left without a scene.
    """
    table = place(pairs)
    table["block"] = name_blocks(table, split)
    given = [pair.split for pair in pairs]
    without = [pair for pair in pairs if pair.split is None]
    if not without:
        names = {"val": "validation"}
        table["role"] = [names.get(role, role) for role in given]
        return divide_train(table, split)
    if len(without) < len(pairs):
        raise DataError(
            f"{without[0].optical}: split: found none, expected one as {len(pairs) - len(without)} other scenes have; "
            "give each scene's JSON one, or none"
        )
    if (table["block"] == "").any():
        raise DataError(
            f"{without[0].optical}: split, crs: found neither for {int((table['block'] == '').sum())} scenes, expected "
            "one of them; declare them in each scene's JSON"
        )
    table["role"] = draw(table["block"], split)
    return keep_apart(table, split.buffer_km)


def place(pairs: Sequence[Pair]) -> pd.DataFrame:
    """name, lat and lon of the centre (degrees), half_diagonal_km (geodesic); NaN without a CRS.

    Raises:
        DataError: the CRS cannot be used, or a scene does not lie on Earth.
    """
    rows = []
    for pair in pairs:
        lat = lon = half = np.nan
        if pair.crs:
            a, _, c, _, e, f = pair.transform
            x, y = c + a * pair.width * np.array([0.5, 0, 1]), f + e * pair.height * np.array([0.5, 0, 1])
            try:
                to_degrees = Transformer.from_crs(pair.crs, "EPSG:4326", always_xy=True)
                lons, lats = to_degrees.transform(x, y, errcheck=True)
                on_earth = bool((np.abs(lats) <= 90).all() and (np.abs(lons) <= 540).all())
            except (CRSError, ProjError):
                on_earth = False
            if not on_earth:
                raise DataError(
                    f"{pair.optical}: transform: found a centre at x {x[0]:g}, y {y[0]:g} in {pair.crs}, expected a "
                    "place on Earth; export it with its true CRS"
                )
            lat, lon = float(lats[0]), float((lons[0] + 180) % 360 - 180)
            half = float(geodesic_km(lats[[0, 0]], lons[[0, 0]], lats[1:], lons[1:]).max())
        rows.append((pair.name, lat, lon, half))
    return pd.DataFrame(rows, columns=["name", "lat", "lon", "half_diagonal_km"])


def name_blocks(table: pd.DataFrame, split: Split) -> pd.Series:
    """Square of `block_km` that holds each scene's centre, "" where the place is unknown."""
    blocks = pd.Series("", index=table.index, dtype=object)
    known = table["lat"].notna()
    if known.any():
        lat, lon = table.loc[known, ["lat", "lon"]].to_numpy().T
        blocks[known] = squares.name_cells(lat, lon, side_km=split.block_km, seed=split.seed)
    return blocks


def draw(blocks: pd.Series, split: Split) -> pd.Series:
    """Role of each scene from its block; names are sorted before, so that the order of scenes changes nothing.

    Raises:
        DataError: fewer blocks than roles.
    """
    names = np.unique(blocks)
    counts = [max(round(share * len(names)), 1) for share in (split.test, split.validation, split.ground)]
    if len(names) - sum(counts) < 1:
        raise DataError(
            f"split: found {len(names)} blocks of `block_km` = {split.block_km:g} km, expected at least {len(ROLES)}, "
            f"one for each of {', '.join(ROLES)}; lower `block_km`, bring more places, or give each scene's role in "
            "its JSON (`split`)"
        )
    order = np.random.default_rng(split.seed).permutation(names)
    ends = np.cumsum(counts)
    role_of = dict.fromkeys(names, "pretrain")
    for role, end, count in zip(HELD_OUT_FIRST, ends, counts, strict=False):
        role_of |= dict.fromkeys(order[end - count : end], role)
    return blocks.map(role_of)


def keep_apart(table: pd.DataFrame, buffer_km: float) -> pd.DataFrame:
    """The table with role BUFFER where a scene is too near to one that is held out from it."""
    table, reach = table.copy(), max(buffer_km, 2 * table["half_diagonal_km"].max())
    for number, role in enumerate(HELD_OUT_FIRST):
        others = table["role"].isin(HELD_OUT_FIRST[:number])
        mine = table["role"] == role
        distance = nearest_km(
            *table.loc[mine, ["lat", "lon"]].to_numpy().T, *table.loc[others, ["lat", "lon"]].to_numpy().T
        )
        table.loc[mine[mine].index[distance <= reach], "role"] = BUFFER
        if not (table["role"] == role).any():
            raise DataError(
                f"split: all scenes of {role} lie within {reach:.3g} km (`buffer_km`, or a scene's diagonal) of scenes "
                f"of {' or '.join(HELD_OUT_FIRST[:number])}, expected some beyond; lower `buffer_km` or bring places "
                "farther away"
            )
    return table


def divide_train(table: pd.DataFrame, split: Split) -> pd.DataFrame:
    """The table with TRAIN divided into pretrain and ground, by blocks; by scene where a place is not known.

    Raises:
        DataError: all scenes of TRAIN are one block.
    """
    train = table["role"] == TRAIN
    if not train.any():
        return table
    table, rows = table.copy(), table[train]
    units = rows["block"] if (rows["block"] != "").all() else rows["name"]
    names = np.random.default_rng(split.seed).permutation(np.unique(units))
    share = split.ground / (1 - split.validation - split.test)
    count = min(max(round(share * len(names)), 1), len(names) - 1)
    if count < 1:
        raise DataError(
            f"split: found one block of `block_km` = {split.block_km:g} km with all {len(rows)} scenes of train, "
            "expected at least 2, for pretrain and ground; lower `block_km`, or give these roles in the scenes' JSON "
            "(`split`)"
        )
    table.loc[train, "role"] = np.where(units.isin(names[:count]), "ground", "pretrain")
    return table
