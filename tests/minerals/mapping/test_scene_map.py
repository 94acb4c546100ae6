"""Maps of whole scenes: the same block by block as at once, and no data where there is none."""

from pathlib import Path

import numpy as np
import rasterio

from src.minerals.data import cube_files, spectral_library
from src.minerals.data.cube_store import CubeStore
from src.minerals.data.simulated_geology import draw
from src.minerals.data.simulated_spectra import FWHM, WAVELENGTHS, endmembers, iron_oxide, measure
from src.minerals.mapping import scene_map
from src.minerals.mapping.minerals import NAMES
from tests.minerals.study import PLACE, write_store

LIBRARY = spectral_library.read(Path("data/sample/usgs_minerals"))
SPECTRA = endmembers(LIBRARY, np.random.default_rng(0))
KEPT = (WAVELENGTHS > 400) & (WAVELENGTHS < 2470)
for LOW, HIGH in ((1350, 1450), (1790, 1990)):
    KEPT &= (WAVELENGTHS < LOW) | (WAVELENGTHS > HIGH)


def test_blocks_of_lines_change_nothing_and_no_data_stays(tmp_path, monkeypatch):
    cube = measure(draw(np.random.default_rng(4), 32, False), SPECTRA, 0.3, 200, np.random.default_rng(4))
    cube[5, 6:9] = np.nan
    store = CubeStore.open(write_store(tmp_path / "store", {"a": cube}))
    fit, measured = scene_map.fitter(LIBRARY, store, KEPT), scene_map.measures(WAVELENGTHS, KEPT)

    def fitted():
        return scene_map.fit_scene((32, 32), store.blocks("a"), fit, measured, [30, 9])

    whole = fitted()
    monkeypatch.setattr(cube_files, "BLOCK_BYTES", 4 * 32 * 224 * 5)
    parts = fitted()
    for name in ("fit", "depth", "iron", "clay", "valid", "shown"):
        np.testing.assert_allclose(parts[name], whole[name], atol=1e-6)
    np.testing.assert_allclose(whole["shown"], cube[..., [30, 9]], atol=0.51e-4)
    classes = scene_map.classes_of(whole, np.full(len(NAMES), 0.03))
    assert np.argwhere(classes == 255).tolist() == [[5, 6], [5, 7], [5, 8]] and len(np.unique(classes)) > 4
    paths = {name: tmp_path / name / "a.tif" for name in scene_map.MAPS}
    scene_map.write_maps(paths, store.place("a"), whole, classes)
    with rasterio.open(tmp_path / "minerals/a.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1), classes)
        assert (dataset.crs.to_string(), tuple(dataset.transform)[:6]) == PLACE
    for name, bands in (("fit", NAMES), ("depth", NAMES), ("iron", ("ferric iron at 870 nm",))):
        with rasterio.open(tmp_path / name / "a.tif") as dataset:
            values = np.moveaxis(dataset.read(), 0, -1)
            assert dataset.descriptions == bands and np.isnan(values[5, 7]).all()
            np.testing.assert_array_equal(values[..., 0], whole[name][..., 0] if name != "iron" else whole[name])


def test_iron_is_deeper_where_more_oxide_coats_the_rock_and_nowhere_without_its_bands():
    iron = scene_map.measures(WAVELENGTHS, KEPT)["iron"]
    coats = np.linspace(0, 0.7, 8)[:, None]
    depth = iron(0.3 * (1 + coats * (iron_oxide() - 1)))
    assert depth[0] == 0 and (np.diff(depth) > 0.01).all()
    assert list(scene_map.measures(WAVELENGTHS, KEPT & (WAVELENGTHS > 900))) == ["clay"]


def test_the_clay_index_is_deep_in_clay_and_not_in_calcite():
    clay = scene_map.measures(WAVELENGTHS, KEPT)["clay"]
    sensed = LIBRARY.at(WAVELENGTHS, FWHM)
    depth = {name: clay(sensed[LIBRARY.rows(name, "reference")[:1]])[0] for name in ("kaolinite", "calcite")}
    assert depth["kaolinite"] > 0.1 and depth["calcite"] < 0.02
