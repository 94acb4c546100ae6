"""Map minerals from their absorption features, and by the methods that the map is compared with.

    python -m src.minerals.map --params pipelines/minerals/params.yaml --library data/sample/usgs_minerals \\
        --store data/minerals/store --bands data/minerals/bands --split data/minerals/split --out data/minerals/map

Writes for each scene minerals/<scene>.tif (classes, with colours and names), fit/, depth/ (a band a mineral), iron/ and
clay/ (depth of ferric iron's band and of that at 2200 nm, which compete with no mineral), all cloud-optimised GeoTIFF;
other_methods.npz (classes of the test blocks), thresholds.json (below which a method says none, null where it never
names that mineral; chosen on training blocks where minerals are known), label_map.png and clay_index.png.
"""

import logging
from collections.abc import Iterator

import numpy as np
import pandas as pd
from tqdm import tqdm

from src.core.stage import files, run
from src.core.stage.errors import DataError
from src.minerals.data import band_table, blocks, cube_store, spectral_library, truth
from src.minerals.data.cube_store import CubeStore, reflectance
from src.minerals.mapping import other_methods, scene_map, thresholds
from src.minerals.mapping.feature_fit import FeatureFit
from src.minerals.mapping.map_classes import NO_DATA
from src.minerals.mapping.minerals import NAMES
from src.minerals.mapping.thresholds import FEATURE_FIT, NEVER, choose, classify
from src.minerals.params import Params
from src.minerals.report.scene_pictures import Picture, contact_sheet, depth_sheet, shown_bands, stretched

logger = logging.getLogger(__name__)
TRAINED_ON = 60_000  # pixels that choose the thresholds
SHOWN = 8


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    run.set_threads(params.threads)
    store = CubeStore.open(inputs.store)
    kept, table = band_table.read_kept(inputs.bands, store), blocks.read(inputs.split, store)
    library = spectral_library.read(inputs.library)
    fit, measured = scene_map.fitter(library, store, kept), scene_map.measures(store.wavelengths, kept)
    for absorption in fit.unchecked:
        logger.warning("map: the sensor has no band for %s; that rule is left out", absorption.name)
    known = store.manifest["truth"]
    scorers = other_methods.scorers(library, store.wavelengths, store.fwhm, kept) if known else {}
    print(f"map: {len(store.scenes)} scenes, {kept.sum()} bands, {len(NAMES)} minerals")
    if dry_run:
        return
    shown, title = shown_bands(store.wavelengths, kept)
    with files.complete_folder(out.out) as folder:
        pictures, clay, limits = [], {}, {FEATURE_FIT: np.full(len(NAMES), params.map.threshold)}
        training = TrainingPixels(store, table, params.seed) if known else None
        if known:
            limits[FEATURE_FIT] = training.threshold(fit, params.map.threshold)
        for scene in tqdm(store.scenes, desc=FEATURE_FIT, unit="scene"):
            fitted = scene_map.fit_scene(store.scenes[scene]["shape"], store.blocks(scene), fit, measured, shown)
            classes = scene_map.classes_of(fitted, limits[FEATURE_FIT])
            paths = {name: folder / name / f"{scene}.tif" for name in scene_map.MAPS}
            scene_map.write_maps(paths, store.place(scene), fitted, classes)
            if len(pictures) < SHOWN:
                pictures.append(Picture(scene, stretched(fitted["shown"]), classes))
                clay[scene] = fitted["clay"]
        if known:
            seen = other_methods.shared_bands(store.wavelengths, kept)
            classes, others = compare(store, table, training, scorers, seen)
            limits |= others
            np.savez_compressed(folder / "other_methods.npz", **classes)
        thresholds.write(folder / "thresholds.json", limits)
        contact_sheet(pictures, f"{title}, and the mineral whose features fit best", folder / "label_map.png")
        depth_sheet(clay, scene_map.AL_OH_2200.name, folder / "clay_index.png")


class TrainingPixels:
    """Pixels of the training blocks whose mineral is known, at most about `TRAINED_ON` of them.

    Attributes:
        classes: (N,) of all of them, in the order of `of_blocks`.

    Raises:
        DataError: there is none.
    """

    def __init__(self, store: CubeStore, table: pd.DataFrame, seed: int):
        self.store, self.blocks = store, list(table[table["role"] == "train"].itertuples())
        generator = np.random.default_rng(seed)
        known = []
        for block in self.blocks:
            empty = store.stored(block.scene)[blocks.inside(block)][..., 0] == cube_store.NODATA
            known.append(np.where(empty, truth.UNKNOWN, store.truth(block.scene)[blocks.inside(block)]))
        count = sum(int((classes != truth.UNKNOWN).sum()) for classes in known)
        if not count:
            raise DataError(
                f"{store.folder}: truth: found no pixel with a known mineral in the training blocks; correct `truth`, "
                "or leave it blank"
            )
        share = TRAINED_ON / count
        self.chosen = [(classes != truth.UNKNOWN) & (generator.random(classes.shape) < share) for classes in known]
        self.classes = np.concatenate([classes[mask] for classes, mask in zip(known, self.chosen, strict=True)])

    def of_blocks(self, title: str) -> Iterator[tuple]:
        """A training block with chosen pixels and its mask of them, one after the other."""
        for block, mask in zip(tqdm(self.blocks, desc=title, unit="block"), self.chosen, strict=True):
            if mask.any():
                yield block, mask

    def threshold(self, fit: FeatureFit, fallback: float) -> np.ndarray:
        """(M,) thresholds of the feature fit, `fallback` for a mineral that is nowhere named right."""
        scores = []
        for block, mask in self.of_blocks(f"{FEATURE_FIT}: training"):
            spectra = reflectance(self.store.stored(block.scene)[blocks.inside(block)][mask])[0]
            scores.append(np.multiply(*fit(spectra)))
        return choose(np.concatenate(scores), self.classes, fallback)


def compare(
    store: CubeStore, table: pd.DataFrame, training: TrainingPixels, scorers: dict, bands: np.ndarray
) -> tuple[dict, dict]:
    """Classes of each test block by each method ("<method>/<block>" -> (h, w) uint8), and the methods' thresholds.

    A mineral that a method nowhere names right in training is one that it never names: any threshold would be a guess.
    Of a block only `bands`, those that the methods see, are held as float.
    """

    def read(block) -> tuple[np.ndarray, np.ndarray]:
        return reflectance(store.stored(block.scene)[blocks.inside(block)][..., bands])

    classes, limits = {}, {}
    for name, score in scorers.items():
        scores = []
        for block, mask in training.of_blocks(f"{name}: training"):
            values, valid = read(block)
            scores.append(score(values[mask], values[valid]))
        limits[name] = choose(np.concatenate(scores), training.classes, NEVER)
        tests = list(table[table["role"] == "test"].itertuples())
        for block in tqdm(tests, desc=f"{name}: test", unit="block"):
            values, valid = read(block)
            found = np.full(valid.shape, NO_DATA, np.uint8)
            if valid.any():
                found[valid] = classify(score(values[valid], values[valid]), limits[name])
            classes[f"{name}/{block.block}"] = found
    return classes, limits


if __name__ == "__main__":
    sources = {"library": "folder of the spectral library (data.library)"}
    inputs = {"store": "ingest", "bands": "bands", "split": "split"}
    outputs = {"out": "folder for the maps"}
    run.stage(main, Params, name="minerals.map", doc=__doc__, inputs=inputs, sources=sources, outputs=outputs)
