"""Minerals of a scene as a map, or of single spectra as a table.

    python -m src.minerals.predict --cube scene.hdr --out maps
    python -m src.minerals.predict --spectra table.csv --out minerals.csv

A cube is ENVI (.hdr), GeoTIFF or .mat of surface reflectance. It is read a block of lines at a time, twice, and never
copied; .mat is read whole. Writes minerals.tif (classes with colours and names), fit.tif and depth.tif (a band a
mineral), iron.tif (ferric iron), all cloud-optimised GeoTIFF, map.png and summary.json (shares of minerals, background
and no data; share of altered tiles, laid side by side from the first line and sample on).

Spectra are a .csv or .xlsx (first column wavelength, then one column a spectrum) or a .npz of wavelengths (B,), spectra
(N, B) and perhaps names (N,). The fit works at the wavelengths of the table, nm or µm. Printed, and written with --out:
name, mineral or none, fit, depth, runner_up, minerals that the wavelengths do not reach, rules left out.

Thresholds are `map.threshold`, or those of --thresholds, which the map chose where minerals were known.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from src.core.stage import files, run
from src.core.stage import params as params_file
from src.core.stage.errors import ParamsError, spelled
from src.core.stage.params import spelling
from src.minerals.data import band_table, cube_files, cube_store, spectral_library, tile_table, wavelengths
from src.minerals.data.cube_files import Cube
from src.minerals.mapping import scene_map, spectra_names, spectra_table, thresholds
from src.minerals.mapping.minerals import BACKGROUND, NAMES
from src.minerals.params import Params, Tiles
from src.minerals.report.scene_pictures import Picture, beside, shown_bands, stretched

WRITTEN = {*(f"{name}.tif" for name in scene_map.MAPS), "minerals.tif.aux.xml", "map.png", "summary.json"}

PARSER = run.command_line("minerals.predict", __doc__)
SOURCE = PARSER.add_mutually_exclusive_group(required=True)
SOURCE.add_argument("--cube", type=Path, help="scene to map: .hdr (its data beside it), .tif or .mat")
SOURCE.add_argument("--spectra", type=Path, help="spectra to name: .csv, .xlsx or .npz")
PARSER.add_argument("--out", type=Path, help="cube: folder to write, needed; spectra: CSV file to write")
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


def map_cube(cube: Cube, out: Path, params: Params, library: spectral_library.Library, limits: np.ndarray) -> dict:
    """Map an opened cube into the folder `out`; returns the summary.

    Args:
        limits: (M,) thresholds of fit times depth.

    Raises:
        DataError: values are no reflectance, or the bands do not show the minerals' features.
    """
    filled = cube_files.bands_with_values(cube)
    kept = band_table.choose(cube.bands, filled, params.bands, str(cube.path))["kept"].to_numpy()
    fit = scene_map.fitter(library, cube.bands, kept)
    iron = scene_map.iron_depth(cube.bands.wavelengths, kept)
    shown, colours = shown_bands(cube.bands.wavelengths, kept)

    with tqdm(total=cube.shape[0], desc="map", unit="line") as progress:

        def blocks() -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
            for first, stored in cube_store.stored_blocks(cube, filled):
                yield first, *cube_store.reflectance(stored)
                progress.update(len(stored))

        fitted = scene_map.fit_scene(cube.shape[:2], blocks(), fit, iron, shown)
    classes = scene_map.classes_of(fitted, limits)
    summary = summarise(classes, params.tiles) | {
        "cube": cube.path.name,
        "shape": list(cube.shape),
        "bands_kept": int(kept.sum()),
        "thresholds": dict(zip(NAMES, limits.tolist(), strict=True)),
        "rules_left_out": [absorption.name for absorption in fit.unchecked],
        "iron_mapped": iron is not None,
    }
    with files.complete_folder(out) as folder:
        paths = {name: folder / f"{name}.tif" for name in scene_map.MAPS}
        scene_map.write_maps(paths, cube.place, fitted, classes)
        picture = Picture(cube.name, stretched(fitted["shown"]), classes)
        beside(picture, (colours, "mineral whose features fit best"), folder / "map.png")
        files.write_json(folder / "summary.json", summary)
        # Answers of a model about each tile of `whole_tiles` belong here: they are part of the same folder.
    return summary


def summarise(classes: np.ndarray, settings: Tiles) -> dict:
    """Shares of classes among pixels with data, of no data among all, and of altered tiles among those with data."""
    shares = tile_table.shares(classes)
    tiles = [tile_table.shares(tile) for _, _, tile in whole_tiles(classes, settings)]
    altered = sum(tile_table.is_altered(found, settings.altered) for found in tiles)
    return {
        "minerals": dict(zip(NAMES, shares.tolist(), strict=True)),
        "background": float((classes == BACKGROUND).sum() / max((classes != scene_map.NO_DATA).sum(), 1)),
        "no_data": float((classes == scene_map.NO_DATA).mean()),
        "tiles": {
            "tile_px": settings.tile_px,
            "count": len(tiles),
            "altered": altered,
            "altered_share": altered / len(tiles) if tiles else None,
        },
    }


def whole_tiles(classes: np.ndarray, settings: Tiles) -> Iterator[tuple[int, int, np.ndarray]]:
    """Top, left and classes of the tiles side by side that lie in the scene and have data enough."""
    side = settings.tile_px
    for top in range(0, classes.shape[0] - side + 1, side):
        for left in range(0, classes.shape[1] - side + 1, side):
            tile = classes[top : top + side, left : left + side]
            if (tile != scene_map.NO_DATA).mean() >= settings.min_valid_ratio:
                yield top, left, tile


def say(summary: dict, out: Path, altered: float) -> None:
    """Print the verdict, then what it rests on."""
    order = sorted(NAMES, key=lambda name: -summary["minerals"][name])
    total, tiles = 1 - summary["background"], summary["tiles"]
    most = f", most of it {order[0]} ({summary['minerals'][order[0]]:.1%})" if total > 0 else ""
    if tiles["count"]:
        where = f"{tiles['altered']} of {tiles['count']} tiles altered (over {altered:.0%} copper-related minerals)"
    else:
        where = f"no tile of {tiles['tile_px']} px with enough data fits into it: lower tiles.tile_px"
    print(f"{summary['cube']}: minerals of the map on {total:.1%} of the pixels with data{most}; {where}")
    for name in order:
        print(f"  {name:<16}{summary['minerals'][name]:7.1%}")
    print(f"  {'none of these':<16}{summary['background']:7.1%}")
    print(f"no data: {summary['no_data']:.1%} of all pixels")
    for rule in summary["rules_left_out"]:
        print(f"rule left out, the sensor has no band for it: {rule}")
    if not summary["iron_mapped"]:
        print("iron.tif is empty: the sensor does not see ferric iron at 870 nm")
    print(f"wrote {out}")


def name_spectra(path: Path, out: Path | None, params: Params, library: spectral_library.Library, limits) -> None:
    """Name the minerals of the spectra in `path`: printed, and written to the CSV file `out` if there is one."""
    spectra = spectra_table.read(path, params.bands)
    table = spectra_names.name(spectra, library, limits)
    named = table["mineral"].isin(NAMES)
    found = ", ".join(f"{count} {name}" for name, count in table.loc[named, "mineral"].value_counts().items())
    nm = spectra.bands.wavelengths
    print(
        f"{path.name}: {named.sum()} of {len(table)} spectra hold a mineral of the map"
        + (f": {found}" if found else "")
    )
    print(f"{len(nm)} wavelengths, {nm[0]:g} to {nm[-1]:g} nm")
    columns = ["name", "mineral", "fit", "depth", "runner_up"]
    print(table[columns].to_string(index=False, float_format="%.3f", na_rep=""))
    for column, text in (("not_tried", "not tried"), ("rules_left_out", "rules left out, no values for them")):
        for notes, rows in table[table[column] != ""].groupby(column, sort=False):
            print(f"{text} ({len(rows)} of {len(table)} spectra): {notes}")
    if out is not None:
        with files.complete_file(out) as aside:
            table.to_csv(aside, index=False, float_format="%.4f", lineterminator="\n")


def check_options(given: argparse.Namespace) -> None:
    """Raise ParamsError for options that do not go together, and before anything of the user's would be replaced."""
    if given.spectra:
        for name in ("wavelengths", "scale"):
            if getattr(given, name) is not None:
                raise ParamsError(f"--{name}: not used with --spectra; leave it out")
        if given.out and (given.out.is_dir() or given.out.resolve() == given.spectra.resolve()):
            raise ParamsError(f"--out: found {given.out}, which is there already, expected a CSV file to write")
        return
    if given.out is None:
        raise ParamsError("--out: missing; name a folder for the maps")
    if given.scale is not None and not given.scale > 0:
        raise ParamsError(f"--scale: found {given.scale:g}, expected a number above 0, such as 10000")
    if given.out.is_file():
        raise ParamsError(f"--out: found the file {given.out}, expected the name of a folder; name another")
    others = sorted({path.name for path in given.out.iterdir()} - WRITTEN) if given.out.is_dir() else []
    if others:
        raise ParamsError(
            f"--out: found {given.out} with {others[0]} in it, expected a new or empty folder; name another"
        )


def open_cube(given: argparse.Namespace, params: Params) -> Cube:
    """The cube of the command line, with the scale that it says, or else --scale or `data.scale`."""
    listing = given.wavelengths or params.data.wavelengths
    listed = wavelengths.read_list(Path(listing)) if listing else None
    cube = cube_files.open_cube(given.cube, listed, given.scale or params.data.scale, params.data.nodata)
    cube_files.require_scale(cube)
    if given.scale and cube.scale != given.scale:
        raise ParamsError(f"--scale: found {given.scale:g}, {given.cube} itself says {cube.scale:g}; leave it out")
    return cube


@spelled(
    spelling(Params) | {"root": "--cube", "spectra": "--spectra", "scale": "--scale", "wavelengths": "--wavelengths"}
)
def command(given: argparse.Namespace) -> None:
    """Run a parsed command line."""
    check_options(given)
    params = params_file.read(given.params, Params)
    run.set_threads(params.threads)
    limits = np.full(len(NAMES), params.map.threshold)
    if given.thresholds:
        limits = thresholds.read(given.thresholds)
    library = spectral_library.read(given.library or Path(params.data.library))
    if given.spectra:
        name_spectra(given.spectra, given.out, params, library, limits)
        return
    summary = map_cube(open_cube(given, params), given.out, params, library, limits)
    say(summary, given.out, params.tiles.altered)


if __name__ == "__main__":
    given = PARSER.parse_args()
    run.finish(lambda: command(given), "minerals.predict")
