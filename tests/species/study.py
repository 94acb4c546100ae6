"""A small store and a split of it, written without the stages that usually write them."""

from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from src.core.data.embedding_store import EmbeddingWriter
from src.core.stage import files

SHAPES = {"language": (7168,), "vision_pooled": (1408,)}


def write_study(
    folder: Path, *, count: int = 120, species: int = 4, missing: int = 0, seed: int = 0
) -> tuple[Path, Path]:
    """Folders of a store and a split: of 5 records 3 train, the 4th validates, the 5th tests; embeddings tell the
    species. The last `missing` records lack language. Kinds take turns; test squares are 0 to 11."""
    random = np.random.default_rng(seed)
    names = np.array([f"Planta {chr(97 + number)}" for number in range(species)])
    of = random.integers(species, size=count)
    index = pd.DataFrame(
        {
            "id": [f"{100 + row}_1" for row in range(count)],
            "gbif_id": np.arange(count) + 100,
            "image_index": 1,
            "lat": 28 + random.uniform(0, 1, count),
            "lon": -82 + random.uniform(0, 1, count),
            "uncertainty_m": 10.0,
            "first_day": 18000 + np.arange(count),
            "last_day": 18000 + np.arange(count),
            "year": 2019,
            "species": names[of],
            "taxon_key": of,
            "language_row": np.where(np.arange(count) < count - missing, np.arange(count), -1),
            "vision_pooled_row": np.arange(count),
        }
    )
    writer = EmbeddingWriter(folder / "store", {name: (count, *shape) for name, shape in SHAPES.items()})
    for name, shape in SHAPES.items():
        means = random.normal(size=(species, *shape))
        writer.array(name)[:] = means[of] + random.normal(size=(count, *shape))
    writer.finish(index, {"simulated": True, "description": "made by a test", "sources": {}})

    turn = np.arange(count) % 5
    role = np.select([turn < 3, turn == 3], ["train", "validation"], "test")
    kind = np.where(turn < 3, "", np.array(["temporal", "spatial", "both"])[np.arange(count) // 5 % 3])
    split = pd.DataFrame(
        {
            "id": index["id"],
            "role": role,
            "kind": kind,
            "square": np.where(np.isin(kind, ["spatial", "both"]), np.arange(count) // 15 % 12, -1),
            "cell": [f"cell {row % 15}" for row in range(count)],
            "nearest_train_km": np.where(turn < 3, np.nan, random.uniform(0, 20, count)),
        }
    )
    (folder / "split").mkdir()
    split.to_parquet(folder / "split" / "split.parquet", index=False)
    ones = {
        f"{name}_{key}": np.full(SHAPES[name], key == "sd", np.float32) for name in SHAPES for key in ("mean", "sd")
    }
    save_file(ones, folder / "split" / "statistics.safetensors")
    files.write_json(folder / "split" / "split.json", {"squares": []})
    return folder / "store", folder / "split"
