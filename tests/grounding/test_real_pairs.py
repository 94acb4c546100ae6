"""Real pairs through preprocess: TerraMesh, whose files name no bands, and a chip of Sen1Floods11 in degrees."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from src.core.stage.errors import DataError
from src.grounding import preprocess
from src.grounding.data.scene_store import SceneStore
from tests.grounding.pair_files import REAL, declare, params

TWELVE = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
TILES = {  # date of the optical image, as its land cover file has it; offset that its numbers need
    "282D_485L_3_3": {"date": "2021-07-23", "split": "ground"},
    "38D_378R_2_3": {"date": "2023-06-10", "split": "ground"},
    "433D_629L_3_1": {"date": "2020-04-08", "split": "test", "offset": -1000},
}
DECLARED = {"data.optical.bands": TWELVE}


def run(root: Path, changes=None, sar_bands=None, **data) -> SceneStore:
    out = root.with_name("store")
    preprocess.main(params(changes, sar_bands, **data), Namespace(root=root), Namespace(out=out))
    return SceneStore.open(out)


@pytest.fixture
def terramesh(tmp_path):
    """Links to the three tiles, with what the files do not say declared beside them."""
    source = REAL / "terramesh"
    if not source.is_dir():
        pytest.skip("no real data")
    for folder in ("S1RTC", "S2L2A", "LULC"):
        (tmp_path / "tiles" / folder).mkdir(parents=True)
        for path in (source / folder).iterdir():
            (tmp_path / "tiles" / folder / path.name).symlink_to(path.resolve())
    for name, values in TILES.items():
        declare(tmp_path / f"tiles/S2L2A/{name}.tif", **values)
    return tmp_path / "tiles"


def test_terramesh_is_read_by_declared_names(terramesh):
    store = run(terramesh, DECLARED, ["VV", "VH"])
    assert store.names("ground") == ["282D_485L_3_3", "38D_378R_2_3"] and store.names("test") == ["433D_629L_3_1"]
    for name in TILES:
        scene = store.read(name)
        with rasterio.open(terramesh / f"S2L2A/{name}.tif") as dataset:
            stored = dataset.read([2, 3, 4, 8]) + np.int16(TILES[name].get("offset", 0))
        with rasterio.open(terramesh / f"S1RTC/{name}.tif") as dataset:
            radar = dataset.read()
        np.testing.assert_allclose(scene.optical, (stored / 10_000).clip(0, 1), atol=1e-6)
        np.testing.assert_allclose(scene.sar, radar.clip(-30, 5), atol=1e-5)
        assert scene.valid.all() and (scene.sar[0] > scene.sar[1]).mean() > 0.9
    flags = store.table.set_index("name")["flags"]
    assert flags["282D_485L_3_3"] == "shift_unknown"  # the sea
    assert np.median(store.read("433D_629L_3_1").optical[2]) < 0.1


def test_terramesh_holds_numbers_of_two_baselines(terramesh):
    """One tile of 2020 has the offset of later products, which nothing in the file says."""
    name = "433D_629L_3_1"
    declare(terramesh / f"S2L2A/{name}.tif", date="2020-04-08", split="test")
    with pytest.raises(DataError, match=rf"{name}\.tif: reflectance: found the darkest percentile .*is forgotten"):
        run(terramesh, DECLARED, ["VV", "VH"])
    declare(terramesh / "S2L2A/282D_485L_3_3.tif", date="2021-07-23", split="ground", offset=-1000)
    with pytest.raises(DataError, match=r"282D_485L_3_3\.tif: reflectance: found a 5th percentile .*applied twice"):
        run(terramesh, DECLARED, ["VV", "VH"])


def test_terramesh_without_declarations_is_named(terramesh):
    with pytest.raises(DataError, match=r"S1RTC/282D_485L_3_3\.tif: bands: found BANDS, BANDS, expected VV once"):
        run(terramesh, DECLARED)
    for path in terramesh.rglob("*.json"):
        path.unlink()
    with pytest.raises(DataError, match=r"S2L2A/282D_485L_3_3\.tif: date: found none of the optical image"):
        run(terramesh, DECLARED, ["VV", "VH"])
    with pytest.raises(DataError, match="found 3 blocks of `block_km` = 5 km, expected at least 4"):
        run(terramesh, DECLARED, ["VV", "VH"], max_days=None)


def test_a_chip_in_degrees_with_bands_in_its_own_names(tmp_path):
    source = REAL / "sen1floods11"
    if not source.is_dir():
        pytest.skip("no real data")
    root = tmp_path / "chips"
    root.mkdir()
    for path in source.glob("*.tif"):
        (root / path.name).symlink_to(path.resolve())
    declare(root / "Spain_7370579_S2Hand.tif", split="test")
    store = run(root, {"data.sar.product": "GRD", "data.sar.coefficient": "sigma0"}, max_days=None)
    scene, row = store.read("Spain_7370579"), store.table.iloc[0]
    with rasterio.open(root / "Spain_7370579_S2Hand.tif") as dataset:
        stored = dataset.read([2, 3, 4, 8])
    np.testing.assert_allclose(scene.optical, stored / 10_000, atol=1e-6)
    assert row["crs"] == "EPSG:4326" and row["flags"] == "date_unknown" and row["shift_px"] < 1 and scene.valid.all()
    assert store.facts["scenes"]["Spain_7370579"]["sar_clipped"] > 0
