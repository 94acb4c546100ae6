"""Growth rates from a model folder and nothing else: of new tiles as a table, or of a large raster as a map.

    python -m src.population.predict --model models/population/sft --tiles data/raw/new --out predictions.csv
    python -m src.population.predict --model models/population/sft --raster big.tif --year 2020 --out growth_map.tif

Tiles are named as in training, `<province>/<city>/<year>_<city>.tif`; a folder or a .zip. Writes one row
a tile: tile_id, province, city, year (the tile's, plus the lag of the training labels), head (‰ per year),
text (the answer), text_value (empty where the answer is not of the asked form), and with --intervals
head_low and head_high.

A raster is a GeoTIFF of any size. Windows of the size the model reads cover it, --stride px apart, half a
window unless given. The map is a GeoTIFF with one cell per stride: the head's growth rates (‰ per year) of
the windows that cover the cell, weighted by how near their centres are to it; NaN where the raster has no data.
"""

import argparse
import tempfile
from pathlib import Path

from src.core.stage import files, run
from src.core.stage.errors import DataError, ParamsError, spelled
from src.core.stage.params import spelling
from src.population.params import WORDS, Params


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected at least 1")
    return int(text)


PARSER = run.command_line("population.predict", __doc__)
PARSER.add_argument("--model", type=Path, required=True, help="folder that sft or dpo wrote")
SOURCE = PARSER.add_mutually_exclusive_group(required=True)
SOURCE.add_argument("--tiles", type=Path, help="folder or .zip of tiles")
SOURCE.add_argument("--raster", type=Path, help="GeoTIFF to map")
PARSER.add_argument("--out", type=Path, required=True, help="file to write: CSV of tiles, GeoTIFF of a raster")
PARSER.add_argument(
    "--covariates", type=Path, help="tiles: .csv, .xlsx or .parquet with province, city, year and the model's columns"
)
PARSER.add_argument(
    "--intervals", type=Path, help="tiles: reports/population/prediction_intervals.json of the model's evaluation"
)
PARSER.add_argument(
    "--year", type=int, help="raster: the year predicted for; needed if the prompt names it, else only a tag"
)
PARSER.add_argument("--stride", type=_positive, help="raster: px from window to window, and side of the map's cells")
PARSER.add_argument("--batch-size", type=_positive, default=16)


def main(
    model: Path,
    root: Path,
    out: Path,
    covariates: Path | None = None,
    batch_size: int = 16,
    intervals: Path | None = None,
) -> None:
    """Predict every tile below `root` with the model folder `model`, into the CSV file `out`."""
    # Imported here: they import torch, which --help does without.
    from src.population.data.new_tiles import read_tiles, with_covariates
    from src.population.models.inference import Reader, parsed
    from src.population.models.model_folder import load_for_use

    reach = None if intervals is None else read_reach(intervals, model)
    network, tokenizer, settings = load_for_use(model)
    with tempfile.TemporaryDirectory() as scratch:
        store = read_tiles(root, Path(scratch), settings)
        network.front.quantisation = store.quantisation  # another linear scale is another unit of the same values
        rows = store.tiles.assign(sample=store.tiles.tile, year=store.tiles.year + settings.tile_lag_years)
        rows = with_covariates(rows, settings, covariates)
        reader = Reader(network, tokenizer, settings, store, batch_size)
        table = rows[["tile_id", "province", "city", "year"]].assign(head=reader.head(rows), text=reader.greedy(rows))
    table["text_value"] = parsed(table.text.tolist(), settings.language)
    if reach is not None:
        table = table.assign(head_low=table["head"] - reach, head_high=table["head"] + reach)
    with files.complete_file(out) as aside:
        table.to_csv(aside, index=False, float_format="%.4f")


def map_raster(
    model: Path, path: Path, out: Path, year: int | None = None, stride: int | None = None, batch_size: int = 16
) -> None:
    """Map the GeoTIFF `path` with the model folder `model` into the GeoTIFF `out`, see `growth_map.write_growth`.

    Raises:
        ParamsError: `out` is `path`, a stride beyond the window, or no year where the prompt names it.
        DataError: a raster unlike the tiles of training, or a model that reads covariates or names.
    """
    import pandas as pd

    from src.core.data import large_raster, sliding_windows
    from src.population.data.new_tiles import agreed_with_training
    from src.population.models import growth_map, prompts
    from src.population.models.inference import Reader
    from src.population.models.model_folder import load_for_use, read_settings

    if out.resolve() == path.resolve():
        raise ParamsError(f"--out: found {out}, which is the raster; give another file")
    settings = read_settings(model)  # weights are read last: a wrong raster should not cost minutes
    fields = prompts.named(settings.prompt)
    per_place = dict.fromkeys([*settings.covariates.names, *(name for name in fields if name in ("province", "city"))])
    if per_place:
        raise DataError(
            f"{model}: the model reads {list(per_place)}, which a raster does not hold; use a model that reads the "
            "tile alone, or --tiles (with --covariates)"
        )
    if year is None and "year" in fields:
        raise ParamsError("--year: missing; the model's prompt names {year}: give the raster's year")
    header = large_raster.read_header(path, settings.bands)
    quantisation = agreed_with_training([header], settings, path)
    if min(header.height, header.width) < settings.side:
        raise DataError(
            f"{path}: size: found {header.height} x {header.width} px, the model reads {settings.side} x "
            f"{settings.side}; use a larger one"
        )
    stride = max(settings.side // 2, 1) if stride is None else stride
    grid = sliding_windows.Grid(header.height, header.width, settings.side, stride)
    network, tokenizer, _ = load_for_use(model)
    network.front.quantisation = quantisation

    def head(strip, rows):
        reader = Reader(network, tokenizer, settings, strip, batch_size)
        return reader.head(pd.DataFrame({"tile": rows, "year": year}))

    tags = {"window_px": settings.side, "stride_px": stride} | ({} if year is None else {"year": year})
    growth_map.write_growth(header, grid, head, out, tags)


def read_reach(path: Path, model: Path) -> float:
    """Half width (‰ per year) of the head's intervals, from evaluate; prints their level and guarantee.

    Raises DataError if the file is of another model, or evaluate had too few places.
    """
    known = files.read_json(path)
    found = files.tree_sha256([model])
    if known.get("model_sha256") != found:
        raise DataError(
            f"{path}: model_sha256: found {known.get('model_sha256')}, expected {found} of {model}; intervals are "
            "those of the model folder that evaluate read as sft: give that one, or run evaluate again"
        )
    head = known["groups"]["head"]
    if "refused" in head:
        raise DataError(f"{path}: head: found no interval, expected one: {head['refused']}")
    print(f"head_low to head_high: {known['level']:.0%} intervals, {head['guarantee']}")
    return float(head["added"])


@spelled(spelling(Params) | WORDS | {"root": "--tiles"})
def command(given: argparse.Namespace) -> None:
    """Run a parsed command line; raises ParamsError for an option that belongs to the other source."""
    for name in ("covariates", "intervals") if given.raster else ("year", "stride"):
        if getattr(given, name) is not None:
            raise ParamsError(f"--{name}: not used with --{'raster' if given.raster else 'tiles'}; leave it out")
    if given.out.is_dir():  # said before hours of work, not after
        raise ParamsError(f"--out: found the folder {given.out}, expected the name of a file to write; add one")
    if given.raster:
        map_raster(given.model, given.raster, given.out, given.year, given.stride, given.batch_size)
    else:
        main(given.model, given.tiles, given.out, given.covariates, given.batch_size, given.intervals)


if __name__ == "__main__":
    given = PARSER.parse_args()
    run.finish(lambda: command(given), "population.predict")
