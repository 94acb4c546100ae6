"""A root of raw data for ingest, small: twelve records of three species with language and pooled vision."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from src.core.data.embedding_store import EmbeddingStore
from src.core.stage.params import validate
from src.species import ingest
from src.species.data import embedding_files
from src.species.params import Params
from tests.pipelines import values_of

RECORDS = 12
LANGUAGE, POOLED, TOKENS = (embedding_files.SHAPES[name] for name in ("language", "vision_pooled", "vision"))


def make_params(folder: Path, **data) -> Params:
    """The committed params with scratch below `folder` and these keys of `data`."""
    values = values_of("species")
    values["checkpoint_root"] = str(folder / "checkpoints")
    values["data"] |= {"modalities": ["language", "vision_pooled"], "minimum_records": 1} | data
    return validate(values, Params, where="test")


def write_table(root: Path, rows: list[str] | None = None) -> None:
    """Records 1 to RECORDS of three species."""
    rows = rows or [f"{number},28.{number},-81.5,,2021-04-{number:02d},Fictella s{number % 3},{number % 3}"
                    for number in range(1, RECORDS + 1)]  # fmt: skip
    header = "gbifID,decimalLatitude,decimalLongitude,coordinateUncertaintyInMeters,eventDate,species,taxonKey"
    root.mkdir(parents=True, exist_ok=True)
    (root / "observations.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def write_embeddings(root: Path, language: int = RECORDS) -> dict[str, dict[str, np.ndarray]]:
    """A pack of language for the first records and a folder of vision_pooled without record 3, two images of 5."""
    generator = np.random.default_rng(0)
    made = {"language": {f"{n}_0": generator.standard_normal(LANGUAGE).astype("f2") for n in range(1, language + 1)}}
    names = [f"{n}_0" for n in range(1, RECORDS + 1) if n != 3] + ["5_1"]
    made["vision_pooled"] = {name: generator.standard_normal(POOLED).astype("f4") for name in names}
    folder = root / "embeddings"
    (folder / "vision_pooled").mkdir(parents=True)
    np.save(folder / "language.npy", np.stack(list(made["language"].values())[::-1]))
    (folder / "language.ids.txt").write_text("\n".join(list(made["language"])[::-1]))
    for number, (name, row) in enumerate(made["vision_pooled"].items()):
        if number % 2:
            np.save(folder / "vision_pooled" / f"{name}.npy", row)
        else:
            save_file({"vision_pooled": row}, folder / "vision_pooled" / f"{name}.safetensors")
    return made


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data root below the working directory, and what its embeddings are."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data"
    write_table(root)
    return Namespace(root=root, made=write_embeddings(root))


def run(data: Namespace, out: str = "store", dry_run: bool = False, **changes) -> EmbeddingStore | None:
    params = make_params(data.root.parent, **changes)
    ingest.main(params, Namespace(root=data.root), Namespace(out=data.root.parent / out), dry_run)
    return None if dry_run else EmbeddingStore.open(data.root.parent / out)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def assert_nothing_left(data: Namespace) -> None:
    assert {path.name for path in data.root.parent.iterdir()} <= {"data", "logs", "checkpoints"}
    checkpoints = data.root.parent / "checkpoints"
    assert not checkpoints.exists() or not any(checkpoints.iterdir())
