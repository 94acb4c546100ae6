"""Observations as ingest leaves them, small, in memory or as a store; and the params of the species pipeline."""

from pathlib import Path

import numpy as np
import pandas as pd

from src.core.data.embedding_store import EmbeddingStore, EmbeddingWriter
from src.species.params import Params
from tests.conftest import species_params

SMALL = {
    "split.squares": 4,
    "split.validation_squares": 3,
    "split.minimum": 10,
    "split.maximum_share": 1.0,
    "split.test_from": 2020,
    "split.train_from": 2010,
}


def make_params(changes: dict | None = None) -> Params:
    """The committed params with a split for few observations, and those keys changed."""
    return species_params(SMALL | (changes or {}))


def day(text: str) -> int:
    return int(np.datetime64(text, "D").astype(np.int64))


def make_observations(count: int = 3000, seed: int = 3, years: tuple[int, int] = (2008, 2021)) -> pd.DataFrame:
    """Records of 12 species around towns in a box of 200 km; every tenth record has a second image."""
    generator = np.random.default_rng(seed)
    towns = generator.uniform([27.5, -82.5], [29.5, -80.5], (30, 2))
    lat, lon = (towns[generator.integers(30, size=count)] + generator.normal(0, 0.04, (count, 2))).T
    first = generator.integers(day(f"{years[0]}-01-01"), day(f"{years[1]}-12-31"), count)
    records = pd.DataFrame({
        "gbif_id": 1000 + np.arange(count),
        "image_index": 0,
        "lat": lat,
        "lon": lon,
        "uncertainty_m": np.where(generator.random(count) < 0.1, np.nan, generator.uniform(5, 1050, count)),
        "first_day": first,
        "last_day": first,
        "year": first.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + 1970,
        "species": [f"Acacia s{i}" for i in generator.integers(12, size=count)],
        "taxon_key": -1,
    })  # fmt: skip
    table = pd.concat([records, records[::10].assign(image_index=1)]).sort_values(["gbif_id", "image_index"])
    ids = table["gbif_id"].astype(str) + "_" + table["image_index"].astype(str)
    table.insert(0, "id", ids)
    return table.reset_index(drop=True)


def write_store(folder: Path, observations: pd.DataFrame, embeddings: dict[str, np.ndarray]) -> EmbeddingStore:
    """A store of (N, D) arrays; a row of NaN is missing."""
    index, writer = (
        observations.copy(),
        EmbeddingWriter(folder, {name: values.shape for name, values in embeddings.items()}),
    )
    for name, values in embeddings.items():
        missing = np.isnan(values).any(axis=1)
        writer.array(name)[:] = np.where(missing[:, None], 0, values)
        index[f"{name}_row"] = np.where(missing, -1, np.arange(len(values)))
    writer.finish(index, {"simulated": True, "description": "tests"})
    return EmbeddingStore.open(folder)
