"""Rules of the sources: who may import whom, dvc.yaml in step with imports, sizes, and the wording of docstrings.

A library file missing from `deps` makes `dvc repro` skip work. Which params a stage reads is seen while it runs, in
tests/smoke.
"""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.pipelines import PIPELINES, ROOT, relative
from tests.read_params import Keys, Recorded, assert_declared, leaves, within

SOURCES = sorted(path for path in (ROOT / "src").rglob("*.py") if path.name != "__init__.py")
SCRIPTS = {path for pipeline in PIPELINES.values() for path in pipeline.scripts.values()}
SPEC = importlib.util.spec_from_file_location("deps", ROOT / ".ci/deps.py")
deps = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(deps)

EVERY_STAGE = pytest.mark.parametrize(
    "pipeline, stage",
    [(pipeline, stage) for pipeline in PIPELINES.values() for stage in pipeline.stages],
    ids=lambda value: getattr(value, "name", value),
)


def package_of(path: Path) -> str:
    """core, or the pipeline that a file under src belongs to."""
    return path.relative_to(ROOT / "src").parts[0]


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_the_reading_of_imports_sees_lazy_ones_and_submodules():
    scripts = PIPELINES["population"].scripts
    assert ROOT / "src/population/models/inference.py" in deps.imports(scripts["evaluate"])
    assert ROOT / "src/core/stage/files.py" in deps.imports(ROOT / "src/core/data/tile_store.py")
    reached = deps.reached(scripts["evaluate"])
    assert ROOT / "src/core/data/quantisation.py" in reached
    assert ROOT / "src/population/report/templates/model_card.md" in reached


def test_the_reading_of_params_sees_methods_sections_and_keys(make_params):
    read, dumped = keys = Keys(set(), set())
    params = Recorded(make_params(), keys)
    assert params.seed == 0 and params.model.tiny.patch_size == 2 and read == {"seed", "model.tiny.patch_size"}
    assert not params.memory.checkpoints_gradients(params.model.backbone)
    assert read == {"seed", "model.tiny.patch_size", "memory.gradient_checkpointing", "model.backbone"}
    with pytest.raises(AttributeError):
        params.no_such_key  # noqa: B018
    assert within("sft.lora.rank", {"sft"}) and not within("sft", {"sft.lora"}) and not within("sftx", {"sft"})
    assert leaves(PIPELINES["population"].params) == leaves(make_params().model_dump())
    read.clear()
    assert params.sft.lora.model_dump(exclude={"rank"}) == make_params().sft.lora.model_dump(exclude={"rank"})
    assert within("sft.lora.alpha", dumped) and not within("sft.lora.rank", dumped)
    assert params.model_dump(include={"seed", "dpo"})["seed"] == 0 and {"seed", "dpo.lr"} <= dumped and not read
    assert params.memory.model_dump(include={"four_bit"}) == {"four_bit": False} and read == {"memory.four_bit"}


def test_a_key_that_is_read_or_declared_alone_is_named():
    about = PIPELINES["species"]
    listed = {stage: set(about.listed_params(stage)) for stage in about.stages}
    seen = {
        stage: Keys({key for key in leaves(about.params) if within(key, keys)}, set()) for stage, keys in listed.items()
    }
    assert_declared("species", seen, {})
    assert_declared("species", seen | {"ingest": Keys({"checkpoint_root"}, set())}, {"ingest": {"data"}})
    read, dumped = seen["ingest"]
    for changed in (Keys(read | {"seed"}, dumped), Keys(read, {"seed"})):
        with pytest.raises(AssertionError, match="ingest reads seed, which it does not declare"):
            assert_declared("species", seen | {"ingest": changed}, {})
    unread = {"train.dropout.vision"}
    with pytest.raises(AssertionError, match=r"train declares train\.dropout\.vision and does not read it"):
        assert_declared("species", seen | {"train": Keys(seen["train"].read - unread, unread)}, {})


def test_imports_go_one_way():
    wrong = []
    for path in SOURCES:
        package = package_of(path)
        for file in deps.imports(path):
            line = f"{relative(path)} imports {relative(file)}"
            if package_of(file) not in ("core", package):
                wrong.append(f"{line}: core knows no pipeline, and pipelines meet only as files")
            elif file in SCRIPTS:
                wrong.append(f"{line}: a stage script, which nobody imports")
    assert not wrong, "\n".join(wrong)


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


def test_help_needs_neither_torch_nor_transformers():
    # One process for all: what the first imports, the later ones find, so the first guilty stage is named.
    modules = [f"src.{pipeline.name}.{stage}" for pipeline in PIPELINES.values() for stage in pipeline.stages]
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


def test_no_file_and_no_function_is_long():
    long_files, long_functions = set(), set()
    for path in SOURCES:
        if len(path.read_text(encoding="utf-8").splitlines()) > 300:
            long_files.add(relative(path))
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60:
                long_functions.add(f"{relative(path)}: {node.name}")
    assert not long_files | long_functions, "over 300 or 60 lines"


def test_no_folder_is_crowded():
    modules = Counter(relative(path.parent) for path in SOURCES if path not in SCRIPTS)
    assert not [f"{folder}: {count} modules" for folder, count in modules.items() if count > 15]


def test_names_of_modules_differ_within_a_pipeline():
    """Beside a stage script of the same name too: `score` here and `score` there sends a reader to the wrong one."""
    names = Counter((package_of(path), path.stem) for path in SOURCES)
    assert not [name for name, count in names.items() if count > 1]


def test_docstrings_begin_with_a_verb_or_a_noun():
    places = [ROOT / folder for folder in ("src", "tests", "bench", ".ci")]
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    question = re.compile(r"(What|Whether|How|Which|Where|When|Why|Who)\b")
    wrong = [
        f"{relative(path)}: {(ast.get_docstring(node) or '').splitlines()[0]}"
        for place in places
        for path in sorted(place.rglob("*.py"))
        for node in ast.walk(parsed(path))
        if isinstance(node, kinds) and question.match(ast.get_docstring(node) or "")
    ]
    assert not wrong, "\n".join(wrong)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 170


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
