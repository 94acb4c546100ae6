"""Who imports whom, and whether dvc.yaml says so: a library file missing from `deps` makes `dvc repro` skip work."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for path in (ROOT / "src").rglob("*.py") if path.name != "__init__.py")
# Where scratch lies and who else watches change no result, so no stage runs again for them: not in dvc.yaml.
WITHOUT_EFFECT = {"checkpoint_root", "report_to"}
TEMPLATES = {
    "src/core/report/html_page.py": "src/core/templates/report.html",
    "src/population/report/model_card.py": "src/population/templates/model_card.md",
}
# Lines; a file over about 300 wants splitting (design.md).
LONGEST = 320


SPEC = importlib.util.spec_from_file_location("deps", ROOT / ".ci/deps.py")
deps = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(deps)


@dataclass(frozen=True)
class Pipeline:
    """One dvc.yaml with the params.yaml beside it."""

    name: str
    folder: Path

    @property
    def dvc(self) -> Path:
        return self.folder / "dvc.yaml"

    @property
    def params_file(self) -> Path:
        return self.folder / "params.yaml"

    @property
    def stages(self) -> dict:
        return load(self.dvc)["stages"]

    @property
    def params(self) -> dict:
        return load(self.params_file)

    @property
    def scripts(self) -> dict[str, Path]:
        return {stage: ROOT / f"src/{self.name}/{stage}.py" for stage in self.stages}

    def listed_params(self, stage: str) -> list[str]:
        """What dvc.yaml says the stage reads; beside the root, keys stand below the path of their file."""
        entries = self.stages[stage]["params"]
        if self.folder == ROOT:
            return entries
        (by_file,) = entries
        assert list(by_file) == [relative(self.params_file)]
        return by_file[relative(self.params_file)]


@cache
def load(path: Path) -> dict:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def package_of(path: Path) -> str:
    """core, or the pipeline that a file under src belongs to."""
    return path.relative_to(ROOT / "src").parts[0]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


PIPELINES = {"population": Pipeline("population", ROOT)}
PIPELINES |= {path.parent.name: Pipeline(path.parent.name, path.parent) for path in ROOT.glob("pipelines/*/dvc.yaml")}
SCRIPTS = {path for pipeline in PIPELINES.values() for path in pipeline.scripts.values()}
EVERY_STAGE = pytest.mark.parametrize(
    "pipeline, stage",
    [(pipeline, stage) for pipeline in PIPELINES.values() for stage in pipeline.stages],
    ids=lambda value: getattr(value, "name", value),
)


def leaves(values: object, prefix: str = "") -> set[str]:
    """Dotted names of all values below `values`."""
    if not isinstance(values, dict):
        return {prefix}
    return set().union(*(leaves(value, f"{prefix}.{key}".lstrip(".")) for key, value in values.items()))


def below(chain: str, params: dict) -> set[str]:
    """The leaves of `params` that the dotted `chain` reads; what follows a known key is no key (model_dump)."""
    values, known = params, []
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
    scripts = PIPELINES["population"].scripts
    assert ROOT / "src/population/models/inference.py" in deps.imports(scripts["evaluate"])
    assert ROOT / "src/core/stage/files.py" in deps.imports(ROOT / "src/core/data/tile_store.py")
    reached = deps.reached(scripts["evaluate"])
    assert ROOT / "src/core/data/quantisation.py" in reached
    assert ROOT / "src/population/report/templates/model_card.md" in reached


def test_the_reading_of_params_sees_sections_and_keys():
    scripts, params = PIPELINES["population"].scripts, PIPELINES["population"].params
    assert "threads" in chains(scripts["pca"]) and "split.use" in chains(scripts["split"])
    assert below("split.fold", params) == {"split.fold"}
    assert "model.tiny.patch_size" in below("model.model_dump", params)
    assert below("no_such_section", params) == set()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_go_one_way(path):
    package = package_of(path)
    for file in deps.imports(path):
        if package == "core":
            assert package_of(file) == "core", f"{relative(path)} imports {relative(file)}: core knows no pipeline"
        else:
            assert package_of(file) in ("core", package), f"{relative(path)} imports {relative(file)}"
        assert file not in SCRIPTS, f"{relative(path)} imports the stage script {relative(file)}"


def test_the_packages_of_core_import_in_one_direction():
    """A circle between two packages means that neither can be understood alone."""
    edges = {
        (path.parent.name, file.parent.name)
        for path in SOURCES
        if package_of(path) == "core"
        for file in deps.imports(path)
        if path.parent != file.parent
    }
    left = {name for edge in edges for name in edge}
    while free := {name for name in left if not any(a == name and b in left for a, b in edges)}:
        left -= free
    assert not left, f"packages of core in a circle: {sorted(edge for edge in edges if set(edge) <= left)}"


@EVERY_STAGE
def test_deps_are_the_imported_files(pipeline, stage):
    listed = [dep for dep in pipeline.stages[stage]["deps"] if dep.startswith("src/")]
    assert listed == deps.source_deps(pipeline.name, stage), "run make deps"


@EVERY_STAGE
def test_params_are_the_keys_that_are_read(pipeline, stage):
    params, keys = pipeline.params, pipeline.listed_params(stage)
    interpolated = set(re.findall(r"\$\{(.+?)\}", pipeline.stages[stage]["cmd"]))
    used = chains(pipeline.scripts[stage]) | interpolated
    read = set().union(*(below(chain, params) for chain in used)) - WITHOUT_EFFECT
    listed = set().union(*(below(key, params) for key in keys))
    assert listed == read
    assert all(key in leaves(params) or isinstance(params.get(key), dict) for key in keys)


@EVERY_STAGE
def test_every_path_of_the_command_is_a_dep_or_an_output(pipeline, stage):
    """An input that the command names and `deps` does not would change unnoticed."""
    about = pipeline.stages[stage]
    assert f"-m src.{pipeline.name}.{stage} " in about["cmd"]
    paths = set(re.findall(r"--\S+ (\S+)", about["cmd"]))
    if pipeline.folder != ROOT:
        assert about["wdir"] == "../.." and f"--params {relative(pipeline.params_file)} " in about["cmd"]
        paths.remove(relative(pipeline.params_file))  # whose keys are listed one by one
    outputs = {
        next(iter(out)) if isinstance(out, dict) else out
        for kind in ("outs", "metrics", "plots")
        for out in about.get(kind, [])
    }
    deps = set(about["deps"])
    for path in paths - outputs - deps:
        assert any(dep.startswith(f"{path}/") for dep in deps), f"{path} is neither a dep nor an output"
    assert outputs <= paths
    assert about["desc"]


@pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=PIPELINES)
def test_help_needs_neither_torch_nor_transformers(pipeline):
    # One process for all: what the first imports, the later ones find, so the first guilty stage is named.
    modules = [f"src.{pipeline.name}.{stage}" for stage in pipeline.stages]
    program = (
        "import contextlib, io, json, runpy, sys\n"
        "seen = {}\n"
        f"for module in {modules}:\n"
        "    sys.argv = [module, '--help']\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):\n"
        "        runpy.run_module(module, run_name='__main__')\n"
        "    heavy = [name for name in ('torch', 'transformers') if name in sys.modules]\n"
        "    seen[module] = [heavy, '--dry-run' in text.getvalue()]\n"
        "print(json.dumps(seen))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {module: [[], True] for module in modules}


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


@pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=PIPELINES)
def test_every_param_says_why(pipeline):
    lines = pipeline.params_file.read_text(encoding="utf-8").splitlines()
    bare = []
    for number, line in enumerate(lines):
        key = re.match(r"\s*(\w+):\s*[^\s#]", line)  # a key with a value; sections are named by what they hold
        if key and "#" not in line and not lines[number - 1].lstrip().startswith("#"):
            bare.append(f"{number + 1}: {line.strip()}")
    assert not bare, f"{pipeline.params_file}, no comment at\n" + "\n".join(bare)
