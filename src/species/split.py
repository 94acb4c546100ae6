"""Hold out years and squares, surround the squares with a buffer, and audit the split for leaks.

    python -m src.species.split --params pipelines/species/params.yaml --store data/species/store \
        --out data/species/split

Writes split.parquet (role, kind, square, grid cell and distance to training of every observation), split.json
(settings, squares, statistics per role and every observation's role), statistics.safetensors (mean and standard
deviation of the training embeddings), audit.json, split_map.png and distances.png. `split.seed` is the only seed
used. A leak ends the stage and writes nothing.
"""

from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save

from src.core.data.embedding_statistics import fit_statistics
from src.core.data.embedding_store import EmbeddingStore
from src.core.splits import embedding_audit, point_audit
from src.core.splits.squares import outline
from src.core.stage import run
from src.core.stage.files import complete_folder, write_json
from src.species.data import roles
from src.species.data.roles import Roles
from src.species.data.task import KINDS
from src.species.params import Params
from src.species.report import split_map


def main(params, inputs, out, dry_run=False):
    run.set_threads(params.threads)
    store = EmbeddingStore.open(inputs.store)
    drawn = roles.draw(store.index, params.split, where=f"{inputs.store}/index.parquet")
    per_role = count(store.index, drawn.table)
    describe(per_role, drawn, params.split)
    if dry_run:
        embeddings = ", ".join(store.modalities) or "none"
        print(f"split: would audit {len(store)} observations and the embeddings: {embeddings}")
        return

    store.verify()
    points = store.index.assign(record=store.index["gbif_id"], **drawn.table[["role", "kind", "square"]])
    train = np.flatnonzero(drawn.table["role"] == "train")
    vectors = [modality for modality, shape in store.modalities.items() if len(shape) == 1]
    statistics = {
        f"{modality}_{name}": values
        for modality in vectors
        for name, values in zip(("mean", "sd"), fit_statistics(store, modality, train), strict=True)
    }
    findings = point_audit.audit(
        points,
        drawn.squares,
        side_km=params.split.side_km,
        buffer_km=params.split.buffer_km,
        max_uncertainty_m=params.split.max_uncertainty_m,
    )
    findings["embeddings"] = embedding_audit.audit(store, points, statistics, label="species")
    point_audit.require_clean(
        findings,
        buffer_km=params.split.buffer_km,
        apart_km=params.split.apart_km,
        gap_days=params.split.gap_days,
        shared_embeddings=params.split.shared_embeddings,
        where=str(out.out),
    )
    with complete_folder(out.out) as folder:
        drawn.table.to_parquet(folder / "split.parquet", index=False)
        write_json(folder / "split.json", summarise(drawn, per_role, params.split))
        write_json(folder / "audit.json", findings)
        (folder / "statistics.safetensors").write_bytes(save(statistics))
        draw(points, drawn, params.split, folder)


def count(observations: pd.DataFrame, table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Statistics of "train", "test/spatial" and so on, in a fixed order. Nobody can name an untrained species, of
    which there is no training record."""
    known = set(observations.loc[table["role"] == "train", "species"])
    found = {}
    for name in ("train", *(f"{role}/{kind}" for role in ("validation", "test") for kind in KINDS), *roles.ROLES[3:]):
        here = (roles.names(table) == name).to_numpy()
        of_role = observations[here]
        untrained = ~of_role["species"].isin(known)
        km = table.loc[here, "nearest_train_km"]
        found[name] = {
            "observations": len(of_role),
            "records": int(of_role["gbif_id"].nunique()),
            "species": int(of_role["species"].nunique()),
            "untrained_species": int(of_role.loc[untrained, "species"].nunique()),
            "untrained_observations": int(untrained.sum()),
            "years": [int(of_role["year"].min()), int(of_role["year"].max())] if len(of_role) else None,
            "share": round(len(of_role) / len(observations), 4),
            "cells": int(table.loc[here, "cell"].nunique()),
            "median_km": None if km.isna().all() else round(float(km.median()), 4),
        }
    return found


def summarise(drawn: Roles, per_role: dict[str, dict[str, Any]], split) -> dict[str, Any]:
    """split.json."""
    squares = [
        {"square": number}
        | {key: value if isinstance(value, str) else float(value) for key, value in square.items()}
        | {"points": int(square["points"]), "species": int(square["species"])}
        | {"corners": outline(square["lat"], square["lon"], side_km=split.side_km).round(6).tolist()}
        for number, square in enumerate(drawn.squares.to_dict("records"))
    ]
    return {
        "settings": split.model_dump(),
        **drawn.facts,
        "statistics": per_role,
        "squares": squares,
        "roles": dict(zip(drawn.table["id"], roles.names(drawn.table), strict=True)),
    }


def describe(per_role: dict[str, dict[str, Any]], drawn: Roles, split) -> None:
    print(f"split: {'':20}{'records':>8}{'species':>8}{'untrained':>10}{'years':>11}{'share':>7}{'km':>8}")
    for name, found in per_role.items():
        years = "{}–{}".format(*found["years"]) if found["years"] else "–"
        km = "–" if found["median_km"] is None else f"{found['median_km']:.3g}"
        species = f"{found['species']:8}{found['untrained_species']:10}"
        print(f"split: {name:20}{found['records']:8}{species}{years:>11}{found['share']:7.1%}{km:>8}")
    print("split: untrained: species without a training record; km: median distance to the nearest training record")
    print(f"split: buffer: {drawn.facts['buffer']}")
    print(f"split: {drawn.facts['unknown_uncertainty']} observations of unknown uncertainty are kept")
    print(f"split: {len(drawn.squares)} squares hold {drawn.squares['points'].tolist()} records, test squares first")
    if drawn.facts["demonstration"]:
        print(
            "split: split.buffer_km is 0: a demonstration of what a missing buffer does; training lies at the edges of "
            "the squares, so no score of it is a test"
        )
    if split.shared_embeddings:
        print(f"split: roles may share embeddings of {', '.join(split.shared_embeddings)} (split.shared_embeddings)")


def draw(points: pd.DataFrame, drawn: Roles, split, folder) -> None:
    squares = f"{split.squares} + {split.validation_squares} squares of {split.side_km:g} km"
    buffer = f"buffer {split.buffer_km:g} km" if split.buffer_km else "no buffer (demonstration)"
    split_map.draw_map(
        folder / "split_map.png",
        points,
        drawn.squares,
        side_km=split.side_km,
        buffer_km=split.buffer_km,
        title=f"Tests from {split.test_from} on and in {squares}, validation made alike one year earlier, {buffer}",
    )
    test = drawn.table[drawn.table["role"] == "test"]
    km = {kind: test.loc[test["kind"] == kind, "nearest_train_km"].to_numpy() for kind in KINDS}
    random_km = split_map.random_split_km(points, points["role"].to_numpy(), split.seed)
    split_map.draw_distances(folder / "distances.png", km, random_km)


if __name__ == "__main__":
    inputs = {"store": "ingest"}
    outputs = {"out": "folder for roles, statistics, audit and map"}
    run.stage(main, Params, name="species.split", doc=__doc__, inputs=inputs, outputs=outputs)
