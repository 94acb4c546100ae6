"""The stage `bands`: its table and its pictures."""

from argparse import Namespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from src.core.stage.errors import DataError
from src.minerals import bands
from src.minerals.data import band_table
from src.minerals.data.simulated_spectra import FWHM, WAVELENGTHS
from tests.conftest import minerals_params
from tests.minerals import cubes
from tests.minerals.study import write_store

CUBE = cubes.reflectance(9, 6)
CUBE[4, 2] = np.nan


def run(tmp_path, dry_run=False, changes=None, **more):
    cube = CUBE[..., : len(more.get("wavelengths", WAVELENGTHS))]
    inputs = Namespace(store=write_store(tmp_path / "store", {"a": cube}, **more))
    bands.main(minerals_params(changes), inputs, Namespace(out=tmp_path / "bands"), dry_run)
    return tmp_path / "bands"


def test_table_and_pictures(tmp_path, capsys):
    folder = run(tmp_path)
    table = pd.read_csv(folder / "bands.csv", keep_default_na=False)
    assert list(table.columns) == ["band", "wavelength_nm", "fwhm_nm", "kept", "why"]
    assert f"{table['kept'].sum()} of 224 kept" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == ["bands.csv", "clay", "iron", "natural"]
    picture = np.asarray(Image.open(folder / "clay/a.png"))
    assert picture.shape == (9, 6, 3) and picture[4, 2].tolist() == [0, 0, 0]
    nearest = [np.abs(WAVELENGTHS - nm).argmin() for nm in band_table.COMPOSITES["clay"]]
    for channel, band in enumerate(nearest):  # red is 2200 nm: the order of brightness is that of the band
        values = np.rint(CUBE[..., band] * 10000).ravel()
        order = np.argsort(values[~np.isnan(values)])
        shown = np.delete(picture[..., channel].ravel().astype(int), 4 * 6 + 2)
        assert (np.diff(shown[order]) >= 0).all() and shown.min() == 0 and shown.max() == 255


def test_a_sensor_without_visible_light_still_works(tmp_path, caplog):
    keep = WAVELENGTHS > 1000
    folder = run(tmp_path, wavelengths=WAVELENGTHS[keep], fwhm=FWHM[keep])
    assert sorted(path.name for path in folder.iterdir()) == ["bands.csv", "clay"]
    assert "composite natural: 660 nm" in caplog.text and "composite iron: 860 nm" in caplog.text


def test_a_dry_run_and_a_sensor_without_bands_write_nothing(tmp_path):
    assert not run(tmp_path, dry_run=True).exists()
    with pytest.raises(DataError, match="no band is left"):
        run(tmp_path / "other", changes={"bands.water_nm": [[0, 3000]]})
    assert not (tmp_path / "other/bands").exists()
