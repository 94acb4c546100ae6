"""Simulated observations of plants: their records as GBIF would give them, and language and vision embeddings of them.

Places: habitat is four Gaussian random fields with a correlation length of 20 km. Four fifths of the records lie
around sites (150 m; long-tailed effort; sites in clusters of some 6 km), the others anywhere on land. What is reported
is off by the uncertainty. Effort grows by the year, and 2025 ends in June; some records at a site share a day.

Species: a record's is drawn with log-probability abundance (log-normal: Preston 1948, Ecology 29) - half the squared
distance of the habitat from the species' optimum in tolerances (Gaussian niche: ter Braak and Prentice 1988, Advances
in Ecological Research 18) + a cosine of the days to its flowering peak + its affinity to the place, a random field for
each species with lengths of 0.8 km (a third of the variance) and 4 km, which only visits can teach. First every
species is given three records, where and when it grows best.

Embeddings: a latent vector of 64 dimensions is the sum of four independent parts. A strength (`simulate.language`,
`simulate.vision`) is the standard deviation of a part in each dimension: species (half the variance is its genus';
other vectors in each modality), habitat (linear in the fields), place (linear in random fields with the same lengths as
affinity and independent of it, as the background of a photo; each modality sees 26, and 20 are the same) and noise of
the one observation. The sum, brought to variance 1, is taken to 7168 or 1408 dimensions by a random matrix that keeps
the variance, and every number gets independent noise of standard deviation 0.5. So a model that memorises backgrounds
gains at sites that it knows, gains something within some 4 km, and is misled elsewhere.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from src.core.data import npy
from src.species.data import random_fields
from src.species.data.embedding_files import SHAPES
from src.species.data.observation_ids import make_ids
from src.species.data.random_fields import Field
from src.species.params import Simulate, Strengths

CHANNELS = 32  # of the place fields
HABITATS, HABITAT_KM = 4, 20
PLACE_KM = 0.8, 4.0, 4.0  # a third of the variance within a site, the rest beyond, so that a buffer is needed
ABUNDANCE, TOLERANCE, SEASON, AFFINITY = 1.5, (0.5, 1.0), 1.5, 3.6
LEAST = 3  # records of a species
FIRST_YEAR, LAST_DAY, LAST_YEAR_SHARE, GROWTH = 2010, "2025-06-30", 0.07, 1.15
VISITS, SECOND_IMAGES, MONTHS_ONLY, TIMES, BLANKS = 0.15, 0.05, 0.01, 0.25, 0.1
FIRST_RECORD, FIRST_TAXON = 9_900_000_001, 900_000_001  # beyond what GBIF has given out
LATENT, ISOTROPIC = 64, 0.5
PLACES = {"language": slice(0, 26), "vision_pooled": slice(6, 32)}  # place fields that each modality sees
CHUNK = 512  # rows projected at a time
STEMS = "Fict", "Simulat", "Imaginat", "Conflat", "Invent"
ENDINGS = "anthus", "ella", "ochloa", "ospermum", "iastrum", "odendron", "ophyllum", "opsis"
EPITHETS = (  # the same in every gender
    "absens", "ascendens", "atrox", "audax", "duplex", "elegans", "fallax", "ferox", "fragrans", "frequens", "fulgens",
    "ingens", "latens", "mendax", "nutans", "pallens", "pernix", "praecox", "procumbens", "recens", "repens",
    "rarescens", "serpens", "simplex", "spectans", "tenax", "triplex", "vagans", "velox", "virens",
)  # fmt: skip


def simulate_observations(settings: Simulate) -> tuple[dict[str, Field], pd.DataFrame]:
    """Random fields that describe a place, and one row per image.

    Returns:
        habitat, place (backgrounds) and affinity (of every species); DataFrame with east, north (km, where it truly
        was), day (datetime64), code (int64 of the species) and, behind these, GBIF's columns from gbifID to taxonKey.
    """
    generator = np.random.default_rng([settings.seed, 0])
    world = {
        "habitat": Field(generator, HABITATS, [HABITAT_KM]),
        "place": Field(generator, CHANNELS, PLACE_KM),
        "affinity": Field(generator, settings.species, PLACE_KM),
    }
    seconds = round(SECOND_IMAGES * settings.observations)
    count = settings.observations - seconds
    km, site = random_fields.draw_places(generator, count, settings.sites)
    day = draw_days(generator, site)
    code = draw_species(generator, world, km, day, settings.species)
    uncertainty = np.clip(generator.lognormal(np.log(30), 1.5, count), 5, 5000).round()
    # 95 % of a round normal scatter lies within 2.45 standard deviations
    moved = km + generator.standard_normal((count, 2)) * uncertainty[:, None] / 1000 / 2.45
    lat, lon = random_fields.to_degrees(random_fields.keep_on_land(moved, km))
    records = pd.DataFrame({
        "east": km[:, 0],
        "north": km[:, 1],
        "day": day,
        "code": code,
        "gbifID": FIRST_RECORD + np.arange(count),
        "imageIndex": 1,
        "decimalLatitude": lat,
        "decimalLongitude": lon,
        "coordinateUncertaintyInMeters": np.where(generator.random(count) < BLANKS, np.nan, uncertainty),
        "species": invent_names(settings.species)[code],
        "taxonKey": FIRST_TAXON + code,
    }).astype({"coordinateUncertaintyInMeters": "Int64"})  # fmt: skip
    again = records.iloc[np.sort(generator.choice(count, seconds, replace=False))].assign(imageIndex=2)
    table = pd.concat([records, again]).sort_values(["gbifID", "imageIndex"], ignore_index=True)
    return world, table


def draw_days(generator: np.random.Generator, site: np.ndarray) -> np.ndarray:
    """(N,) datetime64 days: more by the year, in spring and in autumn; some records at a site share theirs."""
    calendar = pd.date_range(f"{FIRST_YEAR}-01-01", LAST_DAY)
    year, of_year = calendar.year.to_numpy(), calendar.day_of_year.to_numpy()
    spring, autumn = (np.exp(-0.5 * ((of_year - peak) / wide) ** 2) for peak, wide in ((95, 40), (285, 25)))
    season = 0.3 + spring + 0.6 * autumn
    weight = season / pd.Series(season).groupby(year).transform("sum").to_numpy() * GROWTH ** (year - FIRST_YEAR)
    last = year == year[-1]
    weight[last] *= LAST_YEAR_SHARE / (1 - LAST_YEAR_SHARE) * weight[~last].sum() / weight[last].sum()
    day = pd.Series(generator.choice(calendar.to_numpy(), len(site), p=weight / weight.sum()))
    same_visit = (generator.random(len(site)) < VISITS) & (site >= 0)
    return day.mask(same_visit).groupby(site).ffill().fillna(day).to_numpy()


def draw_species(
    generator: np.random.Generator, world: dict[str, Field], km: np.ndarray, day: np.ndarray, species: int
) -> np.ndarray:
    """(N,) int64 code of each record's species, every one of `species` at least LEAST times."""
    abundance = ABUNDANCE * generator.standard_normal(species)
    optimum = generator.standard_normal((species, HABITATS))
    tolerance = generator.uniform(*TOLERANCE, species)
    peak = generator.vonmises(2 * np.pi * 105 / 365, 1, species)
    apart = np.square(world["habitat"].at(km)[:, None] - optimum).sum(axis=2)  # (N, S)
    angle = 2 * np.pi * pd.DatetimeIndex(day).day_of_year.to_numpy() / 365
    logits = AFFINITY * world["affinity"].at(km) - apart / (2 * tolerance**2) + SEASON * np.cos(angle[:, None] - peak)
    # The largest of logits with Gumbel noise is a draw from their softmax, the largest three are three without
    # replacement (Vieira 2014; Kool and others 2019, ICML).
    noisy = logits + generator.gumbel(size=logits.shape)
    code = np.full(len(km), -1)
    for one in range(species):
        code[np.argsort(np.where(code < 0, -noisy[:, one], np.inf), kind="stable")[:LEAST]] = one
    drawn = (logits + abundance + generator.gumbel(size=logits.shape)).argmax(axis=1)
    return np.where(code < 0, drawn, code)


def invent_names(species: int) -> np.ndarray:
    """(species,) binomials of genera that do not exist."""
    genera = [stem + ending for ending in ENDINGS for stem in STEMS]
    count = genus_count(species)
    return np.array([f"{genera[code % count]} {EPITHETS[code // count]}" for code in range(species)], dtype=object)


def genus_count(species: int) -> int:
    """About six species in a genus; species `code` belongs to genus `code % genus_count`."""
    return min(len(STEMS) * len(ENDINGS), -(-species // 6))


def write_csv(table: pd.DataFrame, seed: int, path: Path) -> None:
    """observations.csv with the columns of a GBIF download; some dates hold a time, few no day."""
    generator = np.random.default_rng([seed, 2])
    record = table["gbifID"].to_numpy() - FIRST_RECORD
    kind, minute = generator.random(record.max() + 1)[record], generator.integers(360, 1140, record.max() + 1)[record]
    date = table["day"].dt.strftime("%Y-%m-%d")
    time = pd.Series([f"T{one // 60:02d}:{one % 60:02d}:00" for one in minute])
    date = date.where(kind >= MONTHS_ONLY, date.str[:7]).where(kind < 1 - TIMES, date + time)
    frame = table.loc[:, "gbifID":]
    frame.insert(5, "eventDate", date)
    frame.insert(6, "year", table["day"].dt.year)
    frame.to_csv(path, index=False, float_format="%.6f")


def write_embeddings(world: dict[str, Field], table: pd.DataFrame, settings: Simulate, folder: Path) -> None:
    """Packs `<modality>.npy` float16 with `<modality>.ids.txt`, of the observations that have that modality."""
    generator = np.random.default_rng([settings.seed, 1])
    shuffled = generator.permutation(len(table))
    full, others = np.sort(shuffled[: settings.full_vision]), shuffled[settings.full_vision :]
    missing = round(settings.missing * len(table))
    with tqdm(total=2 * (len(table) - min(missing, len(others))), desc="embeddings", unit="row") as bar:
        for name, strengths in (("language", settings.language), ("vision_pooled", settings.vision)):
            kept = np.setdiff1d(np.arange(len(table)), generator.permutation(others)[:missing])
            latent = embed(generator, world, table, name, strengths)[kept]
            projection = generator.standard_normal((LATENT, *SHAPES[name]), dtype=np.float32) / np.sqrt(LATENT)
            pack = open_pack(folder, name, table.iloc[kept])
            for start in range(0, len(kept), CHUNK):
                values = latent[start : start + CHUNK] @ projection
                values += ISOTROPIC * generator.standard_normal(values.shape, dtype=np.float32)
                pack[start : start + CHUNK] = values
                bar.update(len(values))
            pack.flush()
    if len(full):
        pack = open_pack(folder, "vision", table.iloc[full])
        pooled = np.load(folder / "vision_pooled.npy", mmap_mode="r")
        for row, at in enumerate(np.searchsorted(kept, full)):
            tokens = generator.standard_normal(SHAPES["vision"], dtype=np.float32)  # brought to the mean that is given
            mean = tokens.mean(axis=(0, 1, 2), dtype=np.float64).astype(np.float32)
            pack[row] = tokens - mean + pooled[at].astype(np.float32)
        pack.flush()


def embed(
    generator: np.random.Generator, world: dict[str, Field], table: pd.DataFrame, name: str, strengths: Strengths
) -> np.ndarray:
    """(N, LATENT) float32 of variance 1: the sum of the four parts."""
    species = table["code"].nunique()
    km = table[["east", "north"]].to_numpy()
    genus = generator.standard_normal((genus_count(species), LATENT))[np.arange(species) % genus_count(species)]
    own = (genus + generator.standard_normal((species, LATENT))) / np.sqrt(2)
    habitat, place = world["habitat"].at(km), world["place"].at(km)[:, PLACES[name]]
    parts = {
        "species": own[table["code"]],
        "habitat": habitat @ generator.standard_normal((HABITATS, LATENT)) / np.sqrt(HABITATS),
        "place": place @ generator.standard_normal((place.shape[1], LATENT)) / np.sqrt(place.shape[1]),
        "noise": generator.standard_normal((len(table), LATENT)),
    }
    strength = strengths.model_dump()
    total = sum(strength[part] * values for part, values in parts.items())
    return (total / (np.linalg.norm(list(strength.values())) or 1)).astype(np.float32)


def open_pack(folder: Path, name: str, rows: pd.DataFrame) -> np.memmap:
    """Writable (len(rows), *SHAPES[name]) float16 `<name>.npy`, with the rows' ids beside it."""
    ids = make_ids(rows["gbifID"], rows["imageIndex"]) + "\n"
    (folder / f"{name}.ids.txt").write_text(ids.str.cat(), encoding="utf-8")
    return npy.create(folder / f"{name}.npy", (len(rows), *SHAPES[name]), np.float16)
