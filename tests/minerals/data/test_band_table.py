"""The choice of bands by wavelength, and false colours."""

import numpy as np
import pytest

from src.core.stage.errors import DataError, StorageError
from src.minerals.data import band_table
from src.minerals.data.cube_store import CubeStore
from src.minerals.data.simulated_spectra import FWHM, WAVELENGTHS
from tests.conftest import minerals_params
from tests.minerals import cubes
from tests.minerals.study import write_store

PARAMS = minerals_params().bands
EVERY = np.ones(224, bool)


def store(folder, **more) -> CubeStore:
    bands = len(more.get("wavelengths", WAVELENGTHS))
    return CubeStore.open(write_store(folder, {"a": cubes.reflectance(2, 2)[..., :bands]}, **more))


def choose(of: CubeStore, params=PARAMS):
    return band_table.choose(of, of.filled, params, str(of.folder))


def test_bands_go_by_wavelength_and_not_by_index(tmp_path):
    coarse = slice(None, None, 2)
    fine = choose(store(tmp_path / "fine")).set_index("wavelength_nm")
    other = store(tmp_path / "coarse", wavelengths=WAVELENGTHS[coarse], fwhm=FWHM[coarse])
    table = choose(other).set_index("wavelength_nm")
    assert table["why"].equals(fine["why"].loc[table.index])
    removed = fine.index[~fine["kept"]]
    lost = [(0, 400), (1350, 1450), (1790, 1990), (2470, 3000)]
    assert removed.tolist() == [nm for nm in WAVELENGTHS if any(low <= nm <= high for low, high in lost)]


def test_the_reason_of_every_band_that_went(tmp_path):
    good, filled = EVERY.copy(), EVERY.copy()
    good[[50, 107]], filled[[60, 108]] = False, False
    table = choose(store(tmp_path / "s", good=good, filled=filled))
    assert (table["kept"] == (table["why"] == "")).all() and table["band"].tolist() == list(range(1, 225))
    assert table["why"][50] == table["why"][107] == "bad band by the file's own list (bbl)"  # 107 lies in water vapour
    assert table["why"][60] == table["why"][108] == "0 or no data in a whole scene"
    assert table["why"][0] == "noisy: 0-400 nm (bands.noisy_nm)"
    assert table["why"][110] == "water vapour: 1350-1450 nm (bands.water_nm)"


def test_the_ends_of_an_interval_belong_to_it(tmp_path):
    nm = WAVELENGTHS.copy()
    nm[104:106] = 1350, 1360
    table = choose(store(tmp_path / "s", wavelengths=nm))
    assert table["kept"][103] and not table["kept"][104]


def test_no_band_left_is_named(tmp_path):
    with pytest.raises(DataError, match="no band is left; correct `noisy_nm` and `water_nm`"):
        choose(store(tmp_path / "s"), minerals_params({"bands.noisy_nm": [[0, 3000]]}).bands)


def test_a_table_is_read_back_and_one_of_another_sensor_is_refused(tmp_path):
    cubes_of = store(tmp_path / "s")
    table = choose(cubes_of)
    band_table.write(table, tmp_path)
    np.testing.assert_array_equal(band_table.read_kept(tmp_path, cubes_of), table["kept"])
    with pytest.raises(DataError, match="found 224 bands that are not those of"):
        band_table.read_kept(tmp_path, store(tmp_path / "t", wavelengths=WAVELENGTHS + 1))
    with pytest.raises(StorageError, match=r"bands\.csv: cannot read"):
        band_table.read_kept(tmp_path / "s", cubes_of)


@pytest.mark.parametrize("name", band_table.COMPOSITES)
def test_composites_take_the_nearest_kept_bands(name):
    found = band_table.composite_bands(WAVELENGTHS, EVERY, name)
    assert (np.abs(WAVELENGTHS[found] - band_table.COMPOSITES[name]) <= 4.8).all()
    kept = EVERY.copy()
    kept[found[0]] = False
    other = band_table.composite_bands(WAVELENGTHS, kept, name)
    assert abs(other[0] - found[0]) == 1 and other[1:] == found[1:]


def test_a_composite_that_the_sensor_does_not_see_is_named():
    swir = WAVELENGTHS > 1000
    with pytest.raises(DataError, match="composite natural: 660 nm: found no kept band within 15 nm"):
        band_table.composite_bands(WAVELENGTHS, swir, "natural")
    with pytest.raises(DataError, match="composite clay: 1650 nm"):
        band_table.composite_bands(WAVELENGTHS, (WAVELENGTHS < 1600) | (WAVELENGTHS > 1700), "clay")


def test_the_stretch_is_by_colour_between_its_percentiles():
    values = np.stack([np.linspace(0, 1, 101), np.linspace(0.2, 0.4, 101), np.full(101, 0.3)], 1)
    stretch = band_table.limits(values, [2, 98])
    np.testing.assert_allclose(stretch, [[0.02, 0.98], [0.204, 0.396], [0.3, 0.3001]])
    shown = band_table.to_bytes(np.array([[0.02, 0.25, 0.3], [0.98, 5, -5], [0.74, np.nan, 0.30002]]), stretch)
    assert shown.tolist() == [[0, 61, 0], [255, 255, 0], [191, 0, 51]] and shown.dtype == np.uint8
