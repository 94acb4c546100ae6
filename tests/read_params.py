"""Keys of params.yaml that a stage reads, seen while it runs, against those that dvc.yaml lists.

A key that is read and not declared changes a result that `dvc repro` then keeps. The end-to-end runs of tests/smoke
record what each stage reads; a search for `params.x` in a script would miss what other functions do with a section.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import getattr_static
from types import ModuleType
from typing import NamedTuple

import pytest
from pydantic import BaseModel

from tests.pipelines import PIPELINES

# Where scratch lies and who else watches change no result, so no stage runs again for them: not in dvc.yaml.
WITHOUT_EFFECT = {"checkpoint_root", "report_to"}


class Keys(NamedTuple):
    """Dotted keys of params.yaml that a stage has `read` one by one, and those `dumped` with a section or all of it.

    A dump names a checkpoint folder or stands in an output beside the result; that alone is no use of a key.
    """

    read: set[str]
    dumped: set[str]


class Recorded:
    """A section of validated params that notes in `keys` the values that are taken from it.

    Methods of the section run on this object, so what they read is noted too. Values that `include` names in the dump
    of a section have been read.
    """

    def __init__(self, section: BaseModel, keys: Keys, prefix: str = ""):
        self._section, self._keys, self._prefix = section, keys, prefix

    def __getattr__(self, name: str):
        if name.startswith("_"):  # copy and pickle ask for methods before there is a section
            raise AttributeError(name)
        kind = type(self._section)
        if name not in kind.model_fields:
            return getattr_static(kind, name).__get__(self, kind)
        value, key = getattr(self._section, name), self._prefix + name
        if isinstance(value, BaseModel):
            return Recorded(value, self._keys, f"{key}.")
        self._keys.read.add(key)
        return value

    def __iter__(self) -> Iterator[tuple[str, object]]:
        """Names and values, as pydantic gives them; all of them have been read."""
        return ((name, getattr(self, name)) for name in type(self._section).model_fields)

    def model_dump(self, include: set[str] | None = None, **options) -> dict:
        """The section as a dict, as pydantic gives it."""
        values = self._section.model_dump(include=include, **options)
        named = {name for name in include or () if not isinstance(getattr(self._section, name), BaseModel)}
        self._keys.read.update(self._prefix + name for name in named if self._prefix)
        self._keys.dumped.update(leaves(values, self._prefix))
        return values


@contextmanager
def recording(*stages: ModuleType) -> Iterator[dict[str, Keys]]:
    """Stage name -> keys that its `main` has read or dumped, filled by every call while this is open."""
    seen = {stage.__name__.rpartition(".")[2]: Keys(set(), set()) for stage in stages}
    with pytest.MonkeyPatch.context() as patch:
        for stage, keys in zip(stages, seen.values(), strict=True):
            patch.setattr(stage, "main", _recorded_main(stage.main, keys))
        yield seen


def _recorded_main(main, keys: Keys):
    return lambda params, *arguments, **options: main(Recorded(params, keys), *arguments, **options)


def leaves(values: dict, prefix: str = "") -> set[str]:
    """Dotted keys of all values below `values`."""
    found = set()
    for key, value in values.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return found


def assert_declared(pipeline: str, seen: dict[str, Keys], elsewhere: dict[str, set[str]]) -> None:
    """Fails where a stage read or dumped a key that its dvc.yaml does not declare, or declares one that it did not
    read.

    `elsewhere` names, per stage, the keys that it declares and that small runs do not read one by one, each with its
    reason.
    """
    about = PIPELINES[pipeline]
    assert seen.keys() == about.stages.keys(), "every stage has to run"
    everything, wrong = leaves(about.params), []
    for stage, keys in seen.items():
        listed, in_command = set(about.listed_params(stage)), about.interpolated_params(stage)
        known = listed | in_command | WITHOUT_EFFECT
        used = keys.read | in_command | elsewhere.get(stage, set())
        below = {key for key in everything if within(key, listed)}
        taken = sorted(keys.read | keys.dumped)
        wrong += [f"{stage} reads {key}, which it does not declare" for key in taken if not within(key, known)]
        wrong += [f"{stage} declares {key} and does not read it" for key in sorted(below) if not within(key, used)]
        empty = [key for key in sorted(listed) if not any(within(leaf, {key}) for leaf in below)]
        wrong += [f"{stage} declares {key}, which params.yaml lacks" for key in empty]
    assert not wrong, f"{about.dvc}:\n" + "\n".join(wrong)


def within(key: str, names: set[str]) -> bool:
    """Test for `key`, or a section above it, among `names`."""
    return any(key == name or key.startswith(f"{name}.") for name in names)
