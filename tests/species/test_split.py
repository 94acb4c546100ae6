"""The split stage: what it writes, what it depends on, what stops it, and the real records of Acacia."""

import json
import shutil
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from src.core.data.embedding_store import EmbeddingStore
from src.core.geo.distances import WGS84, geodesic_km
from src.core.splits import point_audit, squares
from src.core.stage.errors import DataError
from src.species import ingest, split
from src.species.data import roles, task
from tests.species.places import make_observations, make_params, write_store

ACACIA = Path(__file__).parents[2] / "../shared/data/acacia/taxa_Acacia.csv"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    observations = make_observations()
    generator = np.random.default_rng(0)
    embeddings = {
        name: generator.normal(1, 2, (len(observations), width)).astype(np.float16)
        for name, width in (("language", 20), ("vision_pooled", 16))
    }
    embeddings["vision_pooled"][::7] = np.nan
    return write_store(tmp_path_factory.mktemp("split") / "store", observations, embeddings)


def run_stage(params, store, out, dry_run=False):
    split.main(params, Namespace(store=store.folder), Namespace(out=out), dry_run)
    return out


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_what_is_written_is_what_the_later_stages_read(store, tmp_path):
    out = run_stage(make_params(), store, tmp_path / "split")
    assert sorted(contents(out)) == [
        "audit.json", "distances.png", "split.json", "split.parquet", "split_map.png", "statistics.safetensors",
    ]  # fmt: skip
    table = pd.read_parquet(out / "split.parquet")
    assert list(table) == ["id", "role", "kind", "square", "cell", "nearest_train_km"]
    assert table["id"].tolist() == store.index["id"].tolist() and table["square"].dtype == np.int64
    read = task.read(store.folder, out)
    assert len(read.train) == (table["role"] == "train").sum() and len(read.classes) == 12
    assert all(len(read.rows(role, kind)) for role in ("validation", "test") for kind in task.KINDS)

    written = load_file(out / "statistics.safetensors")
    assert sorted(written) == ["language_mean", "language_sd", "vision_pooled_mean", "vision_pooled_sd"]
    train = np.flatnonzero((table["role"] == "train") & store.present("vision_pooled"))
    expected = store.read("vision_pooled", train).astype(np.float64)
    np.testing.assert_allclose(written["vision_pooled_mean"], expected.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(written["vision_pooled_sd"], expected.std(axis=0), rtol=1e-6)

    audit = json.loads((out / "audit.json").read_text())
    assert audit["points_near_squares"] == audit["embeddings"]["language"]["shared"] == 0


def test_split_json_says_everything_about_the_split(store, tmp_path):
    params = make_params()
    out = run_stage(params, store, tmp_path / "split")
    summary = json.loads((out / "split.json").read_text())
    table = pd.read_parquet(out / "split.parquet")
    name = (table["role"] + "/" + table["kind"]).str.rstrip("/")
    assert summary["roles"] == dict(zip(table["id"], name, strict=True)) and "test/spatial" in set(name)
    assert summary["settings"] == params.split.model_dump() and summary["demonstration"] is False

    statistics = summary["statistics"]
    assert sum(found["observations"] for found in statistics.values()) == len(table)
    assert sum(found["share"] for found in statistics.values()) == pytest.approx(1, abs=1e-3)
    index = store.index.assign(name=name, km=table["nearest_train_km"])
    of_kind = index[index["name"] == "test/temporal"]
    assert statistics["test/temporal"]["records"] == of_kind["gbif_id"].nunique() < len(of_kind)
    assert statistics["test/temporal"]["years"] == [2020, 2021] and statistics["train"]["years"] == [2010, 2018]
    assert statistics["test/temporal"]["median_km"] == pytest.approx(of_kind["km"].median(), abs=1e-4)

    assert [square["use"] for square in summary["squares"]] == ["test"] * 4 + ["validation"] * 3
    first = summary["squares"][0]
    lat, lon = np.array(first["corners"]).T
    km = geodesic_km(np.full(4, first["lat"]), np.full(4, first["lon"]), lat, lon)
    np.testing.assert_allclose(km, 5 * np.sqrt(2), atol=1e-3)


def test_a_species_that_nothing_trains_is_counted(store, tmp_path):
    out = run_stage(make_params(), store, tmp_path / "split")
    table = pd.read_parquet(out / "split.parquet")
    observations = make_observations()
    row = table.index[(table["role"] == "test") & (table["kind"] == "spatial")][0]
    record = observations["gbif_id"] == observations["gbif_id"][row]
    observations.loc[record, "species"] = "Acacia nova"
    found = split.count(observations, table)["test/spatial"]
    assert found["untrained_species"] == 1 and found["untrained_observations"] == record.sum()


def test_same_params_same_bytes_and_only_the_splits_seed_matters(store, tmp_path):
    one = contents(run_stage(make_params(), store, tmp_path / "one"))
    assert one == contents(run_stage(make_params(), store, tmp_path / "other"))
    third = contents(run_stage(make_params({"split.seed": 1}), store, tmp_path / "third"))
    assert one["split.parquet"] != third["split.parquet"]


def test_a_copied_embedding_stops_the_stage_and_leaves_the_old_output(store, tmp_path):
    out = run_stage(make_params(), store, tmp_path / "split")
    before = contents(out)
    role = pd.read_parquet(out / "split.parquet")["role"]
    language = store.read("language", np.arange(len(store)))
    train, test = (np.flatnonzero(role == name)[0] for name in ("train", "test"))
    language[test] = language[train]
    leaky = write_store(tmp_path / "leaky", make_observations(), {"language": language})
    with pytest.raises(DataError, match=r"language: found 1 held-out observations with an embedding that another"):
        run_stage(make_params(), leaky, out)
    assert contents(out) == before

    per_species = np.unique(store.index["species"], return_inverse=True)[1]
    same = write_store(tmp_path / "same", make_observations(), {"language": language[per_species]})
    with pytest.raises(DataError, match="language is the same for all records of a species"):
        run_stage(make_params(), same, out)
    run_stage(make_params({"split.shared_embeddings": ["language"]}), same, tmp_path / "allowed")
    audit = json.loads((tmp_path / "allowed/audit.json").read_text())
    assert audit["embeddings"]["language"]["labels_of_one"] == 12


def test_without_a_buffer_it_is_a_demonstration_and_says_so(store, tmp_path, capsys):
    out = run_stage(make_params({"split.buffer_km": 0}), store, tmp_path / "split")
    assert "a demonstration of what a missing buffer does" in capsys.readouterr().out
    summary = json.loads((out / "split.json").read_text())
    assert summary["demonstration"] is True
    with_buffer = run_stage(make_params(), store, tmp_path / "buffer")
    near, far = (pd.read_parquet(folder / "split.parquet") for folder in (out, with_buffer))
    spatial = near["kind"] == "spatial"
    assert (near["square"] == far["square"]).all() and near.loc[spatial, "nearest_train_km"].min() < 1


def test_refusals_leave_nothing(store, tmp_path):
    out = tmp_path / "split"
    for changes, message in (
        ({"split.squares": 200}, "ask for at most"),
        ({"split.test_from": 2040}, "found records of 2008 to 2021"),
    ):
        with pytest.raises(DataError, match=message):
            run_stage(make_params(changes), store, out)
    assert not out.exists()


def test_dry_run_counts_and_writes_nothing(store, tmp_path, capsys):
    run_stage(make_params(), store, tmp_path / "split", dry_run=True)
    told = capsys.readouterr().out
    assert "test/temporal" in told and "would audit 3300 observations and the embeddings: language" in told
    assert not (tmp_path / "split").exists()


def test_observations_without_embeddings_are_split(tmp_path):
    bare = write_store(tmp_path / "bare", make_observations(), {})
    out = run_stage(make_params(), bare, tmp_path / "split")
    assert load_file(out / "statistics.safetensors") == {}
    assert json.loads((out / "audit.json").read_text())["embeddings"] == {}


@pytest.mark.skipif(not ACACIA.exists(), reason=f"{ACACIA} is absent")
def test_real_records_are_split_and_audited_within_seconds(tmp_path, monkeypatch, capsys):
    """19,100 records of South Africa, known by their year alone: 20 + 10 squares."""
    monkeypatch.chdir(tmp_path)  # scratch of ingest
    Path("data").mkdir()
    shutil.copy(ACACIA, "data/observations.csv")
    changes = {"split.squares": 20, "split.validation_squares": 10, "split.test_from": 2024, "split.gap_days": 0}
    params = make_params(changes | {"data.id": None, "data.modalities": [], "data.max_refused": 0.01})
    ingest.main(params, Namespace(root=Path("data")), Namespace(out=Path("store")))
    observations, settings = EmbeddingStore.open(Path("store")).index, params.split
    start = time.perf_counter()
    drawn = roles.draw(observations, settings, str(ACACIA))
    points = observations.assign(record=observations["gbif_id"], **drawn.table[["role", "kind", "square"]])
    findings = point_audit.audit(points, drawn.squares, side_km=10, buffer_km=5, max_uncertainty_m=1000)
    findings["embeddings"] = {}
    point_audit.require_clean(findings, buffer_km=5, apart_km=15, gap_days=0, shared_embeddings=[], where=str(ACACIA))
    seconds = time.perf_counter() - start
    with capsys.disabled():
        print(f"\nacacia: split and audit of {len(observations)} records in {seconds:.1f} s")
    assert seconds < 15
    assert findings["square_gap_km"] >= 15
    # a third way, by brute force: corners of the squares and points of training
    train = points[points["role"] == "train"]
    for square in drawn.squares.itertuples():
        azimuth, _, metres = WGS84.inv(
            np.full(len(train), square.lon), np.full(len(train), square.lat), train["lon"], train["lat"]
        )
        x, y = (np.abs(metres / 1000 * turn(np.radians(azimuth))) - 5 for turn in (np.sin, np.cos))
        assert np.hypot(np.maximum(x, 0), np.maximum(y, 0)).min() > 5
    corners = [squares.outline(square.lat, square.lon, side_km=10) for square in drawn.squares.itertuples()]
    for k, one in enumerate(corners):
        for other in corners[:k]:
            pairs = np.array([[*a, *b] for a in one for b in other])
            assert geodesic_km(*pairs.T).min() >= 15
    counts = roles.names(drawn.table).value_counts()
    assert all(counts[f"{role}/{kind}"] > 20 for role in ("test", "validation") for kind in ("temporal", "spatial"))
