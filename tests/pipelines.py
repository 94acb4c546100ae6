"""Every pipeline of the repository: its dvc.yaml with the params.yaml beside it."""

import re
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]


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
        """Keys and sections that dvc.yaml says the stage reads; beside the root they stand below their file's path."""
        entries = self.stages[stage]["params"]
        if self.folder == ROOT:
            return entries
        (by_file,) = entries
        assert list(by_file) == [relative(self.params_file)]
        return by_file[relative(self.params_file)]

    def interpolated_params(self, stage: str) -> set[str]:
        """Keys whose values are part of the stage's command, which DVC compares too."""
        return set(re.findall(r"\$\{(.+?)\}", self.stages[stage]["cmd"]))


@cache
def load(path: Path) -> dict:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def values_of(pipeline: str, changes: dict | None = None) -> dict:
    """`values_of("species", {"split.squares": 3})`: the committed params.yaml with those keys changed, as nested dicts.

    Parsing takes 0.1 s, and hundreds of tests ask, so a file is parsed once.
    """
    values = deepcopy(PIPELINES[pipeline].params)
    for key, value in (changes or {}).items():
        *sections, name = key.split(".")
        target = values
        for section in sections:
            target = target[section]
        target[name] = value
    return values


PIPELINES = {"population": Pipeline("population", ROOT)}
PIPELINES |= {path.parent.name: Pipeline(path.parent.name, path.parent) for path in ROOT.glob("pipelines/*/dvc.yaml")}
