"""Simulated data: numbers of records, strengths of the signals, and marks that say they are simulated."""

import json
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.core.stage.errors import ParamsError
from src.species import simulate
from src.species.data import random_fields, simulated_observations
from src.species.data.embedding_files import SHAPES
from src.species.data.observation_ids import parse_id
from src.species.params import Strengths
from tests.conftest import species_params

SMALL = {"observations": 800, "species": 30, "sites": 60, "missing": 0.1, "full_vision": 1}
QUIET = {"species": 0.0, "habitat": 0.0, "place": 0.0, "noise": 0.0}


def make(changes: dict | None = None):
    return species_params({f"simulate.{key}": value for key, value in (SMALL | (changes or {})).items()})


def write(out: Path, changes: dict | None = None, dry_run: bool = False) -> Path:
    """With coarser fields than those of the pipeline: what is said of them is said of `full_size`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random_fields, "WAVES", 64)
        simulate.main(make(changes), Namespace(), Namespace(out=out), dry_run)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def ids_of(folder: Path, modality: str) -> list[str]:
    return (folder / "embeddings" / f"{modality}.ids.txt").read_text().split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("simulate") / "simulated")


@pytest.fixture(scope="module")
def table(folder):
    return pd.read_csv(folder / "observations.csv")


@pytest.fixture(scope="module")
def full_size():
    """The table of the committed size; its embeddings are not needed."""
    settings = species_params().simulate
    return settings, *simulated_observations.simulate_observations(settings)


def test_counts_are_exactly_those_asked_for(table):
    assert len(table) == 800 and table["species"].nunique() == 30
    assert not table.duplicated(["gbifID", "imageIndex"]).any()
    assert table.groupby("species")["gbifID"].nunique().min() >= simulated_observations.LEAST
    assert table.groupby("species")["taxonKey"].nunique().max() == 1
    assert table["taxonKey"].min() >= 900_000_001
    assert (table["imageIndex"] == 2).sum() == 40
    of_record = ["decimalLatitude", "decimalLongitude", "eventDate", "species", "coordinateUncertaintyInMeters"]
    assert (table.groupby("gbifID")[of_record].nunique() <= 1).all(axis=None)


def test_fields_are_those_of_gbif_and_lie_on_land(table):
    lat, lon = table["decimalLatitude"].to_numpy(), table["decimalLongitude"].to_numpy()
    assert random_fields.land().contains_points(random_fields.to_km(lat, lon)).all()
    assert table["eventDate"].str.match(r"\d{4}-\d\d(-\d\d(T\d\d:\d\d:00)?)?$").all()
    assert (table["eventDate"].str[:4].astype(int) == table["year"]).all()
    lengths = table["eventDate"].str.len().value_counts()
    assert lengths[7] < lengths[19] < lengths[10]  # months alone, with a time, days
    uncertainty = table["coordinateUncertaintyInMeters"]
    assert uncertainty.min() >= 5 and uncertainty.max() <= 5000 and 0.05 < uncertainty.isna().mean() < 0.15


def test_coordinates_have_six_decimals(folder):
    line = (folder / "observations.csv").read_text().splitlines()[1]
    assert re.fullmatch(r"\d{10},1,\d{2}\.\d{6},-\d{2}\.\d{6},.*", line)


def test_packs_hold_what_is_not_missing(folder, table):
    ids = [f"{gbif_id}_{image}" for gbif_id, image in zip(table["gbifID"], table["imageIndex"], strict=True)]
    for modality in ("language", "vision_pooled"):
        pack, kept = np.load(folder / f"embeddings/{modality}.npy", mmap_mode="r"), ids_of(folder, modality)
        assert pack.shape == (720, *SHAPES[modality]) == (len(kept), *SHAPES[modality]) and pack.dtype == np.float16
        assert kept == [one for one in ids if one in set(kept)]
        assert [parse_id(one) for one in kept[:3]]
        assert np.std(pack, dtype=np.float64) == pytest.approx(
            np.sqrt(1 + simulated_observations.ISOTROPIC**2), rel=0.1
        )
    assert ids_of(folder, "language") != ids_of(folder, "vision_pooled")


def test_pooled_vector_is_the_mean_of_the_tokens(folder):
    tokens, ids = np.load(folder / "embeddings/vision.npy"), ids_of(folder, "vision")
    assert tokens.shape == (1, 8, 24, 24, 1408) and tokens.dtype == np.float16
    pooled = np.load(folder / "embeddings/vision_pooled.npy")[ids_of(folder, "vision_pooled").index(ids[0])]
    assert ids[0] in ids_of(folder, "language")
    mean = tokens[0].mean(axis=(0, 1, 2), dtype=np.float64)
    np.testing.assert_allclose(mean, pooled.astype(float), atol=5e-4)
    assert tokens.std(dtype=np.float64) > 0.9  # not one vector 4608 times


def test_it_says_that_it_is_simulated(folder):
    source = json.loads((folder / "source.json").read_text())
    assert source["simulated"] is True and "do not exist" in source["description"]
    assert source["settings"] == make().simulate.model_dump()
    assert set(source["strengths"]) == set(source["settings"]["language"])
    assert (folder / "map.png").read_bytes().startswith(b"\x89PNG")


def test_same_seed_same_bytes_and_another_seed_others(folder, tmp_path):
    assert contents(write(tmp_path / "again")) == contents(folder)
    other = contents(write(tmp_path / "other", {"seed": 1}))
    assert all(other[name] != data for name, data in contents(folder).items())


def test_dry_run_writes_nothing(tmp_path, capsys):
    write(tmp_path / "dry", dry_run=True)
    assert "800 observations of 30 species" in capsys.readouterr().out
    assert not (tmp_path / "dry").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"species": 1201}, "species: found 1201"),
        ({"species": 81}, "at least 10 for each of 81"),
        ({"full_vision": 721}, "full_vision 721: expected at most the 720"),
    ],
)
def test_what_cannot_be_simulated_is_refused(changes, message):
    with pytest.raises(ParamsError, match=message):
        make(changes)


def test_names_are_distinct_binomials():
    for species in (2, 40, 227, 1200):
        names = simulated_observations.invent_names(species)
        assert len(set(names)) == species and all(re.fullmatch("[A-Z][a-z]+ [a-z]+", name) for name in names)
        genera = pd.Series(names).str.split().str[0]
        assert genera.nunique() == simulated_observations.genus_count(species)


def test_effort_grows_and_the_last_year_is_a_part(full_size):
    settings, _, table = full_size
    years = table["day"].dt.year.value_counts(normalize=True)
    assert len(table) == settings.observations and set(years.index) == set(range(2010, 2026))
    assert years[2025] == pytest.approx(0.07, abs=0.01) and table["day"].max() <= pd.Timestamp("2025-06-30")
    assert years[2024] > 2 * years[2015] > 3 * years[2010]


def test_species_are_long_tailed_and_flower_in_their_season(full_size):
    settings, _, table = full_size
    counts = table["species"].value_counts()
    assert len(counts) == settings.species and counts.iloc[0] > 150 and counts.median() < 25 and counts.min() >= 3
    angle = 2 * np.pi * table["day"].dt.day_of_year / 365
    wave = pd.DataFrame({"x": np.cos(angle), "y": np.sin(angle)})
    common = table["species"].isin(counts.index[:50])
    concentration = np.hypot(*wave[common].groupby(table["species"][common]).mean().to_numpy().T).mean()
    shuffled = np.random.default_rng(0).permutation(table["species"][common])
    assert concentration > 1.3 * np.hypot(*wave[common].groupby(shuffled).mean().to_numpy().T).mean()


def test_one_finds_the_same_species_where_one_has_been(full_size):
    """Two records within 500 m share their species often, 5 to 10 km apart seldom, far apart hardly."""
    _, _, table = full_size
    table = table[table["imageIndex"] == 1][:3000]
    km, code = table[["east", "north"]].to_numpy(), table["code"].to_numpy()
    apart = np.linalg.norm(km[:, None] - km, axis=2)
    same = code[:, None] == code
    near, middle, far = (
        same[(apart > low) & (apart <= high)].mean() for low, high in ((1e-3, 0.5), (5, 10), (60, 500))
    )
    assert near > 0.15 and near > 3 * middle > 3 * far


def parts_alone(full_size, part: str) -> dict[str, np.ndarray]:
    """modality -> (N, 64) latent vectors that hold one part."""
    _, world, table = full_size
    strengths = Strengths(**(QUIET | {part: 2.0}))
    generator = np.random.default_rng(1)
    return {
        name: simulated_observations.embed(generator, world, table, name, strengths)
        for name in ("language", "vision_pooled")
    }


@pytest.mark.parametrize("part", list(QUIET))
def test_a_part_alone_is_what_it_says(full_size, part):
    _, _, table = full_size
    latent = parts_alone(full_size, part)["language"]
    assert np.mean(np.square(latent)) == pytest.approx(1, rel=0.25)
    by_species = pd.DataFrame(latent).groupby(table["code"].to_numpy()).transform("var").mean(axis=None)
    assert (by_species < 1e-10) == (part == "species")
    images = table.index[table["imageIndex"] == 2]
    assert np.allclose(latent[images], latent[images - 1]) == (part != "noise")  # one place, one species


def test_no_strength_at_all_gives_zeros(full_size):
    _, world, table = full_size
    strengths = Strengths(**QUIET)
    assert not simulated_observations.embed(np.random.default_rng(1), world, table, "language", strengths).any()


def test_modalities_share_places_in_part_and_species_not_at_all(full_size):
    """Vision's part is predicted from language's by least squares, on the records of other species."""
    _, _, table = full_size
    fitted = (table["code"] % 2 == 0).to_numpy()

    def explained(part: str) -> float:
        language, vision = parts_alone(full_size, part).values()
        predicted = language[~fitted] @ np.linalg.lstsq(language[fitted], vision[fitted], rcond=1e-6)[0]
        return 1 - np.square(vision[~fitted] - predicted).sum() / np.square(vision[~fitted]).sum()

    assert explained("habitat") > 0.99
    assert 0.6 < explained("place") < 0.9  # 20 of 26 channels are the same
    assert explained("species") < 0.1 and explained("noise") < 0.1
