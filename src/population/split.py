"""Divide the labels into training, validation, test, buffer and locked ones, and audit the division.

    python -m src.population.split --tiles data/population/tiles --out data/population/split

Writes split.parquet (role of every tile), samples.parquet (role and target of every label), split.json (what was
drawn, label mean and standard deviation), statistics.safetensors (band means and standard deviations), audit.json,
split_map.png and distances.png. Statistics are those of the training tiles alone. `split.seed` is the only seed
used. A leak ends the stage and writes nothing.
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

from src.core.data import band_statistics
from src.core.data.tile_store import Store
from src.core.evaluation.jackknife import MINIMUM_UNITS
from src.core.report import figures
from src.core.splits import distance_figure, spatial_temporal
from src.core.splits.tile_audit import audit, require_clean
from src.core.stage import run
from src.core.stage.errors import DataError
from src.core.stage.files import complete_folder, write_json
from src.population.data import labels, prediction_tasks
from src.population.data.prediction_tasks import Roles
from src.population.params import Params

MARKERS = {
    "train": {"color": "#4477aa", "marker": "o", "s": 28},
    "validation": {"color": "#ddaa33", "marker": "s", "s": 28},
    "test": {"color": "#bb3355", "marker": "^", "s": 38},
    "buffer": {"color": "#bbbbbb", "marker": "X", "s": 24},
    "locked": {"color": "#444444", "marker": "P", "s": 26},
}


def main(params, inputs, out, dry_run=False):
    store = Store.open(inputs.tiles)
    use = None if params.split.use is None else labels.read_points(Path(params.split.use))
    drawn = prediction_tasks.draw(store, params.split)
    require_samples(count_roles(drawn.samples.role), where=f"{inputs.tiles}/samples.parquet")
    train = drawn.tiles.loc[drawn.tiles.role == "train", "tile"].to_numpy()
    label_mean, label_sd = band_statistics.target_statistics(
        drawn.samples.growth_rate[drawn.samples.role == "train"], where=f"{inputs.tiles}/samples.parquet: growth_rate"
    )
    summary = summarise(drawn, params.split) | {"label_mean": label_mean, "label_sd": label_sd}
    describe(summary)
    if dry_run:
        print(f"split: would read {len(drawn.tiles)} tiles for the audit and {len(train)} for the band statistics")
        return

    store.verify()
    mean, sd = (array.astype(np.float32) for array in band_statistics.band_statistics(store, train))
    split = drawn.tiles[["tile", "tile_id", "place", "block", "role", "lat", "lon"]]
    findings = audit(store, split, drawn.samples, mean, sd, origin=summary["origin"])
    require_clean(
        findings,
        by_place=params.split.task != "next_year",
        by_time=params.split.task in prediction_tasks.FORECASTS,
        buffer_km=summary["buffer_km"],
        retrospective_tiles=params.split.retrospective_tiles,
        where=f"{out.out}: leakage audit of {params.split.task}",
    )
    with complete_folder(out.out) as folder:
        split.to_parquet(folder / "split.parquet", index=False)
        drawn.samples.to_parquet(folder / prediction_tasks.SAMPLES, index=False)
        write_json(folder / "split.json", summary)
        (folder / "statistics.safetensors").write_bytes(save({"mean": mean, "sd": sd}))
        write_json(folder / "audit.json", findings)
        draw_map(split, summary, folder / "split_map.png")
        # in next_year places are shared, and only time separates
        if params.split.task != "next_year" and split[["lat", "lon"]].notna().all(axis=None):
            of_use = "to the nearest other place" if use is None else "that of split.use"
            title = f"Distance to the nearest training place (of use: {of_use})"
            km = distance_figure.nearest_training_distances(split, use)
            distance_figure.draw_distances(folder / "distances.png", **km, title=title)


def summarise(drawn: Roles, split) -> dict:
    """split.json but for the labels' statistics."""
    samples, by_place = drawn.samples, split.method == "place" or split.task == "next_year"
    unit = "place" if (samples.block == "").any() else "province" if split.method == "provinces" else "block"
    of_unit = samples.place if unit == "place" else samples.block
    return drawn.facts | {
        "unit": unit,  # the largest correlated one, which intervals resample whole
        "block_degrees": split.block_degrees,
        "buffer_km": 0.0 if by_place else split.buffer_km,
        "retrospective_tiles": split.retrospective_tiles,
        "counts": count_roles(drawn.tiles.role),
        "samples": count_roles(samples.role),
        "units": {role: int(of_unit[samples.role == role].nunique()) for role in spatial_temporal.ROLES},
        "hash": assignment_hash(drawn),
    }


def describe(summary: dict) -> None:
    """Print the size of each role, and what the split cannot show."""
    print(
        f"split: {summary['task']}, fold {summary['fold']} of {summary['folds']} (counted from 0): "
        f"tiles {summary['counts']}"
    )
    print(f"split: labels {summary['samples']}, {summary['unit']}s {summary['units']}")
    if summary["origin"] is not None:
        print(f"split: origin {summary['origin']} of {summary['origins']}, horizon {summary['horizon']} steps of "
              f"{summary['step_years']} years: {summary['years']}")  # fmt: skip
    if summary["unit"] == "place":
        print("split: places without coordinates, so neither distances nor shared ground could be audited")
    if places := summary["locked"]["places"]:
        print(f"split: {places} places locked, in {', '.join(summary['locked']['provinces'])}")
    else:
        print("split: no province is locked (split.lock), so every score is exploratory")
    if summary["units"]["test"] < MINIMUM_UNITS:
        smaller = "smaller split.block_degrees or " * (summary["unit"] == "block")
        print(
            f"split: fewer than {MINIMUM_UNITS} test {summary['unit']}s, so scores get no intervals; "
            f"{smaller}fewer split.folds give more, pooled folds most"
        )


def count_roles(roles: pd.Series) -> dict[str, int]:
    """Number of rows of each role, in the order of ROLES."""
    return {role: int((roles == role).sum()) for role in spatial_temporal.ROLES}


def require_samples(samples: dict[str, int], where: str) -> None:
    """Raise DataError if training, validation or test has no label."""
    for role in ("train", "validation", "test"):
        if samples[role] < 2:
            raise DataError(
                f"{where}: tile: found {samples[role]} {role} labels (labels per role: {samples}), expected at least "
                f"two; bring more labels or choose another split.fold"
            )


def assignment_hash(drawn: Roles) -> str:
    """sha256 of every tile's and label's block and role, whatever the order of rows."""
    lines = [f"{row.tile_id}\t{row.block}\t{row.role}\n" for row in drawn.tiles.itertuples()]
    lines += [f"{row.tile_id}\t{row.year}\t{row.role}\n" for row in drawn.samples.itertuples()]
    return hashlib.sha256("".join([drawn.facts["task"], *sorted(lines)]).encode()).hexdigest()


def draw_map(split: pd.DataFrame, summary: dict, path: Path) -> None:
    """PNG of every place's role on a longitude/latitude grid; blocks that hold test or validation are tinted."""
    places = split.drop_duplicates("place").dropna(subset=["lat", "lon"])
    unlocated = split["place"].nunique() - len(places)
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.add_subplot()
    if summary["method"] == "blocks" and summary["task"] != "next_year":
        draw_blocks(axes, split[split.role != "locked"], summary["block_degrees"])
    for role in spatial_temporal.ROLES:
        here = places[places["role"] == role]
        if here.empty:
            continue
        label = f"{role}: {summary['counts'][role]} tiles, {(split['role'] == role).mean():.0%}"
        style = MARKERS[role] | {"edgecolors": "white", "linewidths": 0.4, "zorder": 3}
        axes.scatter(here["lon"], here["lat"], label=label, **style)
    if len(places):
        # a degree of longitude as wide as it is on the ground in the middle of the map
        axes.set_aspect(1 / np.cos(np.radians(places["lat"].mean())), adjustable="box")
    axes.set(xlabel="longitude (°)", ylabel="latitude (°)")
    rule = {
        "blocks": f"whole blocks of {summary['block_degrees']:g}°, buffer {summary['buffer_km']:g} km",
        "provinces": f"whole provinces, buffer {summary['buffer_km']:g} km",
        "place": "whole places, no buffer",
    }[summary["method"]]
    if summary["task"] == "next_year":
        rule = f"origin {summary['origin']}, roles by the earliest use of a tile"
    note = f"; {unlocated} places without coordinates not shown" if unlocated else ""
    part = f"Fold {summary['fold'] + 1} of {summary['folds']} (split.fold = {summary['fold']})"
    axes.set_title(f"{summary['task'].replace('_', ' ') if summary['origin'] else part}: {rule}{note}")
    if len(places):
        figure.legend(loc="outside lower center", ncols=5, frameon=False)
    figures.save(figure, path, dpi=120, bbox_inches="tight")


def draw_blocks(axes: Axes, split: pd.DataFrame, degrees: float) -> None:
    """Outline every block that holds a place and tint those of test and validation."""
    for block, roles in split.groupby("block")["role"]:
        south, west = map(float, block.split(","))
        held_out = next((role for role in ("test", "validation") if (roles == role).any()), None)
        tint = to_rgba(MARKERS[held_out]["color"], 0.15) if held_out else "none"
        axes.add_patch(Rectangle((west, south), degrees, degrees, facecolor=tint, edgecolor="0.8", linewidth=0.6))


if __name__ == "__main__":
    run.stage(
        main,
        Params,
        name="population.split",
        doc=__doc__,
        inputs={"tiles": "preprocess"},
        outputs={"out": "folder for roles, statistics, audit and map"},
    )
