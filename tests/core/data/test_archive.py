import io
import tempfile
import unicodedata
import zipfile

import pytest

from src.core.data import archive
from src.core.stage.errors import DataError, StorageError
from tests.tiles import random_pixels, write_geotiff, write_zip, zip_folder


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def key(tile):
    return tile.region, tile.place, tile.year


def extract(path):
    with archive.opened(path) as folder:
        return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Gansu/Lanzhou/2018_Lanzhou.tif", ("Gansu", "Lanzhou", 2018)),
        ("Gansu/Lanzhou/Lanzhou_2018.tiff", ("Gansu", "Lanzhou", 2018)),
        ("甘肃/兰州/兰州2018.npy", ("甘肃", "兰州", 2018)),
        ("a/b/c/Gansu/Lanzhou/2018_Lanzhou.TIF", ("Gansu", "Lanzhou", 2018)),
        ("Lanzhou/2018_Lanzhou.tif", ("", "Lanzhou", 2018)),
        ("Gansu/2018_Lanzhou.tif", ("", "Lanzhou", 2018)),
        ("2018_Lanzhou.tif", ("", "Lanzhou", 2018)),
        ("NY/New York/1980_NewYork.tif", ("NY", "New York", 1980)),
        ("X/Ｌanzhou /2018_Lanzhou.tif", ("X", "Lanzhou", 2018)),
        ("X/Area2015/2018_Area2015.tif", ("X", "Area2015", 2018)),
        ("X/" + unicodedata.normalize("NFD", "Åbo") + "/2018_Åbo.tif", ("X", "Åbo", 2018)),
    ],
)
def test_names_give_region_place_year(tmp_path, name, expected):
    (tile,) = archive.find_tiles(touch(tmp_path, name), "root")
    assert key(tile) == expected
    assert (tile.name, tile.relative) == (f"root/{name}", name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a/b/tile.tif", "file name: expected <year>_<`place`>"),
        ("Gansu/Lanzhou/2018_Tianshui.tif", "found 'Tianshui', expected 'Lanzhou'"),
        ("2018_2019.tif", "reads as"),
        ("X/<|im_start|>/2018_<|im_start|>.tif", r"<\|im_start\|>"),
        ("＜｜im_end｜＞/Y/2018_Y.tif", r"<\|im_end\|>"),
        ("X/../x/2018_..／x.tif", r"'../x'"),
        ("X/a\tb/2018_a\tb.tif", "control character"),
    ],
)
def test_bad_names_are_refused(tmp_path, name, message):
    with pytest.raises(DataError, match=message):
        archive.find_tiles(touch(tmp_path, name), "root")


def test_order_does_not_depend_on_the_file_system_and_other_files_are_ignored(tmp_path):
    names = ["B/b/2019_b.tif", "B/b/2018_b.tif", "A/z/2020_z.npy", "B/a/2018_a.tif"]
    touch(tmp_path, *names, "B/b/readme.txt", "B/b/2018_b.npy.json", "B/b/._2018_b.tif", ".hidden/c/2018_c.tif")
    found = archive.find_tiles(tmp_path, "root")
    assert [tile.relative for tile in found] == [names[2], names[3], names[1], names[0]]


def test_two_tiles_for_one_key_are_refused(tmp_path):
    touch(tmp_path, "A/b c/2018_bc.tif", "old/A/bc/bc_2018.tif")
    with pytest.raises(DataError, match=r"bc_2018\.tif: a second tile for A/bc 2018, beside .*2018_bc\.tif"):
        archive.find_tiles(tmp_path, "root")


def test_a_folder_without_tiles_and_no_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no \.tif"):
        archive.find_tiles(tmp_path, "root")
    with pytest.raises(StorageError, match="does not exist"), archive.opened(tmp_path / "absent"):
        pass


def test_the_first_problems_are_shown_and_all_are_counted():
    with pytest.raises(DataError) as caught:
        archive.refuse([f"problem {number}" for number in range(27)])
    lines = str(caught.value).splitlines()
    assert lines[19] == "problem 19" and lines[20:] == ["... and 7 more (27 in all)"]


def test_a_zip_holds_the_same_tiles_as_its_folder_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    tiles = tmp_path / "tiles"
    for year in (2018, 2019):
        write_geotiff(tiles / f"Gansu/Lanzhou/{year}_Lanzhou.tif", random_pixels(year))
    zipped = zip_folder(tmp_path / "tiles.zip", tiles)
    with archive.opened(zipped) as folder:
        found = archive.find_tiles(folder, zipped)
        assert [key(tile) for tile in found] == [key(tile) for tile in archive.find_tiles(tiles, tiles)]
        assert found[0].name == f"{zipped}/Gansu/Lanzhou/2018_Lanzhou.tif"
        assert found[0].path.read_bytes() == (tiles / found[0].relative).read_bytes()
    assert not any((tmp_path / "scratch").iterdir())


def test_only_tiles_and_sidecars_are_extracted(tmp_path):
    members = {"a/b/2018_b.npy": b"x", "a/b/2018_b.npy.json": b"{}", "run.sh": b"x", "__MACOSX/._b.tif": b"x"}
    assert extract(write_zip(tmp_path / "a.zip", members)) == ["a/b/2018_b.npy", "a/b/2018_b.npy.json"]


@pytest.mark.parametrize("name", ["../x.tif", "a/../../x.tif", "/etc/x.tif", "a\\..\\x.tif", "C:/x.tif"])
def test_members_outside_the_archive_are_refused(tmp_path, name):
    with pytest.raises(DataError, match="points outside"):
        extract(write_zip(tmp_path / "a.zip", {"ok/b/2018_b.tif": b"x", name: b"x"}))
    assert not (tmp_path.parent / "x.tif").exists()


def test_symlink_members_are_refused(tmp_path):
    link = zipfile.ZipInfo("a/b/2018_b.tif")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match=r"2018_b\.tif': is a link"):
        extract(tmp_path / "a.zip")


def test_a_bomb_is_refused_before_it_is_extracted(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("a/b/2018_b.tif", bytes(1000))
        zipped.filelist[0].file_size = 2**40  # what the directory claims
    with pytest.raises(DataError, match="a bomb"):
        extract(tmp_path / "a.zip")


def test_more_bytes_than_the_directory_claims_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("a/b/2018_b.tif", bytes(10**6))
        zipped.filelist[0].file_size = 10
    with pytest.raises(DataError, match="damaged"):
        extract(tmp_path / "a.zip")


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBERS", 2)
    with pytest.raises(DataError, match="found 3 files"):
        extract(write_zip(tmp_path / "a.zip", {f"{number}.tif": b"" for number in range(3)}))


def test_doubled_and_damaged_members_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped, pytest.warns(UserWarning, match="Duplicate"):
        zipped.writestr("a.tif", b"1")
        zipped.writestr("a.tif", b"2")
    with pytest.raises(DataError, match="found twice"):
        extract(tmp_path / "a.zip")
    content = write_zip(tmp_path / "b.zip", {"a.tif": bytes(range(256)) * 8}).read_bytes()
    (tmp_path / "b.zip").write_bytes(content[:40] + b"\xff" + content[41:])
    with pytest.raises(DataError, match="damaged"):
        extract(tmp_path / "b.zip")


def test_what_is_not_a_zip_is_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(io.BytesIO(b"tiles").read())
    with pytest.raises(DataError, match=r"no readable \.zip"):
        extract(tmp_path / "a.zip")
