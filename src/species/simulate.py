"""Simulate georeferenced observations of plants with language and vision embeddings, whose truth is known.

    python -m src.species.simulate --params pipelines/species/params.yaml --out data/species/simulated

Writes observations.csv, embeddings/ (packs of language, vision_pooled and vision, each with its .ids.txt), source.json
(that and how it is simulated) and map.png. Species, records and taxon numbers are invented; only the outline of the
land is Florida's, roughly. How records and embeddings are drawn is said in data/simulated_observations.py.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from src.core.report.figures import drawing
from src.core.stage import files, run
from src.species.data import random_fields, simulated_observations
from src.species.data.embedding_files import SHAPES
from src.species.data.random_fields import Field
from src.species.data.simulated_observations import HABITAT_KM, HABITATS
from src.species.params import Params

MEANING = {
    "species": "standard deviation in each latent dimension of the species' vector, half its variance the genus'",
    "habitat": "the same, of what is linear in the habitat fields, whose correlation length is 20 km",
    "place": "the same, of what is linear in place fields with correlation lengths of 0.8 and 4 km",
    "noise": "the same, of what belongs to one observation alone",
}


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    run.set_threads(params.threads)
    settings = params.simulate
    counts = dict.fromkeys(("language", "vision_pooled"), settings.observations) | {"vision": settings.full_vision}
    gigabytes = 2 * sum(count * np.prod(SHAPES[name]) for name, count in counts.items()) / 1e9
    print(f"simulate: {settings.observations} observations of {settings.species} species, {gigabytes:.2f} GB")
    if dry_run:
        return
    world, table = simulated_observations.simulate_observations(settings)
    source = {
        "simulated": True,
        "description": f"{settings.observations} observations of {settings.species} species that do not exist, over an "
        "outline of central Florida; dates, places and embeddings drawn at random (src/species/simulate.py)",
        "settings": settings.model_dump(),
        "strengths": MEANING,
        "isotropic_noise": simulated_observations.ISOTROPIC,
    }
    with files.complete_folder(out.out) as folder:
        (folder / "embeddings").mkdir()
        simulated_observations.write_csv(table, settings.seed, folder / "observations.csv")
        simulated_observations.write_embeddings(world, table, settings, folder / "embeddings")
        files.write_json(folder / "source.json", source)
        draw_map(world["habitat"], table, folder / "map.png")
    counts = table.groupby("species")["gbifID"].nunique()
    print(f"simulate: {table.gbifID.nunique()} records, {counts.min()} to {counts.max()} of a species")


def draw_map(habitat: Field, table: pd.DataFrame, path: Path) -> None:
    """map.png: the records by year, beside the first habitat field."""
    lon, lat = np.meshgrid(np.linspace(-82.9, -80.4, 250), np.linspace(27.5, 29.5, 220))
    km = random_fields.to_km(lat.ravel(), lon.ravel())
    shown = np.where(random_fields.land().contains_points(km), habitat.at(km)[:, 0], np.nan).reshape(lat.shape)
    coast = np.array([*random_fields.COAST, random_fields.COAST[0]])
    with drawing(path, 12, 5.2) as figure:
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        places = table["decimalLongitude"], table["decimalLatitude"]
        points = left.scatter(*places, c=table["day"].dt.year, s=5, cmap="viridis", linewidths=0)
        figure.colorbar(points, ax=left, label="year")
        left.set_title(f"{len(table)} simulated observations", fontsize=11)
        image = right.pcolormesh(lon, lat, shown, cmap="BrBG", shading="nearest", rasterized=True)
        figure.colorbar(image, ax=right, label="standard deviations")
        right.set_title(f"one of {HABITATS} habitat fields, correlation length {HABITAT_KM} km", fontsize=11)
        aspect = 1 / np.cos(np.radians(random_fields.MIDDLE[0]))
        for axes in (left, right):
            axes.plot(*coast.T, color="0.4", linewidth=0.8)
            axes.set(xlabel="longitude (°)", ylabel="latitude (°)", aspect=aspect)


if __name__ == "__main__":
    inputs = {}
    outputs = {"out": "folder for observations, embeddings and map"}
    run.stage(main, Params, name="species.simulate", doc=__doc__, inputs=inputs, outputs=outputs)
