"""The split stage: what it writes, what it depends on, and what stops it with nothing left behind."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from src.core.data import band_statistics
from src.core.data.quantisation import Quantisation
from src.core.stage.errors import DataError, ParamsError
from src.population import split
from tests import tiles

SAMPLE = Path(__file__).parents[2] / "../shared/data/us_counties/tiles.npz"
COUNT = 120


@pytest.fixture
def store(tmp_path):
    generator = np.random.default_rng(0)
    pixels = np.stack([tiles.random_pixels(seed) for seed in range(COUNT)])
    lat, lon = generator.uniform(25, 50, COUNT), generator.uniform(-110, -70, COUNT)
    return tiles.write_store(tmp_path / "tiles", pixels, lat=lat, lon=lon)


def run_stage(params, store, out, dry_run=False):
    split.main(params, Namespace(tiles=store.folder), Namespace(out=out), dry_run)
    return out


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_what_is_written_is_that_of_the_training_tiles(make_params, store, tmp_path):
    out = run_stage(make_params({"split.block_degrees": 5}), store, tmp_path / "split")
    table = pd.read_parquet(out / "split.parquet")
    assert list(table) == ["tile", "tile_id", "place", "block", "role", "lat", "lon"]
    assert table["tile_id"].tolist() == store.tiles["tile_id"].tolist()
    summary = json.loads((out / "split.json").read_text())
    assert summary["counts"] == {role: int((table["role"] == role).sum()) for role in summary["counts"]}
    assert min(summary["counts"][role] for role in ("train", "validation", "test", "buffer")) > 0
    assert summary["unit"] == "block" and summary["counts"]["locked"] == 0
    samples = pd.read_parquet(out / "samples.parquet")
    assert samples.role.tolist() == table.set_index("tile").role[samples.tile].tolist()

    train = table.loc[table["role"] == "train", "tile"]
    labels = store.samples.loc[store.samples["tile"].isin(train), "growth_rate"]
    assert summary["label_mean"] == pytest.approx(labels.mean())
    assert summary["label_sd"] == pytest.approx(labels.std(ddof=0))
    mean, sd = band_statistics.band_statistics(store, train)
    written = load_file(out / "statistics.safetensors")
    np.testing.assert_array_equal(written["mean"], mean.astype(np.float32))
    np.testing.assert_array_equal(written["sd"], sd.astype(np.float32))

    findings = json.loads((out / "audit.json").read_text())
    assert findings["nearest_train_test_km"] >= 100
    assert findings["shared_places"] == findings["overlapping_footprints"] == findings["duplicate_tiles"] == 0
    assert (out / "split_map.png").read_bytes().startswith(b"\x89PNG")


def test_same_params_same_bytes_whatever_the_global_seed(make_params, store, tmp_path):
    one = run_stage(make_params(), store, tmp_path / "one")
    other = run_stage(make_params({"seed": 12345, "threads": 1}), store, tmp_path / "other")
    assert contents(one) == contents(other)
    third = run_stage(make_params({"split.seed": 1}), store, tmp_path / "third")
    hashes = [json.loads((folder / "split.json").read_text())["hash"] for folder in (one, third)]
    assert hashes[0] != hashes[1]


def test_place_split_has_no_buffer_and_reports_the_distance(make_params, store, tmp_path):
    params = make_params({"split.method": "place", "split.fold": 2})
    store = tiles.write_store(
        tmp_path / "apart", store.read(range(COUNT)), lat=store.tiles["lat"], lon=store.tiles["lon"],
        half_diagonal_km=0.01,
    )  # fmt: skip
    out = run_stage(params, store, tmp_path / "split")
    summary = json.loads((out / "split.json").read_text())
    assert (summary["unit"], summary["counts"]["buffer"], summary["counts"]["test"]) == ("block", 0, COUNT // 4)
    assert 0 < json.loads((out / "audit.json").read_text())["nearest_train_test_km"] < 100


def test_tiles_without_coordinates_are_split_by_place_only(make_params, tmp_path):
    pixels = np.stack([tiles.random_pixels(seed) for seed in range(20)])
    unknown = [np.nan] * 20
    store = tiles.write_store(tmp_path / "tiles", pixels, lat=unknown, lon=unknown, half_diagonal_km=np.nan)
    with pytest.raises(DataError, match="refuse spatial splits"):
        run_stage(make_params(), store, tmp_path / "split")
    out = run_stage(make_params({"split.method": "place"}), store, tmp_path / "split")
    assert json.loads((out / "audit.json").read_text())["nearest_train_test_km"] is None


def test_a_leak_stops_the_stage_and_leaves_the_old_output(make_params, store, tmp_path):
    out = run_stage(make_params(), store, tmp_path / "split")
    before = contents(out)
    role = pd.read_parquet(out / "split.parquet").set_index("tile")["role"]
    pixels = store.read(range(COUNT))
    pixels[role[role == "test"].index[0]] = pixels[role[role == "train"].index[0]][:, ::-1]
    leaky = tiles.write_store(
        tmp_path / "leaky", pixels, lat=store.tiles["lat"], lon=store.tiles["lon"]
    )  # fmt: skip
    with pytest.raises(DataError, match="duplicate_tiles: found 1"):
        run_stage(make_params(), leaky, out)
    assert contents(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["leaky", "split", "tiles"]


def test_refusals_leave_nothing(make_params, store, tmp_path):
    out = tmp_path / "split"
    for changes, error, message in (
        ({"split.buffer_km": 10}, ParamsError, "found 10, expected at least 40"),
        ({"split.block_degrees": 60}, DataError, r"found \d blocks of 60 degrees, expected at least 4"),
    ):
        with pytest.raises(error, match=message):
            run_stage(make_params(changes), store, out)
    bare = tiles.write_store(
        tmp_path / "bare", store.read(range(COUNT)), lat=store.tiles["lat"], lon=store.tiles["lon"],
        growth_rate=[3.0] * COUNT,
    )  # fmt: skip
    with pytest.raises(DataError, match=r"growth_rate: found .* training labels with 1 distinct"):
        run_stage(make_params(), bare, out)
    assert not out.exists()


def test_dry_run_counts_and_writes_nothing(make_params, store, tmp_path, capsys):
    run_stage(make_params({"split.block_degrees": 8}), store, tmp_path / "split", dry_run=True)
    told = capsys.readouterr().out
    assert "'train':" in told and "blocks {" in told
    assert "fewer than 10 test blocks, so scores get no intervals" in told
    assert not (tmp_path / "split").exists()


def test_the_sample_splits_into_less_than_10_mb(make_params, tmp_path):
    if not SAMPLE.exists():
        pytest.skip(f"{SAMPLE} is absent")
    data = np.load(SAMPLE)
    store = tiles.write_store(
        tmp_path / "tiles",
        data["tiles"],
        quantisation=Quantisation("linear", float(data["scale"])),
        province=data["state"],
        city=data["county"],
        lat=data["lat"].astype(float),
        lon=data["lon"].astype(float),
        half_diagonal_km=48.0,
        growth_rate=100 * np.log(data["p90"] / data["p80"]),
    )
    out = run_stage(make_params(), store, tmp_path / "split")
    assert sum(path.stat().st_size for path in out.iterdir()) < 10e6
    counts = json.loads((out / "split.json").read_text())["counts"]
    assert counts["test"] == 165 and counts["train"] > 300 and counts["validation"] > 60
