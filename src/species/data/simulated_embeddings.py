"""Simulated language and vision embeddings of simulated records.

A latent vector of 64 dimensions is the sum of four independent parts. A strength (`simulate.language`,
`simulate.vision`) is the standard deviation of a part in each dimension: species (half the variance is its genus';
other vectors in each modality), habitat (linear in the fields), place (linear in random fields with the same lengths
as affinity and independent of it, as the background of a photo; each modality sees 26, and 20 are the same) and noise
of the one observation. The sum, brought to variance 1, is taken to 7168 or 1408 dimensions by a random matrix that
keeps the variance, and every number gets independent noise of standard deviation 0.5. So a model that memorises
backgrounds gains at sites that it knows, gains something within some 4 km, and is misled elsewhere.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from src.species.data.embedding_files import SHAPES
from src.species.data.observation_ids import make_ids
from src.species.data.random_fields import Field
from src.species.data.simulated_records import HABITATS, genus_count
from src.species.params import Simulate, Strengths

LATENT, ISOTROPIC = 64, 0.5
PLACES = {"language": slice(0, 26), "vision_pooled": slice(6, 32)}  # place fields that each modality sees
CHUNK = 512  # rows projected at a time


def write_embeddings(world: dict[str, Field], table: pd.DataFrame, settings: Simulate, folder: Path) -> None:
    """Packs `<modality>.npy` float16 with `<modality>.ids.txt`, of the observations that have that modality."""
    generator = np.random.default_rng([settings.seed, 1])
    shuffled = generator.permutation(len(table))
    full, others = np.sort(shuffled[: settings.full_vision]), shuffled[settings.full_vision :]
    missing = round(settings.missing * len(table))
    with tqdm(total=2 * (len(table) - min(missing, len(others))), desc="embeddings", unit="row") as bar:
        for name, strengths in (("language", settings.language), ("vision_pooled", settings.vision)):
            kept = np.setdiff1d(np.arange(len(table)), generator.permutation(others)[:missing])
            latent = embed(generator, world, table, name, strengths)[kept]
            projection = generator.standard_normal((LATENT, *SHAPES[name]), dtype=np.float32) / np.sqrt(LATENT)
            pack = open_pack(folder, name, table.iloc[kept])
            for start in range(0, len(kept), CHUNK):
                values = latent[start : start + CHUNK] @ projection
                values += ISOTROPIC * generator.standard_normal(values.shape, dtype=np.float32)
                pack[start : start + CHUNK] = values
                bar.update(len(values))
            pack.flush()
    if len(full):
        pack = open_pack(folder, "vision", table.iloc[full])
        pooled = np.load(folder / "vision_pooled.npy", mmap_mode="r")
        for row, at in enumerate(np.searchsorted(kept, full)):
            pack[row] = tokens_around(generator, pooled[at].astype(np.float32))
        pack.flush()


def embed(
    generator: np.random.Generator, world: dict[str, Field], table: pd.DataFrame, name: str, strengths: Strengths
) -> np.ndarray:
    """(N, LATENT) float32 of variance 1: the sum of the four parts."""
    species = table["code"].nunique()
    km = table[["east", "north"]].to_numpy()
    genus = generator.standard_normal((genus_count(species), LATENT))[np.arange(species) % genus_count(species)]
    own = (genus + generator.standard_normal((species, LATENT))) / np.sqrt(2)
    habitat, place = world["habitat"].at(km), world["place"].at(km)[:, PLACES[name]]
    parts = {
        "species": own[table["code"]],
        "habitat": habitat @ generator.standard_normal((HABITATS, LATENT)) / np.sqrt(HABITATS),
        "place": place @ generator.standard_normal((place.shape[1], LATENT)) / np.sqrt(place.shape[1]),
        "noise": generator.standard_normal((len(table), LATENT)),
    }
    strength = strengths.model_dump()
    total = sum(strength[part] * values for part, values in parts.items())
    return (total / (np.linalg.norm(list(strength.values())) or 1)).astype(np.float32)


def tokens_around(generator: np.random.Generator, pooled: np.ndarray) -> np.ndarray:
    """(8, 24, 24, D) float32 tokens whose mean is `pooled` (D,)."""
    tokens = generator.standard_normal(SHAPES["vision"], dtype=np.float32)
    return tokens - tokens.mean(axis=(0, 1, 2), dtype=np.float64).astype(np.float32) + pooled


def open_pack(folder: Path, name: str, rows: pd.DataFrame) -> np.memmap:
    """Writable (len(rows), *SHAPES[name]) float16 `<name>.npy`, with the rows' ids beside it."""
    ids = make_ids(rows["gbifID"], rows["imageIndex"]) + "\n"
    (folder / f"{name}.ids.txt").write_text(ids.str.cat(), encoding="utf-8")
    shape = len(rows), *SHAPES[name]
    return np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float16, shape=shape)
