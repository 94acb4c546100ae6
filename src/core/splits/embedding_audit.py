"""Embeddings that two roles share: equal ones, such as differ by little more than rounding, and such as say the label.

A model that has trained on a held-out observation's embedding, or on a copy, is asked what it was told. The commonest
way to get there is an embedding made once for each class and given to all its records, with or without some noise.
"""

import hashlib
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from src.core.data.embedding_statistics import fit_statistics
from src.core.data.embedding_store import EmbeddingStore

USED = ("train", "validation", "test")
NEAR = 0.05  # of the length of the held-out embedding, once standardised
LEAST_WITHIN = 0.1  # of the variance: what noise a third as large as the label's vector leaves
CHUNK_BYTES = 64 * 2**20  # of float32 at once, and of the products of two chunks
CHUNK_ROWS = 4096


def audit(
    store: EmbeddingStore, points: pd.DataFrame, statistics: dict[str, np.ndarray], *, label: str
) -> dict[str, dict[str, Any]]:
    """Count what roles share of every modality whose embeddings are vectors.

    Args:
        points: one row for each of the store's, in its order, with role and the column `label`.
        statistics: "<modality>_mean" and "<modality>_sd" (D,) float32 as the split stage writes them.
        label: what a model is to predict.

    Returns:
        For every modality
        shared: held-out observations with an embedding that an observation of another role has too, byte for byte.
        near_identical: others with an embedding that differs from one of another role by less than NEAR.
        nearest_difference: the least |a - b| / |b| between standardised embeddings of training a and held-out b.
        labels: labels with two or more observations that have the modality, buffers left out.
        labels_of_one: those of which all observations have the same embedding.
        within_label_share: variance of the standardised training embeddings within labels, as a share of all of it;
            None where no label has two, or nothing varies.
        label: `label`.
        statistics_difference: largest difference between `statistics` and those of the training observations.
    """
    found = {}
    for modality in (name for name, shape in store.modalities.items() if len(shape) == 1):
        rows = np.flatnonzero(points["role"].isin(USED).to_numpy() & store.present(modality))
        of_rows = points.iloc[rows]
        role = of_rows["role"].to_numpy(dtype=str)
        shared, several, one = _compare_digests(_digests(store, modality, rows), role, of_rows[label].to_numpy())
        written = [statistics[f"{modality}_{name}"] for name in ("mean", "sd")]
        least = np.full(len(rows), np.inf)
        for known, held_out in (("train", ("validation", "test")), ("validation", ("test",))):
            a, b = np.flatnonzero(role == known), np.flatnonzero(np.isin(role, held_out))
            least[b] = np.minimum(least[b], _least_differences(store, modality, rows[a], rows[b], *written))
            if known == "train":
                nearest = least.min(initial=np.inf)
        refit = fit_statistics(store, modality, rows[role == "train"])
        found[modality] = {
            "shared": int(shared.sum()),
            "near_identical": int((~shared & (least <= NEAR)).sum()),
            "nearest_difference": None if np.isinf(nearest) else round(float(nearest), 6),
            "labels": several,
            "labels_of_one": one,
            "within_label_share": _within_label_share(
                store, modality, rows[role == "train"], of_rows[label].to_numpy()[role == "train"], *written
            ),
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


def _digests(store: EmbeddingStore, modality: str, rows: np.ndarray) -> np.ndarray:
    """(B,) int64 number of each row's distinct bytes."""
    step = max(1, CHUNK_BYTES // (2 * store.modalities[modality][0]))
    digests = [
        hashlib.blake2b(row.tobytes(), digest_size=16).digest()
        for start in range(0, len(rows), step)
        for row in store.read(modality, rows[start : start + step])
    ]
    # as void and not as bytes, of which numpy drops trailing zeros
    return np.unique(np.frombuffer(b"".join(digests), dtype="V16"), return_inverse=True)[1]


def _compare_digests(digest: np.ndarray, role: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Held-out rows whose digest another role has, (B,) bool; labels of several rows, and of one digest."""
    rows = pd.DataFrame({"digest": digest, "role": role, "label": label})
    shared = (rows.groupby("digest")["role"].transform("nunique") > 1) & (rows["role"] != "train")
    of_labels = rows.groupby("label")["digest"].agg(["size", "nunique"])
    several = of_labels[of_labels["size"] > 1]
    return shared.to_numpy(), len(several), int((several["nunique"] == 1).sum())


def _within_label_share(
    store: EmbeddingStore, modality: str, rows: np.ndarray, label: np.ndarray, mean: np.ndarray, sd: np.ndarray
) -> float | None:
    """`within_label_share` of `audit`, over labels with two rows or more.

    Sums of squares, of all numbers of the vectors together, are divided by rows less labels and by rows less one, so
    that labels which say nothing have a share of 1, however many there are.

    Args:
        rows, label: (B,) each.
    """
    groups = [of for _, of in pd.Series(rows).groupby(label, sort=True) if len(of) > 1]
    count, total, known = sum(map(len, groups)), np.zeros(store.modalities[modality]), 0.0
    step, squares = max(1, CHUNK_BYTES // (8 * len(total))), 0.0
    for of in groups:
        sums = np.zeros_like(total)
        for start in range(0, len(of), step):
            values = (store.read(modality, of.to_numpy()[start : start + step]) - mean) / sd
            sums += values.sum(axis=0, dtype=np.float64)
            squares += _squares(values).sum()
        total += sums
        known += np.square(sums).sum() / len(of)
    spread = squares - np.square(total).sum() / max(count, 1)
    if not spread > 1e-9 * squares:  # nothing but rounding
        return None
    return round(float(max(squares - known, 0) / (count - len(groups)) / spread * (count - 1)), 6)


def _least_differences(
    store: EmbeddingStore, modality: str, a: np.ndarray, b: np.ndarray, mean: np.ndarray, sd: np.ndarray
) -> np.ndarray:
    """|a - b| / |b| of each of the rows `b` and the nearest of the rows `a`, standardised; (B,) float64.

    Products of matrices find the nearest, up to rounding in float32; how far it is, a plain difference says.
    """
    if not len(a) or not len(b):
        return np.full(len(b), np.inf)
    step = min(CHUNK_ROWS, max(1, CHUNK_BYTES // (4 * store.modalities[modality][0])))

    def read(rows: np.ndarray) -> np.ndarray:
        return (store.read(modality, rows) - mean) / sd

    differences = np.empty(len(b))
    starts = [(i, j) for i in range(0, len(b), step) for j in range(0, len(a), step)]
    for i, j in tqdm(starts, desc=f"{modality}: near-identical", unit="block", leave=False):
        if j == 0:
            these = read(b[i : i + step])
            squares, nearest, at = _squares(these), np.full(len(these), np.inf), np.zeros(len(these), np.int64)
        others = read(a[j : j + step])
        distance = -2 * (these @ others.T)
        distance += _squares(others)
        column = distance.argmin(axis=1)
        least = distance[np.arange(len(these)), column] + squares
        nearer = least < nearest
        nearest[nearer], at[nearer] = least[nearer], j + column[nearer]
        if j + step >= len(a):
            apart = np.sqrt(_squares(these - read(a[at])))
            length = np.sqrt(squares)
            # an embedding equal to the mean has no length: its copies are at 0, all others far
            far = np.where(apart > 0, np.inf, 0.0)
            differences[i : i + step] = np.divide(apart, length, out=far, where=length > 0)
    return differences


def _squares(values: np.ndarray) -> np.ndarray:
    """(B,) float64 squared lengths."""
    return np.einsum("bd,bd->b", values, values, dtype=np.float64)
