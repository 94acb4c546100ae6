"""The controls stage: planted leaks raise the score, shuffled embeddings tell nothing, and rows are the right ones."""

import json
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest

from src.core.data.embedding_store import EmbeddingWriter
from src.species import baselines, controls, split
from src.species.data import roles, task
from src.species.evaluation import classifiers
from src.species.evaluation.classifiers import Fits
from tests.species import places

PARAMS = {
    "baselines.neighbours": [1, 5, 20],
    "baselines.leaves": [5],
    "baselines.components": 8,
    "controls.draws": 3,
    "split.minimum": 15,
}
SPECIES = 12


def make_study(folder, *, embeddings):
    """Each cell of 4 km has its own two species; an embedding tells the species, and nothing of the place."""
    observations = places.make_observations(4000)
    generator = np.random.default_rng(0)
    lat, lon = (observations[name].to_numpy() for name in ("lat", "lon"))
    cell = np.floor(lat * 27).astype(int) * 7919 + np.floor(lon * 24).astype(int)
    species = (cell * 31 + generator.integers(2, size=len(cell)) * 5) % SPECIES
    observations["species"] = [f"Acacia {number:02d}" for number in species]
    # all images of a record show one species
    observations["species"] = observations.groupby("gbif_id")["species"].transform("first")
    if embeddings:
        means = generator.normal(size=(SPECIES, 40))
        code = observations["species"].str[-2:].astype(int).to_numpy()
        values = means[code] + generator.normal(size=(len(code), 40))
        values[::20] = np.nan
        places.write_store(folder / "store", observations, {"language": values})
    else:
        EmbeddingWriter(folder / "store", {}).finish(observations, {"simulated": True})
    split.main(places.make_params(PARAMS), Namespace(store=folder / "store"), Namespace(out=folder / "split"))
    return folder / "store", folder / "split"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"), embeddings=True)


@pytest.fixture(scope="module")
def study(folders):
    return task.read(*folders)


@pytest.fixture(scope="module")
def written(folders, tmp_path_factory):
    return run_stage(folders, tmp_path_factory.mktemp("out") / "controls")


def run_stage(folders, out, dry_run=False):
    store, roles_ = folders
    controls.main(places.make_params(PARAMS), Namespace(store=store, split=roles_), Namespace(out=out), dry_run)
    return out


def read(folder):
    return json.loads((folder / "controls.json").read_text())


def test_a_planted_leak_raises_what_places_tell(written):
    found = read(written)["models"]["location"]
    spatial = found["split"]["spatial"]
    assert found["no_buffer"] > spatial + 0.02 and found["no_buffer_same_size"]["mean"] > spatial + 0.02
    assert found["random"]["least"] > spatial + 0.1
    assert found["split"]["temporal"] > spatial + 0.1
    difference = found["no_buffer_minus_split"]
    assert difference["difference"] == pytest.approx(found["no_buffer"] - spatial, abs=2e-6)
    assert difference["low"] is None and "4 units" in difference["method"]
    assert "shuffled" not in found


def test_an_embedding_of_the_species_alone_gains_nothing_from_a_leak_and_nothing_is_left_of_it_shuffled(written):
    found = read(written)["models"]["language"]
    spatial = found["split"]["spatial"]
    assert spatial > 0.9
    for leaky in (found["no_buffer"], found["no_buffer_same_size"]["mean"], found["random"]["mean"]):
        assert leaky == pytest.approx(spatial, abs=0.03)
    for kind in ("temporal", "spatial"):
        null = found["shuffled"][kind]
        noise = (null["if_independent"] / found["n"][kind] / len(null["draws"])) ** 0.5  # of a share, three draws
        assert null["mean"] == pytest.approx(null["if_independent"], abs=3 * noise)
        assert null["least"] < null["mean"] < null["greatest"] < 0.25 < found["split"][kind]
        assert null["if_independent"] > 0.03, "12 species"


def test_names_are_those_of_neighbours_counted_one_by_one(study):
    """By brute force, with votes counted in a loop."""
    rows = study.observations
    points = rows[["lat", "lon"]].to_numpy()
    species = rows["species"].to_numpy(dtype=str)
    prior = {name: np.mean(species[study.train] == name) for name in np.unique(species)}
    spatial, named, count, share = study.rows("test", "spatial"), [], 5, 0.1
    for row in spatial:
        offset = (points[study.train] - points[row]) * [110.8, 111.3 * np.cos(np.radians(points[row, 0]))]
        km = np.hypot(*offset.T)
        near = np.argsort(km)[:count]
        votes = dict.fromkeys(prior, 0.0)
        for other in near:
            votes[species[study.train[other]]] += 1 / (km[other] + 0.1)
        total = sum(votes.values())
        scores = {name: (1 - share) * votes[name] / total + share * prior[name] for name in votes}
        named.append(max(scores, key=scores.get))
    model = controls.location_model(study, places.make_params(PARAMS))
    found = replace(model, grid={"neighbours": [count], "prior_share": [share]}).named(study.train, spatial)
    assert np.mean(found == named) > 0.99, "all but ties"


def test_rows_are_counted(study, written):
    found = read(written)["models"]["location"]
    assert found["n"] == {"train": len(study.train)} | {
        kind: len(study.rows("test", kind)) for kind in ("temporal", "spatial", "both")
    }


def test_what_returns_is_what_the_buffer_took_from_training(study):
    rows, settings = study.observations, places.make_params(PARAMS).split
    period = roles.periods(rows["first_day"].to_numpy(), rows["last_day"].to_numpy(), settings)
    near = (rows["role"] == "buffer") & (rows["square"] < 0) & (period == "train")
    returned = controls.buffer_rows(study)
    assert len(returned) > 50 and set(returned) == set(np.flatnonzero(near))
    assert not set(returned) & (set(study.train) | set(study.held_out))


def test_random_draws_keep_the_images_of_a_record_together(study):
    record = study.observations["gbif_id"].to_numpy()
    drawn = controls.draw_records(record, 500, np.random.default_rng(0))
    assert 500 <= drawn.sum() <= 501
    assert not set(record[drawn]) & set(record[~drawn])
    assert drawn.tolist() != controls.draw_records(record, 500, np.random.default_rng(1)).tolist()


def test_majority_by_hand():
    species = np.array(["b", "a", "b", "b", "a", "b", "c"])
    majority = controls.Model(species, np.zeros((7, 1)), np.ones(7, bool), classifiers.majority, {})
    assert majority.hits(np.array([0, 1, 2, 3]), np.array([4, 5, 6])).mean() == pytest.approx(1 / 3)
    assert majority.hits(np.array([1, 4, 6]), np.array([0, 1])).mean() == pytest.approx(1 / 2)
    assert majority.named(np.array([0, 1]), np.array([6])) == "a", "the first of equally common ones"


def test_guesses_that_do_not_depend_on_the_truth_by_hand_and_by_shuffling():
    named, truth = np.array(["a", "a", "a", "d"]), np.array(["a", "a", "b", "c"])
    assert controls.if_independent(named, truth) == pytest.approx(3 / 4 * 2 / 4)
    generator = np.random.default_rng(0)
    scores = [np.mean(generator.permutation(named) == truth) for _ in range(4000)]
    assert np.mean(scores) == pytest.approx(3 / 8, abs=0.01)


def test_every_split_has_its_own_majority(written):
    found = read(written)["models"]["location"]["majority"]
    assert set(found) == {"temporal", "spatial", "both", "no_buffer", "no_buffer_same_size", "random"}
    for name in ("no_buffer_same_size", "random"):
        assert found[name]["least"] <= found[name]["mean"] <= found[name]["greatest"]
    assert len(set(found["random"]["draws"])) == 3, "each draw tests other records"


@pytest.mark.parametrize(("leaf", "chosen"), [(5, "leaf"), (2000, "neighbours")])
def test_the_location_of_our_split_is_the_baseline(study, leaf, chosen):
    """The same choice and, fitted anew by its setting, the same names to the last record."""
    params = places.make_params(PARAMS | {"baselines.leaves": [leaf]})
    found, again = Fits(study), Fits(study)
    baselines.fit_places(found, study, params)
    model = controls.location_model(study, params)
    model = controls.choose(again, study, "location", model)
    assert chosen in model.grid and again.choices["location"] == found.choices["location"]
    named = study.classes[found.groups["location"].argmax(axis=1)]
    assert model.named(study.train, study.held_out).tolist() == named.tolist()


def test_same_input_same_bytes_and_the_figure_is_there(folders, written, tmp_path):
    again = run_stage(folders, tmp_path / "again")
    assert sorted(path.name for path in again.iterdir()) == ["controls.json", "controls.png"]
    for path in again.iterdir():
        assert path.read_bytes() == (written / path.name).read_bytes(), path.name


def test_without_embeddings_places_alone_are_reported(tmp_path):
    found = read(run_stage(make_study(tmp_path, embeddings=False), tmp_path / "out"))
    assert list(found["models"]) == ["location"] and found["returned_rows"] > 0


def test_dry_run_counts_and_writes_nothing(folders, tmp_path, capsys):
    run_stage(folders, tmp_path / "out", dry_run=True)
    told = capsys.readouterr().out
    assert "more without a buffer" in told and "matrix in memory takes" in told
    assert not (tmp_path / "out").exists()
