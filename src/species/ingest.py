"""Check records and embeddings, write the memory-mapped store.

    python -m src.species.ingest --params pipelines/species/params.yaml --root data/species/simulated \\
        --out data/species/store

`--root` holds observations.csv or .parquet with the columns of GBIF, and below embeddings/ the modalities that
`data.modalities` names (src/species/data/embedding_files.py), one row or file an observation. Writes a store
(src/core/data/embedding_store.py) of float16 arrays, with refused.csv beside them: line, field,
found and why of every record that was left out. A killed run goes on where it stopped, as long as neither table,
params nor a source file changed.
"""

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
            with files.complete_file(LISTED) as aside:
                records.refused.to_csv(aside, index=False)
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
        shutil.rmtree(marks)  # of arrays that were deleted, or moved by a run that failed after that
    with files.complete_folder(out.out) as folder:
        writer = EmbeddingWriter(store, shapes)
        try:
            copy(found, index, writer, marks)
            read = [records.path, *inputs.root.glob("source.json"), *(path for one in found for path in one.files)]
            named = sorted((path.relative_to(inputs.root).as_posix(), path) for path in read)
            sources = {name: files.sha256(path) for name, path in tqdm(named, desc="hash", unit="file")}
            if source_facts(params.data, inputs.root, found) != facts:
                raise DataError(f"{inputs.root}/embeddings: found files that changed while they were read; start again")
        except DataError:
            shutil.rmtree(scratch)  # it never fits again: the source at fault has to change
            raise
        writer.finish(index, about | {"sources": sources})
        records.refused.to_csv(folder / "refused.csv", index=False)
        for name in ("index.parquet", "manifest.json", *(f"{name}.npy" for name in shapes)):
            shutil.move(store / name, folder / name)
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


def copy(found: list[Source], index: pd.DataFrame, writer: EmbeddingWriter, marks: Path) -> None:
    """Write the chunks that are not marked as done. A mark is set when a chunk is on disk: a kill costs one chunk."""
    marks.mkdir(parents=True, exist_ok=True)
    given = {name for source in found if source.modality == "vision_pooled" for name in source.ids}
    rows = index.set_index("id").filter(regex="_row$")
    with tqdm(total=sum(len(source.ids) for source in found), desc="ingest", unit="embedding") as bar:
        for source in sorted(found, key=lambda source: list(SHAPES).index(source.modality)):  # pooled before its tokens
            for chunk in source.chunks():
                mark = marks / f"{source.modality}-{chunk.start}"
                if not mark.exists():
                    write_chunk(source, chunk, rows, writer, given)
                    writer.flush()
                    mark.touch()
                bar.update(len(source.ids[chunk]))


def write_chunk(source: Source, chunk: slice, rows: pd.DataFrame, writer: EmbeddingWriter, given: set[str]) -> None:
    """Write the embeddings of `chunk` into their `rows` (id -> `<modality>_row`), but for those of refused records.
    Where vision_pooled is `given`, it must be the mean of the tokens."""
    names, values = source.ids[chunk], embedding_files.read(source, chunk)
    stored = embedding_files.check_values(source, names, values)
    at = rows.reindex(list(names), fill_value=-1)
    own = at[f"{source.modality}_row"].to_numpy()
    writer.array(source.modality)[own[own >= 0]] = stored[own >= 0]
    if source.modality != "vision":
        return
    target = writer.array("vision_pooled")
    means = values.mean(axis=(1, 2, 3), dtype=np.float32)  # over frames and places: global average pooling
    for name, row, mean in zip(names, at["vision_pooled_row"], means, strict=True):
        if row >= 0 and name in given:
            embedding_files.require_agreement(name, target[row], mean)
        elif row >= 0:
            target[row] = mean


def source_facts(data: Data, root: Path, found: list[Source]) -> list:
    """Inputs of the store beside the table: params, and sources by name, size and time of change."""
    changed = [(path.relative_to(root).as_posix(), path.stat()) for source in found for path in source.files]
    return [data.model_dump(exclude={"root"}), *([name, at.st_size, at.st_mtime_ns] for name, at in changed)]


def describe(records: Records, index: pd.DataFrame, shapes: dict, about: dict[str, Any], data: Data) -> None:
    said = "simulated " if about["simulated"] else ""
    print(
        f"ingest: {len(index)} {said}observations of {index['gbif_id'].nunique()} records and "
        f"{index['species'].nunique()} species, {index['year'].min()} to {index['year'].max()}, latitude "
        f"{index['lat'].min():.4f} to {index['lat'].max():.4f}, longitude {index['lon'].min():.4f} to "
        f"{index['lon'].max():.4f}; uncertainty unknown of {index['uncertainty_m'].isna().sum()}"
    )
    print(f"ingest: {records.unusable} of {len(records.keys)} rows refused for place, date or name")
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
