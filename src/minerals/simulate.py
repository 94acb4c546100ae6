"""Simulate scenes of an imaging spectrometer over altered ground, whose minerals are known.

    python -m src.minerals.simulate --params pipelines/minerals/params.yaml --library data/sample/usgs_minerals \\
        --out data/minerals/simulated

Writes <scene>.hdr and <scene>.img (ENVI, reflectance), truth/<scene>.tif (class of the dominant mineral) with
classes.csv, abundance/<scene>.tif (area share of each mineral, and of iron oxide), source.json (that and how it is
simulated) and overview.png. Ground and light are said in data/simulated_geology.py and data/simulated_spectra.py.
"""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from src.core.stage import files, run
from src.minerals.data import scene_files, simulated_geology, simulated_spectra, spectral_library
from src.minerals.data.simulated_geology import MATERIALS, Ground
from src.minerals.mapping.minerals import NAMES
from src.minerals.params import Params, Simulate
from src.minerals.report.scene_pictures import Picture, contact_sheet, natural_colour

SHOWN = 8  # scenes in overview.png
ORIGIN = 494_000, 4_156_000  # m, UTM 11N: the first scene's north-west corner; the others lie east of it
APART = 1000  # m between scenes


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    run.set_threads(params.threads)
    settings = params.simulate
    library = spectral_library.read(inputs.library)
    bytes_each = 2 * settings.side_px**2 * simulated_spectra.BANDS
    print(
        f"simulate: {settings.scenes} scenes of {settings.side_px} x {settings.side_px} px and "
        f"{simulated_spectra.BANDS} bands, {settings.scenes * bytes_each / 1e6:.0f} MB, SNR {settings.snr:g}"
    )
    if dry_run:
        return
    # Never the same draw as the split's, whose seed is 0 too: the barren scenes would be the test.
    order = np.random.default_rng([settings.seed, settings.scenes]).permutation(settings.scenes)
    barren = set(order[: round(settings.barren * settings.scenes)].tolist())
    pictures = []
    with files.complete_folder(out.out) as folder:
        for name in ("truth", "abundance"):
            (folder / name).mkdir()
        for number in tqdm(range(settings.scenes), desc="simulate", unit="scene"):
            generator = np.random.default_rng([settings.seed, number])  # a scene is the same whatever their number
            ground = simulated_geology.draw(generator, settings.side_px, number in barren)
            spectra = simulated_spectra.endmembers(library, generator)
            cube = simulated_spectra.measure(ground, spectra, settings.intimate, settings.snr, generator)
            classes = simulated_geology.dominant(ground)
            name = f"scene_{number + 1:02d}"
            write(folder, name, number, cube, ground, classes, settings.pixel_m)
            if number < SHOWN:
                rgb = natural_colour(cube, simulated_spectra.WAVELENGTHS)
                pictures.append(Picture(f"{name}{', barren' if number in barren else ''}", rgb, classes))
        scene_files.write_classes(folder / "truth/classes.csv")
        files.write_json(folder / "source.json", describe(settings))
        contact_sheet(pictures, "simulated scenes: natural colour, and the dominant mineral", folder / "overview.png")
    print(f"simulate: wrote {out.out}; {len(barren)} scenes without alteration")


def write(
    folder: Path, name: str, number: int, cube: np.ndarray, ground: Ground, classes: np.ndarray, pixel_m: float
) -> None:
    """Write one scene: its cube, its classes and its abundances."""
    east = ORIGIN[0] + number * (cube.shape[1] * pixel_m + APART)
    place = scene_files.Place("EPSG:32611", (pixel_m, 0, east, 0, -pixel_m, ORIGIN[1]))
    scene_files.write_envi(folder / f"{name}.hdr", cube, simulated_spectra.WAVELENGTHS, simulated_spectra.FWHM, place)
    scene_files.write_classes_map(folder / "truth" / f"{name}.tif", classes, place)
    shares = np.concatenate([ground.abundance[..., : len(NAMES)], ground.iron[..., None]], axis=-1)
    scene_files.write_bands(folder / "abundance" / f"{name}.tif", shares, [*NAMES, "iron oxide"], place)


def describe(settings: Simulate) -> dict:
    """source.json: that it is simulated, with which settings, and where spectra and formulas come from."""
    return {
        "simulated": True,
        "description": f"{settings.scenes} scenes that do not exist, after Cuprite, Nevada: 224 bands like AVIRIS, "
        "USGS spectra mixed over drawn geology (src/minerals/simulate.py)",
        "settings": settings.model_dump(),
        "materials": list(MATERIALS),
        "dominant": "a pixel's class is its most abundant mineral, from an area share of "
        f"{simulated_geology.DOMINANT} on",
        "spectra": "USGS Spectral Library Version 7, samples that are no references of the map where a mineral has "
        "two; tuff, basalt, playa, iron oxide, and minerals below 1.3 µm: formulas in "
        "src/minerals/data/simulated_spectra.py",
    }


if __name__ == "__main__":
    sources = {"library": "folder of the spectral library (data.library)"}
    outputs = {"out": "folder of scenes and truth (data.root)"}
    run.stage(main, Params, name="minerals.simulate", doc=__doc__, inputs={}, sources=sources, outputs=outputs)
