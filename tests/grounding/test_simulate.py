"""The stage `simulate`: the same in, the same out, and pairs that belong together."""

import json
from argparse import Namespace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from scipy import ndimage

from src.grounding import simulate
from src.grounding.data.sensors import OPTICAL_BANDS, SAR_BANDS
from src.grounding.data.simulated_landscape import CODE, draw
from src.grounding.params import Simulate

SMALL = {"seed": 0, "scenes": 4, "side_px": 64, "looks": 4}


def run(out: Path, dry_run: bool = False, **changes) -> Path:
    params = Namespace(threads=1, simulate=Simulate(**(SMALL | changes)))
    simulate.main(params, Namespace(), Namespace(out=out), dry_run)
    return out


def read(path: Path) -> tuple[np.ndarray, dict, tuple, dict]:
    with rasterio.open(path) as dataset:
        return dataset.read(), dataset.profile, dataset.descriptions, dataset.tags()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return run(tmp_path_factory.mktemp("simulate") / "simulated")


@pytest.fixture(scope="module")
def scenes():
    """Radar and optical images of 20 scenes with their ground."""
    return [
        (*simulate.scene(0, number, 96, 4), draw(np.random.default_rng([0, number, 0]), 96)) for number in range(20)
    ]


def test_the_same_params_give_the_same_bytes(folder, tmp_path):
    again, other = run(tmp_path / "again"), run(tmp_path / "other", seed=1)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in again.iterdir()) and len(names) == 10
    for name in names:
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name
    assert (other / "scene_01_s1.tif").read_bytes() != (folder / "scene_01_s1.tif").read_bytes()


def test_a_scene_is_the_same_whatever_their_number(folder, tmp_path):
    more = run(tmp_path / "more", scenes=6)
    assert len(list(more.glob("*.tif"))) == 12
    for path in folder.glob("scene_*.tif"):
        assert path.read_bytes() == (more / path.name).read_bytes()


def test_files_are_as_the_contract_says(folder):
    for number in range(1, 5):
        sar, radar, sar_bands, sar_tags = read(folder / f"scene_{number:02d}_s1.tif")
        stored, camera, optical_bands, optical_tags = read(folder / f"scene_{number:02d}_s2.tif")
        assert sar.dtype == np.float32 and sar_bands == SAR_BANDS and np.isfinite(sar).all()
        assert stored.dtype == np.int16 and optical_bands == OPTICAL_BANDS and stored.min() > 0
        assert radar["crs"] == camera["crs"] == "EPSG:32632" and radar["transform"] == camera["transform"]
        assert radar["transform"][0] == -radar["transform"][4] == 10
        days = [datetime.fromisoformat(tags["datetime"]) for tags in (sar_tags, optical_tags)]
        assert abs(days[1] - days[0]).days <= 3
        np.testing.assert_allclose(stored / 10_000, simulate.scene(0, number - 1, 64, 4)[1], atol=0.6e-4)


@pytest.mark.parametrize("side", [64, 512])
def test_scenes_lie_in_blocks_of_their_own_and_apart(side, tmp_path):
    """Each lies in a square of 5 km, or several, with more than a scene's diagonal to its neighbours."""
    west, north = [], []
    for number in range(20):
        image = np.zeros((4, side, side), np.float32)
        simulate.write(tmp_path, f"scene_{number:02d}", number, image[:2], image)
        with rasterio.open(tmp_path / f"scene_{number:02d}_s2.tif") as dataset:
            west.append(dataset.bounds.left)
            north.append(dataset.bounds.top)
    centres = np.stack([west, north]) + np.array([[5 * side], [-5 * side]])
    assert len(np.unique(centres // 5000, axis=1).T) == 20
    steps = np.abs(centres[:, :, None] - centres[:, None])
    gap = np.max(steps, axis=0) - 10 * side
    assert gap[~np.eye(20, dtype=bool)].min() >= 2000


def test_every_output_says_that_it_is_simulated(folder):
    about = json.loads((folder / "source.json").read_text())
    assert about["simulated"] is True and about["settings"] == SMALL
    assert read(folder / "scene_01_s1.tif")[3]["source"] == "simulated"
    assert (folder / "overview.png").stat().st_size > 10_000


def test_a_dry_run_writes_nothing(tmp_path):
    assert not run(tmp_path / "dry", dry_run=True).exists()


def test_water_is_dark_and_buildings_are_bright_to_the_radar(scenes):
    water, buildings, fields = [], [], []
    for sar, _, ground in scenes:
        share = {name: (ground.cover == CODE[name]).reshape(96, 2, 96, 2).mean(axis=(1, 3)) for name in CODE}
        built = ndimage.maximum_filter(share["building"], 3) > 0.5
        water.append(sar[0][ndimage.minimum_filter(share["water"], 5) == 1])
        buildings.append(sar[0][built])
        fields.append(sar[0][(share["cereals"] + share["grassland"] + share["maize"] == 1) & ~built])
    water, buildings, fields = (
        10 * np.log10(np.mean(10 ** (np.concatenate(of) / 10))) for of in (water, buildings, fields)
    )
    assert water < -17 and -14 < fields < -8 and buildings > fields + 5


def test_edges_of_both_images_coincide_and_those_of_another_scene_do_not(scenes):
    """Centred correlation of gradient magnitudes; three real pairs have 0.07 to 0.13, the simulated ones more."""

    def edges(image):
        return np.hypot(ndimage.sobel(image, 0), ndimage.sobel(image, 1)).ravel()

    def agreement(one, two):
        return np.corrcoef(edges(scenes[one][0][0]), edges(scenes[two][1][2]))[0, 1]

    own = [agreement(number, number) for number in range(20)]
    other = [agreement(number, (number + 1) % 20) for number in range(20)]
    assert min(own) > 0.05 and 0.12 < np.mean(own) < 0.4
    assert np.mean(other) == pytest.approx(0, abs=0.02)


def test_the_radar_image_is_no_copy_of_the_optical_one(scenes):
    """Over covers it tells little of brightness, and within a field of leaves nothing at all."""
    radar = np.concatenate([ndimage.uniform_filter(sar[0], 5).ravel() for sar, _, _ in scenes])
    red = np.concatenate([optical[2].ravel() for _, optical, _ in scenes])
    assert abs(np.corrcoef(radar, red)[0, 1]) < 0.6
    within = []
    for sar, optical, ground in scenes:
        parcel, cover = ground.parcel[::2, ::2], ground.cover[::2, ::2]
        for number in np.unique(parcel[cover == CODE["rapeseed"]]):
            inside = ndimage.binary_erosion(parcel == number, iterations=3)
            if inside.sum() > 100:
                within.append(np.corrcoef(sar[0][inside], optical[2][inside])[0, 1])
    assert len(within) >= 5 and np.mean(within) == pytest.approx(0, abs=0.08)
