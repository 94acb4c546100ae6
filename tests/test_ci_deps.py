"""The writer of `deps`: what it adds, what it takes away, and that it touches nothing else."""

import importlib.util
import sys

import pytest

from tests.pipelines import ROOT

spec = importlib.util.spec_from_file_location("deps", ROOT / ".ci/deps.py")
deps = importlib.util.module_from_spec(spec)
spec.loader.exec_module(deps)

DVC_YAML = """\
# toy: a comment with - src/toy/none.py
stages:
  first:
    desc: "Reads: one file"
    cmd: >-
      python -m src.toy.first --root ${data.root}
      --out data/toy/first
    deps:
      - ${data.root}  # yours
      - src/toy/first.py
      - src/core/gone.py
    params: [seed, data]
    outs:
      - data/toy/first

  # what comes next
  second:
    deps:
      - data/toy/first
    cmd: python -m src.toy.second
    metrics:
      - metrics/toy.json:
          cache: false
"""
WRITTEN = DVC_YAML.replace("      - src/core/gone.py\n", "      - src/toy/part.py\n      - src/core/files.py\n")
WRITTEN = WRITTEN.replace(
    "      - data/toy/first\n    cmd", "      - data/toy/first\n      - src/toy/second.py\n    cmd"
)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """`toy(*options)` -> exit code of the writer on the pipeline `toy`; `toy.path` is its dvc.yaml."""
    files = {
        "src/toy/first.py": "from src.toy import part\n",
        "src/toy/part.py": "import json\n\ndef late():\n    from src.core.files import read\n",
        "src/toy/second.py": "",
        "src/core/files.py": "",
        "src/core/gone.py": "",
        "dvc.yaml": "stages: {}\n",
        "pipelines/toy/dvc.yaml": DVC_YAML,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(deps, "ROOT", tmp_path)
    deps.imports.cache_clear()

    def toy(*options):
        monkeypatch.setattr(sys, "argv", ["deps.py", *options])
        deps.imports.cache_clear()
        return deps.main()

    toy.path = tmp_path / "pipelines/toy/dvc.yaml"
    yield toy
    deps.imports.cache_clear()


def test_new_imports_come_old_ones_go_and_all_else_stays(toy):
    assert toy() == 0
    assert toy.path.read_text() == WRITTEN
    assert toy() == 0 and toy.path.read_text() == WRITTEN, "written twice the same"


def test_check_names_a_stale_file_and_writes_nothing(toy, capsys):
    assert toy("--check") == 1
    assert capsys.readouterr().out == "pipelines/toy/dvc.yaml: deps are stale: run make deps\n"
    assert toy.path.read_text() == DVC_YAML
    assert toy() == 0 and toy("--check") == 0
    (toy.path.parents[2] / "src/toy/second.py").write_text("import src.core.gone\n")
    assert toy("--check") == 1 and toy() == 0
    assert toy.path.read_text() == WRITTEN.replace(
        "src/toy/second.py\n", "src/toy/second.py\n      - src/core/gone.py\n"
    )


def test_a_template_beside_a_file_that_names_it_is_a_dep(toy):
    folder = toy.path.parents[2] / "src/core/templates"
    folder.mkdir()
    for name in ("page.html", "other.html"):
        (folder / name).write_text("")
    (folder.parent / "files.py").write_text('PAGE = "page.html"\n')
    toy()
    expected = "      - src/core/files.py\n      - src/core/templates/page.html\n"
    assert expected in toy.path.read_text() and "other" not in toy.path.read_text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    deps:\n      - data/toy/first\n", "", "toy: stage second: found no `deps:` in dvc.yaml"),
        ("import src", "from . import src", "second.py:1: found a relative import"),
    ],
)
def test_what_cannot_be_written_is_named(toy, old, new, message):
    (toy.path.parents[2] / "src/toy/second.py").write_text("import src".replace(old, new))
    toy.path.write_text(DVC_YAML.replace(old, new))
    with pytest.raises(SystemExit, match=message):
        toy()
