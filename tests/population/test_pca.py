"""The pca stage: fitted on training pixels alone, z-scored on them, the same bytes every time."""

import json
import warnings
from argparse import Namespace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from src.core.data import band_statistics
from src.core.data.pca import project
from src.core.report import fonts
from src.core.stage.errors import DataError, StorageError
from src.population import pca, split
from tests import tiles

COUNT = 60


@pytest.fixture
def inputs(make_params, tmp_path):
    generator = np.random.default_rng(0)
    pixels = np.stack([tiles.random_pixels(seed, bands=5, height=16) for seed in range(COUNT)])
    pixels[:, 1] = pixels[:, 0] // 2 + pixels[:, 1] // 3  # two bands that correlate
    valid = generator.random((COUNT, 16, 16)) > 0.2
    place = {"lat": generator.uniform(25, 50, COUNT), "lon": generator.uniform(-110, -70, COUNT)}
    store = tiles.write_store(tmp_path / "tiles", np.where(valid[:, None], pixels, np.int8(-128)), valid=valid, **place)
    split.main(make_params(), Namespace(tiles=store.folder), Namespace(out=tmp_path / "split"))
    return Namespace(tiles=store.folder, split=tmp_path / "split", store=store)


def test_components_are_z_scored_over_the_training_pixels(make_params, inputs, tmp_path):
    pca.main(make_params(), inputs, Namespace(out=tmp_path / "pca"))
    arrays = load_file(tmp_path / "pca/pca.safetensors")
    assert {name: (array.dtype, array.shape) for name, array in arrays.items()} == {
        "weight": (np.float32, (3, 5)),
        "bias": (np.float32, (3,)),
    }
    roles = pd.read_parquet(inputs.split / "split.parquet")["role"]
    mean, sd = band_statistics.read_statistics(inputs.split / "statistics.safetensors")
    pixels = {}
    for role in ("train", "test"):
        pixels[role] = []
        for row in np.flatnonzero(roles == role):
            valid = inputs.store.valid([row])[0]
            view = inputs.store.view(row)
            values = band_statistics.standardise(view, valid, inputs.store.quantisation, mean, sd)
            pixels[role].append(project(values, valid, arrays["weight"], arrays["bias"])[:, valid])
        pixels[role] = np.concatenate(pixels[role], axis=1)
    np.testing.assert_allclose(pixels["train"].mean(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(pixels["train"].std(axis=1), 1, atol=1e-4)
    assert np.abs(pixels["test"].mean(axis=1)).max() > 1e-3  # other pixels were not looked at

    summary = json.loads((tmp_path / "pca/pca.json").read_text())
    assert summary["pixels"] == pixels["train"].shape[1]
    ratio = summary["explained_variance_ratio"]
    assert sorted(ratio, reverse=True) == ratio and 0.25 < ratio[0] < 1
    assert (tmp_path / "pca/quicklook.png").read_bytes().startswith(b"\x89PNG")


def test_slabs_of_a_large_tile_add_up_and_bytes_repeat(make_params, inputs, tmp_path, monkeypatch):
    for name in ("one", "two"):
        pca.main(make_params(), inputs, Namespace(out=tmp_path / name))
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert files[0] == files[1]
    monkeypatch.setattr(band_statistics, "SLAB_PIXELS", 50)
    pca.main(make_params(), inputs, Namespace(out=tmp_path / "slabs"))
    one, slabs = (load_file(tmp_path / name / "pca.safetensors") for name in ("one", "slabs"))
    np.testing.assert_allclose(one["weight"], slabs["weight"], atol=1e-3)


def test_a_split_of_other_tiles_is_refused(make_params, inputs, tmp_path):
    pixels = np.stack([tiles.random_pixels(seed, bands=5) for seed in range(7)])
    other = tiles.write_store(tmp_path / "other", pixels)
    with pytest.raises(DataError, match=r"split.parquet: tile_id: found 60 tiles, expected the 7"):
        pca.main(make_params(), Namespace(tiles=other.folder, split=inputs.split), Namespace(out=tmp_path / "pca"))
    with pytest.raises(StorageError, match=r"split.parquet: cannot read: No such file"):
        pca.main(make_params(), Namespace(tiles=other.folder, split=tmp_path), Namespace(out=tmp_path / "pca"))
    assert not (tmp_path / "pca").exists()


def test_two_bands_are_too_few(make_params, inputs, tmp_path):
    store = inputs.store
    narrow = tiles.write_store(
        tmp_path / "narrow", store.read(range(COUNT))[:, :2], lat=store.tiles["lat"], lon=store.tiles["lon"]
    )
    with pytest.raises(DataError, match="bands: found 2, expected at least 3"):
        pca.main(make_params(), Namespace(tiles=narrow.folder, split=inputs.split), Namespace(out=tmp_path / "pca"))


def test_dry_run_writes_nothing(make_params, inputs, tmp_path, capsys):
    pca.main(make_params(), inputs, Namespace(out=tmp_path / "pca"), dry_run=True)
    assert "5 -> 3" in capsys.readouterr().out
    assert not (tmp_path / "pca").exists()


def test_a_name_without_glyphs_gives_way_to_the_number_of_the_tile(make_params, inputs, tmp_path, monkeypatch):
    """With DejaVu Sans alone, as on a machine without a Chinese font; matplotlib would warn of each missing glyph."""
    monkeypatch.setattr(fonts, "CJK_FONTS", ())
    titles, verbatim = [], fonts.verbatim
    monkeypatch.setattr(fonts, "verbatim", lambda text: titles.append(text) or verbatim(text))
    named = inputs.store.tiles.head(2).assign(city="杭州市", province=["浙江", "Utah"])
    monkeypatch.setattr(pca, "choose_tiles", lambda _: named)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pca.main(make_params(), inputs, Namespace(out=tmp_path / "pca"))
    assert titles == [f"tile 0\n {named.year[0]}", f"tile 1\nUtah {named.year[1]}"]


def test_stretch_clips_at_the_percentiles_and_greys_what_is_masked():
    components = np.linspace(0, 1, 3 * 10_000, dtype=np.float32).reshape(10_000, 3).T.reshape(1, 3, 100, 100)
    valid = np.ones((1, 100, 100), bool)
    valid[0, 0, 0] = False
    image = pca.stretch(components, valid)
    assert image.dtype == np.uint8
    assert (image[0, 0, 0] == pca.MASKED_GREY).all()
    assert (image[0, 1] == 0).all() and (image[0, 99] == 255).all()
    assert 126 <= image[0, 50].mean() <= 129
