"""Write the `deps` of every dvc.yaml that are source files, from the imports of its stage scripts.

    python .ci/deps.py            (or: make deps)
    python .ci/deps.py --check    exits 1 and names the stages whose list is stale

DVC does not look at imports: a source file that is missing in `deps` makes `dvc repro` skip work.
"""

import argparse
import ast
import re
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = re.compile(r"\n {6}- src/.*")
DEPS = re.compile(r"(?:\A|\n)    deps:(?:\n {6}.*)*")  # the key with all its entries
STAGE = re.compile(r"^  (\w+):\n((?:    .*\n|\n)+)", re.MULTILINE)


def main() -> int:
    """Exit code: 0 if every list was up to date or has been written, 1 if `--check` found a stale one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, say what is stale")
    check = parser.parse_args().check
    stale = []
    for path in dvc_files():
        text = path.read_text(encoding="utf-8")
        wanted = STAGE.sub(lambda stage, path=path: with_deps(stage, pipeline_of(path)), text)
        if wanted != text:
            stale.append(path.relative_to(ROOT).as_posix())
            if not check:
                path.write_text(wanted, encoding="utf-8")
    if stale:
        print("\n".join(f"{path}: deps {'are stale: run make deps' if check else 'written'}" for path in stale))
    return int(check and bool(stale))


def dvc_files() -> list[Path]:
    """The dvc.yaml of the root and of every other pipeline."""
    return [ROOT / "dvc.yaml", *sorted(ROOT.glob("pipelines/*/dvc.yaml"))]


def pipeline_of(dvc_file: Path) -> str:
    """The flagship's dvc.yaml lies at the root, that of every other pipeline in a folder of its name."""
    return "population" if dvc_file.parent == ROOT else dvc_file.parent.name


def with_deps(stage: re.Match, pipeline: str) -> str:
    """The text of a stage of dvc.yaml with the source files it reaches, in place of those that it lists."""
    name, body = stage[1], stage[2]
    lines = "".join(f"\n      - {path}" for path in source_deps(pipeline, name))
    if listed := SOURCE.search(body):
        start = listed.start()
    elif deps := DEPS.search(body):  # a new stage: behind its data
        start = deps.end()
    else:
        raise SystemExit(f"{pipeline}: stage {name}: found no `deps:` in dvc.yaml; add the key, with its data if any")
    return f"  {name}:\n{body[:start]}{lines}{SOURCE.sub('', body[start:])}"


def source_deps(pipeline: str, stage: str) -> list[str]:
    """The stage script, then the files of its pipeline, then those of core; each group sorted."""
    script = ROOT / f"src/{pipeline}/{stage}.py"
    rest = sorted(path.relative_to(ROOT).as_posix() for path in reached(script) - {script})
    own = [path for path in rest if path.startswith(f"src/{pipeline}/")]
    return [script.relative_to(ROOT).as_posix(), *own, *(path for path in rest if path not in own)]


def reached(path: Path) -> set[Path]:
    """`path` and every file under src that importing and running it can load, the templates that it names included."""
    found, waiting = set(), {path}
    while waiting:
        found |= waiting
        waiting = set().union(*(imports(file) | templates(file) for file in waiting)) - found
    return found


@cache
def imports(path: Path) -> frozenset[Path]:
    """The files under src that `path` itself imports, at the top or inside a function."""
    if path.suffix != ".py":
        return frozenset()
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise SystemExit(f"{path}:{node.lineno}: found a relative import, expected `from src.… import …`")
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    files = {ROOT / (name.replace(".", "/") + ".py") for name in names if name.startswith("src.")}
    return frozenset(file for file in files if file.is_file())


def templates(path: Path) -> set[Path]:
    """The files in the folder `templates` beside `path` whose names its code holds."""
    beside = [file for file in path.parent.glob("templates/*") if file.is_file()] if path.suffix == ".py" else []
    code = path.read_text(encoding="utf-8") if beside else ""
    return {file for file in beside if f'"{file.name}"' in code}


if __name__ == "__main__":
    sys.exit(main())
