"""Folders for the checkpoints of an interrupted stage, named by a hash of all that the work depends on."""

import ast
import hashlib
import json
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from src.core.stage import distributed, files


def scratch_folder(root: str, name: str, facts: Any, inputs: Iterable[Path]) -> Path:
    """`<root>/<name>-<hash>` over facts (JSON), inputs and imported code; comments and docstrings do not count."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode())
    digest.update(files.tree_sha256(inputs).encode())
    digest.update(distributed.sharding().encode())  # each has its own form of checkpoint; their number matters to none
    for path in imported_sources():
        digest.update(f"{path.name}\0{code_sha256(path.read_bytes())}\n".encode())
    return Path(root) / f"{name}-{digest.hexdigest()[:16]}"


def imported_sources() -> list[Path]:
    """The project's source files that this process has imported, the running script included, sorted."""
    paths = {
        Path(module.__file__)
        for name, module in sys.modules.items()
        if (name == "src" or name.startswith("src.")) and getattr(module, "__file__", None)
    }
    main = getattr(sys.modules["__main__"], "__file__", None)
    if main and "src" in Path(main).parts:
        paths.add(Path(main))
    return sorted(paths)


@cache
def code_sha256(source: bytes) -> str:
    """Hexadecimal digest of what Python runs in a source file: its syntax tree without docstrings and their like."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [x for x in body if not (isinstance(x, ast.Expr) and isinstance(x.value, ast.Constant))]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
