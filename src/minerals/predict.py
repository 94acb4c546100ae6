"""Minerals of a scene as a map, or of single spectra as a table.

    python -m src.minerals.predict --cube scene.hdr --out maps
    python -m src.minerals.predict --cube scene.hdr --out maps --model models/minerals/sft/bands
    python -m src.minerals.predict --cube scene.hdr --tile 0 64 --model models/minerals/sft/bands \\
        --ask "Which alteration minerals does this area hold?"
    python -m src.minerals.predict --png tile.png --model models/minerals/sft/rgb --interactive
    python -m src.minerals.predict --spectra table.csv --out minerals.csv

A cube is ENVI (.hdr), GeoTIFF or .mat of surface reflectance. It is read a block of lines at a time, twice (with
--model three times), and never copied; .mat is read whole. Its maps are held in memory, about 120 bytes a pixel.
Writes minerals.tif (classes with colours and names), fit.tif and depth.tif (a band a mineral), iron.tif and clay.tif
(depth at 870 and 2200 nm), all cloud-optimised GeoTIFF, map.png and summary.json (shares of minerals, background and no
data; share of altered tiles, laid side by side from the first line and sample on, the last ones moved back to the
scene's edge; pixels with data that are in no tile).

With --model the tiles are as large as the model's, and answers.csv holds its answers to the three tasks about each:
tile_row, tile_column, top, left, task, text, altered, minerals (these two as read from the text; empty where it is in
no known form, or its task does not ask), warning (where the model was trained on scenes of other origin). A model of
all bands needs a cube with its own bands, one of rgb the three of its composite.

--ask prints the most probable answer to a question about one tile, --interactive to one question after another from
standard input, until an empty line. Questions are independent: none knows of the one before. A model that was not
pretrained knows the questions of its training alone; other words get a list of these instead of an answer.

Spectra are a .csv or .xlsx (first column wavelength, then one column a spectrum) or a .npz of wavelengths (B,), spectra
(N, B) and perhaps names (N,). The fit works at the wavelengths of the table, nm or µm. Printed, and written with --out:
name, mineral or none, fit, depth, runner_up, not_tried and rules_left_out (minerals and rules for which the spectrum
has no values; printed are their numbers, then which they are, and the wavelengths that `bands` removes).

Thresholds are `map.threshold`, or those of --thresholds, which the map chose where minerals were known.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from src.core.stage import files, run
from src.core.stage import params as params_file
from src.core.stage.errors import DataError, ParamsError, spelled
from src.core.stage.params import spelling
from src.minerals.data import band_table, cube_files, cube_store, spectral_library, wavelengths
from src.minerals.data.conversations import LANGUAGES
from src.minerals.data.cube_files import Cube
from src.minerals.mapping import scene_map, spectra_names, spectra_table, thresholds
from src.minerals.mapping.minerals import NAMES
from src.minerals.params import Params
from src.minerals.report import spectra_verdict
from src.minerals.report.scene_pictures import Picture, beside, shown_bands, stretched
from src.minerals.report.scene_verdict import say, summarise, whole_tiles

WRITTEN = {
    *(f"{name}.tif" for name in scene_map.MAPS),
    "minerals.tif.aux.xml",
    "map.png",
    "summary.json",
    "answers.csv",
}

PARSER = run.command_line("minerals.predict", __doc__)
SOURCE = PARSER.add_mutually_exclusive_group(required=True)
SOURCE.add_argument("--cube", type=Path, help="scene to map: .hdr (its data beside it), .tif or .mat")
SOURCE.add_argument("--spectra", type=Path, help="spectra to name: .csv, .xlsx or .npz")
SOURCE.add_argument("--png", type=Path, help="tile to ask about, as the tiles stage draws it for a model of input rgb")
PARSER.add_argument("--out", type=Path, help="cube: folder to write, needed but for questions; spectra: CSV file")
PARSER.add_argument(
    "--params",
    type=Path,
    default=Path("pipelines/minerals/params.yaml"),
    help="default: pipelines/minerals/params.yaml",
)
PARSER.add_argument("--library", type=Path, help="folder of the spectral library; default: data.library of the params")
PARSER.add_argument("--thresholds", type=Path, help="thresholds.json that the map wrote")
PARSER.add_argument("--wavelengths", type=Path, help="cube: CSV of its bands' wavelengths, where it holds none")
PARSER.add_argument("--scale", type=float, help="cube: stored number of a reflectance of 1, where it does not say it")
PARSER.add_argument("--nodata", type=float, help="cube: stored number of no data, where it does not say it")
PARSER.add_argument("--model", type=Path, help="folder of one input that the sft stage wrote")
PARSER.add_argument("--language", choices=LANGUAGES, help=f"of answers.csv; default: {LANGUAGES[0]}")
PARSER.add_argument("--tile", type=int, nargs=2, metavar=("TOP", "LEFT"), help="cube: tile to ask about, px from 0")
ASKING = PARSER.add_mutually_exclusive_group()
ASKING.add_argument("--ask", metavar="QUESTION", help="print the answer to it; writes nothing")
ASKING.add_argument(
    "--interactive",
    action="store_true",
    help="answer questions from standard input, a line each, until an empty one; each is independent of those before",
)


def map_cube(
    cube: Cube, out: Path, params: Params, library: spectral_library.Library, limits: np.ndarray, model=None,
    language: str = LANGUAGES[0],
) -> dict:  # fmt: skip
    """Map an opened cube into the folder `out`, with the answers of a `TileModel` if there is one; returns the summary.

    Args:
        limits: (M,) thresholds of fit times depth.

    Raises:
        DataError: values are no reflectance, or the bands do not show the minerals' features, or are not the model's.
    """
    filled = cube_files.bands_with_values(cube)
    seen = model.tiles_of(cube, filled) if model else None  # before the map, which takes its time
    kept = band_table.choose(cube.bands, filled, params.bands, str(cube.path))["kept"].to_numpy()
    fit = scene_map.fitter(library, cube.bands, kept)
    measured = scene_map.measures(cube.bands.wavelengths, kept)
    shown, colours = shown_bands(cube.bands.wavelengths, kept)

    with tqdm(total=cube.shape[0], desc="map", unit="line") as progress:

        def blocks() -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
            for first, stored in cube_store.stored_blocks(cube, filled):
                yield first, *cube_store.reflectance(stored)
                progress.update(len(stored))

        fitted = scene_map.fit_scene(cube.shape[:2], blocks(), fit, measured, shown)
    classes = scene_map.classes_of(fitted, limits)
    summary = summarise(classes, params.tiles) | {
        "cube": cube.path.name,
        "shape": list(cube.shape),
        "bands_kept": int(kept.sum()),
        "thresholds": dict(zip(NAMES, limits.tolist(), strict=True)),
        "rules_left_out": [absorption.name for absorption in fit.unchecked],
        "iron_mapped": "iron" in measured,
    }
    if model:
        corners = [(top, left) for top, left, _ in whole_tiles(classes, params.tiles)]
        answers = model.answer_scene(seen, corners, language)
        summary["words"] = model.summarise(answers, language, cube.path)
    with files.complete_folder(out) as folder:
        paths = {name: folder / f"{name}.tif" for name in scene_map.MAPS}
        scene_map.write_maps(paths, cube.place, fitted, classes)
        picture = Picture(cube.name, stretched(fitted["shown"]), classes)
        beside(picture, (colours, "mineral whose features fit best"), folder / "map.png")
        files.write_json(folder / "summary.json", summary)
        if model:
            answers.to_csv(folder / "answers.csv", index=False, lineterminator="\n")
    return summary


def name_spectra(path: Path, out: Path | None, params: Params, library: spectral_library.Library, limits) -> None:
    """Name the minerals of the spectra in `path`: printed, and written to the CSV file `out` if there is one."""
    spectra = spectra_table.read(path, params.bands)
    table = spectra_names.name(spectra, library, limits)
    spectra_verdict.say(table, spectra, params.bands)
    if out is not None:
        with files.complete_file(out) as aside:
            table.to_csv(aside, index=False, float_format="%.4f", lineterminator="\n")


def check_options(given: argparse.Namespace) -> None:
    """Raise ParamsError for options that do not go together, and before anything of the user's would be replaced."""
    asked = given.interactive or given.ask is not None
    of_cubes, of_maps = ("wavelengths", "scale", "nodata", "tile"), ("out", "library", "thresholds", "language")
    if given.spectra:
        mode, unused = "with --spectra", (*of_cubes, "model", "language", "ask", "interactive")
    elif given.png:
        mode, unused = "with --png", of_cubes + of_maps
    elif asked:
        mode, unused = "with --ask or --interactive", of_maps
    else:
        mode, unused = "without --ask or --interactive", ("tile",)
    for name in unused:
        value = getattr(given, name)
        if value is not None and value is not False:  # a scale of 0 equals False
            raise ParamsError(f"--{name}: not used {mode}; leave it out")
    if given.spectra:
        if given.out and (given.out.is_dir() or given.out.resolve() == given.spectra.resolve()):
            raise ParamsError(f"--out: found {given.out}, which is there already, expected a CSV file to write")
        return
    if given.scale is not None and not given.scale > 0:
        raise ParamsError(f"--scale: found {given.scale:g}, expected a number above 0, such as 10000")
    if given.nodata is not None and not np.isfinite(given.nodata):
        raise ParamsError(f"--nodata: found {given.nodata:g}, which is no data without saying so; leave it out")
    if given.png or asked:
        check_question(given, asked)
        return
    if given.language and not given.model:
        raise ParamsError("--language: not used without --model; leave it out")
    if given.out is None:
        raise ParamsError("--out: missing; name a folder for the maps")
    if given.out.is_file():
        raise ParamsError(f"--out: found the file {given.out}, expected the name of a folder; name another")
    others = sorted({path.name for path in given.out.iterdir()} - WRITTEN) if given.out.is_dir() else []
    if others:
        raise ParamsError(
            f"--out: found {given.out} with {others[0]} in it, expected a new or empty folder; name another"
        )


def check_question(given: argparse.Namespace, asked: bool) -> None:
    """Raise ParamsError for a question without a model, a tile or words."""
    if not asked:
        raise ParamsError("--png: found neither --ask nor --interactive, expected one; add it")
    if given.ask is not None and not given.ask.strip():
        raise ParamsError("--ask: found an empty question, expected words; write it in quotes")
    if given.ask is not None and given.ask != given.ask.encode(errors="replace").decode():
        raise ParamsError("--ask: found bytes that are not UTF-8, expected text; type it in a terminal of UTF-8")
    if given.model is None:
        raise ParamsError("--model: missing; name a folder that the sft stage wrote, such as models/minerals/sft/bands")
    if given.cube and given.tile is None:
        raise ParamsError("--tile: missing; name first line and sample of the tile that the question is about")


def open_cube(given: argparse.Namespace, params: Params) -> Cube:
    """The cube of the command line, with the scale that it says, or else --scale or `data.scale`; so of no data."""
    listing = given.wavelengths or params.data.wavelengths
    listed = wavelengths.read_list(Path(listing)) if listing else None
    nodata = params.data.nodata if given.nodata is None else given.nodata
    cube = cube_files.open_cube(given.cube, listed, given.scale or params.data.scale, nodata)
    cube_files.require_scale(cube)
    for name in ("scale", "nodata"):
        value, said = getattr(given, name), getattr(cube, name)
        if value is not None and said != value:
            raise ParamsError(f"--{name}: found {value:g}, {given.cube} itself says {said:g}; leave it out")
    return cube


def converse(given: argparse.Namespace, params: Params, model) -> None:
    """Print the answers of a `TileModel` about the one tile of the command line, and to stderr a warning, if any."""
    if given.ask is not None and (said := model.not_known(given.ask)):
        raise ParamsError(f"--ask: {said}")
    if given.png:
        tiles, tile = model.png_tile(given.png)
    else:
        cube = open_cube(given, params)
        filled = cube_files.bands_with_values(cube)
        tiles, tile = model.tile_of(cube, filled, tuple(given.tile), params.tiles.min_valid_ratio)
    if said := model.warning(given.png or given.cube):
        print(f"warning: {said}", file=sys.stderr)
    model.converse(tiles, tile, typed() if given.interactive else [given.ask])


def typed() -> Iterator[str]:
    """Questions from standard input, a line each, until an empty line or the end; raises DataError for bytes that are
    not UTF-8."""
    try:
        while question := input("question: " if sys.stdin.isatty() else "").strip():
            question.encode()  # fails where the terminal's settings let wrong bytes pass
            yield question
    except EOFError:
        return
    except UnicodeError as error:
        raise DataError("standard input: found bytes that are not UTF-8, expected questions; convert them") from error


@spelled(
    spelling(Params)
    | {"root": "--cube"}
    | {name: f"--{name}" for name in ("spectra", "scale", "nodata", "wavelengths", "png")}
)
def command(given: argparse.Namespace) -> None:
    """Run a parsed command line."""
    check_options(given)
    params, model = params_file.read(given.params, Params), None
    if given.model:
        from src.minerals.models.scene_answers import TileModel  # imports torch and transformers

        model = TileModel(given.model)
        same = model.settings.model_dump(include={"tile_px", "altered"})  # so that words and map can be compared
        params = params.model_copy(update={"tiles": params.tiles.model_copy(update=same)})
    run.set_threads(params.threads)
    if given.ask is not None or given.interactive:
        converse(given, params, model)
        return
    language = given.language or LANGUAGES[0]
    if model:
        model.check_language(language)
    limits = np.full(len(NAMES), params.map.threshold)
    if given.thresholds:
        limits = thresholds.read(given.thresholds)
    library = spectral_library.read(given.library or Path(params.data.library))
    if given.spectra:
        name_spectra(given.spectra, given.out, params, library, limits)
        return
    summary = map_cube(open_cube(given, params), given.out, params, library, limits, model, language)
    say(summary, given.out, params.tiles.altered)


if __name__ == "__main__":
    given = PARSER.parse_args()
    run.finish(lambda: command(given), "minerals.predict")
