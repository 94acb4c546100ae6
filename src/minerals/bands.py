"""Choose the bands that hold ground, and draw false colours of every scene.

    python -m src.minerals.bands --params pipelines/minerals/params.yaml --store data/minerals/store \\
        --out data/minerals/bands

Writes bands.csv (every band, whether it is kept, and why not) and <composite>/<scene>.png for people: clay, iron and
natural colours, each scene stretched between its own percentiles (bands.stretch).
"""

import logging

import numpy as np
from PIL import Image
from tqdm import tqdm

from src.core.stage import files, run
from src.core.stage.errors import DataError
from src.minerals.data import band_table
from src.minerals.data.cube_store import CubeStore, reflectance
from src.minerals.params import Params

logger = logging.getLogger(__name__)


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    run.set_threads(params.threads)
    store = CubeStore.open(inputs.store)
    table = band_table.choose(store, store.filled, params.bands, str(inputs.store))
    kept = table["kept"].to_numpy()
    print(f"bands: {kept.sum()} of {len(kept)} kept")
    for why, count in table.loc[~table["kept"], "why"].value_counts(sort=False).items():
        print(f"bands: {count} removed, {why}")
    composites = {}
    for name in band_table.COMPOSITES:
        try:
            composites[name] = band_table.composite_bands(store.wavelengths, kept, name)
        except DataError as error:  # a sensor without visible light still maps minerals
            logger.warning("bands: not drawn: %s", error)
    if dry_run:
        return
    with files.complete_folder(out.out) as folder:
        band_table.write(table, folder)
        for name, bands in composites.items():
            (folder / name).mkdir()
            for scene in tqdm(store.scenes, desc=name, unit="scene"):
                values, valid = reflectance(np.asarray(store.stored(scene)[..., bands]))
                stretch = band_table.limits(values[valid], params.bands.stretch)
                Image.fromarray(band_table.to_bytes(values, stretch)).save(folder / name / f"{scene}.png")


if __name__ == "__main__":
    inputs = {"store": "ingest"}
    outputs = {"out": "folder for the table of bands and the pictures"}
    run.stage(main, Params, name="minerals.bands", doc=__doc__, inputs=inputs, outputs=outputs)
