"""Strips are made physical as whole scenes are, and thinned images show the same pixels whatever file they are from."""

import numpy as np
import pytest
import rasterio.shutil

from src.core.stage.errors import DataError
from src.grounding.data import units
from src.grounding.inference import images
from src.grounding.inference.images import Files
from tests.grounding.pair_files import images as drawn
from tests.grounding.pair_files import params, write_pair, write_raster, write_tile

CLIP = [-25.0, 0.0]


def converted(data, files):
    with images.opened(files, data, 16) as found:
        physical = images.measured(found, data, CLIP)
        strips = [(found.sar.rows(top, 10), found.optical.rows(top, 10)) for top in range(0, 40, 10)]
        sar = [images.radar_db(one, physical) for one, _ in strips]
        optical = [images.reflectance(one, physical) for _, one in strips]
    whole = [[np.concatenate(parts, axis=-2) for parts in zip(*side, strict=True)] for side in (sar, optical)]
    return physical, *whole


@pytest.mark.parametrize("linear", [False, True])
def test_strips_are_what_preprocess_makes_of_the_scene(tmp_path, linear):
    sar, optical = drawn(1)
    stored = 10 ** (sar / 10) if linear else sar
    stored[:, 3, 4], stored[1, 5, 6] = 0, np.nan
    numbers = np.rint(optical * 10_000).astype(np.int16)
    numbers[:, 20:25, 7] = -1
    numbers[:, 0, 0] = 0
    write_pair(tmp_path, "a", sar=stored, optical=numbers, optical_options={"nodata": -1})
    data = params({"data.sar.scale": "linear" if linear else "dB"}).data
    files = Files("a", tmp_path / "a_s1.tif", tmp_path / "a_s2.tif")
    physical, (radar, seen), (guess, known) = converted(data, files)
    expected = units.to_db(stored, data.sar.model_copy(update={"clip_db": CLIP}), "")
    np.testing.assert_array_equal(seen, expected.known)
    assert not seen[3, 4] and not seen[5, 6] and (radar[:, ~seen] == CLIP[0]).all()
    np.testing.assert_allclose(radar[:, seen], expected.values[:, seen], atol=1e-5)
    assert not known[20:25, 7].any() and not known[0, 0] and known.sum() == 1600 - 6
    np.testing.assert_allclose(guess[:, known], numbers[:, known] / 10_000, atol=1e-6)
    np.testing.assert_allclose(guess[:, 20, 7], guess[:, known].mean(1), atol=1e-5, err_msg="filled as `degrade` fills")
    np.testing.assert_array_equal(np.isfinite(physical.optical.values).all(0), known)


def test_large_images_are_thinned_alike_from_files_with_overviews_and_from_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "THIN_PX", 12)
    values = np.random.default_rng(0).uniform(0, 1, (2, 40, 31)).astype(np.float32)
    plain = write_raster(tmp_path / "plain.tif", values)
    rasterio.shutil.copy(plain, tmp_path / "cog.tif", driver="COG", blocksize=128, overview_count=2)
    found = images.thinned(plain, [1, 2])
    assert found.shape == (2, 10, 8) and np.isin(found, values).all()
    np.testing.assert_array_equal(images.thinned(tmp_path / "cog.tif", [1, 2]), found)
    np.testing.assert_array_equal(images._array(plain, values).thinned(), found)


def test_first_guess_and_truth_are_told_apart(tmp_path):
    guess = np.full((4, 40, 40), 500, np.int16) + np.arange(40, dtype=np.int16)
    write_pair(tmp_path / "in", "a")
    write_raster(tmp_path / "v2" / "a.tif", guess, ("B02", "B03", "B04", "B08"))
    (alone,), (guided,) = images.find(tmp_path / "in", None), images.find(tmp_path / "in", tmp_path / "v2")
    data = params().data
    with images.opened(alone, data, 16) as found:
        assert found.truth is None and found.optical.path.name == "a_s2.tif"
    with images.opened(guided, data, 16) as found:
        assert found.truth.path.name == "a_s2.tif" and found.optical.path.parent.name == "v2"
        np.testing.assert_array_equal(found.optical.rows(3, 2), guess[:, 3:5])


def test_a_tile_has_its_first_guess_under_a_key_and_its_optical_bands_as_truth(tmp_path):
    guess = np.rint(drawn(2)[1] * 10_000)
    write_tile(tmp_path, "a", arrays={"opt_v2": guess})
    write_tile(tmp_path, "b", arrays={"opt_v2": guess, "s2_b3": None})
    write_tile(tmp_path, "c")
    write_tile(tmp_path, "d", arrays={"opt_v2": guess[:3]})
    data, (a, b, c, d) = params().data, images.find(tmp_path, None)
    with images.opened(a, data, 16) as found:
        np.testing.assert_array_equal(found.optical.rows(0, 40), guess)
        assert found.truth is not None and found.pair.crs == ""
    with images.opened(b, data, 16) as found:
        assert found.truth is None
    with pytest.raises(DataError, match="opt_v2: missing"), images.opened(c, data, 16):
        pass
    wrong = r"opt_v2: found shape \(3, 40, 40\), expected \(4, 40, 40\)"
    with pytest.raises(DataError, match=wrong), images.opened(d, data, 16):
        pass


def test_blocks_that_no_strip_could_bound_are_refused(tmp_path, monkeypatch):
    write_pair(tmp_path, "a", optical_options={"blockysize": 40})
    monkeypatch.setattr(images, "MAX_BLOCK_BYTES", 1000)
    files = Files("a", tmp_path / "a_s1.tif", tmp_path / "a_s2.tif")
    wrong = r"blocks: found .* expected at most 1000 bytes"
    with pytest.raises(DataError, match=wrong), images.opened(files, params().data, 16):
        pass
