"""Minerals of which the library has one sample: what is changed, and that it is counted right."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.core.stage.errors import StorageError
from src.minerals import sensitivity
from src.minerals.data import spectral_library
from src.minerals.data.simulated_spectra import FWHM, WAVELENGTHS, endmembers, extend
from src.minerals.evaluation import one_sample
from src.minerals.mapping.feature_fit import FeatureFit
from src.minerals.mapping.minerals import NAMES
from src.minerals.mapping.thresholds import NEVER

LIBRARY = spectral_library.read(Path("data/sample/usgs_minerals"))
SENSED = LIBRARY.at(WAVELENGTHS, FWHM)
KEPT = (WAVELENGTHS > 400) & (WAVELENGTHS < 2470)
REFERENCES = {name: SENSED[LIBRARY.rows(name, "reference")] for name in NAMES}
THREE = ["buddingtonite", "calcite", "epidote"]


def named(limit=0.03, library=LIBRARY, references=REFERENCES, sensed=SENSED):
    return one_sample.name_all(
        library, sensed, FeatureFit(WAVELENGTHS, KEPT, references), np.full(8, limit), snr=200, seed=0
    )


@pytest.fixture(scope="module")
def table():
    return named()


def right(table, mineral, kind) -> np.ndarray:
    return table[(table["mineral"] == mineral) & (table["kind"] == kind)].sort_values("level")["right"].to_numpy()


def test_every_mineral_of_one_sample_at_every_level_and_no_other(table):
    assert one_sample.minerals(LIBRARY) == THREE
    levels = [(kind, level) for kind, levels in one_sample.LEVELS.items() for level in levels]
    rows = table[["mineral", "kind", "level"]].itertuples(index=False, name=None)
    assert list(rows) == [(name, *level) for name in THREE for level in levels]
    assert (table["n"] == one_sample.DRAWN * one_sample.PIXELS).all()
    np.testing.assert_allclose(table[["right", "none", "other"]].sum(axis=1), 1)
    assert ((table["most_other"] == "") == (table["other"] == 0)).all()


@pytest.mark.parametrize("mineral", THREE)
def test_less_noise_and_more_of_a_mineral_do_not_harm(table, mineral):
    for kind in ("snr", "areal_share"):
        assert right(table, mineral, kind)[-1] >= right(table, mineral, kind)[0] - 0.02
    assert right(table, mineral, "snr")[-1] > 0.9
    assert right(table, mineral, "grain_size")[2] > 0.95  # the sample's own


def test_the_levels_are_what_they_say():
    sample = extend(SENSED[LIBRARY.rows("calcite", "reference")[0]])
    materials = endmembers(LIBRARY, np.random.default_rng(0))

    def mean(**varied):
        found = one_sample.spectra("calcite", sample, varied, 1e6, materials, np.random.default_rng(1))
        return found[:, KEPT & (WAVELENGTHS > 1990)].mean(0)

    surface = sample[KEPT & (WAVELENGTHS > 1990)]
    pure = mean(grain_size=1) / surface
    np.testing.assert_allclose(pure, pure.mean(), rtol=0.02)  # light, and no other material
    np.testing.assert_allclose(mean(grain_size=2) / mean(grain_size=1), surface, rtol=1e-3)
    np.testing.assert_allclose(mean(areal_share=1), mean(intimate_share=1), rtol=1e-3)
    assert (mean(intimate_share=0.4) < mean(areal_share=0.4)).all()  # dark grains count more where light meets them all
    assert np.std(mean(snr=50) - mean(snr=500)) > 1e-4


def test_wrong_names_and_none_are_counted():
    never = named(NEVER)
    assert (never["none"] == 1).all() and (never["most_other"] == "").all()
    swapped = SENSED.copy()
    row = LIBRARY.rows("epidote", "reference")[0]
    swapped[row] = SENSED[LIBRARY.rows("chlorite", "reference")[0]]
    found = named(sensed=swapped)
    wrong = found[(found["mineral"] == "epidote") & (found["kind"] == "snr") & (found["level"] == 500)].iloc[0]
    assert wrong["right"] < 0.05 and wrong["other"] > 0.9 and wrong["most_other"] == "chlorite"


def test_the_table_comes_back_and_its_means_are_by_hand(tmp_path, table):
    one_sample.write(table, tmp_path)
    again = one_sample.read(tmp_path)
    assert again["most_other"].tolist() == table["most_other"].tolist()
    means = one_sample.summary(again)
    assert list(means) == THREE and list(means["calcite"]) == list(one_sample.LEVELS)
    assert means["epidote"]["snr"] == pytest.approx(right(table, "epidote", "snr").mean(), abs=1e-4)
    with pytest.raises(StorageError, match=r"one_sample\.csv: no such file; run sensitivity again"):
        one_sample.read(tmp_path / "none")


def test_a_library_with_two_samples_of_each_has_no_row(tmp_path):
    rows = [LIBRARY.rows(name, "reference")[0] for name in THREE]
    twice = replace(
        LIBRARY,
        spectra=np.concatenate([LIBRARY.spectra, LIBRARY.spectra[rows]]),
        table=pd.concat([LIBRARY.table, LIBRARY.table.iloc[rows]], ignore_index=True),
    )
    one_sample.write(named(library=twice), tmp_path)
    table = one_sample.read(tmp_path)
    assert table.empty and one_sample.summary(table) == {}
    sensitivity.draw_one_sample(tmp_path / "one_sample.png", table)
