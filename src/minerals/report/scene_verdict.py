"""Summary of a mapped scene: shares of minerals, altered tiles, and the lines that say so."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from src.core.data.sliding_windows import Grid
from src.minerals.data import tile_table
from src.minerals.mapping.map_classes import NO_DATA
from src.minerals.mapping.minerals import BACKGROUND, NAMES
from src.minerals.params import Tiles


def summarise(classes: np.ndarray, settings: Tiles) -> dict:
    """Shares of classes among pixels with data, of no data among all, and of altered tiles among those with data."""
    shares = tile_table.shares(classes)
    side, altered, count = settings.tile_px, 0, 0
    known = classes != NO_DATA
    alone = known.copy()  # pixels with data that are in no tile
    for top, left, tile in whole_tiles(classes, settings):
        count, altered = count + 1, altered + tile_table.is_altered(tile_table.shares(tile), settings.altered)
        alone[top : top + side, left : left + side] = False
    return {
        "pixels_with_data": int(known.sum()),
        "minerals": dict(zip(NAMES, shares.tolist(), strict=True)),
        "background": float((classes == BACKGROUND).sum() / max(known.sum(), 1)),
        "no_data": float((~known).mean()),
        "tiles": {
            "tile_px": side,
            "count": count,
            "altered": altered,
            "altered_share": altered / count if count else None,
            "pixels_in_no_tile": int(alone.sum()),
        },
    }


def whole_tiles(classes: np.ndarray, settings: Tiles) -> Iterator[tuple[int, int, np.ndarray]]:
    """Top, left and classes of the tiles that have data enough, side by side from the first line and sample on.

    Those of the last row and column end at the scene's edge, and overlap the ones before where it is no multiple of
    a tile; a scene smaller than a tile has none.
    """
    side = settings.tile_px
    if min(classes.shape) < side:
        return
    grid = Grid(*classes.shape, side, side)
    for top in grid.tops.tolist():
        for left in grid.lefts.tolist():
            tile = classes[top : top + side, left : left + side]
            if (tile != NO_DATA).mean() >= settings.min_valid_ratio:
                yield top, left, tile


def percent(share: float, pixels: int) -> str:
    """Share of `pixels` in per cent; one that would be rounded to 0.0 with its number of pixels."""
    if 0 < share < 0.0005:
        count = round(share * pixels)
        return f"<0.1 % ({count} pixel{'s' if count > 1 else ''})"
    return f"{100 * share:.1f} %"


def say(summary: dict, out: Path, altered: float) -> None:
    """Print the verdict, then what it rests on."""
    order = sorted(NAMES, key=lambda name: -summary["minerals"][name])
    total, tiles, words = 1 - summary["background"], summary["tiles"], summary.get("words")
    pixels = summary["pixels_with_data"]
    most = f", most of it {order[0]} ({percent(summary['minerals'][order[0]], pixels)})" if total > 0 else ""
    if tiles["count"]:
        noun = "tile" if tiles["count"] == 1 else "tiles"
        where = f"{tiles['altered']} of {tiles['count']} {noun} altered (over {altered:.0%} copper-related minerals)"
        if words:
            unread = f" (of {words['not_readable']} the answer cannot be read)" if words["not_readable"] else ""
            where += f", {words['altered']} by the words of the model{unread}"
    else:
        where = f"no tile of {tiles['tile_px']} px with enough data fits into it: "
        where += "the model answers about no smaller one" if words else "lower tiles.tile_px"
    print(f"{summary['cube']}: minerals of the map on {percent(total, pixels)} of the pixels with data{most}; {where}")
    if words and words["warning"]:
        print(f"warning: {words['warning']}")
    for name in order:
        print(f"  {name:<16}{percent(summary['minerals'][name], pixels):>8}")
    print(f"  {'none of these':<16}{percent(summary['background'], pixels):>8}")
    print(f"no data: {percent(summary['no_data'], int(np.prod(summary['shape'][:2])))} of all pixels")
    if tiles["count"] and tiles["pixels_in_no_tile"]:
        share = percent(tiles["pixels_in_no_tile"] / pixels, pixels)
        print(f"in no tile: {share} of the pixels with data, where a tile has too little data; the map shows them")
    for rule in summary["rules_left_out"]:
        print(f"rule left out, the sensor has no band for it: {rule}")
    if not summary["iron_mapped"]:
        print("iron.tif is empty: the sensor does not see ferric iron at 870 nm")
    print(f"wrote {out}")
