"""One self-contained HTML page: text, tables and PNGs inside the file, nothing fetched from elsewhere."""

import base64
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from src.core.stage.errors import StorageError
from src.core.stage.files import complete_file

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Table:
    """Rows of text below a `header`; the first `words` columns are left-aligned, `strong` rows stand out."""

    caption: str
    header: list[str]
    rows: list[list[str]]
    strong: frozenset[int] = frozenset()
    words: int = 1


@dataclass(frozen=True)
class Figure:
    """A PNG, and the caption below it, which also serves readers who cannot see it."""

    path: Path
    caption: str

    @property
    def uri(self) -> str:
        """The picture as a data URI; raises StorageError if it cannot be read."""
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise StorageError(f"{self.path}: cannot read the figure: {error.strerror}") from error
        return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs, then tables, then figures."""

    heading: str
    paragraphs: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)


def write(path: Path, title: str, lead: str, sections: list[Section]) -> None:
    """Render templates/report.html to `path`. All text is escaped: names come from users' files."""
    template = templates(TEMPLATES, autoescape=True).get_template("report.html")
    page = template.render(title=title, lead=lead, sections=sections)
    with complete_file(path) as aside:
        aside.write_text(page, encoding="utf-8")


def templates(folder: Path, autoescape: bool) -> Environment:
    """The templates of a folder: an unknown name raises, and a line that is a statement leaves no blank one."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def cell(value: float | None, digits: int = 2) -> str:
    """A number for a table; – where it is not defined."""
    return "–" if value is None else f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def cell_interval(score: dict, name: str, digits: int = 2) -> str:
    """`value [low, high]`, or the value alone where no interval was given."""
    low, high = score[f"{name}_low"], score[f"{name}_high"]
    bounds = "" if low is None else f" [{cell(low, digits)}, {cell(high, digits)}]"
    return cell(score[name], digits) + bounds
