"""Licences of the data and of the base model, as params or files give them; never a guess."""

import re
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from src.core.models import hub
from src.core.report.markdown import plain
from src.population.params import Card

HEAD_BYTES = 65536  # of a LICENSE or README.md: enough for its title or front matter
UNKNOWN = "unknown: set `card.base_licence`, and do not pass the weights on before"


def base_name(backbone: str) -> str:
    """A hub id as it is; of a folder its name alone, because paths of a machine are private."""
    path = Path(backbone)
    local = path.is_absolute() or backbone.startswith((".", "~")) or path.is_dir()
    return path.name if local else backbone


def base_licence(backbone: str, given: str | None) -> tuple[str | None, str]:
    """The licence of the base: its name, None where nobody says, and Markdown for readers.

    It is `given`, else what LICENSE and README.md in the backbone's folder say together. Sizes of one family differ
    (Qwen2.5-VL: 3B non-commercial, 7B Apache-2.0) and copies are relabelled, so no name is looked up.
    """
    if backbone == "tiny":
        return "apache-2.0", "There is no pretrained base: all weights are this repository's own, Apache-2.0."
    base = plain(base_name(backbone))
    if given:
        return given, f"{base}: {plain(given)} (from `card.base_licence`)."
    folder = hub.known_folder(backbone)
    title, named = _licence_title(folder), _readme_licence(folder)
    said = "; ".join(f"{file}: {plain(name)}" for file, name in (("LICENSE", title), ("README.md", named)) if name)
    if not said:
        return None, f"{base}: {UNKNOWN} (found no LICENSE and no README.md that names one)."
    if title and named and (title == "apache-2.0") != (named == "apache-2.0"):
        return None, f"{base}: {UNKNOWN}. Its files disagree ({said})."
    return named or title, f"{base}: {said} (from its folder)."


def data_terms(card: Card, root: str) -> tuple[str, str]:
    """Licence and attribution of the data at `root` as Markdown; unknown where params name other data, or none."""
    if card.data != root:
        return ("unknown: `card.data` in params.yaml is not `data.root`; say there whose terms these are",) * 2
    terms = {"licence": card.licence, "attribution": card.attribution}
    licence, attribution = (plain(text) if text else f"unknown: set `card.{key}`" for key, text in terms.items())
    return licence, attribution


def _licence_title(folder: Path) -> str | None:
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md"):
        lines = [" ".join(line.split()) for line in _head(folder / name).splitlines() if line.strip()]
        if lines:
            apache = lines[0].startswith("Apache License") and "Version 2.0" in " ".join(lines[:2])
            return "apache-2.0" if apache else lines[0][:80]
    return None


def _readme_licence(folder: Path) -> str | None:
    """`license_name` or `license` of README.md's front matter."""
    parts = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", _head(folder / "README.md"), re.DOTALL)
    try:
        values = YAML(typ="safe", pure=True).load(parts[1]) if parts else None
    except YAMLError:
        return None
    if not isinstance(values, dict):
        return None
    named = values.get("license_name") or values.get("license")
    return named[:80] if isinstance(named, str) and named not in ("other", "unknown") else None


def _head(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES).decode("utf-8", errors="replace").replace("\r\n", "\n")
    except OSError:
        return ""
