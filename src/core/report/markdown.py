"""Text for Markdown files: escaped lines, fenced blocks, tables."""

import re


def plain(value: object) -> str:
    """One line that Markdown shows as it is, for text from params and files."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(value).split()))


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; cells may hold names with underscores and intervals in brackets, but no markup."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(re.sub(r"([\\|<>`*])", r"\\\1", cell) for cell in line) + " |" for line in lines)


def fenced(text: str, language: str = "") -> str:
    """`text` as a code block whose fence is longer than any in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
