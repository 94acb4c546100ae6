"""Scores of maps of classes against known classes, with intervals over spatial blocks."""

import numpy as np
from sklearn.metrics import f1_score

from src.core.evaluation.jackknife import widest_intervals
from src.core.stage.errors import DataError
from src.minerals.data.tile_table import is_altered, shares
from src.minerals.mapping.minerals import NAMES

SHARES = frozenset({"macro_f1", "overall_accuracy", "alteration_f1", *(f"f1_{name}" for name in NAMES)})


def score_map(
    known: dict[int, np.ndarray],
    mapped: dict[int, np.ndarray],
    abundance: dict[int, np.ndarray] | None,
    side: int,
    altered: float,
) -> dict:
    """Scores of one method over test blocks.

    Pixels without data or without a known class do not count.

    Args:
        known, mapped: block -> (h, w) uint8 classes.
        abundance: block -> (h, w, M) area shares, for the error of each tile's share of minerals; None: not known.
        side: px of the tiles, side by side in each block, that are called altered or not.
        altered: share from which one is.

    Returns:
        macro_f1 over minerals that occur, overall_accuracy, f1_<mineral> (None where it does not occur),
        alteration_f1 and abundance_error (mean absolute error of a mineral's share of a tile), bounds, n, method.

    Raises:
        DataError: no tile has a pixel that counts.
    """
    truth, guess, block, tiles = [], [], [], []
    for number, classes in known.items():
        usable = (classes <= len(NAMES)) & (mapped[number] <= len(NAMES))
        truth.append(classes[usable])
        guess.append(mapped[number][usable])
        block.append(np.full(usable.sum(), number))
        tiles += _tiles(
            number, classes, mapped[number], None if abundance is None else abundance[number], side, altered
        )
    counts = {number: _confusion(*pair) for number, *pair in zip(known, truth, guess, strict=True)}
    tile_block = np.array([tile[0] for tile in tiles])
    yes, said, error = (np.array([tile[at] for tile in tiles]) for at in (1, 2, 3))

    def score(rows: np.ndarray) -> dict[str, float | None]:
        """Of the tiles chosen by `rows`; a block's pixels come and go with its tiles."""
        found = _from_confusion(sum(counts[number] for number in np.unique(tile_block[rows])))
        found["alteration_f1"] = float(f1_score(yes[rows], said[rows])) if yes[rows].any() else None
        found["abundance_error"] = None if abundance is None else float(error[rows].mean())
        return found

    if not tiles:
        raise DataError(
            f"truth: found no tile of {side} px with a known mineral in the test blocks; lower `tile_px`, or correct "
            "`truth`"
        )
    points = score(np.ones(len(tile_block), bool))
    bounds = widest_intervals(score, {"blocks": tile_block}, SHARES)
    return points | bounds | {"n": int(sum(map(len, truth))), "n_tiles": len(tiles), "n_units": len(known)}


def _confusion(truth: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """(1 + M, 1 + M) counts, rows are the truth."""
    width = len(NAMES) + 1
    return np.bincount(truth.astype(int) * width + guess, minlength=width**2).reshape(width, width)


def _from_confusion(counts: np.ndarray) -> dict[str, float | None]:
    hit, total = np.diag(counts)[1:], counts.sum(0)[1:] + counts.sum(1)[1:]
    occurs = counts.sum(1)[1:] > 0
    f1 = np.divide(2 * hit, total, out=np.zeros(len(hit)), where=total > 0)
    named = {
        f"f1_{name}": float(value) if there else None for name, value, there in zip(NAMES, f1, occurs, strict=True)
    }
    return {
        "macro_f1": float(f1[occurs].mean()) if occurs.any() else None,
        "overall_accuracy": float(np.trace(counts) / counts.sum()),
        **named,
    }


def _tiles(number: int, known, mapped, abundance, side: int, altered: float) -> list[tuple]:
    """Block, altered by truth, altered by map, mean error of shares (NaN without `abundance`), of tiles side by side.

    Shares are of the pixels that count for both; a tile without one is left out.
    """
    rows = []
    for top in range(0, known.shape[0] - side + 1, side):
        for left in range(0, known.shape[1] - side + 1, side):
            inside = slice(top, top + side), slice(left, left + side)
            usable = (known[inside] <= len(NAMES)) & (mapped[inside] <= len(NAMES))
            if not usable.any():
                continue
            said, truth = shares(mapped[inside][usable]), shares(known[inside][usable])
            error = np.nan if abundance is None else float(np.abs(said - abundance[inside].mean((0, 1))).mean())
            rows.append((number, is_altered(truth, altered), is_altered(said, altered), error))
    return rows
