"""Summary of a mapped scene: shares of minerals, altered tiles, and the lines that say so."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from src.minerals.data import tile_table
from src.minerals.mapping.map_classes import NO_DATA
from src.minerals.mapping.minerals import BACKGROUND, NAMES
from src.minerals.params import Tiles


def summarise(classes: np.ndarray, settings: Tiles) -> dict:
    """Shares of classes among pixels with data, of no data among all, and of altered tiles among those with data."""
    shares = tile_table.shares(classes)
    tiles = [tile_table.shares(tile) for _, _, tile in whole_tiles(classes, settings)]
    altered = sum(tile_table.is_altered(found, settings.altered) for found in tiles)
    return {
        "minerals": dict(zip(NAMES, shares.tolist(), strict=True)),
        "background": float((classes == BACKGROUND).sum() / max((classes != NO_DATA).sum(), 1)),
        "no_data": float((classes == NO_DATA).mean()),
        "tiles": {
            "tile_px": settings.tile_px,
            "count": len(tiles),
            "altered": altered,
            "altered_share": altered / len(tiles) if tiles else None,
        },
    }


def whole_tiles(classes: np.ndarray, settings: Tiles) -> Iterator[tuple[int, int, np.ndarray]]:
    """Top, left and classes of the tiles side by side that lie in the scene and have data enough."""
    side = settings.tile_px
    for top in range(0, classes.shape[0] - side + 1, side):
        for left in range(0, classes.shape[1] - side + 1, side):
            tile = classes[top : top + side, left : left + side]
            if (tile != NO_DATA).mean() >= settings.min_valid_ratio:
                yield top, left, tile


def say(summary: dict, out: Path, altered: float) -> None:
    """Print the verdict, then what it rests on."""
    order = sorted(NAMES, key=lambda name: -summary["minerals"][name])
    total, tiles, words = 1 - summary["background"], summary["tiles"], summary.get("words")
    most = f", most of it {order[0]} ({summary['minerals'][order[0]]:.1%})" if total > 0 else ""
    if tiles["count"]:
        where = f"{tiles['altered']} of {tiles['count']} tiles altered (over {altered:.0%} copper-related minerals)"
        if words:
            unread = f" (of {words['not_readable']} the answer cannot be read)" if words["not_readable"] else ""
            where += f", {words['altered']} by the words of the model{unread}"
    else:
        where = f"no tile of {tiles['tile_px']} px with enough data fits into it: "
        where += "the model answers about no smaller one" if words else "lower tiles.tile_px"
    print(f"{summary['cube']}: minerals of the map on {total:.1%} of the pixels with data{most}; {where}")
    for name in order:
        print(f"  {name:<16}{summary['minerals'][name]:7.1%}")
    print(f"  {'none of these':<16}{summary['background']:7.1%}")
    print(f"no data: {summary['no_data']:.1%} of all pixels")
    for rule in summary["rules_left_out"]:
        print(f"rule left out, the sensor has no band for it: {rule}")
    if not summary["iron_mapped"]:
        print("iron.tif is empty: the sensor does not see ferric iron at 870 nm")
    print(f"wrote {out}")
