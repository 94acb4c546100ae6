"""A scratch folder is found again by the same work alone, and by the same work whatever its comments say."""

from pathlib import Path

import pytest

from src.core.stage import scratch
from src.core.stage.scratch import code_sha256, scratch_folder

CODE = '''"""Says what the module does."""

RATE = 0.1  # a reason


def step(x):
    """Go one step."""
    return x - RATE
'''


@pytest.fixture
def inputs(tmp_path) -> list[Path]:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "split.json").write_text("{}")
    (tmp_path / "manifest.json").write_text("1")
    return [tmp_path / "manifest.json", tmp_path / "in"]


@pytest.fixture
def name(inputs):
    """`name(facts, root)` -> the folder of the stage sft."""
    return lambda facts=None, root="checkpoints": str(scratch_folder(root, "sft", facts or {"lr": 0.1, "s": 0}, inputs))


def test_the_folder_is_named_by_facts_and_inputs(name, tmp_path):
    before = name()
    assert before.startswith("checkpoints/sft-") and name() == before
    assert name({"s": 0, "lr": 0.1}) == before, "the order of keys is no difference"
    assert name({"lr": 0.2, "s": 0}) != before
    assert name(root="/elsewhere") == before.replace("checkpoints/", "/elsewhere/")
    (tmp_path / "in" / "split.json").write_text("{ }")
    assert name() != before
    (tmp_path / "in" / "split.json").write_text("{}")
    assert name() == before


def test_the_folder_is_named_by_the_imported_code_and_not_by_what_is_said_of_it(name, tmp_path, monkeypatch):
    source = tmp_path / "src" / "core" / "live.py"
    source.parent.mkdir(parents=True)
    monkeypatch.setattr(scratch, "__file__", str(source))  # an imported module of the project
    assert Path(scratch.files.__file__) in scratch.imported_sources() and source in scratch.imported_sources()
    source.write_text(CODE)
    before = name()
    mended = (
        CODE.replace("a reason", "a better reason").replace("Go one", "Walk one").replace("what the", "all that the")
    )
    source.write_text(f"# new\n\n{mended}")
    assert mended != CODE and name() == before
    source.write_text(CODE.replace("0.1", "0.2"))
    assert name() != before, "another version of the code resumes nothing"


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (CODE.replace('    """Go one step."""\n', ""), True),
        (CODE.replace("\n\n\n", "\n"), True),
        (CODE.replace("x - RATE", "x + RATE"), False),
        (CODE.replace("return x - RATE", 'return "x - RATE"'), False),
        (CODE.replace("# a reason", "; a = 0"), False),
        (CODE + '\nNAME = "step"\n', False),
    ],
)
def test_code_is_what_python_reads(text, same):
    assert text != CODE and (code_sha256(text.encode()) == code_sha256(CODE.encode())) == same


def test_a_string_that_is_no_docstring_counts():
    one, other = (f'def ask():\n    x = 1\n    return "{answer}"\n'.encode() for answer in ("yes", "no"))
    assert code_sha256(one) != code_sha256(other)


def test_a_string_below_a_constant_is_a_docstring_too():
    one, other = (f'LEAST = 10\n"""{why}"""\n'.encode() for why in ("Units of an interval.", "Fewest units."))
    assert code_sha256(one) == code_sha256(other) != code_sha256(b"LEAST = 11\n")
