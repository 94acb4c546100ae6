"""Embeddings that two roles share: equal ones, such as differ by little more than rounding, and such as say the label.

A model that has trained on a held-out observation's embedding, or on a copy, is asked what it was told. The commonest
way to get there is an embedding made once for each class and given to all its records, with or without some noise.
"""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import pairwise_distances_argmin
from tqdm import tqdm

from src.core.data.embedding_statistics import fit_statistics
from src.core.data.embedding_store import EmbeddingStore

USED = ("train", "validation", "test")
NEAR = 0.05  # of the length of the held-out embedding, once standardised
LEAST_WITHIN = 0.1  # of the variance: what noise a third as large as the label's vector leaves
CHUNK_ROWS = 4096  # compared with all others between two steps of the progress bar


def audit(
    store: EmbeddingStore, points: pd.DataFrame, statistics: dict[str, np.ndarray], *, label: str
) -> dict[str, dict[str, Any]]:
    """Count what roles share of every modality whose embeddings are vectors; one modality at a time is in memory.

    Args:
        points: one row for each of the store's, in its order, with role and the column `label`, what is predicted.
        statistics: "<modality>_mean" and "<modality>_sd" (D,) float32 as the split stage writes them.

    Returns:
        For every modality
        shared: held-out observations with an embedding that an observation of another role has too, byte for byte.
        near_identical: others with an embedding that differs from one of another role by less than NEAR.
        nearest_difference: the least |a - b| / |b| between standardised embeddings of training a and held-out b.
        labels: labels with two or more observations that have the modality, buffers left out.
        labels_of_one: those of which all observations have the same embedding.
        within_label_share: variance of the standardised training embeddings within labels, as a share of all of it;
            None where no label has two, or nothing varies.
        statistics_difference: largest difference between `statistics` and those of the training observations.
    """
    found = {}
    for modality in (name for name, shape in store.modalities.items() if len(shape) == 1):
        rows = np.flatnonzero(points["role"].isin(USED).to_numpy() & store.present(modality))
        role, names = (points[column].to_numpy(dtype=str)[rows] for column in ("role", label))
        stored, train = store.read(modality, rows), role == "train"
        written = [statistics[f"{modality}_{name}"] for name in ("mean", "sd")]
        refit = fit_statistics(store, modality, rows[train])
        shared, several, one = _compare_bytes(stored, role, names)
        values, least = (stored - written[0]) / written[1], {}
        for known, held_out in (("train", ("validation", "test")), ("validation", ("test",))):
            b = np.isin(role, held_out)
            least[known] = np.full(len(rows), np.inf)
            least[known][b] = _least_differences(values[role == known], values[b], f"{modality}: near-identical")
        nearest = least["train"].min(initial=np.inf)
        found[modality] = {
            "shared": int(shared.sum()),
            "near_identical": int((~shared & (np.minimum(*least.values()) <= NEAR)).sum()),
            "nearest_difference": None if np.isinf(nearest) else round(float(nearest), 6),
            "labels": several,
            "labels_of_one": one,
            "within_label_share": _within_label_share(values[train], names[train]),
            "label": label,
            "statistics_difference": float(max(np.abs(a - b).max() for a, b in zip(refit, written, strict=True))),
        }
    return found


def violations(findings: dict[str, dict[str, Any]], shared_embeddings: list[str]) -> list[str]:
    """A line for each thing in `findings` that must not be; modalities in `shared_embeddings` may be shared."""
    lines = []
    for modality, found in findings.items():
        if found["statistics_difference"]:
            lines.append(
                f"{modality}_mean, {modality}_sd: found {found['statistics_difference']:g} between those written and "
                "those of the training observations, expected 0; fit them on the training observations alone"
            )
        if modality in shared_embeddings:
            continue
        label = found["label"]
        remedy = (
            f"make embeddings of the observations, leave {modality} out of `modalities`, or name it in "
            "`shared_embeddings` and call no score of it a test"
        )
        if 2 * found["labels_of_one"] > found["labels"]:
            lines.append(
                f"{modality}: {modality} is the same for all records of a {label} ({found['labels_of_one']} of "
                f"{found['labels']} {label} with two records or more): a model reads the label; {remedy}"
            )
            continue
        if (share := found["within_label_share"]) is not None and share < LEAST_WITHIN:
            lines.append(
                f"{modality}: within_label_share: {modality} hardly varies within a {label} (found {share:.4f} of its "
                f"variance there, expected at least {LEAST_WITHIN:g}): a model reads the label; {remedy}"
            )
        lines += [
            f"{modality}: found {found[key]} held-out observations with {what} another role has, expected 0; remove "
            f"the copies, or name {modality} in `shared_embeddings`"
            for key, what in (
                ("shared", "an embedding that"),
                ("near_identical", f"an embedding within {NEAR:.0%} of one that"),
            )
            if found[key]
        ]
    return lines


def _compare_bytes(stored: np.ndarray, role: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Held-out rows whose bytes another role has, (B,) bool; labels of several rows, and of equal rows alone."""
    # as void and not as bytes, of which numpy drops trailing zeros
    rows = np.ascontiguousarray(stored).view(f"V{stored.itemsize * stored.shape[1]}").ravel()
    table = pd.DataFrame({"bytes": np.unique(rows, return_inverse=True)[1], "role": role, "label": label})
    shared = (table.groupby("bytes")["role"].transform("nunique") > 1) & (table["role"] != "train")
    of_labels = table.groupby("label")["bytes"].agg(["size", "nunique"])
    several = of_labels[of_labels["size"] > 1]
    return shared.to_numpy(), len(several), int((several["nunique"] == 1).sum())


def _within_label_share(values: np.ndarray, label: np.ndarray) -> float | None:
    """`within_label_share` of `audit`, of standardised `values` (B, D), over labels with two rows or more.

    Sums of squares are divided by their degrees of freedom, so that labels which say nothing have a share of 1.
    """
    groups = [values[rows] for rows in pd.Series(label).groupby(label).indices.values() if len(rows) > 1]
    count, squares = sum(map(len, groups)), sum(_squares(group).sum() for group in groups)
    sums = [group.sum(axis=0, dtype=np.float64) for group in groups]
    spread = squares - np.square(sum(sums)).sum() / max(count, 1)
    if not spread > 1e-9 * squares:  # nothing but rounding
        return None
    known = sum(np.square(of).sum() / len(group) for of, group in zip(sums, groups, strict=True))
    return round(float(max(squares - known, 0) / (count - len(groups)) / spread * (count - 1)), 6)


def _least_differences(a: np.ndarray, b: np.ndarray, desc: str) -> np.ndarray:
    """|a - b| / |b| of each of the standardised rows `b` (B, D) and the nearest of the rows `a`, (B,) float64."""
    if not len(a) or not len(b):
        return np.full(len(b), np.inf)
    starts = tqdm(range(0, len(b), CHUNK_ROWS), desc=desc, unit="block", leave=False)
    nearest = np.concatenate([pairwise_distances_argmin(b[start : start + CHUNK_ROWS], a) for start in starts])
    apart, length = np.sqrt(_squares(b - a[nearest])), np.sqrt(_squares(b))
    # an embedding equal to the mean has no length: its copies are at 0, all others far
    return np.divide(apart, length, out=np.where(apart > 0, np.inf, 0.0), where=length > 0)


def _squares(values: np.ndarray) -> np.ndarray:
    """(B,) float64 squared lengths."""
    return np.einsum("bd,bd->b", values, values, dtype=np.float64)
