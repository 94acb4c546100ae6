"""Check records and embeddings, write the memory-mapped store.

    python -m src.species.ingest --params pipelines/species/params.yaml --root data/species/simulated \\
        --out data/species/store

`--root` holds observations.csv or .parquet with the columns of GBIF, and below embeddings/ the modalities that
`data.modalities` names (src/species/data/embedding_files.py), one row or file an observation. Writes a store
(src/core/data/embedding_store.py) of float16 arrays, with refused.csv beside them: line, field,
found and why of every record that was left out. A killed run goes on where it stopped, as long as neither table,
params nor a source file changed.
"""

import csv
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from src.core.data.embedding_store import EmbeddingWriter
from src.core.stage import files, run
from src.core.stage.errors import DataError
from src.core.stage.scratch import scratch_folder
from src.species.data import dates, embedding_files, observation_ids, observations
from src.species.data.embedding_files import SHAPES, Source
from src.species.data.observation_ids import some
from src.species.data.observations import Records
from src.species.params import Data, Params

LISTED = Path("logs/species.ingest/refused.csv")
MAX_DESCRIPTION = 2**20  # bytes


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    about = read_about(inputs.root)
    records = observations.read(inputs.root, params.data, dates.today())
    try:
        observations.require_usable(records, params.data)
    except DataError:
        if not dry_run:
            write_refused(records.refused, LISTED)
            print(f"ingest: all refused records are in {LISTED}")
        raise
    observations.warn_if_polar(records)
    found, ignored = embedding_files.find(inputs.root, params.data.modalities)
    embedded = {observation_ids.parse_id(name) for source in found for name in source.ids}
    index, beyond = observations.with_images(records, embedded)
    index, shapes = with_rows(index, found)
    describe(records, index, shapes, about, params.data)
    if ignored:
        print(f"ingest: in embeddings/ but not in data.modalities, ignored: {some(ignored)}")
    if beyond:
        print(f"ingest: {beyond} observations with embeddings belong to records that were left out")
    if dry_run:
        print(f"ingest: would write {sum(2 * int(np.prod(shape)) for shape in shapes.values()) / 1e9:.3g} GB")
        return

    facts = source_facts(params.data, inputs.root, found)
    scratch = scratch_folder(params.checkpoint_root, "species.ingest", facts, [records.path])
    marks, store = scratch / "done", scratch / "store"
    if marks.is_dir() and any(not (store / f"{name}.npy").is_file() for name in shapes):
        shutil.rmtree(marks)  # of arrays that somebody deleted
    with files.complete_folder(out.out) as folder:
        writer = EmbeddingWriter(store, shapes)
        try:
            digests = copy(found, index, writer, marks)
        except DataError:
            shutil.rmtree(scratch)  # it never fits again: the source at fault has to change
            raise
        paths = [path for path in (records.path, Path(inputs.root) / "source.json") if path.is_file()]
        paths += [embedding_files.ids_path(source.paths[0]) for source in found if source.offset >= 0]
        digests |= {path: files.sha256(path) for path in paths}
        names = {path.relative_to(inputs.root).as_posix(): digest for path, digest in digests.items()}
        writer.finish(index, about | {"sources": dict(sorted(names.items()))})
        write_refused(records.refused, folder / "refused.csv")
        for name in ("index.parquet", "manifest.json", *(f"{name}.npy" for name in shapes)):
            link_or_copy(store / name, folder / name)
    shutil.rmtree(scratch)
    print(f"ingest: wrote {out.out}")


def read_about(root: Path) -> dict[str, Any]:
    """Contents of source.json: simulated (bool), description (str), the rest as `about`; without it, not simulated."""
    path = Path(root) / "source.json"
    if not path.exists():
        return {"simulated": False, "description": "", "about": {}}
    if path.stat().st_size > MAX_DESCRIPTION:
        raise DataError(f"{path}: found {path.stat().st_size} bytes, expected at most {MAX_DESCRIPTION}; shorten it")
    values = files.read_json(path)
    for key, kind in (("simulated", bool), ("description", str)):
        if not isinstance(values, dict) or not isinstance(values.get(key), kind):
            raise DataError(f'{path}: {key}: expected {{"simulated": true or false, "description": "..."}}; correct it')
    return {key: values.pop(key) for key in ("simulated", "description")} | {"about": values}


def with_rows(index: pd.DataFrame, found: list[Source]) -> tuple[pd.DataFrame, dict[str, tuple[int, ...]]]:
    """The index with `<modality>_row`, and the shape of every array; vision brings vision_pooled with it.

    Row i of language and vision_pooled is observation i; vision, a thousand times as large, has only those that are.
    """
    has = {source.modality: index["id"].isin(source.ids).to_numpy() for source in found}
    if "vision" in has:
        has["vision_pooled"] = has["vision"] | has.get("vision_pooled", False)
    shapes = {}
    for name in [name for name in SHAPES if name in has]:
        rows = np.cumsum(has[name]) - 1 if name == "vision" else np.arange(len(index))
        index = index.assign(**{f"{name}_row": np.where(has[name], rows, -1).astype("int64")})
        shapes[name] = (int(has[name].sum()) if name == "vision" else len(index), *SHAPES[name])
    return index, shapes


def copy(found: list[Source], index: pd.DataFrame, writer: EmbeddingWriter, marks: Path) -> dict[Path, str]:
    """Write the chunks that are not marked as done; sha256 of every file read.

    A chunk is marked once its values are on disk, so a chunk that a kill interrupted is written again.
    """
    digests: dict[Path, str] = {}
    given = {name for source in found if source.modality == "vision_pooled" for name in source.ids}
    order = sorted(found, key=lambda source: list(SHAPES).index(source.modality))  # pooled before its tokens
    row_of = {name: row for row, name in enumerate(index["id"])}
    with tqdm(total=sum(len(source.ids) for source in found), desc="ingest", unit="embedding") as bar:
        for source in order:
            chunks = {int(path.stem.rpartition("-")[2]): path for path in marks.glob(f"{source.modality}-*.json")}
            folder = source.paths[0].parent
            for start, names, values, hashed in embedding_files.read(source, chunks):
                if values is not None:
                    write_chunk(source, names, values, row_of, index, writer, given)
                    writer.flush()
                    marks.mkdir(parents=True, exist_ok=True)
                    mark = {path.name: digest for path, digest in hashed.items()}
                    files.write_json(marks / f"{source.modality}-{start}.json", mark)
                else:
                    hashed = {folder / name: digest for name, digest in files.read_json(chunks[start]).items()}
                digests |= hashed
                bar.update(len(names))
    return digests


def write_chunk(
    source: Source,
    names: tuple[str, ...],
    values: np.ndarray,
    row_of: dict[str, int],
    index: pd.DataFrame,
    writer: EmbeddingWriter,
    given: set[str],
) -> None:
    """Write (B, *shape) `values` into the rows that the index gives them; skip those of records that were left out.

    Args:
        row_of: observation id -> row of the index.
        given: ids whose vision_pooled is given, and must be the mean of the tokens.
    """
    stored = embedding_files.check_values(source, names, values)
    at = np.array([row_of.get(name, -1) for name in names])
    rows = index[f"{source.modality}_row"].to_numpy()[at]
    writer.array(source.modality)[rows[at >= 0]] = stored[at >= 0]
    if source.modality != "vision":
        return
    pooled = embedding_files.mean_tokens(values)
    target = writer.array("vision_pooled")
    for name, row, mean in zip(names, at, pooled, strict=True):
        if row >= 0 and name in given:
            embedding_files.require_agreement(name, target[row], mean)
        elif row >= 0:
            target[row] = mean


def source_facts(data: Data, root: Path, found: list[Source]) -> list:
    """Inputs of the store beside the table: params, and sources by name, size and time of change."""
    changed = [(path.relative_to(root).as_posix(), path.stat()) for source in found for path in source.files]
    return [data.model_dump(exclude={"root"}), *([name, at.st_size, at.st_mtime_ns] for name, at in changed)]


def link_or_copy(path: Path, target: Path) -> None:
    """Give the file another name; copy its bytes only if the file system has no hard links. The scratch stays whole."""
    try:
        os.link(path, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(path, target)


def write_refused(refused: pd.DataFrame, path: Path) -> None:
    """The list of the refused as CSV."""
    with files.complete_file(path) as aside:
        refused.to_csv(aside, index=False, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)


def describe(records: Records, index: pd.DataFrame, shapes: dict, about: dict[str, Any], data: Data) -> None:
    """Print the numbers of records, species and embeddings, and what was left out."""
    said = "simulated " if about["simulated"] else ""
    print(
        f"ingest: {len(index)} {said}observations of {index['gbif_id'].nunique()} records and "
        f"{index['species'].nunique()} species, {index['year'].min()} to {index['year'].max()}, latitude "
        f"{index['lat'].min():.4f} to {index['lat'].max():.4f}, longitude {index['lon'].min():.4f} to "
        f"{index['lon'].max():.4f}; uncertainty unknown of {index['uncertainty_m'].isna().sum()}"
    )
    print(f"ingest: {records.unusable} of {records.count} rows refused for place, date or name")
    if records.rare:
        shown = [f"{name} ({count})" for name, count in records.rare.items()]
        print(f"ingest: {len(shown)} species with fewer than {data.minimum_records} records left out: {some(shown)}")
    for name in shapes:
        print(f"ingest: {name}: {(index[f'{name}_row'] >= 0).sum()} of {len(index)} observations have it")
    if shapes:
        bare = (index[[f"{name}_row" for name in shapes]] < 0).all(axis=1).sum()
        print(f"ingest: {bare} observations have no embedding at all; kept, masked everywhere")
    else:
        print("ingest: no embeddings (data.modalities is empty): locations and dates alone")


if __name__ == "__main__":
    sources = {"root": "folder with the table and embeddings/ (data.root)"}
    outputs = {"out": "folder of the store"}
    run.stage(main, Params, name="species.ingest", doc=__doc__, inputs={}, sources=sources, outputs=outputs)
