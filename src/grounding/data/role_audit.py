"""Audit of roles: no scene in two, no ground shown in two, no image in two; the least distance; the map of roles.

Ground shown in two roles is found by places, and by pixels too: tiles without a place may have been cut so that they
overlap.
"""

import hashlib
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rasterio.warp import transform_bounds

from src.core.geo.distances import nearest_km, pairs_within
from src.core.report.figures import drawing
from src.core.splits import near_duplicates
from src.core.stage import files
from src.core.stage.errors import DataError
from src.grounding.data.pairs import Pair
from src.grounding.data.scene_store import ROLES, scene_file
from src.grounding.data.sensors import OPTICAL_BANDS

COLOURS = {"pretrain": "#4477aa", "ground": "#228833", "validation": "#ccbb44", "test": "#ee6677"}
STEPS = 10_000  # of a reflectance of 1: equal numbers stay equal
TOUCH_PX = 0.5  # scenes that touch are no overlap


def check_ground(pairs: dict[str, Pair], table: pd.DataFrame) -> int:
    """Number of pairs of scenes of one role that show the same ground; nothing is known of scenes without a CRS.

    Args:
        table: name, role, lat, lon, half_diagonal_km of the scenes in use.

    Raises:
        DataError: scenes of two roles show the same ground.
    """
    known = table.dropna(subset=["lat"])
    lat, lon, half = known[["lat", "lon", "half_diagonal_km"]].to_numpy().T
    names, roles, overlaps = known["name"].to_numpy(), known["role"].to_numpy(), 0
    for i, j, _ in zip(*pairs_within(lat, lon, lat, lon, half + half.max(initial=0)), strict=True):
        if i >= j or not overlap(pairs[names[i]], pairs[names[j]]):
            continue
        if roles[i] != roles[j]:
            raise DataError(
                f"split: scenes {names[i]} ({roles[i]}) and {names[j]} ({roles[j]}) show the same ground, expected "
                "none in two roles; leave one out, or give both one role"
            )
        overlaps += 1
    return overlaps


def overlap(one: Pair, other: Pair) -> bool:
    """True where footprints share more than a border; of two CRS, the box around the other's counts."""
    west, south, east, north = bounds(one)
    left, bottom, right, top = bounds(other)
    if one.crs != other.crs:
        left, bottom, right, top = transform_bounds(other.crs, one.crs, left, bottom, right, top)
    touch = TOUCH_PX * one.transform[0]
    return min(east, right) - max(west, left) > touch and min(north, top) - max(south, bottom) > touch


def bounds(pair: Pair) -> tuple[float, float, float, float]:
    """West, south, east and north in the pair's CRS."""
    a, _, c, _, e, f = pair.transform
    return c, f + e * pair.height, c + a * pair.width, f


def fingerprint(image: np.ndarray) -> str:
    """Digest of a (C, H, W) image that is the same for its flips and rotations."""
    return min(
        hashlib.sha256(str(turned.shape).encode() + np.ascontiguousarray(turned).tobytes()).hexdigest()
        for turned in near_duplicates.orientations(image)
    )


def check_copies(table: pd.DataFrame) -> int:
    """Number of scenes beyond the first with an image that another scene of the role has too.

    Args:
        table: name, role, and `sar` and `optical`, fingerprints.

    Raises:
        DataError: scenes of two roles have the same radar or optical image.
    """
    copies = 0
    for sensor in ("sar", "optical"):
        for _, same in table.groupby(sensor, sort=False):
            if same["role"].nunique() > 1:
                (one, role), (other, other_role) = same.drop_duplicates("role")[["name", "role"]].to_numpy()[:2]
                raise DataError(
                    f"split: scenes {one} ({role}) and {other} ({other_role}) have the same {sensor} image (flips and "
                    "rotations included), expected none in two roles; remove the copy"
                )
            copies += len(same) - 1
    return copies


class OpticalImages:
    """Optical images in the folder of a store, as `near_duplicates` reads them: uint16, reflectance times 10,000."""

    bands = len(OPTICAL_BANDS)

    def __init__(self, folder: Path, rows: list[dict[str, Any]]):
        self.paths = [folder / scene_file(row["name"]) for row in rows]
        self.height, self.width = (max(row[side] for row in rows) for side in ("height", "width"))

    def view(self, row: int) -> np.ndarray:
        """(4, H, W) of one scene."""
        return np.rint(files.read_arrays(self.paths[row])["optical"] * STEPS).astype(np.uint16)

    def valid(self, rows: list[int]) -> list[np.ndarray]:
        """(H, W) bool of each scene."""
        return [files.read_arrays(self.paths[row])["valid"].astype(bool) for row in rows]


def check_pixels(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Raise DataError where optical images of two roles have a quarter of their distinct pixels in common.

    Args:
        folder: a store's, with all scenes written.
        rows: of its table.
    """
    tiles = pd.DataFrame({"tile": range(len(rows)), "role": [row["role"] for row in rows]})
    shared = near_duplicates.shared_pixels(OpticalImages(folder, rows), tiles, list(combinations(ROLES, 2)))
    if len(shared):
        one, other = (f"{rows[number]['name']} ({rows[number]['role']})" for number in shared[0])
        raise DataError(
            f"split: scenes {one} and {other}, and {len(shared) - 1} more pairs, have many pixels of the optical image "
            "in common, as tiles that overlap, expected none in two roles; give both one role, or cut tiles apart"
        )


def report(table: pd.DataFrame, overlaps: int, copies: int) -> dict[str, Any]:
    """audit.json of scenes in use that passed: counts, and the least distance of centres between roles (km)."""
    known = table.dropna(subset=["lat"])
    places = {role: known.loc[known["role"] == role, ["lat", "lon"]].to_numpy().T for role in ROLES}
    nearest = {}
    for one, other in combinations(ROLES, 2):
        both = places[one].size and places[other].size
        nearest[f"{one}_{other}"] = round(float(nearest_km(*places[one], *places[other]).min()), 3) if both else None
    return {
        "scenes": {role: int((table["role"] == role).sum()) for role in ROLES},
        "blocks": {
            role: int(table.loc[table["role"] == role, "block"].replace("", np.nan).nunique()) for role in ROLES
        },
        "scenes_in_two_roles": int(table["name"].duplicated().sum()),
        "scenes_without_place": int(table["lat"].isna().sum()),
        "overlaps_between_roles": 0,
        "copies_between_roles": 0,
        "common_pixels_between_roles": 0,
        "overlaps_within_roles": overlaps,
        "copies_within_roles": copies,
        "nearest_km": nearest,
    }


def draw(table: pd.DataFrame, path: Path) -> None:
    """roles.png: every scene at its place, coloured by role; scenes without a place are counted in the title."""
    known = table.dropna(subset=["lat"])
    with drawing(path, 7, 5.5) as figure:
        axes = figure.subplots()
        for role, colour in COLOURS.items():
            rows = known[known["role"] == role]
            label = f"{role} ({int((table['role'] == role).sum())})"
            axes.scatter(rows["lon"], rows["lat"], s=40, marker="s", color=colour, label=label)
        axes.set(xlabel="longitude (degrees)", ylabel="latitude (degrees)")
        without = len(table) - len(known)
        axes.set_title("roles of scenes" + (f"; {without} without a place" if without else ""), fontsize=11)
        axes.ticklabel_format(useOffset=False)
        figure.legend(loc="outside lower center", ncols=4, frameon=False)
