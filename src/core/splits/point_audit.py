"""Leakage audit of points split by squares and years: records, ground, days or embeddings that roles share.

Nothing here asks `squares.assign_squares` which points are near a square: outlines are drawn anew by PROJ and distances
are geodesics. What lies in a buffer, and what is too uncertain to lie anywhere, is used by nobody; of it only the kind
is audited.
"""

from typing import Any

import numpy as np
import pandas as pd
from pyproj import Proj

from src.core.geo.distances import geodesic_km, nearest_km, pairs_within
from src.core.splits import embedding_audit
from src.core.splits.embedding_audit import USED
from src.core.stage.errors import DataError

KINDS = ("temporal", "spatial", "both")
PAIRS = (("train", "test"), ("train", "validation"), ("validation", "test"))
# Between points of an outline. A point 5 km off is 0.1 m nearer to the edge than to the nearest of them.
SPACING_KM = 0.05
EDGE_KM = 1e-5  # what two projections may differ by: nearer to an edge, a point may be told either way


def audit(
    points: pd.DataFrame,
    squares: pd.DataFrame,
    *,
    side_km: float,
    buffer_km: float,
    max_uncertainty_m: float,
) -> dict[str, Any]:
    """Measure what train, validation and test share.

    Args:
        points: record, role, kind ("" | temporal | spatial | both), square (row of `squares`, -1 outside), lat, lon
            (degrees), uncertainty_m (NaN unknown), first_day and last_day.
        squares: lat, lon of the centres.

    Returns:
        What `require_clean` explains, and
        square_gap_km: the least distance between the edges of two squares; None for one square.
        nearest_A_B_K_km for the pairs train-test, train-validation and validation-test, and the kinds spatial and
            both of the latter: the least geodesic distance; None where there are no such points.
        temporal_A_B_km: least and median distance of the kind temporal, which may be 0.
        gap_days_A_B: days that lie between the last day of A and the first of B (temporal or both).
    """
    used = points[points["role"].isin(USED)]
    said, (inside, outside) = used["square"].to_numpy() >= 0, _misplaced(used, squares, side_km)
    held_out = points["role"].isin(USED[1:])
    return {
        "shared_records": int((used.groupby("record")["role"].nunique() > 1).sum()),
        "uncertain_in_use": int((used["uncertainty_m"] > max_uncertainty_m).sum()),
        "misplaced_points": int((inside | outside).sum()),
        "training_in_squares": int(((used["role"] == "train") & (inside | said)).sum()),
        "amiss_kinds": int(np.where(held_out, ~points["kind"].isin(KINDS), points["kind"] != "").sum()),
        **_compare_outlines(used, squares, side_km, buffer_km),
        **_compare_roles(used),
    }


def require_clean(
    findings: dict[str, Any],
    *,
    buffer_km: float,
    apart_km: float,
    gap_days: int,
    shared_embeddings: list[str],
    where: str,
) -> None:
    """Raise DataError, naming every violation, unless the audit found none.

    `findings` are those of `audit` and, as "embeddings", of `embedding_audit.audit`; `where` begins each line.
    """
    explanations = {
        "shared_records": "records with images in two roles, expected 0; give all images of a record one place and "
        "date",
        "uncertain_in_use": "points less certain than `max_uncertainty_m`, expected 0; give them no role",
        "misplaced_points": "points that do not lie in the square they are said to lie in, expected 0; draw the "
        "squares again",
        "training_in_squares": "training points in a held-out square, expected 0; draw the roles again",
        "amiss_kinds": f"points of validation or test without a kind ({', '.join(KINDS)}), or of another role with "
        "one, expected 0; draw the roles again",
        "points_near_squares": f"points within `buffer_km` = {buffer_km:g} of a square, expected 0; put them "
        "into the buffer",
    }
    lines = [f"{key}: found {findings[key]} {text}" for key, text in explanations.items() if findings[key]]
    if (gap := findings["square_gap_km"]) is not None and gap < apart_km:
        lines.append(f"square_gap_km: found {gap:.3f} km, expected `apart_km` = {apart_km:g}; choose others")
    for key, found in findings.items():
        if key.startswith("nearest_") and found is not None and found < buffer_km:
            lines.append(
                f"{key}: found {found:.3f} km, expected more than `buffer_km` = {buffer_km:g}; put what is "
                "nearer into the buffer"
            )
        if key.startswith("gap_days_") and found is not None and found < gap_days:
            lines.append(
                f"{key}: found {found} days, expected at least `gap_days` = {gap_days}; put what is between "
                "into the buffer"
            )
    lines += embedding_audit.violations(findings["embeddings"], shared_embeddings)
    if lines:
        raise DataError("\n".join(f"{where}: leakage audit: {line}" for line in lines))


def _compare_roles(used: pd.DataFrame) -> dict[str, Any]:
    findings: dict[str, Any] = {}
    for one, other in PAIRS:
        a, b = (used[used["role"] == role] for role in (one, other))
        km = nearest_km(b["lat"], b["lon"], a["lat"], a["lon"])  # inf where there is none
        km = {kind: km[(b["kind"] == kind) & np.isfinite(km)] for kind in KINDS}
        for kind in ("spatial", "both"):
            findings[f"nearest_{one}_{other}_{kind}_km"] = float(km[kind].min()) if len(km[kind]) else None
        here = km["temporal"]
        range_km = {"least": float(here.min()), "median": float(np.median(here))} if len(here) else None
        findings[f"temporal_{one}_{other}_km"] = range_km
        later = b[b["kind"].isin(["temporal", "both"])]
        gap = int(later["first_day"].min() - a["last_day"].max() - 1) if len(a) and len(later) else None
        findings[f"gap_days_{one}_{other}"] = gap
    return findings


def _compare_outlines(points: pd.DataFrame, squares: pd.DataFrame, side_km: float, buffer_km: float) -> dict[str, Any]:
    outlines = [_outline(lat, lon, side_km) for lat, lon in zip(squares["lat"], squares["lon"], strict=True)]
    outside = points[points["square"] < 0]
    near = nearest_km(outside["lat"], outside["lon"], *np.concatenate(outlines, axis=1)) <= buffer_km
    i, j = np.triu_indices(len(squares), 1)
    centre = squares[["lat", "lon"]].to_numpy(float)
    apart = geodesic_km(*centre[i].T, *centre[j].T)
    # edges are nearer than centres by one side at least and by 1.42 at most
    nearest = np.flatnonzero(apart <= apart.min(initial=np.inf) + 0.5 * side_km)
    gaps = [nearest_km(*outlines[i[pair]], *outlines[j[pair]]).min() for pair in nearest]
    return {"points_near_squares": int(near.sum()), "square_gap_km": float(min(gaps)) if gaps else None}


def _misplaced(points: pd.DataFrame, squares: pd.DataFrame, side_km: float) -> tuple[np.ndarray, np.ndarray]:
    """Points in a square that are said to be outside, and points outside the one they are said to be in, (N,) bool."""
    lat, lon = points[["lat", "lon"]].to_numpy(float).T
    which, point, _ = pairs_within(squares["lat"], squares["lon"], lat, lon, 0.8 * side_km)
    said = points["square"].to_numpy()
    inside, outside = np.zeros(len(points), bool), said >= 0
    for k, centre in enumerate(squares[["lat", "lon"]].to_numpy(float)):
        here = point[which == k]
        x, y = _projection(*centre)(lon[here], lat[here])
        beyond = np.maximum(np.abs(x), np.abs(y)) - side_km / 2  # the nearest edge's line, negative inside
        inside[here[(beyond < -EDGE_KM) & (said[here] < 0)]] = True
        outside[here[(beyond <= EDGE_KM) & (said[here] == k)]] = False
    return inside, outside


def _outline(lat: float, lon: float, side_km: float) -> np.ndarray:
    """(2, P) lat, lon of points at most SPACING_KM apart on the edges of a square."""
    each = 1 + int(np.ceil(side_km / SPACING_KM))
    half, along = side_km / 2, np.linspace(-side_km / 2, side_km / 2, each)
    x = np.concatenate([along, along, np.full(each, half), np.full(each, -half)])
    y = np.concatenate([np.full(each, half), np.full(each, -half), along, along])
    return np.stack(_projection(lat, lon)(x, y, inverse=True)[::-1])


def _projection(lat: float, lon: float) -> Proj:
    """Azimuthal equidistant around a point, in km."""
    return Proj(proj="aeqd", lat_0=lat, lon_0=lon, ellps="WGS84", units="km")
