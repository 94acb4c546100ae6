"""Outputs of a stage are either complete or absent."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from src.core.stage.errors import DataError, StorageError
from src.core.stage.files import (
    complete_file,
    complete_folder,
    read_arrays,
    read_json,
    read_table,
    sha256,
    tree_sha256,
    write_json,
)

ROOT = Path(__file__).parents[3]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_whole_and_replaces_the_old_one(tmp_path):
    out = tmp_path / "deep" / "out"
    for number in (1, 2):
        with complete_folder(out) as aside:
            (aside / f"{number}.txt").write_text("x")
            assert not (out / f"{number}.txt").exists()
    assert names(out) == ["2.txt"] and names(out.parent) == ["out"]


@pytest.mark.parametrize("error", [RuntimeError("crash"), KeyboardInterrupt()], ids=str)
def test_a_crash_leaves_nothing_and_keeps_the_old_folder(tmp_path, error):
    out = tmp_path / "out"
    with pytest.raises(type(error)), complete_folder(out) as aside:
        (aside / "half").write_text("x")
        raise error
    assert names(tmp_path) == []
    with complete_folder(out) as aside:
        (aside / "old").write_text("old")
    with pytest.raises(type(error)), complete_folder(out) as aside:
        (aside / "half").write_text("x")
        raise error
    assert names(tmp_path) == ["out"] and (out / "old").read_text() == "old"


def test_a_crash_leaves_no_file_and_keeps_the_old_one(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"r2": 1})
    with pytest.raises(RuntimeError), complete_file(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert names(tmp_path) == ["metrics.json"] and read_json(path) == {"r2": 1}


def test_the_file_aside_keeps_its_suffix(tmp_path):
    with complete_file(tmp_path / "figure.png") as aside:
        assert aside.suffix == ".png" and aside.parent == tmp_path
        aside.write_bytes(b"x")
    assert names(tmp_path) == ["figure.png"]


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "out").write_text("mine")
    for path in (tmp_path / "out", tmp_path / "out" / "below"):
        reached = []
        with pytest.raises(StorageError, match="out") as caught, complete_folder(path):
            reached.append(path)
        assert not reached, "refused before any work is done"
        assert caught.value.exit_code == 74
    with pytest.raises(StorageError, match="out"), complete_file(tmp_path / "out" / "metrics.json") as aside:
        aside.write_text("x")
    assert names(tmp_path) == ["out"] and (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("what", ["folder", "json"])
def test_a_full_disk_leaves_nothing(tmp_path, what):
    """RLIMIT_FSIZE stands for the full disk: as root no mode makes a folder unwritable."""
    body = {
        "folder": "with files.complete_folder(out) as aside:\n    (aside / 'big').write_bytes(bytes(100_000))",
        "json": "files.write_json(out, list(range(100_000)))",
    }[what]
    program = (
        "import resource, sys\nfrom pathlib import Path\nfrom src.core.stage import files\n"
        "from src.core.stage.errors import StorageError\n"
        f"out = Path({str(tmp_path / 'out')!r})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        f"try:\n    {body.replace(chr(10), chr(10) + '    ')}\n"
        "except StorageError as error:\n    print(error)\n    sys.exit(error.exit_code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 74, done.stderr
    assert "out: cannot write" in done.stdout and "too large" in done.stdout and "free some space" in done.stdout
    assert names(tmp_path) == []


def test_json_refuses_nan_and_keeps_text(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"r2": float("nan")})
    assert names(tmp_path) == []
    write_json(path, {"b": "北京", "a": 1})
    assert path.read_text(encoding="utf-8") == '{\n  "b": "北京",\n  "a": 1\n}\n'


def test_reading_json_names_the_file(tmp_path):
    with pytest.raises(StorageError, match=r"gone\.json: cannot read"):
        read_json(tmp_path / "gone.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match=r"bad\.json: found something that is not JSON"):
        read_json(tmp_path / "bad.json")
    (tmp_path / "latin.json").write_bytes(b'"\xff"')
    with pytest.raises(DataError, match=r"latin\.json"):
        read_json(tmp_path / "latin.json")
    (tmp_path / "good.json").write_text(json.dumps([1]))
    assert read_json(tmp_path / "good.json") == [1]


def test_hashes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_tree_hash_follows_names_and_contents_and_not_where_the_tree_lies(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder / "deep").mkdir(parents=True)
        (tmp_path / folder / "deep" / "b").write_text("b")
        (tmp_path / folder / "a").write_text("a")
    one, two = tmp_path / "one", tmp_path / "two"
    before = tree_sha256([one])
    assert before == tree_sha256([two])
    (two / "deep" / "b").write_text("c")
    assert before != tree_sha256([two])
    (two / "deep" / "b").write_text("b")
    (two / "deep" / "b").rename(two / "deep" / "c")
    assert before != tree_sha256([two])
    assert tree_sha256([one / "a"]) != tree_sha256([one / "deep" / "b"])


@pytest.mark.parametrize(("read", "kind"), [(read_table, "Parquet"), (read_arrays, "safetensors")])
def test_a_damaged_or_absent_table_is_named(tmp_path, read, kind):
    (tmp_path / "a").write_bytes(b"half of it")
    with pytest.raises(DataError, match=rf"a: found something that is not {kind}"):
        read(tmp_path / "a")
    with pytest.raises(StorageError, match=r"b: cannot read: No such file"):
        read(tmp_path / "b")
