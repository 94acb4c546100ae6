"""Who imports whom, and whether dvc.yaml says so: a library file missing from `deps` makes `dvc repro` skip work."""

import ast
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for path in (ROOT / "src").rglob("*.py") if path.name != "__init__.py")
STAGES = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
PARAMS = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8"))
# Where scratch lies and who else watches change no result, so no stage runs again for them: not in dvc.yaml.
WITHOUT_EFFECT = {"checkpoint_root", "report_to"}
TEMPLATES = {
    "src/core/report.py": "src/core/templates/report.html",
    "src/population/card.py": "src/population/templates/model_card.md",
}
SCRIPTS = {name: ROOT / f"src/population/{name}.py" for name in STAGES}
# Lines; a file over about 300 wants splitting (design.md).
LONGEST = 320


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def imports(path: Path) -> frozenset[Path]:
    """The files under src that `path` itself imports, at the top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}:{node.lineno}: relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    files = {ROOT / (name.replace(".", "/") + ".py") for name in names if name.startswith("src.")}
    return frozenset(file for file in files if file.is_file())


def reached(path: Path) -> set[Path]:
    """`path` and every file under src that importing and running it can load."""
    found, open_ = set(), {path}
    while open_:
        found |= open_
        open_ = set().union(*(imports(file) for file in open_)) - found
    return found


def leaves(values: object, prefix: str = "") -> set[str]:
    """Dotted names of all values below `values`."""
    if not isinstance(values, dict):
        return {prefix}
    return set().union(*(leaves(value, f"{prefix}.{key}".lstrip(".")) for key, value in values.items()))


def below(chain: str) -> set[str]:
    """The leaves of params.yaml that the dotted `chain` reads; what follows a known key is no key (model_dump)."""
    values, known = PARAMS, []
    for part in chain.split("."):
        if not isinstance(values, dict) or part not in values:
            break
        values = values[part]
        known.append(part)
    return leaves(values, ".".join(known)) if known else set()


def chains(path: Path) -> set[str]:
    """Every `params.a.b` of a script at its full length, without the `params.`; `a` alone stands for all of a."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    inner = {id(node.value) for node in attributes}
    texts = [ast.unparse(node) for node in attributes if id(node) not in inner]
    return {text.removeprefix("params.") for text in texts if text.startswith("params.")}


def test_the_reading_of_imports_sees_lazy_ones_and_submodules():
    assert ROOT / "src/population/inference.py" in imports(SCRIPTS["evaluate"])
    assert ROOT / "src/core/files.py" in imports(ROOT / "src/core/store.py")
    assert ROOT / "src/core/sensors.py" in reached(SCRIPTS["split"])


def test_the_reading_of_params_sees_sections_and_keys():
    assert "threads" in chains(SCRIPTS["pca"]) and "split.use" in chains(SCRIPTS["split"])
    assert below("split.fold") == {"split.fold"} and "model.tiny.patch_size" in below("model.model_dump")
    assert below("no_such_section") == set()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_go_one_way(path):
    package = path.parent.name
    for file in imports(path):
        if package == "core":
            assert file.parent.name == "core", f"{relative(path)} imports {relative(file)}: core knows no pipeline"
        else:
            assert file.parent.name in ("core", package), f"{relative(path)} imports {relative(file)}"
        assert file not in SCRIPTS.values(), f"{relative(path)} imports the stage script {relative(file)}"


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_the_imported_files(stage):
    listed = [dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")]
    needed = {relative(file) for file in reached(SCRIPTS[stage])}
    needed |= {template for file, template in TEMPLATES.items() if file in needed}
    assert sorted(listed) == sorted(needed)


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_the_keys_that_are_read(stage):
    interpolated = set(re.findall(r"\$\{(.+?)\}", STAGES[stage]["cmd"]))
    read = set().union(*map(below, chains(SCRIPTS[stage]) | interpolated)) - WITHOUT_EFFECT
    listed = set().union(*(below(key) for key in STAGES[stage]["params"]))
    assert listed == read
    assert all(key in leaves(PARAMS) or isinstance(PARAMS.get(key), dict) for key in STAGES[stage]["params"])


@pytest.mark.parametrize("stage", STAGES)
def test_every_path_of_the_command_is_a_dep_or_an_output(stage):
    """An input that the command names and `deps` does not would change unnoticed."""
    command = STAGES[stage]["cmd"]
    assert f"-m src.population.{stage} " in command
    paths = set(re.findall(r"--\S+ (\S+)", command))
    outputs = {
        next(iter(out)) if isinstance(out, dict) else out
        for kind in ("outs", "metrics", "plots")
        for out in STAGES[stage].get(kind, [])
    }
    deps = set(STAGES[stage]["deps"])
    for path in paths - outputs - deps:
        assert any(dep.startswith(f"{path}/") for dep in deps), f"{path} is neither a dep nor an output"
    assert outputs <= paths
    assert STAGES[stage]["desc"]


def test_help_needs_neither_torch_nor_transformers():
    stages = ["preprocess", "split", "pca", "pretrain", "sft", "prefs", "dpo", "evaluate"]
    # One process for all: what the first imports, the later ones find, so the first guilty stage is named.
    program = (
        "import contextlib, io, json, runpy, sys\n"
        "seen = {}\n"
        f"for stage in {stages}:\n"
        "    sys.argv = [stage, '--help']\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):\n"
        "        runpy.run_module('src.population.' + stage, run_name='__main__')\n"
        "    heavy = [name for name in ('torch', 'transformers') if name in sys.modules]\n"
        "    seen[stage] = [heavy, '--dry-run' in text.getvalue()]\n"
        "print(json.dumps(seen))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {stage: [[], True] for stage in stages}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_file_is_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < LONGEST


def test_no_file_names_a_registry():
    """Packages come through whatever index the user's client is set to."""
    hosts = re.compile(
        "|".join(rf"{name}\.{end}" for name, end in (
            ("pypi", "org"), ("pythonhosted", "org"), ("download.pytorch", "org"), ("anaconda", "org"),
            ("huggingface", "co"), ("hf", "co"), ("npmjs", "org"),
        ))
    )  # fmt: skip
    folders = ["src", "tests", "bench", "data/sample", "experiments", "pipelines", ".ci", ".github"]
    found = [path for folder in folders for path in (ROOT / folder).rglob("*")] + list(ROOT.iterdir())
    texts = {".py", ".yaml", ".yml", ".txt", ".toml", ".json", ".sh", ".cfg", ".html", ""}
    checked = [path for path in found if path.suffix in texts and path.is_file()]
    assert len(checked) > 50
    for path in checked:
        hit = hosts.search(path.read_bytes().decode("utf-8", errors="replace"))
        assert not hit, f"{relative(path)} names {hit.group()}"


def test_every_param_says_why():
    lines = (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()
    bare = []
    for number, line in enumerate(lines):
        key = re.match(r"\s*(\w+):\s*[^\s#]", line)  # a key with a value; sections are named by what they hold
        if key and "#" not in line and not lines[number - 1].lstrip().startswith("#"):
            bare.append(f"{number + 1}: {line.strip()}")
    assert not bare, "params.yaml, no comment at\n" + "\n".join(bare)
