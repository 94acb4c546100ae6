"""The ingest stage: what the store holds, what is refused, what leaves nothing behind."""

import json
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.core.stage import files
from src.core.stage.errors import DataError
from src.species import ingest
from src.species.data import embedding_files
from tests.pipelines import ROOT
from tests.species import data_root
from tests.species.data_root import (
    POOLED,
    RECORDS,
    TOKENS,
    assert_nothing_left,
    contents,
    run,
    write_table,
)

data = data_root.data
ACACIA = ROOT / "../shared/data/acacia/taxa_Acacia.csv"


def test_every_observation_has_its_own_embeddings(data, capsys):
    store = run(data)
    ids = [f"{n}_0" for n in range(1, 6)] + ["5_1"] + [f"{n}_0" for n in range(6, RECORDS + 1)]
    assert store.index["id"].tolist() == ids and list(store.modalities) == ["language", "vision_pooled"]
    rows = np.arange(len(store))
    for modality, made in data.made.items():
        expected = [made.get(name, np.zeros(embedding_files.SHAPES[modality])).astype(np.float16) for name in ids]
        np.testing.assert_array_equal(store.read(modality, rows), np.stack(expected))
        assert store.present(modality).tolist() == [name in made for name in ids]
    assert store.index["taxon_key"].tolist() == [int(name.split("_")[0]) % 3 for name in ids]
    store.verify()
    manifest = store.manifest
    assert (manifest["simulated"], manifest["description"], manifest["count"]) == (False, "", RECORDS + 1)
    everything = {path.relative_to(data.root).as_posix(): path for path in data.root.rglob("*") if path.is_file()}
    assert manifest["sources"] == {name: files.sha256(path) for name, path in sorted(everything.items())}
    assert (store.folder / "refused.csv").read_text() == "line,field,found,why\n"
    told = capsys.readouterr().out
    assert "ingest: 13 observations of 12 records and 3 species, 2021 to 2021" in told
    assert "uncertainty unknown of 13" in told and "vision_pooled: 12 of 13 observations have it" in told
    assert "0 observations have no embedding at all" in told
    assert not any((data.root.parent / "checkpoints").iterdir())


def test_refused_records_take_their_embeddings_with_them(data, capsys):
    rows = (data.root / "observations.csv").read_text().splitlines()[1:]
    rows[4], rows[7] = rows[4].replace("28.5", "95"), rows[7].replace("2021-04-08", "08/04/2021")
    write_table(data.root, rows)
    store = run(data, max_refused=0.2)
    ids = [f"{n}_0" for n in range(1, RECORDS + 1) if n not in (5, 8)]
    assert store.index["id"].tolist() == ids
    for modality, made in data.made.items():
        expected = [made.get(name, np.zeros(embedding_files.SHAPES[modality])).astype(np.float16) for name in ids]
        np.testing.assert_array_equal(store.read(modality, np.arange(len(ids))), np.stack(expected))
    assert pd.read_csv(store.folder / "refused.csv")["line"].tolist() == [6, 9]
    assert "3 observations with embeddings belong to records that were left out" in capsys.readouterr().out

    shutil.rmtree(store.folder)
    with pytest.raises(DataError, match=r"found 2 of 12 rows without .*allow 0\.1667"):
        run(data, max_refused=0.1)
    assert pd.read_csv(ingest.LISTED)["line"].tolist() == [6, 9]
    assert_nothing_left(data)


def test_a_swapped_table_of_florida_is_warned_of_and_stored(data, caplog):
    assert len(run(data)) == RECORDS + 1 and not caplog.records
    rows = [f"{n},-81.5,28.{n},,2021-04-01,Fictella s{n % 3},1" for n in range(1, RECORDS + 1)]
    write_table(data.root, rows)
    run(data, dry_run=True)
    assert run(data, out="swapped").index["lat"].eq(-81.5).all()
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2 and all("are decimalLatitude and decimalLongitude swapped?" in line for line in told)


def test_an_embedding_without_record_stops(data):
    np.save(data.root / "embeddings" / "vision_pooled" / "99_0.npy", np.zeros(POOLED, "f4"))
    with pytest.raises(DataError, match=r"not in the table \(99_0\)"):
        run(data)
    assert_nothing_left(data)


def test_nan_stops_and_leaves_the_old_store(data):
    before = contents(run(data).folder)
    path = data.root / "embeddings" / "vision_pooled" / "5_1.safetensors"
    np.save(path.with_suffix(".npy"), np.full(POOLED, np.nan, "f4"))
    path.unlink(missing_ok=True)
    with pytest.raises(DataError, match=r"vision_pooled/5_1\.npy: vision_pooled of 5_1: found nan"):
        run(data)
    assert contents(data.root.parent / "store") == before
    assert not any((data.root.parent / "checkpoints").iterdir())


def write_tokens(root: Path, ids: list[str], pooled: bool) -> np.ndarray:
    """(V, 8, 24, 24, 1408) float16 files of vision, and in place of all other embeddings their means where `pooled`."""
    shutil.rmtree(root / "embeddings")
    tokens = np.random.default_rng(2).integers(-8, 8, (len(ids), *TOKENS), dtype=np.int8).astype(np.float16)
    (root / "embeddings" / "vision").mkdir(parents=True)
    for name, row in zip(ids, tokens, strict=True):
        np.save(root / "embeddings" / "vision" / f"{name}.npy", row)
    if pooled:
        (root / "embeddings" / "vision_pooled").mkdir()
        for name, row in zip(ids, tokens.mean(axis=(1, 2, 3), dtype=np.float32), strict=True):
            np.save(root / "embeddings" / "vision_pooled" / f"{name}.npy", row)
    return tokens


def test_tokens_are_stored_once_and_pooled_where_nothing_pooled_is_given(data):
    tokens = write_tokens(data.root, ["2_0", "9_0"], pooled=True)
    given = run(data, modalities=["vision", "vision_pooled"], out="given")
    np.testing.assert_array_equal(given.read("vision", [8, 1, 0]), [tokens[1], tokens[0], np.zeros_like(tokens[0])])
    assert given.index["vision_row"].tolist() == [-1, 0, *[-1] * 6, 1, -1, -1, -1]

    shutil.rmtree(data.root / "embeddings" / "vision_pooled")
    computed = run(data, modalities=["vision"], out="computed")
    assert list(computed.modalities) == ["vision_pooled", "vision"]
    np.testing.assert_array_equal(computed.present("vision_pooled"), computed.present("vision"))
    rows = np.arange(RECORDS)
    np.testing.assert_array_equal(computed.read("vision_pooled", rows), given.read("vision_pooled", rows))
    np.testing.assert_allclose(
        computed.read("vision_pooled", [1])[0], tokens[0].mean(axis=(0, 1, 2), dtype=float), atol=1e-3
    )

    (data.root / "embeddings" / "vision_pooled").mkdir()
    np.save(data.root / "embeddings" / "vision_pooled" / "9_0.npy", tokens.mean(axis=(1, 2, 3), dtype=np.float32)[0])
    with pytest.raises(DataError, match="vision_pooled of 9_0: found a vector that differs"):
        run(data, modalities=["vision", "vision_pooled"])


def test_the_manifest_says_what_source_json_says(data, capsys):
    path = data.root / "source.json"
    files.write_json(path, {"simulated": True, "description": "drawn", "seed": 3})
    manifest = run(data).manifest
    assert (manifest["simulated"], manifest["description"], manifest["about"]) == (True, "drawn", {"seed": 3})
    assert "ingest: 13 simulated observations of 12 records" in capsys.readouterr().out
    assert manifest["sources"]["source.json"] == files.sha256(path)
    for wrong in ({"simulated": "yes", "description": ""}, {"simulated": True}, []):
        path.write_text(json.dumps(wrong))
        with pytest.raises(DataError, match=r"source\.json: (simulated|description): expected"):
            run(data)


def test_a_dry_run_counts_and_writes_nothing(data, capsys):
    run(data, dry_run=True)
    assert "would write 0.000223 GB" in capsys.readouterr().out  # 13 x (7168 + 1408) x 2 bytes
    (data.root / "embeddings" / "vision_pooled" / "1_0.safetensors").write_bytes(b"x")
    with pytest.raises(DataError, match="1_0"):
        run(data, dry_run=True)
    write_table(data.root, ["1,95,-81,,2021,Fictella audax,1"])
    with pytest.raises(DataError, match="found 1 of 1 rows"):
        run(data, dry_run=True)
    assert_nothing_left(data)
    assert not ingest.LISTED.exists()


def test_the_acacia_records_without_embeddings(tmp_path, monkeypatch, capsys):
    if not ACACIA.exists():
        pytest.skip(f"{ACACIA} is absent")
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data"
    root.mkdir()
    shutil.copy(ACACIA, root / "observations.csv")
    settings = {"id": None, "modalities": [], "minimum_records": 2}
    store = run(Namespace(root=root), max_refused=0.01, **settings)
    assert len(store) == 18924 and store.modalities == {} and store.index["id"].is_unique
    assert store.index["uncertainty_m"].isna().sum() > 1000
    assert len(pd.read_csv(store.folder / "refused.csv")) == 172 + 6  # two rows of one record without a place
    assert "6 species with fewer than 2 records left out: Acacia aneura (1)" in capsys.readouterr().out
    with pytest.raises(DataError, match="found 170 of 19100 rows"):
        run(Namespace(root=root), max_refused=0.0, **settings)
