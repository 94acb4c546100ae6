"""Check every tile from its header, match tiles with labels, write the memory-mapped store.

    python -m src.population.preprocess --tiles data/sample/us_counties.zip \\
        --labels data/sample/labels.xlsx --aliases data/sample/aliases.csv --out data/population/tiles

Writes a store (see src/core/data/tile_store.py) with `matching.json` in it: crop, flipped tiles, for every
place the years of its tiles and labels, and all that found no partner. Independent of fold and
seed: a large store is written once.
"""

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
from src.population.params import WORDS, Data, Params, covariate_columns

UNMATCHED = Path("logs/preprocess/unmatched.csv")


@spelled(WORDS)
def main(params, inputs, out, dry_run=False):
    """Tiles and labels -> store. A dry run stops before the first pixel is decoded."""
    rates = labels.read(inputs.labels)
    aliases = labels.read_aliases(inputs.aliases)
    with archive.opened(inputs.tiles) as folder:
        names = archive.find_tiles(folder, inputs.tiles)
        headers = tiles.read_headers(names, params.model.bands)
        quantisation = tiles.agreed_quantisation(headers, params.data.quantisation, params.data.scale)
        dtype = tiles.stored_dtype(headers)
        tiles.check_pixel_sizes(headers)
        tiles.check_band_names(headers)
        size = tiles.common_size(headers, params.data.tile_px)
        shape = (params.model.bands, size, size)
        tile_store.tiles_per_shard(shape, dtype)
        index = tiles.table(names, headers, size).rename(columns=WORDS)
        matched = matching.match(index, rates, aliases, params.data.match_year, **lags(params.data, rates))
        require_step(params.data, rates, matched)
        if len(matched.unmatched_tiles) + len(matched.unmatched_labels) > params.data.max_unmatched:
            raise unmatched_error(matched, params.data.max_unmatched, dry_run)
        facts = report(index, headers, matched, size, dtype, quantisation)
        print(summary(facts, shape))
        rates = matched.samples.growth_rate
        print(f"growth rates: {rates.min():.2f} to {rates.max():.2f}, mean {rates.mean():.2f} ‰ per year")
        if dry_run:
            return

        with files.complete_folder(out.out) as aside:
            writer = tile_store.Writer(aside, len(headers), shape, dtype)
            index = index.assign(**tiles.read_pixels(headers, writer, size, params.data.nan_is_nodata))
            index["path"] = [name.relative for name in names]
            files.write_json(aside / "matching.json", facts)
            names_of_bands = next((header.band_names for header in headers if header.band_names), None)
            writer.finish(index, with_tile_ids(matched.samples, index), quantisation, names_of_bands)
    print(f"{out.out}: {index.valid_fraction.mean():.1%} of the pixels valid")


def lags(data: Data, rates: pd.DataFrame) -> dict[str, Any]:
    """Lags in years, from those in steps of the panel; one year alone has no steps."""
    columns = covariate_columns(data.covariates, data.covariate_lag)
    needed = data.tile_lag or (data.covariates and data.covariate_lag)
    if needed and rates.year.nunique() < 2:
        raise DataError(
            f"{rates.attrs['path']}: year: found {rates.year.iloc[0]} alone, expected two years or more, because "
            "data.tile_lag or data.covariate_lag looks back; set them to 0 or bring earlier years"
        )
    step = spatial_temporal.panel_step(rates.year.to_numpy()) if needed else 0
    return {
        "tile_lag": data.tile_lag * step,
        "lagged_columns": dict(zip(data.covariates, columns, strict=True)),
        "covariate_lag": data.covariate_lag * step,
    }


def require_step(data: Data, rates: pd.DataFrame, matched: Matching) -> None:
    """Raise DataError if the labels that found a tile step otherwise than all do: lags would mean two things."""
    if not (data.tile_lag or (data.covariates and data.covariate_lag)):
        return
    step, left = spatial_temporal.panel_step(rates.year.to_numpy()), matched.samples.year.unique()
    found = spatial_temporal.panel_step(left) if len(left) > 1 else step
    if found != step:
        raise DataError(
            f"{rates.attrs['path']}: year: found steps of {step} years, and of {found} among the labels with a tile; "
            "lags count steps, so both must agree: take the labels of years without tiles out, or set data.tile_lag "
            "and data.covariate_lag to 0"
        )


def with_tile_ids(samples: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
    """The store's `samples`: numbered, with the id of the tile each label found."""
    ids = samples["tile"].map(index.set_index("tile")["tile_id"])
    rest = samples.drop(columns=["sample", "tile", "tile_id"], errors="ignore").reset_index(drop=True)
    first = {"sample": range(len(samples)), "tile": samples["tile"].to_numpy(), "tile_id": ids.to_numpy()}
    return pd.concat([pd.DataFrame(first), rest], axis=1)


def unmatched_error(matched: Matching, allowed: int, dry_run: bool) -> DataError:
    """Error that too many are unmatched; all of them are written to UNMATCHED, except in a dry run."""
    kinds = {"tile": matched.unmatched_tiles, "label": matched.unmatched_labels}
    table = pd.concat([frame.assign(kind=kind) for kind, frame in kinds.items()], ignore_index=True)
    table = table.reindex(columns=["kind", "province", "city", "year", "row", "candidate"])
    table = table.astype({"row": "Int64"}).fillna({"candidate": ""})
    shown = [
        f"  {row.kind} {row.province}/{row.city} {row.year}" + f" (candidate: {row.candidate})" * bool(row.candidate)
        for row in table.groupby("kind", sort=False).head(5).itertuples()
    ]
    listed = "run without --dry-run to list them all"
    if not dry_run:
        with files.complete_file(UNMATCHED) as aside:
            table.to_csv(aside, index=False)
        listed = f"all are in {UNMATCHED}"
    counts = " and ".join(f"{len(frame)} {kind}s" for kind, frame in kinds.items())
    return DataError(
        f"data.labels and data.root: found {counts} without partner, expected at most data.max_unmatched "
        f"{allowed}; {listed}; correct the names, add aliases to data.aliases or raise data.max_unmatched:\n"
        + "\n".join(shown)
    )


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
        "nearest": _records(matched.nearest),
        "unmatched_tiles": _records(matched.unmatched_tiles),
        "unmatched_labels": _records(matched.unmatched_labels),
        "outside": matched.outside,
    }


def summary(facts: dict[str, Any], shape: tuple[int, int, int]) -> str:
    """The report as three or four lines to print."""
    bands, size, _ = shape
    tile_bytes = bands * size * size * (1 if facts["dtype"] == "int8" else 2) + size * size
    quantisation = Quantisation(**facts["quantisation"])
    crop, outside = facts["crop"], facts["outside"].values()
    return "\n".join(
        [
            f"{facts['tiles']} tiles of {len(facts['places'])} places in the years "
            f"{facts['years'][0]} to {facts['years'][-1]}, {bands} bands, {facts['dtype']}, {quantisation}",
            f"centre crop {size} px (sides {crop['smallest_side']} to {crop['largest_side']} px), "
            f"{facts['tiles'] * tile_bytes / 1e9:.2f} GB, {len(facts['flipped'])} tiles flipped north up",
            f"{facts['samples']} labels matched, {len(facts['nearest'])} of them with another year's tile; "
            f"{len(facts['unmatched_tiles'])} tiles and {len(facts['unmatched_labels'])} labels left over",
            *([f"left out at the ends of the panel, where a lag finds nothing: {facts['outside']}"] * any(outside)),
        ]
    )


def _years_of_places(index: pd.DataFrame, samples: pd.DataFrame) -> dict[str, dict[str, list[int]]]:
    kinds = {"tiles": index, "labels": samples}
    of = {kind: frame.year.groupby(place_names(frame)).apply(sorted) for kind, frame in kinds.items()}
    names = sorted(set().union(*(years.index for years in of.values())))
    return {name: {kind: list(map(int, years.get(name, []))) for kind, years in of.items()} for name in names}


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON holds them: no NaN, no numpy types."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{key: getattr(value, "item", lambda value=value: value)() for key, value in row.items()} for row in rows]


if __name__ == "__main__":
    run.stage(
        main,
        Params,
        name="population.preprocess",
        doc=__doc__,
        inputs={},
        sources={
            "tiles": "folder or .zip of tiles (data.root)",
            "labels": ".xlsx or .csv of growth rates (data.labels)",
            "aliases": ".csv of other spellings (data.aliases)",
        },
        outputs={"out": "folder of the store"},
    )
