"""Divide the tiles into training, validation, test and buffer, and audit the division.

    python -m src.population.split --tiles data/population/tiles --out data/population/split

Writes split.parquet (role of every tile), split.json (what was drawn, label mean and standard deviation),
statistics.safetensors (band means and standard deviations), audit.json and split_map.png. Statistics are those
of the training tiles alone. `split.seed` is the only seed used. A leak ends the stage and writes nothing.
"""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from safetensors.numpy import save

from src.core import normalize, run, splits
from src.core.audit import audit, require_clean
from src.core.errors import DataError
from src.core.files import complete_folder, write_json
from src.core.metrics import MINIMUM_UNITS
from src.core.store import Store
from src.population.params import Params

COLOURS = {"train": "#4477aa", "validation": "#ddaa33", "test": "#bb3355", "buffer": "#bbbbbb"}
MARKERS = {"train": ("o", 28), "validation": ("s", 28), "test": ("^", 38), "buffer": ("X", 24)}  # shape, area


def main(params, inputs, out, dry_run=False):
    store = Store.open(inputs.tiles)
    tiles = store.tiles.assign(place=store.tiles["province"] + "/" + store.tiles["city"])
    draw = {"degrees": params.split.block_degrees, "folds": params.split.folds}
    draw |= {"fold": params.split.fold, "seed": params.split.seed}
    by_blocks = params.split.method == "blocks"
    if by_blocks:
        drawn = splits.split_blocks(tiles, buffer_km=params.split.buffer_km, **draw)
    else:
        drawn = splits.split_places(tiles, **draw)
    split = tiles[["tile", "tile_id", "place"]].join(drawn).join(tiles[["lat", "lon"]])

    train = split.loc[split["role"] == "train", "tile"].to_numpy()
    role_of_sample = store.samples["tile"].map(split.set_index("tile")["role"])
    samples = count_roles(role_of_sample)
    require_samples(samples, where=f"{inputs.tiles}/samples.parquet")
    label_mean, label_sd = normalize.label_statistics(
        store.samples.loc[role_of_sample == "train", "growth_rate"], where=f"{inputs.tiles}/samples.parquet"
    )
    summary = {
        "method": params.split.method,
        "seed": params.split.seed,
        "folds": params.split.folds,
        "fold": params.split.fold,
        "unit": "block" if by_blocks else "place",
        "block_degrees": params.split.block_degrees,
        "buffer_km": params.split.buffer_km if by_blocks else 0.0,
        "counts": count_roles(split["role"]),
        "samples": samples,
        "units": count_roles(split.drop_duplicates(["block" if by_blocks else "place", "role"])["role"]),
        "hash": assignment_hash(split),
        "label_mean": label_mean,
        "label_sd": label_sd,
    }
    print(f"split: fold {summary['fold']} of {summary['folds']} (counted from 0): tiles {summary['counts']}")
    print(f"split: labels {samples}, {summary['unit']}s {summary['units']}")
    if summary["units"]["test"] < MINIMUM_UNITS:
        print(
            f"split: fewer than {MINIMUM_UNITS} test {summary['unit']}s, so scores get no intervals; "
            "smaller split.block_degrees or fewer split.folds give more, pooled folds most"
        )
    if dry_run:
        print(f"split: would read {len(split)} tiles for the audit and {len(train)} for the band statistics")
        return

    store.verify()
    mean, sd = (array.astype(np.float32) for array in normalize.band_statistics(store, train))
    findings = audit(store, split, mean, sd)
    require_clean(findings, buffer_km=summary["buffer_km"], where=str(out.out))
    with complete_folder(out.out) as folder:
        split.to_parquet(folder / "split.parquet", index=False)
        write_json(folder / "split.json", summary)
        (folder / "statistics.safetensors").write_bytes(save({"mean": mean, "sd": sd}))
        write_json(folder / "audit.json", findings)
        draw_map(split, summary, folder / "split_map.png")


def count_roles(roles: pd.Series) -> dict[str, int]:
    """How often each role occurs, in a fixed order."""
    return {role: int((roles == role).sum()) for role in splits.ROLES}


def require_samples(samples: dict[str, int], where: str) -> None:
    """Raise DataError if training, validation or test has tiles but no label."""
    for role in splits.ROLES[:3]:
        if not samples[role]:
            raise DataError(
                f"{where}: tile: found no label on a {role} tile (labels per role: {samples}), expected at least "
                f"one; bring more labels or choose another split.fold"
            )


def assignment_hash(split: pd.DataFrame) -> str:
    """sha256 of every tile's block and role, whatever the order of rows."""
    lines = sorted(f"{row.tile_id}\t{row.block}\t{row.role}\n" for row in split.itertuples())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def draw_map(split: pd.DataFrame, summary: dict, path: Path) -> None:
    """PNG of every place's role on a longitude/latitude grid; blocks that hold test or validation are tinted."""
    places = split.drop_duplicates("place").dropna(subset=["lat", "lon"])
    unlocated = split["place"].nunique() - len(places)
    figure = Figure(figsize=(10, 7), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    if summary["unit"] == "block":
        draw_blocks(axes, split, summary["block_degrees"])
    for role in splits.ROLES:
        here = places[places["role"] == role]
        label = f"{role}: {summary['counts'][role]} tiles, {(split['role'] == role).mean():.0%}"
        axes.scatter(
            here["lon"],
            here["lat"],
            s=MARKERS[role][1],
            marker=MARKERS[role][0],
            color=COLOURS[role],
            edgecolors="white",
            linewidths=0.4,
            label=label,
            zorder=3,
        )
    if len(places):
        # a degree of longitude as wide as it is on the ground in the middle of the map
        axes.set_aspect(1 / np.cos(np.radians(places["lat"].mean())), adjustable="box")
    axes.set(xlabel="longitude (°)", ylabel="latitude (°)")
    rule = (
        f"whole blocks of {summary['block_degrees']:g}°, buffer {summary['buffer_km']:g} km"
        if summary["unit"] == "block"
        else "whole places, no buffer"
    )
    note = f"; {unlocated} places without coordinates not shown" if unlocated else ""
    axes.set_title(f"Fold {summary['fold'] + 1} of {summary['folds']} (split.fold = {summary['fold']}): {rule}{note}")
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, bbox_inches="tight", metadata={"Software": None})


def draw_blocks(axes: Axes, split: pd.DataFrame, degrees: float) -> None:
    """Outline every block that holds a place and tint those of test and validation."""
    for block, roles in split.groupby("block")["role"]:
        south, west = map(float, block.split(","))
        held_out = next((role for role in ("test", "validation") if (roles == role).any()), None)
        tint = to_rgba(COLOURS[held_out], 0.15) if held_out else "none"
        axes.add_patch(Rectangle((west, south), degrees, degrees, facecolor=tint, edgecolor="0.8", linewidth=0.6))


if __name__ == "__main__":
    run.stage(
        main,
        Params,
        name="population.split",
        doc=__doc__,
        inputs={"tiles": "store that preprocess wrote"},
        outputs={"out": "folder for roles, statistics, audit and map"},
    )
