"""Core knows no pipeline: neither its words nor the keys of its params.yaml stand in core's sources.

Code, strings, comments and docstrings are read. What a pipeline's users call things comes from the pipeline (see
`src.core.stage.errors.spelled`).
"""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
CORE = ROOT / "src" / "core"
# Names of the pipelines, of what they predict, of the places they divide the world into, and of their data.
WORDS = (
    r"growth|provinces?|prefectures?|count(?:y|ies)|cit(?:y|ies)|species|taxon\w*|gbif|mineral\w*|alteration|grounding|"
    r"multisensor|per mille|urban|labels\.xlsx|sar"
)
WORD = re.compile(rf"(?<![a-zA-Z])(?:{WORDS})(?![a-zA-Z])|‰|[\u4e00-\u9fff]", re.IGNORECASE)
# The population of statistics is no pipeline.
POPULATION = re.compile(r"\bpopulation\b(?! (?:standard deviation|variance))", re.IGNORECASE)


def keys(values: dict, prefix: str = "") -> list[str]:
    """Every key of params.yaml that names a section, from the top."""
    found = []
    for name, value in values.items():
        found += keys(value, f"{prefix}{name}.") if isinstance(value, dict) else []
        found += [prefix + name] * bool(prefix)
    return found


@pytest.fixture(scope="module")
def key():
    """Matches a key of any pipeline's params.yaml, such as split.buffer_km."""
    files = [ROOT / "params.yaml", *sorted(ROOT.glob("pipelines/*/params.yaml"))]
    named = {name for file in files for name in keys(YAML(typ="safe").load(file.read_text(encoding="utf-8")))}
    assert {"split.buffer_km", "data.tile_px", "data.modalities"} <= named
    return re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, sorted(named, key=len, reverse=True)))})(?!\w)")


@pytest.mark.parametrize(
    "path", sorted([*CORE.rglob("*.py"), *CORE.rglob("*.html")]), ids=lambda path: path.relative_to(CORE).as_posix()
)
def test_core_speaks_of_no_pipeline(path, key):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if WORD.search(line) or POPULATION.search(line) or key.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("growth_rate", True),
        ("x.City", True),
        ("whole Provinces", True),
        ("the `region`", False),
        ("capacity, velocity", False),
        ("population standard deviation", False),
        ("of the population", True),
        ("‰ per year", True),
        ("necessary", False),
        ("truth_species", True),
    ],
)
def test_words_are_found_as_words(line, found):
    assert bool(WORD.search(line) or POPULATION.search(line)) == found
