"""params.yaml -> a strict pydantic model.

Read with ruamel.yaml because DVC writes `-S lr=1e-5` as `1e-05`, which PyYAML takes for a string.
"""

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from src.core.stage.errors import ParamsError, StorageError

# What most values of params.yaml are; a section names them so that all pipelines mean the same.
Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Above = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """Base of every params section: unknown keys are refused, values do not change, nothing is coerced
    except an integer where a float is expected.

    A key named `size` or `nfiles` is a TypeError at import: DVC leaves both out of its run-cache key (dvc#10296), so
    a changed value would restore the output of the old one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs) -> None:
        if ignored := {"size", "nfiles"} & set(cls.model_fields):
            raise TypeError(f"{cls.__name__}.{min(ignored)}: DVC would not see that it changes (dvc#10296); rename it")


Model = TypeVar("Model", bound=BaseModel)


def read(path: Path, model: type[Model]) -> Model:
    """Read and validate `path`.

    Raises:
        StorageError: the file cannot be read.
        ParamsError: it is not YAML, or a key is unknown, missing, of the wrong type or out of range.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path}: cannot read the parameters: {error.strerror}") from error
    try:
        values = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ParamsError(f"{path}: not YAML: {error}") from error
    return validate(values, model, where=str(path))


def validate(values: object, model: type[Model], where: str) -> Model:
    """`values` as a `model`; `where` is what an error calls their source."""
    if not isinstance(values, dict):
        raise ParamsError(f"{where}: found {type(values).__name__}, expected a mapping of sections")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_explain(detail, model) for detail in error.errors(include_url=False)]
        raise ParamsError("\n".join(f"{where}: {line}" for line in lines)) from error


def spelling(model: type[BaseModel]) -> dict[str, str]:
    """Last part of a key -> the whole key, for each that no other key of `model` ends with; for `errors.spelled`."""
    keys = _known_keys(model)
    last = [key.rpartition(".")[2] for key in keys]
    return {name: key for name, key in zip(last, keys, strict=True) if last.count(name) == 1}


def _explain(detail: dict, model: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = _known_keys(model)
        near = get_close_matches(key, known, n=1, cutoff=0.0)
        return f"{key}: unknown parameter; did you mean {near[0]}?" if near else f"{key}: unknown parameter"
    if detail["type"] == "missing":
        return f"{key}: missing; give it a value"
    if not key:  # a rule between sections, which names the keys itself
        return detail["msg"].removeprefix("Value error, ")
    return f"{key}: found {detail['input']!r}; {detail['msg'][0].lower()}{detail['msg'][1:]}"


def _known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            keys += _known_keys(annotation, f"{prefix}{name}.")
        keys.append(prefix + name)
    return keys
