"""Give spatial blocks to training, validation and test.

    python -m src.minerals.split --params pipelines/minerals/params.yaml --store data/minerals/store \\
        --out data/minerals/split

Writes blocks.parquet (scene, block, role, rectangle in px), audit.json (pixels in two roles: none, least gap) and
blocks.png, the map of roles.
"""

import numpy as np
import pandas as pd
from matplotlib.patches import Patch, Rectangle

from src.core.report.figures import drawing
from src.core.stage import files, run
from src.core.stage.errors import DataError
from src.minerals.data import blocks
from src.minerals.data.cube_store import CubeStore
from src.minerals.params import Params

COLOURS = {"train": "#4477aa", "validation": "#ccbb44", "test": "#ee6677"}


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    store = CubeStore.open(inputs.store)
    table = blocks.divide(store, params.split)
    counts = table["role"].value_counts()
    print("split: " + ", ".join(f"{counts[role]} blocks {role}" for role in blocks.ROLES))
    audit = check(store, table, params.split.gap_px)
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


def draw(store: CubeStore, table: pd.DataFrame, path) -> None:
    """blocks.png: every scene as a rectangle, its blocks coloured by role."""
    scenes = list(store.scenes)
    columns = int(np.ceil(np.sqrt(2 * len(scenes))))
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
