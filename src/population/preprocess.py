"""Check every tile from its header, match tiles with labels, write the memory-mapped store.

    python -m src.population.preprocess --tiles data/sample/us_counties.zip \\
        --labels data/sample/labels.xlsx --aliases data/sample/aliases.csv --out data/population/tiles

Writes a store (see src/core/data/tile_store.py) with `matching.json` in it: crop, flipped tiles, for every
place the years of its tiles and labels, and all that found no partner. Neither fold nor seed changes it.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from src.core.data import archive, raster, tile_store, tiles
from src.core.data.quantisation import Quantisation
from src.core.splits import spatial_temporal
from src.core.stage import files, run
from src.core.stage.errors import DataError, spelled
from src.population.data import labels, matching
from src.population.data.matching import Matching
from src.population.data.prediction_tasks import place_names
from src.population.params import WORDS, Data, Params

UNMATCHED = Path("logs/preprocess/unmatched.csv")
SHOWN = 20  # unmatched tiles, and as many labels, in an error
logger = logging.getLogger(__name__)


@spelled(WORDS)
def main(params, inputs, out, dry_run=False):
    """Tiles and labels -> store. A dry run stops before the first pixel is decoded."""
    warn_of_other_inputs(params.data, inputs)
    faults: dict[str, str] = {}  # by kind, because one run names those of all kinds
    rates = labels.read(inputs.labels, cells := [])
    with collected(faults, "cells of the labels"):
        archive.refuse(cells)
    aliases = labels.read_aliases(inputs.aliases)
    with archive.opened(inputs.tiles) as folder:
        names = archive.find_tiles(folder, inputs.tiles)
        # Enough to match by, where a header is bad.
        index = pd.DataFrame([(name.region, name.place, name.year) for name in names], columns=matching.KEY)
        index = index.assign(tile=range(len(names)), lat=float("nan"), lon=float("nan"))
        with collected(faults, "tiles"):
            headers, quantisation, dtype, size = check_headers(names, params)
            index = tiles.table(names, headers, size).rename(columns=WORDS)
        with collected(faults, "matching"):
            matched = match_labels(index, rates, aliases, params.data)
            require_partners(matched, params.data.max_unmatched, dry_run)
        if faults:
            kinds = [f"found faults of {len(faults)} kinds: {', '.join(faults)}"] * (len(faults) > 1)
            raise DataError("\n".join([*kinds, *faults.values()]))
        facts = report(index, headers, matched, size, dtype, quantisation)
        print(summary(facts, params.model.bands))
        rates = matched.samples.growth_rate
        print(f"growth rates: {rates.min():.2f} to {rates.max():.2f}, mean {rates.mean():.2f} ‰ per year")
        if dry_run:
            return

        with files.complete_folder(out.out) as aside:
            writer = tile_store.Writer(aside, len(headers), (params.model.bands, size, size), dtype)
            index = index.assign(**tiles.read_pixels(headers, writer, size, params.data.nan_is_nodata))
            index["path"] = [name.relative for name in names]
            files.write_json(aside / "matching.json", facts)
            names_of_bands = next((header.band_names for header in headers if header.band_names), None)
            matched.samples.insert(2, "tile_id", index.tile_id[matched.samples.tile].to_numpy())
            writer.finish(index, matched.samples, quantisation, names_of_bands)
    print(f"{out.out}: {index.valid_fraction.mean():.1%} of the pixels valid")


def warn_of_other_inputs(data: Data, inputs) -> None:
    """Say where the command line names another file than params.yaml, which `dvc repro` reads."""
    for option, key in (("tiles", "root"), ("labels", "labels"), ("aliases", "aliases")):
        given, param = getattr(inputs, option), getattr(data, key)
        if given != Path(param):
            logger.warning("--%s is %s, but data.%s in params.yaml is %s, which dvc repro reads; set it if you mean "
                           "the first", option, given, key, param)  # fmt: skip


@contextmanager
def collected(faults: dict[str, str], kind: str) -> Iterator[None]:
    """Keep the message of a DataError raised within the block as `faults[kind]`."""
    try:
        yield
    except DataError as error:
        faults[kind] = str(error)


def check_headers(names: list[archive.TileName], params: Params) -> tuple[list[raster.Header], Quantisation, str, int]:
    """Every tile's header, and what they agree on: quantisation, dtype, side of the centre crop in px."""
    headers = tiles.read_headers(names, params.model.bands)
    quantisation = tiles.agreed_quantisation(headers, params.data.quantisation, params.data.scale)
    dtype = tiles.stored_dtype(headers)
    tiles.check_pixel_sizes(headers)
    tiles.check_band_names(headers)
    size = tiles.common_size(headers, params.data.tile_px)
    tile_store.tiles_per_shard((params.model.bands, size, size), dtype)
    return headers, quantisation, dtype, size


def match_labels(index: pd.DataFrame, rates: pd.DataFrame, aliases: pd.DataFrame, data: Data) -> Matching:
    """Every label's tile, with lags in years from those in steps of the panel.

    Raises DataError as `matching.match` does, or if lags find a single year, or the labels with a tile have another
    step than all, so that a lag would mean two things.
    """
    file, lagged = rates.attrs["path"], data.tile_lag or (data.covariates and data.covariate_lag)
    if lagged and rates.year.nunique() < 2:
        raise DataError(
            f"{file}: year: found {rates.year.iloc[0]} alone, expected two years or more, because "
            "data.tile_lag or data.covariate_lag looks back; set them to 0 or bring earlier years"
        )
    step = spatial_temporal.panel_step(rates.year.to_numpy()) if lagged else 0
    matched = matching.match(
        index,
        rates,
        aliases,
        data.match_year,
        tile_lag=data.tile_lag * step,
        lagged_columns=dict(zip(data.covariates, data.covariate_columns, strict=True)),
        covariate_lag=data.covariate_lag * step,
    )
    left = matched.samples.year.unique()
    found = spatial_temporal.panel_step(left) if lagged and len(left) > 1 else step
    if found != step:
        raise DataError(
            f"{file}: year: found steps of {step} years, and of {found} among the labels with a tile; "
            "lags count steps, so both must agree: take the labels of years without tiles out, or set data.tile_lag "
            "and data.covariate_lag to 0"
        )
    return matched


def require_partners(matched: Matching, allowed: int, dry_run: bool) -> None:
    """Raise DataError if too many are unmatched; all of them are written to UNMATCHED, except in a dry run."""
    kinds = {"tile": matched.unmatched_tiles, "label": matched.unmatched_labels}
    table = pd.concat([frame.assign(kind=kind) for kind, frame in kinds.items()], ignore_index=True)
    if len(table) <= allowed:
        return
    table = table.reindex(columns=["kind", "province", "city", "year", "row", "candidate"])
    table = table.astype({"row": "Int64"}).fillna({"candidate": ""})
    shown = [
        f"  {row.kind} {row.province}/{row.city} {row.year}" + f" (candidate: {row.candidate})" * bool(row.candidate)
        for row in table.groupby("kind", sort=False).head(SHOWN).itertuples()
    ]
    listed = "run without --dry-run to list them all"
    if not dry_run:
        with files.complete_file(UNMATCHED) as aside:
            table.to_csv(aside, index=False)
        listed = f"all are in {UNMATCHED}"
    counts = " and ".join(counted(len(frame), kind) for kind, frame in kinds.items())
    raise DataError(
        f"data.labels and data.root: found {counts} without partner, expected at most data.max_unmatched "
        f"{allowed}; {listed}; correct the names, add aliases to data.aliases or raise data.max_unmatched:\n"
        + "\n".join(shown)
    )


def counted(count: int, noun: str) -> str:
    """The count with its noun, for example 1 tile, 2 tiles."""
    return f"{count} {noun}{'s' * (count != 1)}"


def report(
    index: pd.DataFrame,
    headers: list[raster.Header],
    matched: Matching,
    size: int,
    dtype: str,
    quantisation: Quantisation,
) -> dict[str, Any]:
    """`matching.json`: crop, flips, matches, what was left over; `places` is the place x year matrix."""
    flipped = [tile_id for tile_id, header in zip(index.tile_id, headers, strict=True) if header.flipped]
    sides = [side for header in headers for side in (header.height, header.width)]
    return {
        "tiles": len(index),
        "samples": len(matched.samples),
        "quantisation": quantisation.as_dict(),
        "dtype": dtype,
        "crop": {"size": size, "smallest_side": min(sides), "largest_side": max(sides)},
        "flipped": flipped,
        "years": sorted({int(year) for year in [*index.year, *matched.samples.year]}),
        "places": _years_of_places(index, matched.samples),
        "nearest": matched.nearest.to_dict("records"),
        "unmatched_tiles": matched.unmatched_tiles.to_dict("records"),
        "unmatched_labels": matched.unmatched_labels.to_dict("records"),
        "outside": matched.outside,
    }


def summary(facts: dict[str, Any], bands: int) -> str:
    """The report as three or four lines to print."""
    crop, outside, quantisation = facts["crop"], facts["outside"].values(), Quantisation(**facts["quantisation"])
    pixels, sample_bytes = crop["size"] ** 2, 1 if facts["dtype"] == "int8" else 2
    gigabytes = facts["tiles"] * pixels * (bands * sample_bytes + 1) / 1e9
    return "\n".join(
        [
            f"{counted(facts['tiles'], 'tile')} of {counted(len(facts['places']), 'place')} in the years "
            f"{facts['years'][0]} to {facts['years'][-1]}, {bands} bands, {facts['dtype']}, {quantisation}",
            f"centre crop {crop['size']} px (sides {crop['smallest_side']} to {crop['largest_side']} px), "
            f"{gigabytes:.2f} GB, {counted(len(facts['flipped']), 'tile')} flipped north up",
            f"{counted(facts['samples'], 'label')} matched, {len(facts['nearest'])} of them with another year's tile; "
            f"{counted(len(facts['unmatched_tiles']), 'tile')} and {counted(len(facts['unmatched_labels']), 'label')} "
            "left over",
            *([f"left out at the ends of the panel, where a lag finds nothing: {facts['outside']}"] * any(outside)),
        ]
    )


def _years_of_places(index: pd.DataFrame, samples: pd.DataFrame) -> dict[str, dict[str, list[int]]]:
    kinds = {"tiles": index, "labels": samples}
    of = {kind: frame.year.groupby(place_names(frame)).apply(sorted) for kind, frame in kinds.items()}
    names = sorted(set().union(*(years.index for years in of.values())))
    return {name: {kind: list(map(int, years.get(name, []))) for kind, years in of.items()} for name in names}


if __name__ == "__main__":
    run.stage(
        main,
        Params,
        name="population.preprocess",
        doc=__doc__,
        inputs={},
        sources={
            "tiles": "folder or .zip of tiles (data.root)",
            "labels": ".xlsx, .csv or .parquet of growth rates (data.labels)",
            "aliases": ".csv of other spellings (data.aliases)",
        },
        outputs={"out": "folder of the store"},
    )
