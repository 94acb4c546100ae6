"""Give spatial blocks to training, validation and test.

    python -m src.minerals.split --params pipelines/minerals/params.yaml --store data/minerals/store \\
        --out data/minerals/split

Writes blocks.parquet (scene, block, role, rectangle in px), audit.json (pixels in two roles: none, least gap) and
blocks.png, the map of roles. Stops where scenes of two roles show the same ground, or hold the same spectra.
"""

from itertools import combinations

import numpy as np
import pandas as pd
from affine import Affine
from matplotlib.patches import Patch, Rectangle
from rasterio.warp import transform as transform_points
from rasterio.warp import transform_bounds

from src.core.report.figures import drawing
from src.core.stage import files, run
from src.core.stage.errors import DataError
from src.minerals.data import blocks
from src.minerals.data.cube_store import NODATA, CubeStore
from src.minerals.params import Params

COMPARED = 32  # bands at least, evenly spaced, that make two spectra the same
BY_CHANCE = 8  # different spectra that two scenes may share, such as those of saturated or filled pixels
COLOURS = {"train": "#4477aa", "validation": "#ccbb44", "test": "#ee6677"}


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    store = CubeStore.open(inputs.store)
    table = blocks.divide(store, params.split)
    counts = table["role"].value_counts()
    print(f"split: {len(table)} blocks: " + ", ".join(f"{counts[role]} {role}" for role in blocks.ROLES))
    audit = check(store, table, params.split.gap_px)
    check_ground(store, table)
    check_spectra(store, table)
    if dry_run:
        return
    with files.complete_folder(out.out) as folder:
        table.to_parquet(folder / blocks.TABLE)
        files.write_json(folder / "audit.json", audit)
        draw(store, table, folder / "blocks.png")


def check(store: CubeStore, table: pd.DataFrame, gap: int) -> dict:
    """audit.json: pixels in two roles and the least gap (px) between blocks of one scene, None where it has one.

    Raises:
        DataError: a pixel lies in two blocks, or two blocks of one scene are nearer than the gap.
    """
    twice, nearest = 0, None
    for scene, rows in table.groupby("scene", sort=False):
        cover = np.zeros(store.scenes[scene]["shape"], np.uint8)
        for row in rows.itertuples():
            cover[row.top : row.top + row.height, row.left : row.left + row.width] += 1
        twice += int((cover > 1).sum())
        for axis, length in (("top", "height"), ("left", "width")):
            parts = rows.drop_duplicates(axis).sort_values(axis)
            gaps = (parts[axis].shift(-1) - parts[axis] - parts[length]).dropna()
            nearest = min([*gaps.astype(int), *([] if nearest is None else [nearest])], default=None)
    if twice or (nearest is not None and nearest < gap):
        raise DataError(f"split: {twice} pixels lie in two blocks, least gap {nearest} px, expected 0 and {gap}")
    return {"blocks": len(table), "pixels_in_two_roles": twice, "least_gap_px": nearest}


def check_ground(store: CubeStore, table: pd.DataFrame) -> None:
    """Raise DataError where scenes show the same ground in two roles, as overlapping flight lines do.

    Pixels without data do not count; of scenes without a CRS only `check_spectra` knows something.
    """
    rows = [row for row in table.itertuples() if store.place(row.scene).crs]
    boxes = {row.block: bounds(store, row) for row in rows}
    for row, other in combinations(rows, 2):
        (west, south, east, north), (left, bottom, right, top) = boxes[row.block], boxes[other.block]
        apart = west >= right or left >= east or south >= top or bottom >= north
        if apart or row.role == other.role or row.scene == other.scene:
            continue
        if count := shared_pixels(store, row, other):
            raise DataError(
                f"split: scenes {row.scene} ({row.role}) and {other.scene} ({other.role}): {count} pixels show the "
                "same ground, expected none; leave one scene out, or join them to one and set `block_px`"
            )


def bounds(store: CubeStore, block) -> tuple[float, float, float, float]:
    """West, south, east and north of a block, in degrees."""
    crs, transform = store.place(block.scene)
    lines, samples = blocks.inside(block)
    corners = [(x, y) for x in (samples.start, samples.stop) for y in (lines.start, lines.stop)]
    xs, ys = zip(*(Affine(*transform) @ corner for corner in corners), strict=True)
    return transform_bounds(crs, "EPSG:4326", min(xs), min(ys), max(xs), max(ys))


def shared_pixels(store: CubeStore, block, other) -> int:
    """Pixels with data of `block` whose centres lie in pixels with data of `other`."""
    (crs, transform), (other_crs, other_transform) = store.place(block.scene), store.place(other.scene)
    valid, known = (store.stored(one.scene)[blocks.inside(one)][..., 0] != NODATA for one in (block, other))
    down, right = np.nonzero(valid)
    x, y = Affine(*transform) @ (block.left + right + 0.5, block.top + down + 0.5)
    if crs != other_crs:
        x, y = map(np.array, transform_points(crs, other_crs, x, y))
    samples, lines = ~Affine(*other_transform) @ (x, y)
    column, line = np.floor(samples).astype(int) - other.left, np.floor(lines).astype(int) - other.top
    within = (column >= 0) & (column < other.width) & (line >= 0) & (line < other.height)
    return int(known[line[within], column[within]].sum())


def check_spectra(store: CubeStore, table: pd.DataFrame) -> None:
    """Raise DataError where scenes hold the same spectra in two roles, as copies and cuts of one file do.

    Noise makes every measured spectrum another one. So this finds the same pixels at any place and in any order, with
    or without a CRS; the same ground in another flight, or resampled, it does not find.
    """
    rows = table.groupby(["scene", "role"], sort=False)
    held = {unit: np.unique(np.concatenate([hashes(store, row) for row in of.itertuples()])) for unit, of in rows}
    values, counts = np.unique(np.concatenate(list(held.values())), return_counts=True)
    twice = values[counts > 1]
    held = {unit: found[np.isin(found, twice)] for unit, found in held.items()}
    for ((scene, role), mine), ((other, other_role), theirs) in combinations(held.items(), 2):
        if role == other_role or scene == other:
            continue
        if (count := len(np.intersect1d(mine, theirs, assume_unique=True))) > BY_CHANCE:
            raise DataError(
                f"split: scenes {scene} ({role}) and {other} ({other_role}): {count} spectra are the same, expected "
                "none; one is a copy or a cut of the other: leave it out, or join them to one and set `block_px`"
            )


def hashes(store: CubeStore, block) -> np.ndarray:
    """(N,) uint64 of the spectra of a block's pixels with data, equal where spectra are."""
    stored = store.stored(block.scene)[blocks.inside(block)]
    step = max(stored.shape[-1] // COMPARED, 1)
    spectra = stored[..., ::step][stored[..., 0] != NODATA].view(np.uint16)
    weights = np.random.default_rng(0).integers(2**64, size=spectra.shape[1], dtype=np.uint64) | np.uint64(1)
    return spectra.astype(np.uint64) @ weights


def draw(store: CubeStore, table: pd.DataFrame, path) -> None:
    """blocks.png: every scene as a rectangle, its blocks coloured by role."""
    scenes = list(store.scenes)
    columns = min(int(np.ceil(np.sqrt(2 * len(scenes)))), len(scenes))
    with drawing(path, 9, 0.6 + 9 * -(-len(scenes) // columns) / columns) as figure:
        grid = figure.subplots(-(-len(scenes) // columns), columns, squeeze=False).ravel()
        for axes in grid:
            axes.set_axis_off()
        for axes, scene in zip(grid, scenes, strict=False):
            lines, samples = store.scenes[scene]["shape"]
            axes.add_patch(Rectangle((0, 0), samples, lines, color="0.9"))
            for row in table[table["scene"] == scene].itertuples():
                axes.add_patch(Rectangle((row.left, row.top), row.width, row.height, color=COLOURS[row.role]))
            axes.set(xlim=(0, samples), ylim=(lines, 0), aspect="equal")
            axes.set_title(scene, fontsize=7)
        handles = [Patch(color=colour, label=role) for role, colour in COLOURS.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)


if __name__ == "__main__":
    inputs = {"store": "ingest"}
    outputs = {"out": "folder for blocks, audit and map"}
    run.stage(main, Params, name="minerals.split", doc=__doc__, inputs=inputs, outputs=outputs)
