"""Keys of params.yaml that a stage reads, seen while it runs, against those that dvc.yaml lists.

A key that is read and not declared changes a result that `dvc repro` then keeps. The end-to-end runs of tests/smoke
record what each stage reads; a search for `params.x` in a script would miss what other functions do with a section.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import getattr_static
from types import ModuleType

import pytest
from pydantic import BaseModel

from tests.pipelines import PIPELINES

# Where scratch lies and who else watches change no result, so no stage runs again for them: not in dvc.yaml.
WITHOUT_EFFECT = {"checkpoint_root", "report_to"}


class Recorded:
    """A section of validated params that notes in `read` the dotted key of each value that is taken from it.

    Methods of the section run on this object, so what they read is noted too; a section that is dumped is read whole.
    """

    def __init__(self, section: BaseModel, read: set[str], prefix: str = ""):
        self._section, self._read, self._prefix = section, read, prefix

    def __getattr__(self, name: str):
        if name.startswith("_"):  # copy and pickle ask for methods before there is a section
            raise AttributeError(name)
        kind = type(self._section)
        if name not in kind.model_fields:
            return getattr_static(kind, name).__get__(self, kind)
        value, key = getattr(self._section, name), self._prefix + name
        if isinstance(value, BaseModel):
            return Recorded(value, self._read, f"{key}.")
        self._read.add(key)
        return value

    def model_dump(self, **options) -> dict:
        """The section as a dict, as pydantic gives it; every key in it has been read."""
        values = self._section.model_dump(**options)
        self._read |= leaves(values, self._prefix)
        return values


@contextmanager
def recording(*stages: ModuleType) -> Iterator[dict[str, set[str]]]:
    """Stage name -> keys that its `main` has read, filled by every call while this is open."""
    read = {stage.__name__.rpartition(".")[2]: set() for stage in stages}
    with pytest.MonkeyPatch.context() as patch:
        for stage, keys in zip(stages, read.values(), strict=True):
            patch.setattr(stage, "main", _recorded_main(stage.main, keys))
        yield read


def _recorded_main(main, keys: set[str]):
    return lambda params, *arguments, **options: main(Recorded(params, keys), *arguments, **options)


def leaves(values: dict, prefix: str = "") -> set[str]:
    """Dotted keys of all values below `values`."""
    found = set()
    for key, value in values.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return found


def assert_declared(pipeline: str, read: dict[str, set[str]], other_runs: dict[str, set[str]]) -> None:
    """Fails where a stage read a key that its dvc.yaml does not declare, or declares one that it did not read.

    `other_runs` names, per stage, the keys that it declares and a small run does not read, each with its reason.
    """
    about = PIPELINES[pipeline]
    assert read.keys() == about.stages.keys(), "every stage has to run"
    everything, wrong = leaves(about.params), []
    for stage, keys in read.items():
        listed, in_command = set(about.listed_params(stage)), about.interpolated_params(stage)
        known = listed | in_command | WITHOUT_EFFECT
        seen = keys | in_command | other_runs.get(stage, set())
        below = {key for key in everything if within(key, listed)}
        wrong += [f"{stage} reads {key}, which it does not declare" for key in sorted(keys) if not within(key, known)]
        wrong += [f"{stage} declares {key} and does not read it" for key in sorted(below) if not within(key, seen)]
        empty = [key for key in sorted(listed) if not any(within(leaf, {key}) for leaf in below)]
        wrong += [f"{stage} declares {key}, which params.yaml lacks" for key in empty]
    assert not wrong, f"{about.dvc}:\n" + "\n".join(wrong)


def within(key: str, names: set[str]) -> bool:
    """Test for `key`, or a section above it, among `names`."""
    return any(key == name or key.startswith(f"{name}.") for name in names)
