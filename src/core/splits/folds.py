"""Drawing whole units (places, blocks, regions) into folds and roles.

Ids are sorted before anything is drawn, so neither row order nor hash order can change a split.
"""

import numpy as np
import pandas as pd

from src.core.stage.errors import DataError

VALIDATION_SHARE = 15 / 80  # of what the test fold leaves: with five folds 65 / 15 / 20


def draw_folds(units: np.ndarray, sizes: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """(U,) int64 fold of each of the distinct `units`, so that the folds' summed `sizes` are close.

    Units are shuffled by `seed`, larger ones (by powers of two) first, and each goes to the smallest fold so far.
    """
    order = np.argsort(units)[np.random.default_rng(seed).permutation(len(units))]
    order = order[np.argsort(-np.frexp(sizes[order])[1], kind="stable")]
    fold_of = np.empty(len(units), dtype=np.int64)
    totals = np.zeros(folds, dtype=np.int64)
    for unit in order:
        fold_of[unit] = totals.argmin()
        totals[fold_of[unit]] += sizes[unit]
    return fold_of


def draw_validation(units: np.ndarray, sizes: np.ndarray, share: float, seed: list[int]) -> np.ndarray:
    """(U,) bool of the distinct `units`, shuffled: each that fits into `share` of all sizes, else the smallest one."""
    order = np.argsort(units)[np.random.default_rng(seed).permutation(len(units))]
    taken = np.zeros(len(units), dtype=bool)
    room = share * sizes.sum()
    for unit in order:
        if sizes[unit] <= room:
            taken[unit] = True
            room -= sizes[unit]
    if not taken.any():
        taken[order[sizes[order].argmin()]] = True
    return taken


def draw_roles(unit: pd.Series, what: str, folds: int, fold: int, seed: int, advice: str) -> pd.Series:
    """Role of each tile from its unit: test = `fold`, validation = VALIDATION_SHARE of the rest.

    Raises:
        DataError: there are too few units (`what` they are) for the folds; `advice` ends the message.
    """
    counts = unit.value_counts().sort_index()
    units, sizes = counts.index.to_numpy(), counts.to_numpy()
    if len(units) < max(folds, 3):
        raise DataError(
            f"index.parquet: found {len(units)} {what}, expected at least {max(folds, 3)} "
            f"(`folds` is {folds}; train, validation and test need one each); {advice}"
        )
    rest = draw_folds(units, sizes, folds, seed) != fold
    if rest.sum() < 2:
        raise DataError(
            f"index.parquet: of {len(units)} {what}, fold {fold} of {folds} leaves {rest.sum()}, "
            f"expected at least 2 (training and validation); {advice}"
        )
    # a stream of its own for every fold; [seed, 0] would repeat the stream of draw_folds
    validation = units[rest][draw_validation(units[rest], sizes[rest], VALIDATION_SHARE, [seed, 1 + fold])]
    role = pd.Series("test", index=unit.index, dtype=object)
    role[unit.isin(units[rest])] = "train"
    role[unit.isin(validation)] = "validation"
    return role


def require_roles(role: pd.Series | np.ndarray, what: str, advice: str) -> None:
    """Raise DataError if nothing has one of the roles train, validation and test.

    `what` begins the message: the file, the field and what was divided; `advice` ends it.
    """
    empty = [name for name in ("train", "validation", "test") if not (role == name).any()]
    if empty:
        raise DataError(f"{what}: found nothing for {' and '.join(empty)}, expected at least one of each; {advice}")
