"""Check hyperspectral cubes and write them as one store of reflectance.

    python -m src.minerals.ingest --params pipelines/minerals/params.yaml --root data/minerals/simulated \\
        --out data/minerals/store

`--root` holds cubes of one sensor: ENVI (.hdr beside the data), GeoTIFF with wavelengths in its tags or names of bands,
or .mat. Bands are sorted by wavelength. A pixel without a value in a good band that has values elsewhere is no data,
and so is one that is 0 in all bands. Where minerals are known, `data.truth` names their folder
(src/minerals/data/truth.py). Writes a store (src/minerals/data/cube_store.py).
"""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from src.core.stage import files, run
from src.core.stage.errors import DataError, StorageError
from src.minerals.data import cube_files, cube_store, truth, wavelengths
from src.minerals.data.cube_files import Cube
from src.minerals.params import Data, Params

SAME_NM = 0.5  # bands of two cubes are the same up to this


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    run.set_threads(params.threads)
    cubes = open_all(inputs.root, params.data)
    first = cubes[0]
    size = sum(2 * int(np.prod(cube.shape)) for cube in cubes)
    print(
        f"ingest: {len(cubes)} cube{'s' if len(cubes) > 1 else ''} of {first.shape[2]} bands, "
        f"{first.bands.wavelengths[0]:.0f} to {first.bands.wavelengths[-1]:.0f} nm, {size / 1e6:.0f} MB"
    )
    if dry_run:
        return
    filled = np.zeros((len(cubes), first.shape[2]), bool)
    with files.complete_folder(out.out) as folder:
        scenes = {}
        for number, cube in enumerate(tqdm(cubes, desc="ingest", unit="cube")):
            filled[number] = write(cube, folder / f"{cube.name}.npy")
            write_truth(inputs.root, params.data.truth, cube, folder)
            scenes[cube.name] = {"shape": cube.shape[:2], "place": cube.place, "source": cube.path.name}
        arrays = sorted(folder.rglob("*.npy"))
        manifest = {
            "format": cube_store.FORMAT,
            "wavelengths": first.bands.wavelengths.tolist(),
            "fwhm": first.bands.fwhm.tolist(),
            "good": np.all([cube.bands.good for cube in cubes], axis=0).tolist(),
            "filled": filled.all(0).tolist(),
            "about": cube_store.read_about(inputs.root),
            "scenes": scenes,
            "truth": params.data.truth is not None,
            "files": {path.relative_to(folder).as_posix(): files.sha256(path) for path in arrays},
        }
        files.write_json(folder / "manifest.json", manifest)
    print(f"ingest: wrote {out.out}; bands without values in some cube: {int((~filled.all(0)).sum())}")


def open_all(root: Path, data: Data) -> list[Cube]:
    """The cubes below `root`, opened and checked against each other.

    Raises:
        DataError: as `cube_files.open_cube`; two cubes have other bands; an integer cube has no scale.
    """
    listed = wavelengths.read_list(Path(data.wavelengths)) if data.wavelengths else None
    cubes = [cube_files.open_cube(path, listed, data.scale, data.nodata) for path in find(root)]
    first = cubes[0]
    for cube in cubes:
        apart = np.inf
        if cube.shape[2] == first.shape[2]:
            apart = np.abs(cube.bands.wavelengths - first.bands.wavelengths).max()
        if apart > SAME_NM:
            raise DataError(
                f"{cube.path}: wavelengths: found {cube.shape[2]} bands, up to {apart:.3g} nm from those of "
                f"{first.path.name} ({first.shape[2]}), expected the bands of one sensor; put other sensors into "
                "another folder"
            )
        cube_files.require_scale(cube)
    return cubes


def find(root: Path) -> list[Path]:
    """The cubes directly below `root`, sorted by name; a single cube is its own root.

    Raises:
        StorageError: there is no such folder or file.
        DataError: no cube is there, or two would have one name.
    """
    root = Path(root)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise StorageError(f"{root}: no such folder; correct `root`")
    paths = sorted(path for path in root.iterdir() if path.suffix.lower() in (".hdr", ".tif", ".tiff", ".mat"))
    if not paths:
        raise DataError(f"{root}: found no cube, expected *.hdr (ENVI), *.tif or *.mat; correct `root`")
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{root}: found two cubes named {twice}, expected one; rename or remove one")
    return paths


def write(cube: Cube, path: Path) -> np.ndarray:
    """Write the cube's array to `path`; (B,) bool: bands that hold values.

    Raises:
        DataError: nothing but no data; values that are no reflectance.
    """
    filled = cube_files.bands_with_values(cube)
    target = np.lib.format.open_memmap(path, mode="w+", dtype=np.int16, shape=cube.shape)
    for first, stored in cube_store.stored_blocks(cube, filled):
        target[first : first + len(stored)] = stored
    target.flush()
    return filled


def write_truth(root: Path, name: str | None, cube: Cube, folder: Path) -> None:
    """Write truth/<scene>.npy from the class raster below `root`/`name`, and abundance/<scene>.npy where known."""
    if name is None:
        return
    known = {"truth": truth.read(Path(root) / name, cube.name, cube.shape[:2])}
    abundance = Path(root) / "abundance" / f"{cube.name}.tif"
    if abundance.is_file():
        known["abundance"] = truth.read_abundance(abundance, cube.shape[:2]).astype(np.float16)
    for kind, array in known.items():
        (folder / kind).mkdir(exist_ok=True)
        np.save(folder / kind / f"{cube.name}.npy", array)


if __name__ == "__main__":
    sources = {"root": "folder of cubes, or one cube; dvc.yaml gives data.root, by hand it is named here"}
    outputs = {"out": "folder of the store"}
    run.stage(main, Params, name="minerals.ingest", doc=__doc__, inputs={}, sources=sources, outputs=outputs)
