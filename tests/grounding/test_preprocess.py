"""The stage from files to a store: values, roles, first guesses, flags, and nothing half-written."""

import json
from argparse import Namespace

import numpy as np
import pytest

from src.core.stage.errors import DataError, StorageError
from src.grounding import preprocess
from src.grounding.data.scene_store import ROLES, SceneStore
from tests.grounding.pair_files import SIDE, declare, images, params, write_pair, write_raster, write_tile

SPLITS = ["pretrain", "ground", "validation", "test"]


def run(root, changes=None, dry_run=False, **data) -> SceneStore | None:
    out = root.with_name("store")
    preprocess.main(params(changes, **data), Namespace(root=root), Namespace(out=out), dry_run)
    return None if dry_run else SceneStore.open(out)


def contents(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_four(root, **options):
    """Four pairs, one of each role, side by side 5 km apart."""
    for number, split in enumerate(SPLITS):
        _, optical = write_pair(root, f"s{number}", number, east=5000 * number, **options)
        declare(optical, split=split)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "pairs"
    write_four(folder)
    return folder


def test_values_roles_and_facts_arrive(root):
    (root / "source.json").write_text(json.dumps({"simulated": True, "description": "drawn"}))
    store = run(root)
    store.verify()
    assert [store.names(role) for role in ROLES] == [[f"s{number}"] for number in range(4)]
    sar, optical = images(2)
    scene = store.read("s2")
    np.testing.assert_array_equal(scene.sar, sar)
    np.testing.assert_allclose(scene.optical, optical, atol=5.1e-5)
    assert scene.valid.all() and scene.crs == "EPSG:32630" and scene.transform == (10, 0, 510_000, 0, -10, 5_000_000)
    assert store.facts["simulated"] and store.facts["opt_v2"] == "synthetic"
    row = store.table.set_index("name").loc["s2"]
    assert (row["sar_date"], row["optical_date"], row["valid_share"]) == ("2021-07-20", "2021-07-21", 1)
    assert json.loads((store.folder / "audit.json").read_text())["nearest_km"]["pretrain_test"] == pytest.approx(
        15, 0.01
    )
    assert (store.folder / "roles.png").is_file()


def test_the_first_guess_is_a_degradation_by_role_and_recorded(root):
    store = run(root, {"degrade.pretrain": {"blur_px": [0, 0], "noise": [0, 0], "haze": [0, 0], "holes": [0, 0]}})
    untouched, degraded = store.read("s0"), store.read("s3")
    np.testing.assert_allclose(untouched.first_guess, untouched.optical, atol=1e-6)
    assert not untouched.missing.any() and 0.15 <= degraded.missing.mean() <= 0.35
    assert np.abs(degraded.first_guess - degraded.optical)[:, ~degraded.missing].mean() > 0.005
    assert store.facts["degrade"]["pretrain"]["holes"] == [0, 0] and store.facts["degrade"]["test"]["holes"][1] == 0.35
    drawn = store.facts["scenes"]["s3"]["degradation"]
    assert drawn["holes"] == pytest.approx(degraded.missing.mean()) and 1 <= drawn["blur_px"] <= 2.5


def test_same_in_same_out_and_a_scene_does_not_depend_on_the_others(root):
    first = contents(run(root).folder)
    assert contents(run(root).folder) == first
    for name in ("s0_s1.tif", "s0_s2.tif", "s0_s2.tif.json"):
        (root / name).unlink()
    again = contents(run(root).folder)
    assert all(again[f"scenes/s{number}.safetensors"] == first[f"scenes/s{number}.safetensors"] for number in (1, 2, 3))
    moved = contents(run(root, {"degrade.seed": 1}).folder)
    assert moved["scenes/s1.safetensors"] != again["scenes/s1.safetensors"]


def test_what_is_not_clear_in_both_images_is_not_valid(root):
    sar, optical = (image.copy() for image in images(9))
    sar[0, 1, 1], optical[:, 2, 2] = np.nan, 0
    write_pair(root, "s3", sar=sar, optical=optical, east=15_000)
    for number in range(4):
        mask = np.zeros((1, SIDE, SIDE), np.uint8)
        mask[0, 3, 3] = 1
        place = (10, 0, 500_000 + 5000 * number, 0, -10, 5_000_000)
        write_raster(root / f"clouds/s{number}.tif", mask, transform=place)
    store = run(root, {"data.cloud_mask": "clouds"})
    scene = store.read("s3")
    assert np.argwhere(~scene.valid).tolist() == [[1, 1], [2, 2], [3, 3]]
    assert (scene.sar[:, 1, 1] == -30).all() and (scene.optical[:, 2, 2] == 0).all() and scene.missing[3, 3]
    assert all(np.isfinite(array).all() for array in (scene.sar, scene.optical, scene.first_guess))
    write_raster(root / "clouds/s3.tif", np.ones((1, SIDE, SIDE), np.uint8), transform=place)
    with pytest.raises(DataError, match=r"s3_s2\.tif: pixels: found none that is clear"):
        run(root, {"data.cloud_mask": "clouds"})


def give_first_guesses(root, change=lambda image: image * 0.9):
    (root / "stage2").mkdir()
    for number in range(4):
        np.savez(root / f"stage2/s{number}.npz", opt_v2=np.rint(change(images(number)[1]) * 10_000))


def test_a_given_first_guess_is_taken(root):
    def spoil(image):
        image = image * 0.9
        image[:, 5, 5] = np.nan
        return image

    give_first_guesses(root, spoil)
    store = run(root, {"data.first_guess": "stage2"})
    scene = store.read("s1")
    assert store.facts["opt_v2"] == "given" and store.facts["degrade"] is None
    assert np.argwhere(scene.missing).tolist() == [[5, 5]] and scene.valid.all()
    np.testing.assert_allclose(scene.first_guess[:, 6:], 0.9 * images(1)[1][:, 6:], atol=6e-5)
    assert np.isfinite(scene.first_guess).all()


def test_a_missing_first_guess_is_never_the_truth(root):
    give_first_guesses(root)
    (root / "stage2/s2.npz").unlink()
    with pytest.raises(StorageError, match=r"s2\.npz: opt_v2: found no such file"):
        run(root, {"data.first_guess": "stage2"})
    assert sorted(path.name for path in root.parent.iterdir()) == ["pairs"]
    np.savez(root / "stage2/s2.npz", opt_v2=np.rint(images(2)[1] * 10_000))
    with pytest.raises(DataError, match="stage2/s2: opt_v2: found the optical image itself"):
        run(root, {"data.first_guess": "stage2"})


def test_a_first_guess_in_other_numbers_than_the_optical_files_is_named(root):
    give_first_guesses(root, lambda image: image / 10_000)
    with pytest.raises(DataError, match=r"stage2/s0: (reflectance: found .*reflectance already|pixels: found 0)"):
        run(root, {"data.first_guess": "stage2"})


def test_flags_are_kept_and_said(root, capsys):
    sar = images(3)[0]
    write_pair(root, "s3", 3, sar=np.roll(sar, 4, 1)[::-1].copy(), east=15_000)
    flags = run(root).table.set_index("name")["flags"]
    assert set(flags["s3"].split(",")) == {"shifted", "vh_above_vv"} and flags["s1"] == ""
    said = capsys.readouterr().out
    assert "warning, vh_above_vv: VH exceeds VV almost everywhere: the bands may be swapped: s3\n" in said


def test_dates_that_are_not_known_are_refused_or_flagged(root):
    write_pair(root, "s3", 3, east=15_000, sar_options={"tags": {}})
    with pytest.raises(DataError, match=r"s3_s1\.tif: date: found none"):
        run(root)
    flags = run(root, max_days=None).table.set_index("name")["flags"]
    assert flags["s3"] == "date_unknown" and flags["s1"] == ""


def test_an_offset_of_one_file_counts_more_than_the_params(root):
    _, path = write_pair(root, "s3", 3, optical=images(3)[1] + 0.1, east=15_000)
    with pytest.raises(DataError, match=r"s3_s2\.tif: reflectance: .* is forgotten"):
        run(root)
    declare(path, split="test", offset=-1000)
    np.testing.assert_allclose(run(root).read("s3").optical, images(3)[1], atol=6e-5)


def test_a_copy_in_two_roles_is_refused_and_leaves_nothing(root):
    write_pair(root, "s3", 0, east=15_000)
    with pytest.raises(DataError, match=r"s0 \(pretrain\) and s3 \(test\) have the same sar image"):
        run(root)
    write_pair(root, "s3", 3)
    with pytest.raises(DataError, match=r"s0 \(pretrain\) and s3 \(test\) show the same ground"):
        run(root)
    assert sorted(path.name for path in root.parent.iterdir()) == ["pairs"]


def test_tiles_without_a_place_that_overlap_are_refused(tmp_path):
    sar, optical = images(0, 60)
    for name, split, window in (("a", "train", np.s_[:, :40, :40]), ("b", "test", np.s_[:, 15:55, 10:50])):
        keys = ("s1_vv", "s1_vh", "s2_b2", "s2_b3", "s2_b4", "s2_b8")
        arrays = dict(zip(keys, [*sar[window], *np.rint(optical[window] * 10_000)], strict=True))
        write_tile(tmp_path / "tiles", name, arrays=arrays, sidecar={"split": split.replace("train", "ground")})
    with pytest.raises(DataError, match=r"scenes a \(ground\) and b \(test\), .* many pixels"):
        run(tmp_path / "tiles", max_days=None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiles"]


def test_all_scenes_that_are_wrong_are_named_at_once(root):
    for number in (1, 3):
        write_pair(root, f"s{number}", number, east=5000 * number, optical_options={"crs": "EPSG:32631"})
    with pytest.raises(DataError, match=r"s1_s1\.tif: crs: .*\n.*s3_s1\.tif: crs:"):
        run(root)


def test_a_dry_run_checks_and_writes_nothing(root, capsys):
    run(root, dry_run=True)
    assert not root.with_name("store").exists()
    assert "4 scenes: 1 pretrain, 1 ground, 1 validation, 1 test" in capsys.readouterr().out
    (root / "s0_s1.tif").unlink()
    with pytest.raises(DataError, match="of s0 alone"):
        run(root, dry_run=True)


def test_folders_without_scenes_or_with_both_formats_are_named(root, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="found 0 NPZ tiles and 0 GeoTIFF pairs"):
        run(tmp_path / "empty")
    with pytest.raises(StorageError, match="no such folder; correct `root`"):
        run(tmp_path / "none")
    write_tile(root, "t")
    with pytest.raises(DataError, match="found 1 NPZ tiles and 4 GeoTIFF pairs"):
        run(root)


def test_a_scene_smaller_than_a_window_is_named(root):
    write_pair(root, "s3", 3, east=15_000, side=30)
    with pytest.raises(DataError, match=r"s3_s2\.tif: size: found 30 x 30 px, expected at least `tile_px` = 32"):
        run(root)


def test_tiles_of_the_document_with_their_splits_and_first_guesses(tmp_path):
    root = tmp_path / "tiles"
    for number, split in enumerate(["train", "train", "train", "val", "test"]):
        write_tile(root / split, f"tile_{number:03d}", number, sidecar={"split": split})
        (root / "stage2_outputs").mkdir(exist_ok=True)
        guess = np.rint(images(number)[1] * 9_000)
        np.savez(root / f"stage2_outputs/tile_{number:03d}.npz", opt_v2=guess)
    with pytest.raises(DataError, match=r"tile_000\.npz: date: found none .* declare sar_date in tile_000\.json"):
        run(root, {"data.first_guess": "stage2_outputs"})
    store = run(root, {"data.first_guess": "stage2_outputs"}, max_days=None)
    assert store.names("validation") == ["tile_003"] and store.names("test") == ["tile_004"]
    assert len(store.names("pretrain")) == 2 and len(store.names("ground")) == 1
    assert store.read("tile_004").crs == "" and store.facts["scenes"]["tile_004"]["degradation"] is None
