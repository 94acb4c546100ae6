"""Retrieval of an observation's vector of one modality by its vector of the other one, beside chance."""

import numpy as np
from sklearn.preprocessing import normalize
from sklearn.utils import gen_batches

WITHIN = (1, 5, 10)
SHUFFLES = 20
BLOCK = 1024  # queries compared at once


def retrieve(queries: np.ndarray, gallery: np.ndarray, species: np.ndarray, seed: int) -> dict | None:
    """Recall, median rank and same-species rate of queries whose row i belongs with row i of the gallery.

    Vectors are (N, D), species (N,). Similarity is the cosine. A tie counts half, so that vectors that are all alike
    rank in the middle. Two scores tell whether the observation is found or only its species: `species_at_1`, the share
    of queries whose nearest vector is of the same species, and `within_species`, the recall among vectors of that
    species.

    Returns:
        count; recall_at_<k>, median_rank, species_at_1 and within_species (its count, recall_at_1 and that of a random
        order); `chance`, what a random order of the gallery gives on average; `shuffled`, the means over SHUFFLES
        random pairings of the same vectors, whose rows are shuffled together with their species. None for no row.
    """
    count = len(queries)
    if not count:
        return None
    _, species, sizes = np.unique(species, return_inverse=True, return_counts=True)
    generator = np.random.default_rng(seed)
    pairings = np.array([np.arange(count), *(generator.permutation(count) for _ in range(SHUFFLES))])
    ranks, own = np.empty(pairings.shape), np.empty(count)
    nearest = np.empty(count, np.int64)
    # float32 is exact enough that equal rows tie
    queries, gallery = (normalize(np.asarray(vectors, np.float32)) for vectors in (queries, gallery))
    for part in gen_batches(count, BLOCK):
        similarity = queries[part] @ gallery.T
        nearest[part] = similarity.argmax(axis=1)
        for draw, partner in enumerate(pairings[:, part]):
            ranks[draw, part] = _ranks(similarity, partner)
        outside = species[part, None] != species[None]
        own[part] = _ranks(np.where(outside, -np.inf, similarity), pairings[0, part])
    # A shuffled gallery keeps its vectors' species: the vector nearest to query i is then of a random row's species.
    alike = np.array([np.mean(species[nearest] == species)])
    shuffled_alike = [np.mean(species[np.argsort(pairing)[nearest]] == species) for pairing in pairings[1:]]
    shared = sizes[species] > 1
    return {
        "count": count,
        **_measures(ranks[:1], alike),
        "within_species": {
            "count": int(shared.sum()),
            "recall_at_1": float(np.mean(own[shared] <= 1)) if shared.any() else None,
            "chance": float(np.mean(1 / sizes[species][shared])) if shared.any() else None,
        },
        "chance": {
            **{f"recall_at_{k}": min(k / count, 1.0) for k in WITHIN},
            "median_rank": (count + 1) / 2,
            "species_at_1": float(np.sum((sizes / count) ** 2)),
        },
        "shuffled": _measures(ranks[1:], shuffled_alike),
    }


def _measures(ranks: np.ndarray, alike: np.ndarray) -> dict[str, float]:
    """Means over the draws of (draws, N) ranks and of the (draws,) same-species rates."""
    return {
        **{f"recall_at_{k}": float(np.mean(ranks <= k)) for k in WITHIN},
        "median_rank": float(np.median(ranks, axis=1).mean()),
        "species_at_1": float(np.mean(alike)),
    }


def _ranks(similarity: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """(B,) rank from 1 of each row's partner among the columns, where a tie counts half."""
    own = similarity[np.arange(len(partner)), partner][:, None]
    return 1 + (similarity > own).sum(axis=1) + ((similarity == own).sum(axis=1) - 1) / 2
